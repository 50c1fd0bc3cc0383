"""What cannot be compared is refused at the door with its key, instead of a loop that never ends or a silent choice."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from pools import pool_of, state_of

from rlhf.records import RecordError
from rlhf.select import LabelState, query
from rlhf.select.strategies.diversity import facility_location, k_centre, prompt_coverage
from rlhf.select.strategies.duels import delta_ucb, max_min_lcb
from rlhf.select.strategies.error_focused import error_focused
from rlhf.select.strategies.log_det import log_det
from rlhf.select.strategies.mixed import policy_aware, safe, without_copies
from rlhf.select.strategies.uncertainty import bald, disagreement, fisher, laplace_power


@pytest.fixture(scope="module")
def pool_and_state():
    rng = np.random.default_rng(4)
    pool = pool_of(rng)
    return pool, state_of(pool, rng)


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("key", ["features", "target", "length", "cost"])
def test_a_pool_without_finite_numbers_is_no_pool(pool_and_state, key, value):
    broken = np.array(getattr(pool_and_state[0], key), dtype=float)
    broken[7:9] = value
    with pytest.raises((RecordError, ValueError), match=rf"pool\.{key}"):
        replace(pool_and_state[0], **{key: broken})


def test_the_first_row_is_named(pool_and_state):
    features = pool_and_state[0].features.copy()
    features[[5, 9], 2] = np.nan
    with pytest.raises(RecordError, match=r"^key 'pool\.features': 2 of 120 rows are not finite, first row 5: "):
        replace(pool_and_state[0], features=features)


def test_rewards_of_members_must_be_finite(pool_and_state):
    members = rng().standard_normal((3, len(pool_and_state[0].features)))
    members[1, 11] = np.nan
    with pytest.raises(RecordError, match=r"'pool\.members': 1 of 120 rows are not finite, first row 11"):
        replace(pool_and_state[0], members=members)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"rows": [3, 3, 5]}, r"state\.rows': row 3 of the pool is there 2 times"),
     ({"rows": [-1, 3, 5]}, r"state\.rows': -1\.0 in row 0 must be 0 or more"),
     ({"share": [0.5, 1.5, 0]}, r"state\.share': 1\.5 in row 1 must be 0\.\.1"),
     ({"share": [0.5, np.nan, 0]}, r"state\.share': nan in row 1"),
     ({"votes": [1, 1]}, r"state\.votes': 2 entries for 3 rows"),
     ({"votes": [1, 1, -1]}, r"state\.votes': -1 in row 2 must be 0 or more"),
     ({"out_of_fold": [np.nan, 2, 0]}, r"state\.out_of_fold': 2\.0 in row 1")],
)  # fmt: skip
def test_labels_that_contradict_themselves_are_refused(change, said):
    given = {"rows": [1, 3, 5], "share": [0, 0.5, 1], "votes": [1, 1, 1], "out_of_fold": [np.nan, 0.5, 1]}
    posterior = LabelState.empty(3).posterior
    LabelState(*map(np.array, (given["rows"], given["share"], given["votes"])), posterior,
               np.array(given["out_of_fold"]))  # fmt: skip
    given = {key: np.array(value) for key, value in (given | change).items()}
    with pytest.raises(RecordError, match=said):
        LabelState(posterior=posterior, **given)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [({"budget": 5.0}, TypeError, r"budget=5\.0 must be a whole number"),
     ({"budget": True}, TypeError, "budget=True must be"),
     ({"budget": -1}, ValueError, "budget=-1 must be 0 or more"),
     ({"rng": 0}, TypeError, r"rng=0 must be a numpy Generator: np\.random\.default_rng"),
     ({"selector": "bald"}, TypeError, "selector='bald' must be a function"),
     ({"state": None}, TypeError, "state must be a LabelState, not None"),
     ({"state": LabelState.empty(4)}, RecordError, "head has 4 weights, the features of the pool 6 columns"),
     ({"selector": partial(safe, random_share=2)}, RecordError, r"selector\.random_share=2 must be at least 0 and at")],
)  # fmt: skip
def test_the_door_of_query(pool_and_state, change, kind, said):
    given = {
        "pool": pool_and_state[0],
        "state": pool_and_state[1],
        "budget": 5,
        "rng": rng(),
        "selector": log_det,
    } | change
    with pytest.raises(kind, match=said):
        query(given["pool"], given["state"], given["budget"], given["rng"], selector=given["selector"])


def test_rows_behind_the_end_of_the_pool(pool_and_state):
    state = replace(pool_and_state[1], rows=pool_and_state[1].rows + 1000)
    with pytest.raises(RecordError, match=r"'state\.rows': row \d+ of a pool of 180 pairs"):
        query(pool_and_state[0], state, 5, rng())


def test_whole_numbers_of_numpy_are_whole_numbers(pool_and_state):
    assert len(query(*pool_and_state, np.int64(5), rng())) == 5


@pytest.mark.parametrize(
    ("selector", "wrong"),
    [(laplace_power, {"temperature": 0}), (laplace_power, {"temperature": -1}), (fisher, {"reliability": 3}),
     (fisher, {"reliability": -1}), (fisher, {"reliability": 0}), (fisher, {"votes": 0}), (log_det, {"cap": 2}),
     (log_det, {"cost_power": -1}), (bald, {"cost_power": np.nan}), (disagreement, {"members": 1}),
     (policy_aware, {"temperature": 0}), (policy_aware, {"power": -1}), (error_focused, {"most": 0}),
     (error_focused, {"prior_pairs": -1}), (k_centre, {"sample": 0}), (facility_location, {"reference": 0}),
     (prompt_coverage, {"clusters": 0}), (delta_ucb, {"confidence": -1}), (max_min_lcb, {"confidence": -1}),
     (partial(without_copies, selector=bald), {"similarity": 2})],
)  # fmt: skip
def test_options_out_of_their_range(pool_and_state, selector, wrong):
    key = next(iter(wrong))
    with pytest.raises(RecordError, match=rf"^selector\.{key}=.* must be (at least|above) "):
        query(*pool_and_state, 5, rng(), selector=partial(selector, **wrong))
