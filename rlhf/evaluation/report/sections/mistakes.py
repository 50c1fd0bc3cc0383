"""The mistakes that the model is surest of, as texts: what somebody should read first."""

from __future__ import annotations

import numpy as np

from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.evaluation.report.section import Section, Table
from rlhf.evaluation.results import Evaluation
from rlhf.records import prompt_text

SHOWN = 8
LONGEST = 400
"""Characters of a text that are shown."""


def mistakes(evaluation: Evaluation) -> Section | None:
    """The wrong orders with the largest margins, one per prompt."""
    results, scored = evaluation.results, evaluation.results.scored
    wrong = np.flatnonzero(credit(scored.difference, scored.win_prob) == 0)
    order = wrong[np.argsort(-np.abs(scored.difference[wrong]), kind="stable")]
    first = np.sort(np.unique(scored.pair_prompt[order], return_index=True)[1])[:SHOWN]
    chosen = order[first]
    records = evaluation.look_up(set(results.record[scored.pair_group[chosen]].tolist()))
    rows = []
    for pair in chosen:
        number = int(results.record[scored.pair_group[pair]])
        if number not in records:
            continue
        record = records[number]
        won = (scored.first, scored.second) if scored.win_prob[pair] > 0.5 else (scored.second, scored.first)
        better, worse = (record.completions[int(results.place[side[pair]])].text for side in won)
        share = max(scored.win_prob[pair], 1 - scored.win_prob[pair])
        margin = abs(scored.difference[pair]) / evaluation.temperature
        rows.append(
            (_cut(prompt_text(record.prompt)), _cut(better), _cut(worse), float(share), float(margin))
        )
    if not rows:
        return None
    columns = ("prompt", "preferred by the votes", "preferred by the model", "votes", "margin")
    text = "The wrong orders with the largest margin in log-odds, one per prompt. Some of them may be wrong votes."
    return Section("Surest mistakes", text, {}, [Table("Surest mistakes", columns, rows)])


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"
