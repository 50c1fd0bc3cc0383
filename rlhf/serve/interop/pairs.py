"""Records to the preference sets that DPO and reward trainers of TRL (and what reads its format) take.

A hard pair has no place for ties, shares and rankings. What becomes of them is chosen here and counted:
`aggregation` turns votes into a label (`majority`, `soft`, `discard`, ... of `rlhf.labels.aggregation`), the side
with more than half of it is chosen, `ties` says what happens to the rest, and `form` how a row looks.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from rlhf.data.render import Renderer
from rlhf.labels.aggregation import majority, soft
from rlhf.labels.label import Label
from rlhf.records import Comparison, Prompt, RecordError, as_messages

COUNTS = (
    "records", "records_without_pairs", "pairs_compared", "pairs_disputed", "pairs_tied", "pairs_identical", "rows",
)  # fmt: skip
"""disputed: not all of its votes say the same; tied: neither side has more than half; identical: the same text."""

Ordered = list[tuple[int, int]]
Ties = Callable[[int, int], Ordered]
"""`(i, j) -> [(chosen, rejected), ...]` of a pair without a winner."""
Form = Callable[[Prompt, str, str], dict[str, Any]]
"""`(prompt, chosen, rejected) -> row`."""


def drop(i: int, j: int) -> Ordered:
    """A tie gives no row."""
    return []


def both_ways(i: int, j: int) -> Ordered:
    """A tie gives two rows, one each way: the Bradley-Terry loss of the two together is least at equal rewards."""
    return [(i, j), (j, i)]


def standard(prompt: Prompt, chosen: str, rejected: str) -> dict[str, Any]:
    """`{prompt, chosen, rejected}` as texts. Raises RecordError for a chat."""
    if not isinstance(prompt, str):
        raise RecordError("is a chat", key="prompt", remedy="form=conversational, or form=RenderedForm(renderer)")
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def conversational(prompt: Prompt, chosen: str, rejected: str) -> dict[str, Any]:
    """`{prompt, chosen, rejected}` as messages; a plain prompt is one user message."""
    return {"prompt": as_messages(prompt), "chosen": [_answer(chosen)], "rejected": [_answer(rejected)]}


def implicit(prompt: Prompt, chosen: str, rejected: str) -> dict[str, Any]:
    """`{chosen, rejected}` as whole chats, the prompt being what both begin with."""
    before = as_messages(prompt)
    return {"chosen": [*before, _answer(chosen)], "rejected": [*before, _answer(rejected)]}


@dataclass(frozen=True)
class RenderedForm:
    """`{prompt, chosen, rejected}` as texts that went through a template: for policies without a chat template.

    Args:
        renderer: with the policy's tokenizer and template.
    """

    renderer: Renderer

    def __call__(self, prompt: Prompt, chosen: str, rejected: str) -> dict[str, Any]:
        """The row. Raises RecordError where the template writes another prompt before an answer than without one."""
        opening = self.renderer.opening_text(prompt)
        texts = [self.renderer.text(prompt, answer) for answer in (chosen, rejected)]
        if not all(text.startswith(opening) for text in texts):
            raise RecordError("the template changes the prompt once it is answered", key="template")
        return {"prompt": opening, "chosen": texts[0][len(opening) :], "rejected": texts[1][len(opening) :]}


def pairs(
    records: Iterable[Comparison],
    counts: Counter[str],
    *,
    ties: Ties,
    form: Form,
    aggregation: Callable[..., Label] = majority,
    criterion: str | None = None,
) -> Iterator[dict[str, Any]]:
    """One row per pair of completions with a winner, by rising places in the record.

    Args:
        records: with their votes.
        counts: is updated while rows are drawn; see `COUNTS`.
        ties: `drop` or `both_ways`.
        form: `standard`, `conversational`, `implicit`, or `RenderedForm(renderer)`.
        aggregation: `(record, criterion=...) -> Label`.
        criterion: only votes on this criterion; None = on "overall" if there are any, else all.

    Raises:
        RecordError: a record that the form cannot hold.
    """
    for record in records:
        label = aggregation(record, criterion=criterion)
        share = soft(record, criterion=criterion)
        before = counts["rows"]
        for i, j in combinations(range(len(record.completions)), 2):
            if not label.observed[i, j]:
                continue
            counts["pairs_compared"] += 1
            unanimous = max(share.win_prob[i, j], share.win_prob[j, i], share.tie_prob[i, j]) == 1
            counts["pairs_disputed"] += not unanimous
            first, second = record.completions[i].text, record.completions[j].text
            if first == second:
                counts["pairs_identical"] += 1
                continue
            tied = bool(np.isclose(label.win_prob[i, j], 0.5, rtol=0, atol=1e-12))
            counts["pairs_tied"] += tied
            ordered = ties(i, j) if tied else [(i, j) if label.win_prob[i, j] > 0.5 else (j, i)]
            for chosen, rejected in ordered:
                counts["rows"] += 1
                yield form(record.prompt, record.completions[chosen].text, record.completions[rejected].text)
        counts["records"] += 1
        counts["records_without_pairs"] += counts["rows"] == before


def export_pairs(records: Iterable[Comparison], path: str | Path, **choices: Any) -> dict[str, int]:
    """Write the rows as JSON Lines, which `datasets.load_dataset("json", data_files=path)` reads.

    Args:
        records: with their votes.
        path: of the file; `<path>.report.json` gets the counts.
        choices: as for `pairs`; `ties` and `form` have no default.

    Returns:
        The counts, zeros included.
    """
    counts = Counter[str]()
    write_rows(pairs(records, counts, **choices), path)
    report = {name: counts[name] for name in COUNTS}
    Path(f"{path}.report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def write_rows(rows: Iterable[dict[str, Any]], path: str | Path) -> int:
    """Write rows as JSON Lines; the file appears whole or not at all. Returns their number."""
    path = Path(path)
    partial = path.with_name("partial-" + path.name)
    with partial.open("w", encoding="utf-8") as file:
        number = sum(bool(file.write(json.dumps(row, ensure_ascii=False) + "\n")) for row in rows)
    partial.replace(path)
    return number


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}
