"""Our reward models as reward functions of TRL's `GRPOTrainer` and `RLOOTrainer` (tested with 1.16).

    GRPOTrainer(model=..., reward_funcs=TrlReward(["runs/..."]), train_dataset=..., args=GRPOConfig(...))

TRL hands over prompts and completions as text (standard) or as messages (conversational), each prompt once per
completion. Completions of the same prompt are scored together, rendered as in training: a standard prompt is one user
message, so give prompts that have *not* been through a chat template. KL stays with TRL: `beta` of its configs.
"""

import json
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import rlhf
from rlhf.optimise.shaping.ensemble import normalise
from rlhf.optimise.shaping.rules import Completions
from rlhf.optimise.shaping.shape import ShapedReward, shape_rewards
from rlhf.optimise.shaping.shaper import Shaper
from rlhf.records import Comparison, Prompt, parse_prompt
from rlhf.reward.scoring.engine import GroupScores
from rlhf.reward.scoring.once import NOTHING, ScoreMemo
from rlhf.reward.scoring.scorer import Scorer

Rows = Callable[[GroupScores], Tensor]
"""`scores of N completions -> [M, N]`: what of one model counts as a member of the ensemble."""

"""A group without completions: its scores say how many members a model counts for."""


def combined(scores: GroupScores) -> Float[Tensor, "1 N"]:
    """A run is one member: its reward as `rlhf.load(...).score` gives it."""
    return scores.reward[None]


def every_member(scores: GroupScores) -> Float[Tensor, "M N"]:
    """Every row of an ensemble head is a member. Not for attribute heads, whose rows are different questions."""
    return scores.rows


Scale = tuple[Float[Tensor, " M"], Float[Tensor, " M"]]
"""Mean and standard deviation [M] that members are normalised with."""


class TrlReward:
    """`f(prompts, completions, ...) -> rewards`, as TRL calls it.

    Without `shaping`, rewards are exactly the raw scores of `rlhf.load(folder).score`. With it, members are normalised,
    aggregated, and get its uncertainty penalty, rules and clip (not its β). A completion too long for the reward model
    gets None, which TRL leaves out of the update, and is counted in the metric `<name>/unreadable`.

    Args:
        folders: runs or exported models; several are an ensemble and need `shaping`.
        shaping: what `shaping=...` configures; None = raw scores.
        rows: `combined` (a run is a member) or `every_member` (a row of an ensemble head is one).
        reference: records whose completions give every member's mean and standard deviation; without them they are
            those of each run's calibration, which knows whole runs only.
        end_ids: the policy's end tokens; needed where a rule looks for a missing end.
        batch_tokens: tokens per forward pass, a shared prompt counted once.
        device: of the reward models; in distributed training one per process.
        name: in TRL's logs.

    Raises:
        ValueError: several folders without shaping, members without a scale, or a rule for a missing end without
            `end_ids`.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        *,
        shaping: Shaper | None = None,
        rows: Rows = combined,
        reference: Iterable[Comparison] = (),
        end_ids: Collection[int] = (),
        batch_tokens: int = 8192,
        device: str = "cpu",
        name: str = "rlhf",
    ) -> None:
        if isinstance(folders, str | Path) or not folders:
            raise ValueError("folders must be a list of runs or exported models")
        if shaping is None and (len(folders) > 1 or rows is not combined):
            raise ValueError("several members need shaping to become one reward: shaping=Shaper(...)")
        if shaping is not None and shaping.rules.get("missing_eos") is not None and not end_ids:
            raise ValueError("the rule missing_eos needs end_ids=[tokenizer.eos_token_id] of the policy")
        self.scorers = [rlhf.load(folder, device=device, batch_tokens=batch_tokens) for folder in folders]
        self.shaping, self.rows, self.end_ids = shaping, rows, frozenset(end_ids)
        self.__name__ = name
        self.scale = None if shaping is None else self._scale(list(reference))

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        *,
        completion_ids: Sequence[Sequence[int]] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One reward per completion.

        Args:
            prompts: texts, or lists of messages.
            completions: texts, or lists of one assistant message.
            completion_ids: tokens of the completions; rules read them.
            log_metric: TRL's; gets the mean of every part of the reward.
            columns: the other columns of the data set, not looked at.

        Raises:
            ValueError: a prompt or completion in another form, prompts, completions and `completion_ids` not as many,
                or rules without `completion_ids` or on a completion without a token.
        """
        sizes = {"prompts": len(prompts), "completions": len(completions)}
        sizes |= {} if completion_ids is None else {"completion_ids": len(completion_ids)}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"{sizes}: one of each per completion, a prompt repeated for each of its completions")
        asked = [self._prompt(prompt) for prompt in prompts]
        texts = [_text(completion) for completion in completions]
        members = self._members(asked, texts)
        read = ~members.isnan().any(0)
        rewards = torch.full((len(texts),), torch.nan)
        if self.shaping is None:
            rewards = members[0]
        elif bool(read.any()):
            shaped = self._shaped(members, read, texts, completion_ids)
            rewards[read] = shaped.seq_reward
            self._log(log_metric, {k: float(v.mean()) for k, v in shaped.parts.items() if k != "kl"})
        self._log(log_metric, {"unreadable": float((~read).sum())})
        return [float(r) if known else None for r, known in zip(rewards, read.tolist(), strict=True)]

    def _members(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> Float[Tensor, "M N"]:
        """Raw rewards; NaN for completions too long to be read."""
        return torch.cat([self._rows(scorer, prompts, texts) for scorer in self.scorers])

    def _rows(self, scorer: Scorer, prompts: Sequence[Prompt], texts: Sequence[str]) -> Float[Tensor, "M N"]:
        places: dict[str, list[int]] = {}
        for i, prompt in enumerate(prompts):
            places.setdefault(json.dumps(prompt), []).append(i)
        groups = list(places.values())
        encoded = [scorer.renderer.encode(prompts[g[0]], [texts[i] for i in g]) for g in groups]
        columns = [group[k] for group, e in zip(groups, encoded, strict=True) for k in e.kept]
        found = torch.cat(list(map(self.rows, ScoreMemo(scorer.engine).score(encoded or [NOTHING]))), 1)
        members = torch.full((len(found), len(texts)), torch.nan)
        members[:, columns] = found
        return members

    def _scale(self, reference: Sequence[Comparison]) -> Scale:
        if reference:
            prompts = [r.prompt for r in reference for _ in r.completions]
            members = self._members(prompts, [c.text for r in reference for c in r.completions])
            members = members[:, ~members.isnan().any(0)]
            return members.mean(1), members.std(1, correction=0)
        if any(len(self.rows(next(s.engine.score([NOTHING])))) > 1 for s in self.scorers):
            raise ValueError("a run's calibration knows no single members: reference=<records> gives their scale")
        known = [scorer.calibration for scorer in self.scorers]
        return torch.tensor([c.reward_mean for c in known]), torch.tensor([c.reward_std or 1.0 for c in known])

    def _shaped(
        self, members: Float[Tensor, "M N"], read: Tensor, texts: Sequence[str], ids: Sequence[Sequence[int]] | None
    ) -> ShapedReward:
        """Shaped rewards of the completions that could be read; no KL."""
        shaping, scale = self.shaping, self.scale
        assert shaping is not None
        assert scale is not None
        rules = {name: rule for name, rule in shaping.rules.items() if rule is not None}
        if rules and ids is None:
            raise ValueError("rules read tokens: completion_ids is missing (TRL gives it)")
        empty = [i for i, row in enumerate(ids or ()) if rules and not len(row)]
        if empty:
            raise ValueError(
                f"completion_ids of completions {empty} are empty: rules read tokens, and a completion has one at "
                "least, its end token"
            )
        rows = read.nonzero().flatten().tolist()
        seen = self._completions(
            [texts[i] for i in rows], [[0]] * len(rows) if ids is None or not rules else [ids[i] for i in rows]
        )
        score, penalty = shaping.aggregate(normalise(members[:, read], *scale))
        terms: dict[str, Any] = {name: rule(seen) for name, rule in rules.items()}
        nothing = torch.zeros(seen.mask.shape)
        return shape_rewards(score, nothing, nothing, seen.mask, 0.0, clip=shaping.clip, uncertainty=penalty, **terms)

    def _completions(self, texts: Sequence[str], ids: Sequence[Sequence[int]]) -> Completions:
        tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(list(row)) for row in ids], batch_first=True)
        lengths = torch.tensor([len(row) for row in ids])
        mask = torch.arange(tokens.shape[1])[None, :] < lengths[:, None]
        return Completions(tokens, mask, torch.tensor([row[-1] in self.end_ids for row in ids]), texts)

    def _prompt(self, prompt: Any) -> Prompt:
        if not isinstance(prompt, str):
            return parse_prompt(prompt)
        special = self.scorers[0].renderer.special
        found = next((token for token in special if token in prompt), None)
        if found is not None:
            warnings.warn(
                f"a prompt holds the special token {found!r}: if it went through a chat template, it goes through "
                "this model's a second time; give raw prompts, or messages",
                stacklevel=3,
            )
        return prompt

    def _log(self, log_metric: Callable[[str, float], None] | None, values: dict[str, float]) -> None:
        if log_metric is not None:
            for key, value in values.items():
                log_metric(f"{self.__name__}/{key}", value)


def _text(completion: Any) -> str:
    """A text, or the content of the one assistant message. Raises ValueError for anything else."""
    if isinstance(completion, str):
        return completion
    roles = [m.get("role") for m in completion] if isinstance(completion, list) else None
    if roles != ["assistant"] or not isinstance(completion[0].get("content"), str):
        raise ValueError(
            f"a completion must be a text or one assistant message with a text, got {roles or type(completion)}: "
            "reward models here score one answer, not tool calls or several turns"
        )
    content: str = completion[0]["content"]
    return content
