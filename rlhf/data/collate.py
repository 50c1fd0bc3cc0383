"""Rows of the store to a `Batch` on tensors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf.data.batch import Batch, Target, TextBatch
from rlhf.data.order import Block
from rlhf.data.store import Rows
from rlhf.data.token_layout import Layout
from rlhf.labels.label import MATRICES, rankings_among, ranks_among

Columns = Mapping[str, Sequence[Any]]
"""Column name -> one value per group, as `rlhf.data.prepare.SCHEMA` names them, and `row`."""


def targets(columns: Columns) -> Target:
    """The labels of B groups, padded to the K of the largest."""
    sizes = [len(c) for c in columns["responses"]]
    attributes = {len(s) // k for s, k in zip(columns["score"], sizes, strict=True)}
    if len(attributes) > 1:
        raise ValueError(f"groups of one batch have different numbers of attributes: {sorted(attributes)}")
    shape = (len(sizes), max(sizes))
    rank = np.full(shape, -1, dtype=np.int64)
    most = max(map(len, columns["ranking_weight"]))
    rankings = np.full((len(sizes), most, shape[1]), -1, dtype=np.int64)
    ranking_weight = np.zeros((len(sizes), most), dtype=np.float32)
    candidate = np.zeros(shape, dtype=bool)
    score = np.full((*shape, attributes.pop()), np.nan, dtype=np.float32)
    for b, k in enumerate(sizes):
        rank[b, :k] = columns["rank"][b]
        given = len(columns["ranking_weight"][b])
        rankings[b, :given, :k] = np.reshape(columns["rankings"][b], (given, k))
        ranking_weight[b, :given] = columns["ranking_weight"][b]
        candidate[b, :k] = True
        score[b, :k] = np.reshape(columns["score"][b], (k, -1)) if score.shape[-1] else score[b, :k]
    return Target(
        win_prob=_square(columns["win_prob"], sizes, shape),
        tie_prob=_square(columns["tie_prob"], sizes, shape),
        observed=_square(columns["observed"], sizes, shape) > 0,
        margin=_square(columns["margin"], sizes, shape),
        rank=torch.from_numpy(rank),
        score=torch.from_numpy(score),
        candidate=torch.from_numpy(candidate),
        weight=torch.tensor(columns["weight"], dtype=torch.float32),
        pair_weight=_square(columns["pair_weight"], sizes, shape),
        rankings=torch.from_numpy(rankings),
        ranking_weight=torch.from_numpy(ranking_weight),
        prompt_pairs=torch.tensor(columns["prompt_pairs"], dtype=torch.float32),
    )


def collate(columns: Columns, *, layout: Layout, denominator: float) -> Batch:
    """B groups as a batch.

    Args:
        columns: the groups.
        layout: where the tokens lie; see `rlhf.data.token_layout`.
        denominator: nominal number of units of a batch; see `Batch.denominator`.
    """
    sizes = torch.tensor([len(r) for r in columns["responses"]])
    return Batch(
        tokens=layout(columns["prompt"], columns["responses"]),
        target=targets(columns),
        group=torch.repeat_interleave(torch.arange(len(sizes)), sizes),
        place=torch.cat([torch.arange(int(k)) for k in sizes]),
        row=torch.tensor(columns["row"]),
        length=torch.tensor([n for lengths in columns["length"] for n in lengths]),
        denominator=denominator,
    )


class BlockRows:
    """Rows by blocks: `rows[[Block(3, [0, 4], 2.5)]]` gives columns of the completions that lie in each block."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, blocks: Sequence[Block]) -> dict[str, Any]:
        columns = self.rows[[block.row for block in blocks]]
        for n, block in enumerate(blocks):
            if block.places is not None:
                _restrict(columns, n, block.places, block.scale)
        return columns


def _restrict(columns: dict[str, Any], n: int, places: list[int], scale: float) -> None:
    """Leave group n with these completions; the weight of its pairs and rankings times `scale`."""
    k = len(columns["responses"][n])
    for name in ("completion_id", "length", "responses"):
        columns[name][n] = [columns[name][n][p] for p in places]
    for name in MATRICES:
        columns[name][n] = np.reshape(columns[name][n], (k, k))[np.ix_(places, places)].ravel()
    columns["pair_weight"][n] = columns["pair_weight"][n] * scale
    if not columns["prompt_pairs"][n]:  # ratings only: the blocks of a prompt count once together
        columns["weight"][n] *= len(places) / k
    columns["score"][n] = np.reshape(columns["score"][n], (k, -1))[places].ravel() if columns["score"][n] else []
    columns["rank"][n] = ranks_among(np.asarray(columns["rank"][n])[places])
    weight = np.asarray(columns["ranking_weight"][n])
    rankings, weight = rankings_among(np.reshape(columns["rankings"][n], (len(weight), k)), weight, places)
    columns["rankings"][n], columns["ranking_weight"][n] = rankings.ravel(), weight * scale


def collate_texts(columns: Columns, *, layout: Layout) -> TextBatch:
    """Pieces of `rlhf.data.distinct.DistinctTexts` as a batch."""
    tokens = layout(columns["prompt"], columns["responses"])
    return TextBatch(tokens, torch.tensor(columns["number"]), [len(r) for r in columns["responses"]])


def _square(values: Sequence[Sequence[float]], sizes: Sequence[int], shape: tuple[int, int]) -> Tensor:
    out = np.zeros((shape[0], shape[1], shape[1]), dtype=np.float32)
    for b, k in enumerate(sizes):
        out[b, :k, :k] = np.reshape(values[b], (k, k))
    return torch.from_numpy(out)
