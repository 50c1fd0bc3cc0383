"""Records of one prompt as one record, so that a completion that many comparisons share is encoded once.

Two readings of the data: the first finds the prompts that come more than once, the second passes the other records on
at their place and spills those to disk, where they are merged bucket by bucket. Memory holds one bucket.
"""

import pickle
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rlhf.data.source import RecordStream
from rlhf.data.spill import BUCKETS, Spill
from rlhf.records import Comparison, Completion, Vote, as_messages, prompt_hash

LARGEST = 1000
"""Completions of a prompt that are merged together; what comes later begins anew, so that tables [K, K] stay small."""


@dataclass(frozen=True, slots=True)
class MergedRecord:
    """One record made of several.

    record  all their completions, equal texts once, and all their votes
    parts   the records, each with the places [K] of its completions in `record`
    """

    record: Comparison
    parts: tuple[tuple[Comparison, tuple[int, ...]], ...]


class Merger:
    """Gathers records of prompts that come more than once.

    Args:
        records: all the records, for the first reading.
    """

    def __init__(self, records: Iterable[Comparison]) -> None:
        self._repeated = _repeated(records)
        self._files: list[IO[bytes]] = []

    def takes(self, record: Comparison) -> bool:
        """Keep the record for `merged`, if its prompt comes more than once."""
        number = np.uint64(int(prompt_hash(record.prompt), 16))
        place = np.searchsorted(self._repeated, number)
        if place == len(self._repeated) or self._repeated[place] != number:
            return False
        if not self._files:
            self._files = [tempfile.TemporaryFile() for _ in range(BUCKETS)]  # noqa: SIM115  # closed with the merger
        pickle.dump(record, self._files[int(number) % BUCKETS], protocol=pickle.HIGHEST_PROTOCOL)
        return True

    def merged(self) -> Iterator[MergedRecord]:
        """What was kept, a prompt at a time; in the order of its first record within a bucket."""
        for file in self._files:
            file.seek(0)
            prompts: dict[Any, tuple[list[Comparison], set[str]]] = {}
            while file.peek(1):  # type: ignore[attr-defined]  # of a buffered file
                record = pickle.load(file)
                turns = tuple((m["role"], m["content"]) for m in as_messages(record.prompt))
                records, texts = prompts.setdefault(key := (turns, record.domain), ([], set()))
                records.append(record)
                texts.update(c.text for c in record.completions)
                if len(texts) >= LARGEST:
                    yield merge(prompts.pop(key)[0])
            for records, _ in prompts.values():
                yield merge(records)
            file.close()


def merged_records(stream: RecordStream) -> Iterator[MergedRecord]:
    """All records of a stream, those of one prompt as one; prompts that come once first. The stream is read twice."""
    merger = Merger(stream.records())
    yield from (merge([record]) for record in stream.records() if not merger.takes(record))
    yield from merger.merged()


def merge(records: Sequence[Comparison]) -> MergedRecord:
    """Records of equal prompts and domains as one; a single record stays as it is.

    A text keeps the id it has in the first record with it; where two texts share an id, the later one is called
    `<prompt_id>/<id>`. Equal texts inside one record stay apart: votes between them are dropped, and counted, later.
    """
    if len(records) == 1:
        return MergedRecord(records[0], ((records[0], tuple(range(len(records[0].completions)))),))
    completions: list[Completion] = []
    place_of: dict[str, list[int]] = {}
    ids: set[str] = set()
    votes: list[Vote] = []
    parts = []
    for number, record in enumerate(records):
        places = []
        for completion in record.completions:
            known = [p for p in place_of.setdefault(completion.text, []) if p not in places]
            if not known:
                known = [len(completions)]
                place_of[completion.text].append(known[0])
                completions.append(replace(completion, id=_unused(completion.id, record.prompt_id, number, ids)))
            places.append(known[0])
        new = {c.id: completions[p].id for c, p in zip(record.completions, places, strict=True)}
        votes += [renamed_vote(vote, new) for vote in record.votes]
        parts.append((record, tuple(places)))
    return MergedRecord(replace(records[0], completions=tuple(completions), votes=tuple(votes)), tuple(parts))


def renamed_vote(vote: Vote, new: Mapping[str, str]) -> Vote:
    """The vote with new ids of completions."""
    if vote.pair is not None:
        pair = (new[vote.pair[0]], new[vote.pair[1]])
        return replace(vote, pair=pair, choice=new.get(vote.choice or "", vote.choice))
    if vote.ranking is not None:
        return replace(vote, ranking=tuple(tuple(new[i] for i in tied) for tied in vote.ranking))
    return replace(vote, likert={new[i]: rating for i, rating in (vote.likert or {}).items()})


def _unused(name: str, prompt_id: str, number: int, taken: set[str]) -> str:
    """An id that no other completion has; it is taken from now on."""
    names = (name, f"{prompt_id}/{name}", f"{prompt_id}#{number}/{name}")
    found = next(n for n in names if n not in taken)
    taken.add(found)
    return found


def _repeated(records: Iterable[Comparison]) -> NDArray[np.uint64]:
    """Hashes of the prompts that come more than once, sorted."""
    seen = Spill([])
    for record in records:
        seen.add(prompt_hash(record.prompt))
    found = [np.zeros(0, np.uint64)]
    for bucket in seen.buckets():
        hashes, times = np.unique(bucket["hash"], return_counts=True)
        found.append(hashes[times > 1])
    return np.sort(np.concatenate(found))
