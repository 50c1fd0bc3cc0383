"""examples.parquet: one row per labelled pair, what every later question can be answered from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.special import expit

from rlhf.evaluation.metrics.pair_credit import EVEN
from rlhf.evaluation.report.section import Evaluation
from rlhf.stats.arrays import Ints

CHUNK = 50_000
"""Pairs per row group."""
ABOUT = b"rlhf"
"""Key of the file's own words, as JSON: which model, its temperature, which columns are what."""
OF_ANSWERS = ("completion", "source", "reward", "members", "gold", "chars", "tokens", "finished", "rank")
"""Columns that come twice, `_a` and `_b`; all others that do are detectors or other models."""


def write_examples(path: Path, evaluation: Evaluation) -> int:
    """Write the file, a block of pairs at a time; returns how many rows. `rlhf.evaluation.cached` reads it.

    example_id    record, a, b: number of the record in the data and places of the two answers
    prompt_id, prompt_hash, completion_a, completion_b, domain, part
    source_a, source_b    who wrote them; annotators: who voted on the record
    win_prob      share of the votes for a, ties one half; tie_prob, votes, and gold_a, gold_b where they are known
    rank_a, rank_b    places of the answers by the votes, 0 = best, -1 = not ranked
    reward_a, reward_b, margin (a less b), p_calibrated, tied, saturated
    members_a, members_b  lists; ens_std: standard deviation of the members' margins
    <detector>_a, <detector>_b    out-of-distribution scores
    <model>_a, <model>_b          rewards of the other models
    chars_*, tokens_*, trimmed (the prompt lost its beginning), finished_* (False: the answer was cut)
    """
    count = len(evaluation.results.scored.first)
    schema = columns(evaluation, np.arange(0)).schema.with_metadata({ABOUT: json.dumps(_about(evaluation))})
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, count, CHUNK):
            block = columns(evaluation, np.arange(start, min(count, start + CHUNK)))
            writer.write_table(block.cast(schema))
    return count


def _about(evaluation: Evaluation) -> dict[str, Any]:
    """What the columns do not say."""
    results = evaluation.results
    return {
        "name": evaluation.name,
        "temperatures": {evaluation.name: evaluation.temperature} | dict(evaluation.temperatures),
        "uncalibrated": sorted(evaluation.uncalibrated),
        "part": evaluation.part,
        "members": list(results.member_names),
        "strange": list(results.ood_scores),
        "others": list(results.others),
        "counts": dict(results.counts),
    }


def columns(evaluation: Evaluation, pairs: Ints) -> pa.Table:
    """The rows of some pairs."""
    e, s = evaluation.results, evaluation.results.scored
    a, b, group = s.first[pairs], s.second[pairs], s.group[s.first[pairs]]
    margin = s.reward[a] - s.reward[b]
    number, first, second = e.record[group], e.place[a], e.place[b]
    domain = [None if code < 0 else s.domains[code] for code in s.domain[group]]
    found: dict[str, Any] = {
        "example_id": pa.array(
            [f"{n}:{i}:{j}" for n, i, j in zip(number, first, second, strict=True)], pa.string()
        ),
        "record": pa.array(number, pa.int64()),
        "a": pa.array(first, pa.int64()),
        "b": pa.array(second, pa.int64()),
        "prompt_id": _names(e.prompt_id, group),
        "prompt_hash": _names(e.prompt_hash, group),
        "domain": pa.array(domain, pa.string()),
        "part": pa.array([evaluation.part] * len(pairs), pa.string()),
        "annotators": pa.array([e.annotator_sets[c] for c in e.annotators[group]], pa.list_(pa.string())),
        "win_prob": pa.array(s.win_prob[pairs]),
        "tie_prob": pa.array(s.tie_prob[pairs]),
        "votes": pa.array(s.votes[pairs]),
        "margin": pa.array(margin),
        "p_calibrated": pa.array(expit(margin / evaluation.temperature)),
        "tied": pa.array(margin == 0),
        "even_votes": pa.array(np.abs(s.win_prob[pairs] - 0.5) < EVEN),
        "saturated": pa.array(np.abs(margin / evaluation.temperature) > 10),
        "trimmed": pa.array(e.trimmed[group]),
    }
    for side, item in (("a", a), ("b", b)):
        found[f"completion_{side}"] = _names(e.completion_id, item)
        found[f"source_{side}"] = pa.array(
            [None if c < 0 else e.sources[c] for c in e.source[item]], pa.string()
        )
        found[f"reward_{side}"] = pa.array(s.reward[item])
        found[f"members_{side}"] = pa.array(list(e.members[:, item].T), pa.list_(pa.float64()))
        found[f"gold_{side}"] = pa.array(e.gold[item], pa.float64(), from_pandas=True)
        found[f"rank_{side}"] = pa.array(s.rank[item], pa.int64())
        found[f"chars_{side}"] = pa.array(s.length[item].astype(np.int64))
        found[f"tokens_{side}"] = pa.array(np.nan_to_num(e.tokens[item]).astype(np.int64))
        found[f"finished_{side}"] = pa.array(e.finished[item])
        for name, values in (*e.ood_scores.items(), *e.others.items()):
            found[f"{name.replace(' ', '_')}_{side}"] = pa.array(values[item])
    if len(e.members) > 1:
        found["ens_std"] = pa.array((e.members[:, a] - e.members[:, b]).std(0, ddof=1))
    return pa.table(found)


def _names(names: Sequence[str], places: Ints) -> pa.Array:
    return pa.array([names[i] for i in places], pa.string())
