"""Rewards of a whole split: collected by row, gathered over processes, joined with the labels for evaluation."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from rlhf.data.batch import Batch, TextBatch
from rlhf.data.store import Rows
from rlhf.evaluation.metrics.scored import Scored, ScoredGroup
from rlhf.models.reward_model import RewardModel
from rlhf.reward.scoring.engine import GroupScores, forward

Rewards = dict[int, NDArray[Any]]
"""Row of the data -> rewards [K] of its completions. Scalars only: memory does not hold states or logits."""

CHUNK = 1000


def take(rewards: Rewards, batch: Batch | TextBatch, reward: Float[Tensor, " N"]) -> None:
    """Put a batch's rewards under the numbers of its groups."""
    parts = torch.split(reward.detach().double().cpu(), batch.size)
    rewards.update(zip(batch.number.tolist(), (p.numpy() for p in parts), strict=True))


def gather(rewards: Rewards) -> Rewards:
    """All processes' rewards (or states) on every process; a row that was padded in twice counts once."""
    if not (dist.is_available() and dist.is_initialized()):
        return rewards
    shares: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(shares, rewards)
    return {row: reward for share in shares for row, reward in share.items()}


def scored(rows: Rows, rewards: Rewards) -> Scored:
    """Rewards beside the labels of their rows, in the order of the rows."""
    return Scored.from_groups(_groups(rows, rewards))


def _groups(rows: Rows, rewards: Rewards) -> Iterator[ScoredGroup]:
    numbers = sorted(rewards)
    for start in range(0, len(numbers), CHUNK):
        block = numbers[start : start + CHUNK]
        columns = rows[block]
        for i, row in enumerate(block):
            k = len(columns["length"][i])
            matrices = ("win_prob", "tie_prob", "observed", "votes")
            square = {name: np.reshape(columns[name][i], (k, k)).astype(np.float64) for name in matrices}
            observed = square.pop("observed").astype(bool)
            yield ScoredGroup(
                prompt=columns["prompt_key"][i],
                domain=columns["domain"][i],
                reward=rewards[row],
                length=np.asarray(columns["length"][i]),
                rank=np.asarray(columns["rank"][i]),
                observed=observed,
                **square,
            )


def score_split(model: RewardModel, loader: Any) -> Rewards:
    """Rewards of every group a loader yields, with the model in evaluation mode."""
    rewards: Rewards = {}
    for batch, scores in _scored(model, loader):
        take(rewards, batch, scores.reward)
    return rewards


def _scored(model: RewardModel, batches: Iterable[Any]) -> Iterator[tuple[Any, GroupScores]]:
    """Batches beside their scores; the model is in evaluation mode meanwhile."""
    was_training = model.training
    model.eval()
    for batch in batches:
        yield batch, forward(model, batch.tokens)
    model.train(was_training)
