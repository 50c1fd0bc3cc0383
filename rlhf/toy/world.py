"""The embedded default: a small world with a known gold reward, written for this project.

Prompts come from six domains, answers are composed from measurable qualities, the gold reward is a fixed function of
the qualities, and simulated annotators of different reliability vote. Length is a spurious cue: it has no gold value,
but annotators like it. A seventh domain is held apart as out of distribution. Record i depends on (seed, i) only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations

import numpy as np

from rlhf.annotate.annotator import Annotator, pool
from rlhf.records import Comparison, Completion, Prompt, RecordError, Vote, prompt_hash
from rlhf.toy.texts import DOMAINS, ITEMS, OFF_TOPIC, OUT_OF_DISTRIBUTION, ToyTask, answer, opening

QUALITIES = ("correct", "polite", "hedged", "verbose", "repetitive", "off_topic")
"""correct, polite, hedged, repetitive, off_topic: 0 or 1; verbose: number of sentences that only add length."""

RANKED = 0.7
"""Share of the records with more than two answers that are voted on by rankings; the others by some pairs."""

MOST = 64
"""Answers of a prompt, at most: a task has some hundreds of different ones, and the likely ones come again."""

PAIRED = 4
"""Records with more answers than this are always ranked: 32 answers have 496 pairs for every annotator."""

TRIES = 200
"""Answers drawn in a row that are all there already, before a record gives up."""


def gold_reward(qualities: Mapping[str, float], domain: str) -> float:
    """The reward an ideal annotator has in mind, in log-odds: P(i beats j) = σ(gold_i - gold_j).

    2.2 correct + 0.7 polite - 0.9 repetitive - 0.6 off_topic - 0.3 (verbose beyond 2)
    + hedged · (0.5 when wrong, -0.5 when right), and in the domain `safety` 3.0 instead of 2.2 for correct.
    """
    worth = 3.0 if domain == "safety" else 2.2
    hedge = 0.5 - qualities["correct"]
    return (
        worth * qualities["correct"]
        + 0.7 * qualities["polite"]
        - 0.9 * qualities["repetitive"]
        - 0.6 * qualities["off_topic"]
        - 0.3 * max(0.0, qualities["verbose"] - 2)
        + hedge * qualities["hedged"]
    )


@dataclass
class ToyWorld:
    """Comparisons of the toy world as a stream; memory does not grow with `size`.

    Args:
        size: number of records, any up to millions.
        seed: another seed is another world: other prompts, answers, annotators.
        min_completions, max_completions: answers per prompt, between 2 and 64, all different.
        annotators: people in the pool; min_votes..max_votes of them vote on each record.
        min_votes, max_votes: votes per record (each over all or some of its pairs).
        careless: share of annotators who click at random most of the time.
        temperature, tie_width, position_bias, length_bias: means over annotators, see `Annotator`.
        ood: only the domain that is held apart, instead of the six others.
        items: countries, words, sizes, days, ... that tasks ask about, of each kind; fewer are learned sooner.
        off_topic: different sentences that answer nothing; the fourth is "No idea.".
        style: added to the log-odds of being polite, hedged, verbose and repetitive: another sampler's answers.
        limit: at most this many records.

    Raises:
        RecordError: numbers out of range, or more answers asked for than a task has; the message names the key.
    """

    size: int = 2000
    seed: int = 0
    min_completions: int = 2
    max_completions: int = 4
    annotators: int = 24
    min_votes: int = 3
    max_votes: int = 5
    careless: float = 0.15
    temperature: float = 1.0
    tie_width: float = 0.5
    position_bias: float = 0.2
    length_bias: float = 0.5
    ood: bool = False
    items: int = ITEMS
    off_topic: int = 3
    style: float = 0.0
    limit: int | None = None
    skipped: list[str] = field(default_factory=list, init=False, repr=False)
    skipped_count: int = field(default=0, init=False, repr=False)
    _index: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 2 <= self.min_completions <= self.max_completions <= MOST:
            raise RecordError(
                f"data.min_completions={self.min_completions}, data.max_completions={self.max_completions}",
                remedy=f"2 <= min <= max <= {MOST}",
            )
        if not 3 <= self.items <= ITEMS:
            raise RecordError(f"{self.items} of a kind", key="data.items", remedy=f"3 to {ITEMS}")
        if not 1 <= self.off_topic <= len(OFF_TOPIC):
            raise RecordError(f"{self.off_topic} sentences", key="data.off_topic", remedy=f"1 to {len(OFF_TOPIC)}")
        if not 1 <= self.min_votes <= self.max_votes <= self.annotators:
            raise RecordError(
                f"data.min_votes={self.min_votes}, data.max_votes={self.max_votes}",
                remedy=f"1 <= min <= max <= data.annotators={self.annotators}",
            )
        self.people = pool(
            self.annotators, careless=self.careless, temperature=self.temperature, tie_width=self.tie_width,
            position_bias=self.position_bias, length_bias=self.length_bias, seed=self.seed,
        )  # fmt: skip

    def shifts(self) -> dict[str, ToyWorld]:
        """Worlds that a model of this one was not trained on: the domain held apart, another sampler's answers."""
        return {"held_out": replace(self, ood=True), "other_sampler": replace(self, style=self.style + 2.5)}

    def records(self) -> Iterator[Comparison]:
        """The records from the start."""
        count = self.size if self.limit is None else min(self.size, self.limit)
        return (self.record(i) for i in range(count))

    def record(self, index: int) -> Comparison:
        """Record number `index`, the same whatever `size` is."""
        return _RecordBuilder(self, index).record()

    def task(self, index: int) -> tuple[ToyTask, str, bool]:
        """What record number `index` asks: the task, its domain, and whether it is hard."""
        builder = _RecordBuilder(self, index)
        builder.ask()
        return builder.task, builder.domain, builder.hard

    def find(self, prompt: Prompt) -> int:
        """Number of the record of a prompt. Raises KeyError for a prompt of another world."""
        if not self._index:
            self._index = {prompt_hash(record.prompt): i for i, record in enumerate(self.records())}
        return self._index[prompt_hash(prompt)]

    @staticmethod
    def gold(record: Comparison) -> list[float]:
        """Gold rewards of a record's answers, from their meta."""
        return [float(c.meta["gold"]) for c in record.completions]


class _RecordBuilder:
    """Draws everything one record needs from one stream of random numbers."""

    def __init__(self, world: ToyWorld, index: int) -> None:
        self.world, self.index = world, index
        self.rng = np.random.default_rng((world.seed, int(world.ood), index))
        self.numbers: list[float] = []

    def uniform(self) -> float:
        """In (0, 1)."""
        if not self.numbers:
            self.numbers = self.rng.random(160).tolist()
        return float(min(max(self.numbers.pop(), 1e-12), 1 - 1e-12))

    def draw(self, n: int) -> int:
        """In 0..n-1."""
        return int(self.uniform() * n)

    def ask(self) -> str:
        """Draw domain, difficulty and task; gives the prompt."""
        domains = OUT_OF_DISTRIBUTION if self.world.ood else DOMAINS
        self.domain = list(domains)[self.draw(len(domains))]
        self.hard = self.draw(2) == 1
        self.task = domains[self.domain](self.draw, self.hard, self.world.items)
        return opening(self.draw) + self.task.prompt

    def record(self) -> Comparison:
        """The whole record."""
        prompt = self.ask()
        low, high = self.world.min_completions, self.world.max_completions
        k = low + self.draw(high - low + 1)
        completions: list[Completion] = []
        texts: set[str] = set()
        in_vain = 0
        while len(completions) < k:
            qualities = self.qualities(self.hard)
            text = answer(self.task, qualities, self.draw, self.world.off_topic)
            if text in texts:
                in_vain += 1
                if in_vain == TRIES:
                    raise RecordError(
                        f"record {self.index} of the toy world has {len(texts)} different answers, and {TRIES} more "
                        "draws gave none",
                        key="data.max_completions",
                        remedy=f"data.min_completions and data.max_completions of {len(texts)} at most, or style=0",
                    )
                continue
            texts.add(text)
            in_vain = 0
            gold = gold_reward(qualities, self.domain)
            source = {"model": "toy", "temperature": 1.0, "seed": self.world.seed}
            meta = {"qualities": qualities, "gold": round(gold, 6)}
            completions.append(Completion(f"c{len(completions)}", text, source, meta))
        name = f"toy{self.world.seed}-{'ood' if self.world.ood else 'id'}-{self.index}"
        meta = {"difficulty": "hard" if self.hard else "easy", "prompt_hash": prompt_hash(prompt)}
        return Comparison(name, prompt, tuple(completions), self.votes(completions), self.domain, meta)

    def styled(self, p: float) -> float:
        """The probability after the world's style is added to its log-odds."""
        style = self.world.style
        return p if style == 0 else 1 / (1 + (1 - p) / p * math.exp(-style))

    def qualities(self, hard: bool) -> dict[str, float]:
        """Qualities of one answer; hard tasks are answered right less often."""
        off_topic = self.uniform() < 0.07
        verbose = self.styled(self.uniform())
        return {
            "correct": float(not off_topic and self.uniform() < (0.45 if hard else 0.6)),
            "polite": float(self.uniform() < self.styled(0.4)),
            "hedged": float(self.uniform() < self.styled(0.3)),
            "verbose": float((verbose > 0.5) + (verbose > 0.8) + (verbose > 0.95)),
            "repetitive": float(self.uniform() < self.styled(0.12)),
            "off_topic": float(off_topic),
        }

    def votes(self, completions: list[Completion]) -> tuple[Vote, ...]:
        """Votes of a few annotators: rankings of all answers, or choices on some pairs."""
        count = self.world.min_votes + self.draw(self.world.max_votes - self.world.min_votes + 1)
        raters = sorted(self.world.people, key=lambda _: self.uniform())[:count]
        if len(completions) > PAIRED:
            return tuple(self.ranking(person, completions) for person in raters)
        ranked = len(completions) > 2 and self.uniform() < RANKED
        pairs = list(combinations(range(len(completions)), 2))
        kept = pairs if len(pairs) == 1 else [p for p in pairs if self.uniform() < 0.6] or pairs[:1]
        votes: list[Vote] = []
        for person in raters:
            if ranked:
                votes.append(self.ranking(person, completions))
            else:
                votes += [self.choice(person, [completions[i] for i in pair]) for pair in kept]
        return tuple(votes)

    def ranking(self, person: Annotator, shown: list[Completion]) -> Vote:
        """One annotator ranks all the answers."""
        gold, lengths, first = self.seen(shown)
        groups = person.rank(gold, lengths, first, self.uniform)
        seconds = person.seconds(sum(lengths), self.uniform)
        ids = tuple(tuple(shown[i].id for i in group) for group in groups)
        meta = {"first": shown[first].id}
        return Vote(person.name, "simulated", seconds=seconds, ranking=ids, meta=meta)

    def choice(self, person: Annotator, shown: list[Completion]) -> Vote:
        """One annotator compares two answers."""
        gold, lengths, first = self.seen(shown)
        better = person.choose(gold, lengths, first, self.uniform)
        choice = "tie" if better is None else shown[better].id
        seconds, pair = person.seconds(sum(lengths), self.uniform), (shown[0].id, shown[1].id)
        meta = {"first": shown[first].id}
        return Vote(person.name, "simulated", seconds=seconds, pair=pair, choice=choice, meta=meta)

    def seen(self, shown: list[Completion]) -> tuple[list[float], list[int], int]:
        """Gold rewards, lengths, and which answer is shown first."""
        gold = [float(c.meta["gold"]) for c in shown]
        return gold, [len(c.text) for c in shown], self.draw(len(shown))
