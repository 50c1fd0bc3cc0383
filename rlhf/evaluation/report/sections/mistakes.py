"""The mistakes that the model is surest of, as texts: what somebody should read first."""

import numpy as np

from rlhf.evaluation.metrics.pair_credit import credit, hardest
from rlhf.evaluation.report.section import Evaluation, Section, Table
from rlhf.records import prompt_text

SHOWN = 8
LONGEST = 400
"""Characters of a text that are shown."""


def mistakes(evaluation: Evaluation) -> Section | None:
    """The wrong orders with the largest margins, one per prompt."""
    results, scored = evaluation.results, evaluation.results.scored
    wrong = credit(scored.difference, scored.win_prob) == 0
    chosen = hardest(scored, np.where(wrong, np.abs(scored.difference), np.nan), SHOWN)
    numbers = results.record[scored.pair_group[chosen]].tolist()
    records = evaluation.look_up(set(numbers))
    rows = []
    for pair, number in zip(chosen.tolist(), numbers, strict=True):
        if number in records:
            record = records[number]
            answers = (scored.better[pair], scored.worse[pair])
            better, worse = (record.completions[int(results.place[item])].text for item in answers)
            share = max(scored.win_prob[pair], 1 - scored.win_prob[pair])
            margin = abs(scored.difference[pair]) / evaluation.temperature
            texts = _cut(prompt_text(record.prompt)), _cut(better), _cut(worse)
            rows.append((*texts, float(share), float(margin)))
    if not rows:
        return None
    columns = ("prompt", "preferred by the votes", "preferred by the model", "votes", "margin")
    text = "The wrong orders with the largest margin in log-odds, one per prompt. Some of them may be wrong votes."
    return Section("Surest mistakes", text, {}, [Table("Surest mistakes", columns, rows)])


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"
