"""examples.parquet: one row per labelled pair, what every later question can be answered from; written, and read again.

Read again, scores are evaluated without a model and without texts. The file is that of a report, or anybody's own:

    prompt_id, reward_a, reward_b, win_prob (share of the votes for a), chars_a, chars_b      needed
    record, a, b       which record the pair is of, and places of its answers in it; without them a row is a record
    votes, tie_prob, domain, source_a, source_b, gold_a, gold_b, ...     as `write_examples` writes them
    <name>_a, <name>_b     rewards of any further model, compared with the first

Nothing is read row by row: a column goes in as an array.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit

from rlhf.evaluation.metrics.metrics import evaluate
from rlhf.evaluation.metrics.pair_credit import EVEN
from rlhf.evaluation.metrics.scored import Results, Scored
from rlhf.evaluation.report.section import Evaluation
from rlhf.labels.orders import EQUAL, ranked
from rlhf.records import RecordError
from rlhf.stats.arrays import Floats, Ints

CHUNK = 50_000
"""Pairs per row group."""
ABOUT = b"rlhf"
"""Key of the file's own words, as JSON: which model, its temperature, which columns are what."""
OF_ANSWERS = ("completion", "source", "reward", "members", "gold", "chars", "tokens", "finished", "rank")
"""Columns that come twice, `_a` and `_b`; all others that do are detectors or other models."""
NEEDED = ("prompt_id", "reward_a", "reward_b", "win_prob", "chars_a", "chars_b")


def write_examples(path: Path, evaluation: Evaluation) -> int:
    """Write the file, a block of pairs at a time; returns how many rows. `read_examples` reads it.

    example_id    record, a, b: number of the record in the data and places of the two answers
    prompt_id, prompt_hash, completion_a, completion_b, domain, part
    source_a, source_b    who wrote them; annotators: who voted on the record
    win_prob      share of the votes for a, ties one half; tie_prob, votes, and gold_a, gold_b where they are known
    rank_a, rank_b    places among the answers that votes connect, 0 = best, -1 = not in a total order
    reward_a, reward_b, margin (a less b), p_calibrated, tied, saturated
    members_a, members_b  lists; ens_std: standard deviation of the members' margins
    <detector>_a, <detector>_b    out-of-distribution scores
    <model>_a, <model>_b          rewards of the other models
    chars_*, tokens_*, trimmed (the prompt lost its beginning), finished_* (False: the answer was cut)
    """
    results, count = evaluation.results, len(evaluation.results.scored.first)
    about = {
        "name": evaluation.name,
        "temperatures": {evaluation.name: evaluation.temperature} | dict(evaluation.temperatures),
        "uncalibrated": sorted(evaluation.uncalibrated),
        "part": evaluation.part,
        "members": list(results.member_names),
        "strange": list(results.ood_scores),
        "others": list(results.others),
        "counts": dict(results.counts),
    }
    schema = columns(evaluation, np.arange(0)).schema.with_metadata({ABOUT: json.dumps(about)})
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, count, CHUNK):
            block = columns(evaluation, np.arange(start, min(count, start + CHUNK)))
            writer.write_table(block.cast(schema))
    return count


def columns(evaluation: Evaluation, pairs: Ints) -> pa.Table:
    """The rows of some pairs."""
    e, s, t = evaluation.results, evaluation.results.scored, evaluation.temperature
    a, b, group = s.first[pairs], s.second[pairs], s.group[s.first[pairs]]
    margin = s.reward[a] - s.reward[b]
    number, first, second = e.record[group], e.place[a], e.place[b]
    names = [f"{n}:{i}:{j}" for n, i, j in zip(number, first, second, strict=True)]
    found: dict[str, Any] = {
        "example_id": pa.array(names, pa.string()),
        "record": pa.array(number, pa.int64()),
        "a": pa.array(first, pa.int64()),
        "b": pa.array(second, pa.int64()),
        "prompt_id": _names(e.prompt_id, group),
        "prompt_hash": _names(e.prompt_hash, group),
        "domain": _names(s.domains, s.domain[group]),
        "part": pa.array([evaluation.part] * len(pairs), pa.string()),
        "annotators": pa.array([e.annotator_sets[c] for c in e.annotators[group]], pa.list_(pa.string())),
        "win_prob": s.win_prob[pairs],
        "tie_prob": s.tie_prob[pairs],
        "votes": s.votes[pairs],
        "margin": margin,
        "p_calibrated": expit(margin / t),
        "tied": margin == 0,
        "even_votes": np.abs(s.win_prob[pairs] - 0.5) < EVEN,
        "saturated": np.abs(margin / t) > 10,
        "trimmed": e.trimmed[group],
    }
    for side, item in (("a", a), ("b", b)):
        of_side: dict[str, Any] = {
            "completion": _names(e.completion_id, item),
            "source": _names(e.sources, e.source[item]),
            "reward": s.reward[item],
            "members": pa.array(list(e.members[:, item].T), pa.list_(pa.float64())),
            "gold": pa.array(e.gold[item], pa.float64(), from_pandas=True),
            "rank": pa.array(s.rank[item], pa.int64()),
            "chars": s.length[item].astype(np.int64),
            "tokens": np.nan_to_num(e.tokens[item]).astype(np.int64),
            "finished": e.finished[item],
        }
        further = {name.replace(" ", "_"): v[item] for name, v in (*e.ood_scores.items(), *e.others.items())}
        found |= {f"{name}_{side}": values for name, values in (of_side | further).items()}
    if len(e.members) > 1:
        found["ens_std"] = (e.members[:, a] - e.members[:, b]).std(0, ddof=1)
    return pa.table(found)


def _names(names: Sequence[str], places: Ints) -> pa.Array:
    """The names at these places; none at -1."""
    return pa.array([None if i < 0 else names[i] for i in places], pa.string())


def read_examples(path: str | Path, *, samples: int = 1000, seed: int = 0) -> Evaluation:
    """What the sections of a report read, from a file of scores; shifts, probes and texts are not in it.

    Args:
        path: a Parquet file as above.
        samples, seed: of the bootstrap.

    Raises:
        RecordError: no such file, not Parquet, a missing column, a value out of its range, a reward or length that is
            no finite number; the message names file, row (from 0) and column.
    """
    table = _table(Path(path))
    about = json.loads((table.schema.metadata or {}).get(ABOUT, b"{}"))
    name = about.get("name", Path(path).stem)
    found = _Columns(str(path), table).results(about, name)
    temperatures: dict[str, float] = about.get("temperatures", {})
    temperature = temperatures.get(name, 1.0)
    return Evaluation(
        name=name,
        results=found,
        temperature=temperature,
        metrics=evaluate(found.scored, temperature=temperature, bootstrap=samples, seed=seed),
        temperatures=temperatures,
        uncalibrated=frozenset(about.get("uncalibrated", (name, *found.others))),
        part=about.get("part", "all"),
        samples=samples,
        seed=seed,
    )


def _table(path: Path) -> pa.Table:
    if not path.is_file():
        raise RecordError("no such file", place=str(path), remedy="the examples.parquet of a report")
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise RecordError(f"is not Parquet: {error}", place=str(path)) from error
    missing = [name for name in NEEDED if name not in table.column_names]
    if missing:
        raise RecordError("missing", place=str(path), key=missing[0], remedy=f"every file needs {', '.join(NEEDED)}")
    if not table.num_rows:
        raise RecordError("holds no pair", place=str(path))
    return table


@dataclass
class _Columns:
    """Rows of pairs [P] to groups [G] and completions [N]."""

    place: str
    table: pa.Table

    def __post_init__(self) -> None:
        rows = self.table.num_rows
        places: dict[str, Any] = {"record": np.arange(rows), "a": 0, "b": 1}
        self.record, a, b = (self._column(*each).astype(np.int64) for each in places.items())
        self.width = int(max(a.max(), b.max())) + 1
        keys = np.concatenate([self.record * self.width + a, self.record * self.width + b])
        self.item, self.row, side = np.unique(keys, return_index=True, return_inverse=True)
        self.first, self.second = np.split(side, 2)
        self.of_group, self.group_row = np.unique(self.record, return_index=True)
        self.group = np.searchsorted(self.of_group, self.item // self.width)
        self.prompts = self._group_names("prompt_hash" if "prompt_hash" in self.table.column_names else "prompt_id")

    def results(self, about: Mapping[str, Any], name: str) -> Results:
        """Everything in its columns."""
        detectors, others = about.get("strange", ()), about.get("others", self._further())
        rewards = self._finite("reward")
        members = self._lists("members") if "members_a" in self.table.column_names else rewards[None]
        source, sources = _coded(self._sides("source"), len(self.item))
        who, sets = self._annotators()
        return Results(
            scored=self._scored(rewards),
            record=self.of_group,
            place=self.item % self.width,
            prompt_id=self._group_names("prompt_id"),
            completion_id=self._sides("completion", [str(p) for p in (self.item % self.width).tolist()]),
            prompt_hash=self.prompts,
            source=source,
            sources=sources,
            annotators=who,
            annotator_sets=sets,
            tokens=self._both("tokens", 0.0),
            trimmed=self._column("trimmed", 0.0)[self.group_row].astype(bool),
            finished=self._both("finished", 1.0).astype(bool),
            gold=self._both("gold", np.nan),
            members=members,
            member_names=tuple(about.get("members", [name])),
            ood_scores={n: self._both(n.replace(" ", "_")) for n in detectors},
            others={n: self._finite(n.replace(" ", "_")) for n in others},
            counts=about.get("counts", {"records": len(self.of_group)}),
        )

    def _scored(self, reward: Floats) -> Scored:
        win_prob = self._column("win_prob")
        wrong = np.flatnonzero(~((win_prob >= 0) & (win_prob <= 1)))
        if len(wrong):
            raise RecordError(
                f"is {_said(win_prob[wrong[0]])}, not in 0..1", place=f"{self.place}:row {wrong[0]}", key="win_prob",
                remedy="the share of the votes for a",
            )  # fmt: skip
        order = np.argsort(self.record, kind="stable")  # whoever wrote the file may have mixed the rows
        first, second, win_prob = self.first[order], self.second[order], win_prob[order]
        names = self._group_names("domain") if "domain" in self.table.column_names else []
        domain, domains = _coded(names, len(self.of_group))
        if "rank_a" in self.table.column_names:
            rank = self._both("rank").astype(np.int64)
        else:
            rank = ranks(self.group, first, second, win_prob)
        return Scored(
            group=self.group,
            reward=reward,
            length=self._finite("chars"),
            rank=rank,
            prompt=_coded(self.prompts, len(self.of_group))[0],
            domain=domain,
            first=first,
            second=second,
            win_prob=win_prob,
            tie_prob=self._column("tie_prob", 0.0)[order],
            votes=self._column("votes", 1.0)[order],
            domains=domains,
        )

    def _further(self) -> list[str]:
        """Names of columns in pairs that say nothing this project knows: rewards of other models."""
        names = self.table.column_names
        known = {"reward", *OF_ANSWERS}
        return [n[:-2] for n in names if n.endswith("_a") and f"{n[:-2]}_b" in names and n[:-2] not in known]

    def _column(self, name: str, default: float | Ints | None = None) -> Floats:
        """A column of numbers [P]; a null is NaN."""
        if name not in self.table.column_names and default is not None:
            return np.full(self.table.num_rows, default, dtype=np.float64)
        column = self.table[name]
        try:
            return np.asarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
        except pa.ArrowInvalid as error:
            raise RecordError(f"is not numbers: {error}", place=self.place, key=name) from error

    def _both(self, name: str, default: float | None = None) -> Floats:
        """A column of completions [N] from its two sides. Raises RecordError where an answer has two values."""
        sides = np.concatenate([self._column(f"{name}_{side}", default) for side in "ab"])
        found: Floats = sides[self.row]
        again = found[np.concatenate([self.first, self.second])]
        wrong = np.flatnonzero(~((sides == again) | (np.isnan(sides) & np.isnan(again))))
        if len(wrong):
            row = int(wrong[0]) % self.table.num_rows
            raise RecordError("is not what it is in another row of the same answer", place=f"{self.place}:row {row}",
                              key=f"{name}_a", remedy="`record`, `a` and `b` name an answer")  # fmt: skip
        return found

    def _finite(self, name: str) -> Floats:
        """The same where every answer needs a finite number. Raises RecordError with the first row without one."""
        found = self._both(name)
        for side in "ab":
            column = self._column(f"{name}_{side}")
            bad = np.flatnonzero(~np.isfinite(column))
            if len(bad):
                raise RecordError(
                    f"is {_said(column[bad[0]])}, and {len(bad)} of {len(column)} rows are no finite number",
                    place=f"{self.place}:row {bad[0]}", key=f"{name}_{side}",
                    remedy="leave these pairs out, or score them again",
                )  # fmt: skip
        return found

    def _lists(self, name: str) -> Floats:
        """[M, N] from lists of M numbers."""
        sides = [self.table[f"{name}_{side}"].combine_chunks().flatten().to_numpy() for side in "ab"]
        rows = np.concatenate(sides).reshape(2 * self.table.num_rows, -1)
        return np.ascontiguousarray(rows[self.row].T)

    def _sides(self, name: str, default: Sequence[Any] = ()) -> Sequence[Any]:
        """Names [N] from two columns; the default where the file has none."""
        if f"{name}_a" not in self.table.column_names:
            return default
        sides = [self.table[f"{name}_{side}"].cast(pa.string()) for side in "ab"]
        both = pa.chunked_array([chunk for side in sides for chunk in side.chunks], pa.string())
        found: list[Any] = both.take(pa.array(self.row)).to_pylist()
        return found

    def _group_names(self, name: str) -> list[Any]:
        found: list[Any] = self.table[name].cast(pa.string()).take(pa.array(self.group_row)).to_pylist()
        return found

    def _annotators(self) -> tuple[Ints, tuple[tuple[str, ...], ...]]:
        if "annotators" not in self.table.column_names:
            return np.zeros(len(self.of_group), np.int64), ((),)
        lists = self.table["annotators"].take(pa.array(self.group_row)).to_pylist()
        codes: dict[tuple[str, ...], int] = {}
        found = [codes.setdefault(tuple(names), len(codes)) for names in lists]
        return np.array(found, dtype=np.int64), tuple(codes)


def _said(value: float) -> str:
    """A number that cannot be used, in words."""
    return "missing or NaN" if np.isnan(value) else f"{value:g}"


def ranks(group: Ints, first: Ints, second: Ints, win_prob: Floats) -> Ints:
    """Rank [N] of every completion in its group, as `rlhf.labels.orders.ranked` has it: -1 where no order is total.

    Args:
        group: [N], ascending.
        first, second, win_prob: [P] of the pairs, in order of their groups.
    """
    found, of_pair = _by_share(group, first, second, win_prob), group[first]
    answers, judged = np.bincount(group), np.bincount(of_pair)
    for g in np.flatnonzero(judged < answers * (answers - 1) // 2):
        (start, end), (low, high) = np.searchsorted(group, [g, g + 1]), np.searchsorted(of_pair, [g, g + 1])
        a, b = first[low:high] - start, second[low:high] - start
        wins, observed = np.zeros((2, end - start, end - start))
        wins[a, b], wins[b, a] = win_prob[low:high], 1 - win_prob[low:high]
        observed[a, b] = observed[b, a] = 1
        found[start:end] = ranked(wins, observed > 0)
    return found


def _by_share(group: Ints, first: Ints, second: Ints, win_prob: Floats) -> Ints:
    """Place [N] in the group by mean share of the votes (Borda): right where every two were compared."""
    size = len(group)
    total = np.bincount(first, win_prob, size) + np.bincount(second, 1 - win_prob, size)
    share = total / (np.bincount(first, minlength=size) + np.bincount(second, minlength=size))
    order = np.lexsort((-share, group))
    new_group = np.diff(group[order], prepend=-1) != 0
    step = np.cumsum(~new_group & (np.diff(share[order], prepend=0) < -EQUAL))
    found = np.empty(size, np.int64)
    found[order] = step - step[np.flatnonzero(new_group)[np.cumsum(new_group) - 1]]
    return found


def _coded(names: Sequence[str | None], size: int) -> tuple[Ints, tuple[str, ...]]:
    """Codes in order of appearance, -1 for no name, and the names; all -1 where there are none."""
    if not len(names):
        return np.full(size, -1, np.int64), ()
    codes, found = pd.factorize(np.array(names, dtype=object))
    return codes.astype(np.int64), tuple(found.tolist())
