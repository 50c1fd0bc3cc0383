"""Which prompts to answer: without duplicates, within quotas, covering domains and difficulties.

Curation reads a stream of records and keeps their prompts only. Exact duplicates go by `prompt_hash`, near-duplicates
by MinHash. What is left is taken in turns from every stratum (domain, difficulty), within a stratum in the order of a
seeded hash, so that the choice is the same whatever the order of the file, and stable when prompts are added.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import zip_longest

from rlhf.data.near_duplicates import NearDuplicates
from rlhf.records import Comparison, Prompt, prompt_hash, prompt_text

Dropped = dict[str, str]
"""What was left out: prompt_id, reason, and the text of the prompt or of the completion."""


@dataclass(frozen=True)
class Task:
    """A prompt to be answered; `key` is its `prompt_hash`."""

    key: str
    prompt_id: str
    prompt: Prompt
    domain: str | None
    difficulty: str | None
    meta: dict[str, object] = field(default_factory=dict)

    @property
    def stratum(self) -> tuple[str, str]:
        """Domain and difficulty; empty where unknown."""
        return self.domain or "", self.difficulty or ""


@dataclass
class Curation:
    """Chooses prompts.

    Args:
        limit: prompts to choose; None = all that are left.
        near_duplicates: prompts whose word shingles overlap by this much or more count as one; None = do not look.
        quota: prompts per domain, at most; None = no bound.
        quotas: other bounds for some domains, e.g. {safety: 50}.
        min_chars, max_chars: length of a prompt.
        seed: of the choice.
    """

    limit: int | None = None
    near_duplicates: float | None = 0.6
    quota: int | None = None
    quotas: dict[str, int] = field(default_factory=dict)
    min_chars: int = 1
    max_chars: int = 20_000
    seed: int = 0
    dropped: Counter[str] = field(default_factory=Counter, init=False)
    read: int = field(default=0, init=False)
    _on_drop: Callable[[Dropped], object] = field(default=lambda dropped: None, init=False, repr=False)

    def __call__(
        self, records: Iterable[Comparison], on_drop: Callable[[Dropped], object] = lambda dropped: None
    ) -> list[Task]:
        """The chosen prompts, strata in turns; `dropped` and `read` count the others, `on_drop` gets each of them."""
        self.dropped, self.read, self._on_drop = Counter(), 0, on_drop
        strata: dict[tuple[str, str], list[Task]] = defaultdict(list)
        for task in sorted(self._without_near_duplicates(self._different(records)), key=self._order):
            strata[task.stratum].append(task)
        turns = zip_longest(*(strata[name] for name in sorted(strata)))
        chosen = self._within_quotas([task for turn in turns for task in turn if task is not None])
        if self.limit is None:
            return chosen
        for task in chosen[self.limit :]:
            self._drop(task.prompt_id, task.prompt, "over limit")
        return chosen[: self.limit]

    def report(self, chosen: list[Task]) -> dict[str, object]:
        """Counts for the sidecar: read = chosen + dropped."""
        strata = Counter("/".join(filter(None, task.stratum)) or "all" for task in chosen)
        counts = {"read": self.read, "chosen": len(chosen)}
        return {**counts, "dropped": dict(self.dropped), "strata": dict(strata)}

    def _different(self, records: Iterable[Comparison]) -> list[Task]:
        tasks: dict[str, Task] = {}
        for record in records:
            self.read += 1
            length = len(prompt_text(record.prompt))
            if not self.min_chars <= length <= self.max_chars:
                self._drop(record.prompt_id, record.prompt, "length")
                continue
            key = prompt_hash(record.prompt)
            if key in tasks:
                self._drop(record.prompt_id, record.prompt, "exact duplicate", tasks[key].prompt_id)
                continue
            difficulty = record.meta.get("difficulty")
            meta = {k: v for k, v in record.meta.items() if k != "gold"}  # named one of the old completions
            tasks[key] = Task(
                key, record.prompt_id, record.prompt, record.domain,
                None if difficulty is None else str(difficulty), meta,
            )  # fmt: skip
        return list(tasks.values())

    def _without_near_duplicates(self, tasks: list[Task]) -> list[Task]:
        if self.near_duplicates is None:
            return tasks
        index = NearDuplicates(threshold=self.near_duplicates)
        for task in tasks:
            index.add(task.key, prompt_text(task.prompt))
        cluster = index.clusters()
        named = {task.key: task.prompt_id for task in tasks}
        kept = []
        for task in tasks:
            first = cluster.get(task.key, task.key)
            if first == task.key:
                kept.append(task)
            else:
                self._drop(task.prompt_id, task.prompt, "near duplicate", named[first])
        return kept

    def _within_quotas(self, tasks: list[Task]) -> list[Task]:
        taken: Counter[str] = Counter()
        kept = []
        for task in tasks:
            domain = task.domain or ""
            bound = self.quotas.get(domain, self.quota)
            if bound is not None and taken[domain] >= bound:
                self._drop(task.prompt_id, task.prompt, "over quota")
                continue
            taken[domain] += 1
            kept.append(task)
        return kept

    def _drop(self, prompt_id: str, prompt: Prompt, reason: str, of: str | None = None) -> None:
        self.dropped[reason] += 1
        named = {"prompt_id": prompt_id, "reason": reason} | ({} if of is None else {"of": of})
        self._on_drop(named | {"text": prompt_text(prompt)})

    def _order(self, task: Task) -> str:
        return sha256(f"{self.seed}:{task.key}".encode()).hexdigest()
