"""One pass over the data: score a block of records, keep numbers, forget texts.

Records are cut into blocks by their number, and a block is scored as a whole by one process. Merged by record, the
numbers of two processes are those of one: to rounding where a model looks up texts that its process has read before.
"""

import heapq
import pickle
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from rlhf.evaluation.metrics.scored import Results, Scored, ScoredGroup
from rlhf.evaluation.perturbations import Perturbation
from rlhf.evaluation.score_source import Scores, ScoreSource
from rlhf.labels.label import Aggregation, Label, informative, restricted, without_identical
from rlhf.records import Comparison, prompt_hash
from rlhf.stats.arrays import Floats

TEXTS = ("prompt_id", "completion_id", "prompt_hash")
"""Columns of names; all others hold numbers."""
NUMBERS: Mapping[str, type] = (
    dict.fromkeys(("record", "place", "source", "annotators"), np.int64)
    | dict.fromkeys(("trimmed", "finished"), bool)
    | dict.fromkeys(("tokens", "gold"), np.float64)
)
"""Columns of numbers that every source has."""
UNFINISHED = ("length", "max_tokens", "truncated")
"""Values of `finish_reason` in an answer's source that mean it was cut."""
Block = list[tuple[int, Comparison]]
"""Records that are scored together, with their numbers in the data."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of one record in one set.

    number, name  of the record in the data, and of the set
    why           the reason where nothing could be kept (`group` is None), else ""
    n_too_long    completions that a model could not read
    group         rewards and labels; prompt_id, annotators, trimmed: of the record
    columns       name -> one value per completion: `completion_id`, `place`, `source`, `tokens`, `finished`, `gold`,
                  `members/<number>`, `ood_scores/<detector>`, `others/<model>`
    """

    number: int
    name: str
    why: str = ""
    n_too_long: int = 0
    group: ScoredGroup | None = None
    prompt_id: str = ""
    annotators: tuple[str, ...] = ()
    trimmed: bool = False
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Pass:
    """How records are scored.

    source   the evaluated model
    others   models evaluated on the same completions
    aggregation    votes to labels
    perturbations  name of a set -> perturbation of the answers that makes it, for some of the records
    perturbed_records  how many records are changed
    block    records scored together
    rank, world_size  this process among all
    """

    source: ScoreSource
    aggregation: Aggregation
    others: Sequence[ScoreSource] = ()
    perturbations: Mapping[str, Perturbation] = field(default_factory=dict)
    perturbed_records: int = 500
    block: int = 32
    rank: int = 0
    world_size: int = 1

    def entries(self, records: Iterable[Comparison], total: int = 0, name: str = "") -> Iterator[Entry]:
        """Entries of this process's blocks, in order of the records.

        Args:
            records: the set, in stored order.
            total: how many there are, so that changed ones can be spread evenly; 0 = change none.
            name: of the set.
        """
        some = min(self.perturbed_records, total)
        for number, block in enumerate(_blocks(records, self.block)):
            if number % self.world_size != self.rank:
                continue
            yield from self._scored(name, block, [record for _, record in block], self.others)
            chosen = [(n, r) for n, r in block if total and (n + 1) * some // total > n * some // total]
            for set_name, perturb in self.perturbations.items() if chosen else ():
                changed = [perturb(r, random_of(r, set_name)) for _, r in chosen]
                yield from self._scored(set_name, chosen, changed, ())

    def _scored(
        self, name: str, block: Block, records: Sequence[Comparison], others: Sequence[ScoreSource]
    ) -> Iterator[Entry]:
        found = self.source.score(records)
        beside = {other.name: other.score(records) for other in others}
        for i, (number, original) in enumerate(block):
            rewards = {other: scores[i].reward for other, scores in beside.items()}
            yield entry(number, name, original, records[i], self.aggregation(original), found[i], rewards)


def entry(
    number: int, name: str, original: Comparison, record: Comparison, label: Label, scores: Scores,
    others: Mapping[str, Floats],
) -> Entry:  # fmt: skip
    """What is kept of a record: completions that every model could read, in the order of the original."""
    order: Iterable[int] = range(len(record.completions))
    if original is not record:
        order = np.argsort([original.position(c.id) for c in record.completions])
    read = np.all(np.isfinite([scores.reward, *others.values()]), axis=0)
    kept = [int(i) for i in order if read[i]]
    completions = [record.completions[i] for i in kept]
    place = [original.position(c.id) for c in completions]
    lost = len(record.completions) - len(kept)
    if not informative(label) and not name:
        return Entry(number, name, "no_votes", lost)
    label = restricted(label, place)
    if not kept or (not informative(label) and not name):
        return Entry(number, name, "too_long", lost)
    label = without_identical(label, [c.text for c in completions])
    if not informative(label) and not name:
        return Entry(number, name, "identical", lost)
    group = ScoredGroup(
        prompt=prompt_hash(record.prompt),
        domain=record.domain,
        reward=scores.reward[kept],
        length=np.array([len(c.text) for c in completions]),
        **{name: getattr(label, name) for name in ("rank", "win_prob", "tie_prob", "observed", "votes")},
    )
    columns: dict[str, Sequence[Any]] = {
        "place": place,
        "completion_id": [c.id for c in completions],
        "source": [None if "model" not in c.source else str(c.source["model"]) for c in completions],
        "tokens": scores.tokens[kept].tolist(),
        "finished": [c.source.get("finish_reason") not in UNFINISHED for c in completions],
        "gold": [_number(c.meta.get("gold")) for c in completions],
    }
    members = {str(m): row for m, row in enumerate(scores.members)}
    for family, rows in (("members", members), ("ood_scores", scores.ood_scores), ("others", others)):
        columns |= {f"{family}/{key}": row[kept].tolist() for key, row in rows.items()}
    annotators = tuple(sorted({v.annotator for v in record.votes}))
    return Entry(number, name, "", lost, group, record.prompt_id, annotators, scores.trimmed, columns)


def write_spool(path: Path, entries: Iterable[Entry]) -> None:
    """Append entries to a file of this process; memory holds one at a time."""
    with path.open("wb") as file:
        for one in entries:
            pickle.dump(one, file, protocol=pickle.HIGHEST_PROTOCOL)


def read_spools(paths: Sequence[Path]) -> Iterator[Entry]:
    """Entries of all processes by number of their record; within a record in the order they were made."""
    return heapq.merge(*(_read(path) for path in paths), key=lambda e: e.number)


def results_from(entries: Iterable[Entry], member_names: tuple[str, ...]) -> Results:
    """Columns of the entries of one set."""
    columns: dict[str, Any] = {name: [] for name in TEXTS}
    sources: dict[str, int] = {}
    annotators: dict[tuple[str, ...], int] = {}
    counts: Counter[str] = Counter()

    def groups() -> Iterator[ScoredGroup]:
        for one in entries:
            counts["records"] += 1
            counts["completions_too_long"] += one.n_too_long
            if one.group is None:
                counts[f"dropped/{one.why}"] += 1
                continue
            counts["prompts_trimmed"] += one.trimmed
            cells = dict(one.columns)
            cells["source"] = [-1 if s is None else sources.setdefault(s, len(sources)) for s in cells["source"]]
            cells |= {"record": [one.number], "prompt_id": [one.prompt_id], "prompt_hash": [one.group.prompt]}
            cells["annotators"] = [annotators.setdefault(one.annotators, len(annotators))]
            cells["trimmed"] = [one.trimmed]
            for key, values in cells.items():
                columns.setdefault(key, array("d")).extend(values)
            yield one.group

    scored = Scored.from_groups(groups())

    def column(name: str, dtype: Any = np.float64) -> Any:
        return np.asarray(columns.get(name, []), dtype=dtype)

    def family(prefix: str) -> dict[str, Floats]:
        return {k.removeprefix(prefix): column(k) for k in columns if k.startswith(prefix)}

    members = family("members/")
    return Results(
        scored=scored,
        sources=tuple(sources),
        annotator_sets=tuple(annotators),
        **{name: columns[name] for name in TEXTS},
        **{name: column(name, dtype) for name, dtype in NUMBERS.items()},
        members=np.stack(list(members.values())) if members else np.zeros((len(member_names), 0)),
        member_names=member_names,
        ood_scores=family("ood_scores/"),
        others=family("others/"),
        counts=dict(sorted(counts.items())),
    )


def _read(path: Path) -> Iterator[Entry]:
    with path.open("rb") as file:
        while file.peek(1):
            yield pickle.load(file)


def _blocks(records: Iterable[Comparison], size: int) -> Iterator[Block]:
    """Numbered records, `size` at a time."""
    numbered = enumerate(records)
    while block := list(islice(numbered, size)):
        yield block


def random_of(record: Comparison, name: str) -> Random:
    """Random numbers that depend on the record and the change alone."""
    seed = blake2b(f"{name}:{prompt_hash(record.prompt)}:{record.prompt_id}".encode(), digest_size=8).digest()
    return Random(seed)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else np.nan
