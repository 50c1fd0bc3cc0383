"""A red-team set: where the current reward model fails, or is likely to, as new tasks for annotators.

Every task is a pair of answers without votes. People decide who is right; the model's own view is in `meta.red_team`,
which annotators do not see.

    failure       the votes said otherwise, and the model is surest
    ambiguous     the margin is smallest
    ood           one answer lies farthest from the training data (the first detector there is)
    disagreement  the members of an ensemble disagree most
    adversarial   the worse answer, changed by a rule (flattery, repetition, ...), now beats the better one as it was
    multi_step, contradiction, cut, noise      prompts alone, made from two prompts or from one: to be answered first
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np

from rlhf.evaluation.metrics.bias import matched
from rlhf.evaluation.metrics.pair_credit import EVEN, credit, hardest
from rlhf.evaluation.perturbations import Perturbation
from rlhf.evaluation.report.section import Evaluation
from rlhf.evaluation.score_pass import random_of
from rlhf.records import Comparison, prompt_text
from rlhf.stats.arrays import Floats, Ints

HARMLESS = ("swapped", "truncated_end")
"""Probes that are no attack: an order, and an answer that lost its end and is worse by right."""


def red_team(evaluation: Evaluation, perturbations: Mapping[str, Perturbation], *, each: int = 50) -> list[Comparison]:
    """Tasks of every kind, the hardest first, at most one per prompt and kind.

    Args:
        evaluation: what was measured, with its records to look up.
        perturbations: the probes that `evaluation` holds, by name.
        each: tasks of a kind, at most; of `adversarial`, of every change.
    """
    results, scored = evaluation.results, evaluation.results.scored
    chosen = {kind: hardest(scored, order, each) for kind, order in _orders(evaluation).items()}
    attacks = {
        name: _attacks(evaluation, name, each)
        for name in evaluation.probes
        if name in perturbations and name not in HARMLESS
    }
    pairs = np.concatenate([np.zeros(0, np.int64), *chosen.values(), *attacks.values()])
    records = evaluation.look_up(set(results.record[scored.pair_group[pairs]].tolist()))
    tasks = []
    for kind, found in chosen.items():
        for pair in found.tolist():
            about = {"margin": float(scored.difference[pair] / evaluation.temperature)}
            tasks.append(_task(evaluation, records[_number(evaluation, pair)], kind, pair, about))
    for name, found in attacks.items():
        for pair in found.tolist():
            record = records[_number(evaluation, pair)]
            place = int(results.place[scored.worse[pair]])
            other = perturbations[name](record, random_of(record, name)).completions[place]
            answers = tuple(replace(other, id=f"{c.id}+{name}") if i == place else c
                            for i, c in enumerate(record.completions))  # fmt: skip
            changed = replace(record, completions=answers)
            tasks.append(_task(evaluation, changed, "adversarial", pair, {"change": name}))
    return tasks


def hard_prompts(records: Sequence[Comparison], *, each: int = 50, seed: int = 0) -> list[Comparison]:
    """Prompts without answers, by rules: `sample.py data=jsonl` answers them.

    Args:
        records: whose prompts are used; of a chat, its words as one text.
        each: prompts of a kind, at most.
        seed: of the choice.
    """
    rng = Random(seed)
    known = list(dict.fromkeys(prompt_text(r.prompt) for r in records))
    found = []
    for kind, make in PROMPTS.items():
        for i, first in enumerate(rng.sample(known, min(each, len(known)))):
            prompt = make(first, rng.choice(known), rng)
            found.append(Comparison(f"{kind}-{i}", prompt, (), (), None, {"red_team": {"kind": kind}}))
    return found


def _noise(first: str, second: str, rng: Random) -> str:
    letters = list(first)
    for i in range(len(letters) - 1):
        if letters[i].isalpha() and letters[i + 1].isalpha() and rng.random() < 0.1:
            letters[i], letters[i + 1] = letters[i + 1], letters[i]
    return "".join(letters).upper() if rng.random() < 0.5 else "".join(letters)


PROMPTS: Mapping[str, Callable[[str, str, Random], str]] = {
    "multi_step": lambda first, second, rng: (
        f"Do both, in this order, and say when you begin with the second.\n\n1. {first}\n\n2. {second}"
    ),
    "contradiction": lambda first, second, rng: f"{first}\n\nAnswer in one word. Explain every detail.",
    "cut": lambda first, second, rng: " ".join(first.split()[: max(1, len(first.split()) // 2)]),
    "noise": _noise,
}


def _orders(evaluation: Evaluation) -> dict[str, Floats]:
    """Kind -> hardness [P], the hardest highest, NaN where a pair is not of the kind."""
    results, scored = evaluation.results, evaluation.results.scored
    margin, first, second = np.abs(scored.difference), scored.first, scored.second
    failed = credit(scored.difference, scored.win_prob) == 0
    found = {"failure": np.where(failed, margin, np.nan), "ambiguous": -margin}
    if results.ood_scores:
        ood_score = next(iter(results.ood_scores.values()))
        found["ood"] = np.maximum(ood_score[first], ood_score[second])
    if len(results.members) > 1:
        found["disagreement"] = (results.members[:, first] - results.members[:, second]).std(0, ddof=1)
    return found


def _attacks(evaluation: Evaluation, name: str, each: int) -> Ints:
    """Pairs in the right order whose worse answer, changed, beats the better one as it was."""
    scored, after = evaluation.results.scored, evaluation.probes[name]
    there = matched(evaluation.results, after)[scored.worse]
    usable = (credit(scored.difference, scored.win_prob) == 1) & (np.abs(scored.win_prob - 0.5) > EVEN) & (there >= 0)
    lead = np.full(len(there), np.nan)
    lead[usable] = after.scored.reward[there[usable]] - scored.reward[scored.better[usable]]
    return hardest(scored, np.where(lead > 0, lead, np.nan), each)


def _number(evaluation: Evaluation, pair: int) -> int:
    return int(evaluation.results.record[evaluation.results.scored.pair_group[pair]])


def _task(evaluation: Evaluation, record: Comparison, kind: str, pair: int, about: Mapping[str, Any]) -> Comparison:
    """The two answers of a pair, without votes."""
    scored, place = evaluation.results.scored, evaluation.results.place
    a, b = (record.completions[int(place[side[pair]])] for side in (scored.first, scored.second))
    label = kind if "change" not in about else f"{kind}-{about['change']}"
    votes = float(scored.win_prob[pair])
    meta = {"red_team": {"kind": kind, "model": evaluation.name, "votes_for_first": votes, **about}}
    name = f"{label}-{_number(evaluation, pair)}-{record.prompt_id}"
    return replace(record, prompt_id=name, completions=(a, b), votes=(), meta=dict(record.meta) | meta)
