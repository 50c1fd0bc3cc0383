"""What is in a file of preferences: records as they will be read, counts, what to look at, and the command to train."""

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from textwrap import shorten

import numpy as np

from rlhf.data.recognise import Format, first_rows, quoted, recognise
from rlhf.data.source import Source
from rlhf.labels.aggregation import soft
from rlhf.records import Comparison, Completion, Vote, prompt_hash, prompt_text

SHOWN, MOST, WIDTH = 3, 20_000, 100
"""Records that are shown, records that are counted, and letters of a text that are shown."""
ONE_SIDED, SWAPPED = 0.95, 0.25
"""Shares of decided pairs: one side wins so many where winners are stored there; the longer answer wins so few."""
FEW = 300
"""Prompts under which a split by hash leaves too few to test on."""


@dataclass
class DataCounts:
    """What was counted over the records."""

    records: int = 0
    votes: int = 0
    pairs: int = 0
    ties: int = 0
    first: int = 0
    longer: int = 0
    same_length: int = 0
    identical: int = 0
    unvoted: int = 0
    graded: int = 0
    repeated: int = 0
    annotators: set[str] = field(default_factory=set)
    prompts: Counter[str] = field(default_factory=Counter)
    answers: list[int] = field(default_factory=list)
    letters: list[int] = field(default_factory=list)
    seen: set[int] = field(default_factory=set)

    @property
    def decided(self) -> int:
        """Pairs that most votes decide."""
        return self.pairs - self.ties


def look(place: str, *, hub: bool = False) -> Iterator[str]:
    """Lines that describe a file, a folder or a hub set.

    Args:
        place: where the data is.
        hub: is it a name on the Hugging Face hub?

    Raises:
        RecordError: there is nothing there, or nothing that any importer can read.
    """
    format = recognise(first_rows(place, hub=hub))
    where = f"data.hub={quoted(place)}" if hub else f"data.path={quoted(place)}"
    path, name = (None, place) if hub else (place, None)
    source = Source(format.importer, path=path, hub=name, streaming=hub, on_error="skip", columns=format.columns)
    yield f"{place}: read as data={format.name}" + "".join(f", {k} = {v}" for k, v in format.columns.items())
    records = islice(source.records(), MOST)
    shown = list(islice(records, SHOWN))
    for number, record in enumerate(shown, start=1):
        yield from ("", f"record {number} as it will be read", *_record(record))
    counts = count([*shown]) if len(shown) < SHOWN else count(_chain(shown, records))
    yield from ("", *_table(counts, source), *(f"look: {line}" for line in remarks(counts)))
    yield from ("", "check and train:", *_commands(format, where, counts, source))


def _chain(first: Sequence[Comparison], rest: Iterator[Comparison]) -> Iterator[Comparison]:
    yield from first
    yield from rest


def count(records: Iterable[Comparison]) -> DataCounts:
    """Count the records, their votes and answers."""
    found = DataCounts()
    for record in records:
        label = soft(record)
        lengths = np.array([len(c.text) for c in record.completions])
        i, j = np.nonzero(np.triu(label.observed, 1))
        won = np.sign(label.win_prob[i, j] - 0.5)
        longer = np.sign(lengths[i] - lengths[j])
        found.records += 1
        found.votes += len(record.votes)
        found.pairs += len(i)
        found.ties += int((won == 0).sum())
        found.first += int((won > 0).sum())
        found.longer += int((won * longer > 0).sum())
        found.same_length += int(((longer == 0) & (won != 0)).sum())
        found.identical += sum(
            record.completions[a].text == record.completions[b].text for a, b in zip(i, j, strict=True)
        )
        found.unvoted += not len(i)
        found.graded += sum(vote.margin > 0 for vote in record.votes)
        found.annotators |= {vote.annotator for vote in record.votes}
        found.prompts[prompt_hash(record.prompt)] += 1
        found.answers.append(len(record.completions))
        found.letters += lengths.tolist()
        identity = hash((prompt_text(record.prompt), tuple(c.text for c in record.completions)))
        found.repeated += identity in found.seen
        found.seen.add(identity)
    return found


def remarks(counts: DataCounts) -> list[str]:
    """What a careful person would look at before training."""
    said = []
    decided, unequal = counts.decided, counts.decided - counts.same_length
    if decided and max(counts.first, decided - counts.first) / decided >= ONE_SIDED:
        side = "first" if counts.first * 2 > decided else "second"
        said.append(f"the {side} answer nearly always wins: winners are stored there, or the label is a constant")
    if unequal >= 20 and counts.longer / unequal <= SWAPPED:
        said.append("the shorter answer nearly always wins: are chosen and rejected swapped?")
    if unequal >= 20 and counts.longer / unequal >= ONE_SIDED:
        said.append("the longer answer nearly always wins: a model will learn length and nothing else")
    if counts.graded:
        said.append(
            f"{counts.graded:,} votes say how much better: loss=scaled or loss=pairwise reads it, the default does not"
        )
    if counts.identical:
        said.append(f"{counts.identical} pairs compare a text with itself; they are dropped and counted")
    if counts.unvoted:
        said.append(f"{counts.unvoted} records have no vote to learn from; they are dropped and counted")
    if counts.repeated:
        said.append(
            f"{counts.repeated} records repeat the prompt and the answers of an earlier one; their votes are added"
        )
    if len(counts.prompts) < FEW:
        said.append(
            f"{len(counts.prompts)} prompts are few to test on: split=balanced, or task=crossvalidate split=folds"
        )
    return said


def _record(record: Comparison) -> Iterator[str]:
    yield f"  prompt      {_short(prompt_text(record.prompt))}"
    for completion in record.completions:
        yield f"  {completion.id:<10}  {_short(completion.text)}"
    for vote in record.votes[:SHOWN]:
        yield f"  vote        {vote.annotator}: {_vote(vote, record.completions)}"
    if len(record.votes) > SHOWN:
        yield f"  ...         {len(record.votes) - SHOWN} more votes"


def _vote(vote: Vote, completions: Sequence[Completion]) -> str:
    if vote.pair is not None:
        strength = f" by {vote.margin:g}" if vote.margin else ""
        return "a tie" if vote.choice == "tie" else f"{vote.choice} is better of {' and '.join(vote.pair)}{strength}"
    if vote.ranking is not None:
        return " > ".join(" = ".join(tied) for tied in vote.ranking)
    return f"{vote.criterion}: " + ", ".join(f"{name} {value:g}" for name, value in (vote.likert or {}).items())


def _short(text: str) -> str:
    return shorten(text, WIDTH, placeholder=" ...") or "(empty)"


def _table(counts: DataCounts, source: Source) -> Iterator[str]:
    more = f" (the first {MOST:,} were counted)" if counts.records == MOST else ""
    rows = {
        "records": f"{counts.records:,}{more}, {source.skipped_count} rows skipped",
        "prompts": f"{len(counts.prompts):,} different; records of one prompt stay in one split",
        "answers": f"{_range(counts.answers)} per record, {_range(counts.letters)} characters each",
        "votes": f"{counts.votes:,} by {len(counts.annotators):,} annotators",
        "pairs": f"{counts.pairs:,} compared, {counts.ties:,} of them even",
    }
    if counts.decided:
        rows["first wins"] = f"{counts.first / counts.decided:.3f} of the decided pairs"
    if counts.decided - counts.same_length:
        rows["longer wins"] = (
            f"{counts.longer / (counts.decided - counts.same_length):.3f} of those of different length"
        )
    yield from (f"{name:<12}  {text}" for name, text in rows.items())
    yield from (f"skipped       {problem}" for problem in source.skipped[:SHOWN])


def _range(values: Sequence[int]) -> str:
    low, middle, high = np.quantile(values, [0, 0.5, 1]) if values else (0, 0, 0)
    return f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f} (median {middle:.0f})"


def _commands(format: Format, where: str, counts: DataCounts, source: Source) -> Iterator[str]:
    split = ["split=balanced"] if len(counts.prompts) < FEW else []
    skip = ["data.on_error=skip"] if source.skipped_count else []
    given = shlex.join([*format.overrides, where, *split, *skip])
    yield f"  python train.py debug=doctor {given}"
    yield f"  python train.py {given}"


def is_hub_name(place: str) -> bool:
    """Is it `owner/name`, and no file or folder of that name is here?"""
    parts = place.split("/")
    return len(parts) == 2 and all(parts) and not Path(place).exists() and not Path(place).suffix
