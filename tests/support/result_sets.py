"""Results around a scored set, for tests of what reads results."""

import numpy as np

from rlhf.evaluation.metrics.scored import Results, Scored


def results_of(scored: Scored, *, record=None, place=None, members=None, ood_scores=None, others=None) -> Results:
    groups, n = len(scored.prompt), len(scored.reward)
    starts = np.searchsorted(scored.group, np.arange(groups))
    members = scored.reward[None] if members is None else members
    return Results(
        scored=scored,
        record=np.arange(groups) if record is None else np.asarray(record),
        place=np.arange(n) - starts[scored.group] if place is None else np.asarray(place),
        prompt_id=[f"p{i}" for i in range(groups)],
        completion_id=[f"c{i}" for i in range(n)],
        prompt_hash=[f"h{p}" for p in scored.prompt],
        source=np.arange(n) % 2,
        sources=("one", "two"),
        annotators=np.zeros(groups, int),
        annotator_sets=(("ann", "ben"),),
        tokens=scored.length.astype(float),
        trimmed=np.zeros(groups, bool),
        finished=np.ones(n, bool),
        gold=np.full(n, np.nan),
        members=members,
        member_names=tuple(f"m{i}" for i in range(len(members))),
        ood_scores=ood_scores or {},
        others=others or {},
        counts={"records": groups},
    )
