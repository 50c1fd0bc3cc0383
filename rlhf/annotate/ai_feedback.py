"""AI feedback (RLAIF; Bai et al. 2022, Lee et al. 2023): judges vote on every pair, asked in both orders.

A pair's probability is the mean of both orders, p = (P(a | a first) + 1 - P(b | b first)) / 2, so a judge that always
prefers the first answer says 0.5. How often the order decides is reported as position bias.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from rlhf.annotate.job import Job
from rlhf.annotate.judges import OVERALL, Judge, Unreadable
from rlhf.records import Comparison, Completion, Prompt, RecordError, Vote


@dataclass(frozen=True)
class Principle:
    """One rule that a judge votes by; `name` becomes the vote's criterion."""

    name: str
    text: str


@dataclass
class Tally:
    """How a judge behaved: comparisons, order decided, mean probability of the first side, unreadable replies.

    `example` is the first unreadable reply, as the error told it.
    """

    comparisons: int = 0
    flipped: int = 0
    first: float = 0.0
    unreadable: int = 0
    example: str = ""

    def as_dict(self) -> dict[str, Any]:
        """`position/first` is 0.5 for a judge without bias; `position/decides` is the share of pairs it turned."""
        number = max(self.comparisons, 1)
        return {
            "comparisons": self.comparisons,
            "position/first": self.first / number,
            "position/decides": self.flipped / number,
            "unreadable": self.unreadable,
        } | ({"unreadable/example": self.example} if self.example else {})


Reviser = Callable[[Comparison], Comparison]
"""A record to the record with further completions, before it is voted on."""


@dataclass
class AiFeedback:
    """Votes of judges on every pair of completions.

    Args:
        judges: each votes for itself.
        principles: what they vote by, one vote per principle; by default one overall vote.
        tie: p within this of 0.5 is written as the choice "tie"; p itself is always kept.
        parallel: requests at a time.
        revise: makes further completions first (critique and revise).
        model, base_url, requests_per_minute: of the configured judge; repeated here for the command line's sake.
    """

    judges: Sequence[Judge]
    principles: Sequence[Principle] = (Principle("overall", OVERALL),)
    tie: float = 0.05
    parallel: int = 8
    revise: Reviser | None = None
    model: str | None = None
    base_url: str | None = None
    requests_per_minute: float | None = None
    tallies: dict[str, Tally] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if not self.judges:
            raise RecordError("names nobody", key="annotator.judges", remedy="name one judge at least")
        if not self.principles:
            raise RecordError("is empty", key="annotator.principles", remedy="write one principle at least")

    def __call__(self, job: Job) -> None:
        """Vote on the tasks of a job; bias and cost of the judges go into `<out>.judges.json`.

        Raises:
            RecordError: no reply could be read, so that there are no votes; `out` is not written.
        """
        job.add_votes(self.vote, lambda: self._report(job.out))

    def _report(self, out: Path) -> None:
        report: dict[str, Any] = {}
        for judge in self.judges:
            report[judge.name] = self.tallies.get(judge.name, Tally()).as_dict() | judge.usage()
        path = Path(f"{out}.judges.json")
        path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for name, numbers in report.items():
            shown = ", ".join(f"{k} {v:.3g}" for k, v in numbers.items() if not isinstance(v, str))
            print(f"{name}: {shown}")
        tallies = self.tallies.values()
        if any(t.unreadable for t in tallies) and not any(t.comparisons for t in tallies):
            problem = f"no reply names an answer; the first: {next(t.example for t in tallies if t.example)}"
            remedy = "a chat model that follows instructions, or a larger max_tokens for one that thinks aloud"
            raise RecordError(problem, place=str(path), remedy=remedy)

    def vote(self, records: Iterable[Comparison]) -> Iterator[Comparison]:
        """The records with votes added, in their order; a few records are judged at a time."""
        self.tallies = {judge.name: Tally() for judge in self.judges}
        with ThreadPoolExecutor(max(1, self.parallel)) as pool:
            waiting: deque[Future[Comparison]] = deque()
            for record in records:
                waiting.append(pool.submit(self._voted, record))
                if len(waiting) > self.parallel:  # memory stays flat
                    yield waiting.popleft().result()
            for future in waiting:
                yield future.result()

    def _voted(self, record: Comparison) -> Comparison:
        record = self.revise(record) if self.revise else record
        votes = [
            vote
            for judge in self.judges
            for principle in self.principles
            for a, b in combinations(record.completions, 2)
            if (vote := self._vote(judge, principle, record.prompt, a, b)) is not None
        ]
        return replace(record, votes=record.votes + tuple(votes))

    def _vote(self, judge: Judge, principle: Principle, prompt: Prompt, a: Completion, b: Completion) -> Vote | None:
        tally = self.tallies[judge.name]
        try:
            ahead = judge.prefer(prompt, a.text, b.text, principle.text)
            behind = judge.prefer(prompt, b.text, a.text, principle.text)
        except Unreadable as error:
            tally.unreadable += 1
            tally.example = tally.example or str(error)
            return None
        p = (ahead + 1 - behind) / 2
        tally.comparisons += 1
        tally.first += (ahead + behind) / 2
        tally.flipped += (ahead - 0.5) * (behind - 0.5) > 0
        choice = "tie" if abs(p - 0.5) <= self.tie else (a.id if p > 0.5 else b.id)
        orders = {"p_shown_first": round(ahead, 6), "p_shown_second": round(1 - behind, 6)}
        said: dict[str, Any] = {"pair": (a.id, b.id), "choice": choice, "p": round(p, 6), "meta": orders}
        return Vote(judge.name, "ai", principle.name, **said)
