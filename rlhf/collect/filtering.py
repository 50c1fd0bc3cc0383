"""Filters applied to a record: completions that pass stay, a record with too few of them goes, all of it counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from rlhf.collect.filters import Filter
from rlhf.collect.prompts import Dropped
from rlhf.data.near_duplicates import jaccard, shingles
from rlhf.labels.vote_table import levels
from rlhf.records import Comparison, Completion


@dataclass
class Filtering:
    """All filters of a run.

    Args:
        filters: name -> filter, asked in order; the first reason counts. None = switched off.
        near_duplicates: of two completions of a prompt whose shingles overlap by this much or more, the later goes;
            None = do not look.
        min_completions: records with fewer completions left are dropped: two make a comparison.
    """

    filters: Mapping[str, Filter | None] = field(default_factory=dict)
    near_duplicates: float | None = 0.9
    min_completions: int = 2
    reasons: Counter[str] = field(default_factory=Counter, init=False)
    seen: Counter[str] = field(default_factory=Counter, init=False)
    gone: Counter[str] = field(default_factory=Counter, init=False)
    records: Counter[str] = field(default_factory=Counter, init=False)

    def __call__(
        self, records: Iterable[Comparison], on_drop: Callable[[Dropped], object] = lambda dropped: None
    ) -> Iterator[Comparison]:
        """The records that have enough completions left; `on_drop` gets every completion that goes."""
        for record in records:
            self.records["read"] += 1
            kept = self._kept(record, on_drop)
            if len(kept) < self.min_completions:
                self.records["too few left"] += 1
                for completion in kept:
                    on_drop(_named(record, completion) | {"reason": "too few left", "text": completion.text})
                continue
            self.records["kept"] += 1
            left = _without_lost_votes(record, kept)
            self.records["votes dropped"] += len(record.votes) - len(left.votes)
            yield left

    def _kept(self, record: Comparison, on_drop: Callable[[Dropped], object]) -> tuple[Completion, ...]:
        kept: list[Completion] = []
        for completion in record.completions:
            model = _model(completion)
            self.seen[model] += 1
            reason = self._reason(record, completion, kept)
            if reason is None:
                kept.append(completion)
                continue
            self.reasons[reason] += 1
            self.gone[model] += 1
            on_drop(_named(record, completion) | {"reason": reason, "text": completion.text})
        return tuple(kept)

    def _reason(self, record: Comparison, completion: Completion, kept: list[Completion]) -> str | None:
        for one in self.filters.values():
            reason = one(record.prompt, completion.text) if one is not None else None
            if reason is not None:
                return reason
        if self.near_duplicates is None:
            return None
        own = shingles(completion.text)
        same = any(jaccard(own, shingles(other.text)) >= self.near_duplicates for other in kept)
        return "near duplicate of another completion" if same else None

    def as_dict(self) -> dict[str, object]:
        """For the sidecar: records read = kept + too few left; the drop rate per model, since filters select too."""
        rates = {model: self.gone[model] / number for model, number in sorted(self.seen.items())}
        records = {name: self.records[name] for name in ("read", "kept", "too few left", "votes dropped")}
        return {"records": records, "completions_dropped": dict(self.reasons), "drop_rate_by_model": rates}


def _model(completion: Completion) -> str:
    return str(completion.source.get("model", "unknown"))


def _named(record: Comparison, completion: Completion) -> Dropped:
    return {"prompt_id": record.prompt_id, "completion_id": completion.id, "model": _model(completion)}


def _without_lost_votes(record: Comparison, kept: tuple[Completion, ...]) -> Comparison:
    """The record with the completions that are left, and the votes that name no other."""
    if len(kept) == len(record.completions):
        return record
    ids = {c.id for c in kept}
    return replace(record, completions=kept, votes=tuple(v for v in record.votes if levels(v).keys() <= ids))
