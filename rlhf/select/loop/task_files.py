"""Task files for people: blind, and read back to the pairs of the pool.

`tasks-0.jsonl` shows a pair's two answers in random order under neutral ids, without their sources, their meta and the
pair's own name, which may hold the name of a model: `meta.pair_id` is a digest of it. True rewards, where the data has
them (the toy world), lie apart in `tasks-0.gold.json`, for simulated annotators: people need not see them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from rlhf.records import Comparison, Completion, Vote, read, write
from rlhf.select.pool_builder import BuiltPool, on_pair

SIDES = ("c0", "c1")
"""Ids in a task file of the first and the second completion of the pair, in whatever order they stand there."""


def alias(pair_id: str) -> str:
    """The name of a pair in a task file."""
    return sha256(pair_id.encode("utf-8", "replace")).hexdigest()[:16]


def write_tasks(path: Path, built: BuiltPool, rows: Sequence[int]) -> None:
    """The pairs in these rows of the pool as blind records without votes; true rewards apart, where there are any."""
    records, gold = [], {}
    for row in rows:
        task = built.task(row)
        name = alias(str(task.meta["pair_id"]))
        shown = [Completion(side, c.text) for side, c in zip(SIDES, task.completions, strict=True)]
        known = {s: c.meta["gold"] for s, c in zip(SIDES, task.completions, strict=True) if "gold" in c.meta}
        if len(known) == len(SIDES):
            gold[name] = known
        order = np.random.default_rng(int(name, 16)).permutation(len(SIDES))
        records.append(replace(task, completions=tuple(shown[i] for i in order), meta={"pair_id": name}))
    write(path, records)
    if gold:
        path.with_suffix(".gold.json").write_text(json.dumps(gold, indent=1), encoding="utf-8")


def with_gold(path: Path) -> Iterator[Comparison]:
    """The records of a task file with the true rewards of its `.gold.json` as `meta.gold`: what can be simulated on."""
    truth = json.loads(path.with_suffix(".gold.json").read_text(encoding="utf-8"))
    for record in read(path):
        known = truth[str(record.meta["pair_id"])]
        yield replace(
            record, completions=tuple(replace(c, meta={**c.meta, "gold": known[c.id]}) for c in record.completions)
        )  # fmt: skip


def votes_on(record: Comparison, task: Comparison) -> list[Vote]:
    """The votes of an answered task on the pair it was made from, with the pair's own ids.

    A record that has the pair's own ids already, as task files had before they were blind, is taken as it is.
    """
    own = [c.id for c in task.completions]
    if record.meta.get("pair_id") == task.meta["pair_id"]:
        return on_pair(record, record.position(own[0]), record.position(own[1]))
    names = {**dict(zip(SIDES, own, strict=True)), "tie": "tie"}
    votes: Iterable[Vote] = on_pair(record, record.position(SIDES[0]), record.position(SIDES[1]))
    return [
        replace(vote, pair=(own[0], own[1]), choice=None if vote.choice is None else names[vote.choice])
        for vote in votes
    ]
