"""The loop: the same whether it is stopped or not, no label lost or obtained twice, and honest about what it gained."""

from dataclasses import dataclass, field, replace
from functools import partial

import hydra
import numpy as np
import pytest
from blind_tasks import with_gold
from hydra import compose, initialize_config_dir

from rlhf.annotate.ai_feedback import AiFeedback
from rlhf.annotate.simulated import SimulatedAnnotators
from rlhf.assemble import CONF
from rlhf.data.splits import BalancedSplit
from rlhf.labels.aggregation import soft
from rlhf.records import RecordError, Vote, read, write
from rlhf.select import LabelState, query
from rlhf.select.features import HashedWords, Reduced
from rlhf.select.loop.budget import LabelBudget, Votes
from rlhf.select.loop.label_sources import Ai, HeldBack, Order, People, Simulated, Waiting
from rlhf.select.loop.learners import Labels, LinearLearner
from rlhf.select.loop.mlp_head import MlpLearner
from rlhf.select.loop.run import ActiveRun
from rlhf.select.loop.selector_run import Journal, JournalError, SelectorRun
from rlhf.select.pool_builder import build_pool, on_pair, skewed, with_policy
from rlhf.select.strategies.error_focused import domain_quotas
from rlhf.select.strategies.log_det import log_det
from rlhf.select.strategies.mixed import safe
from rlhf.select.strategies.selector import at_random
from rlhf.toy.qualities import ToyQualities
from rlhf.toy.world import ToyWorld

PLAN = LabelBudget(start=8, batch=6, rounds=3)


@pytest.fixture(scope="module")
def built():
    return build_pool(ToyWorld(size=120), BalancedSplit(val=0.1, test=0.3), ToyQualities(), soft, only_voted=True)


def selector_run(built, folder, *, selector=log_det, label_source=None, plan=PLAN, seed=1, learner=None):
    return SelectorRun(
        "logdet", selector, seed, built, learner or LinearLearner(), label_source or HeldBack(), soft, plan, folder
    )


def plain(results):
    return [{k: v for k, v in r.items() if k != "seconds"} for r in results]


class Killed(Exception):
    pass


@dataclass
class StopsAfter:
    """Gives so many votes in all, then dies in the middle of a round; counts what was obtained."""

    inner: HeldBack | Simulated
    left: int
    given: list[tuple[int, int]] = field(default_factory=list)
    costly: bool = False
    holds_back: bool = True

    def room(self, built):
        return self.inner.room(built)

    def votes(self, built, orders, **where):
        for row, votes in self.inner.votes(built, orders, **where):
            if self.left == 0:
                raise Killed
            self.left -= 1
            self.given.append((row, len(votes)))
            yield row, votes


@pytest.mark.parametrize("label_source", [HeldBack(), Simulated(SimulatedAnnotators)], ids=["held back", "simulated"])
@pytest.mark.parametrize(
    "votes",
    [Votes(), Votes(again=0.34, per_pair=2), Votes(per_pair=2, until_agreed=True)],
    ids=["plain", "twice", "until agreed"],
)
def test_killed_and_resumed_is_the_same_as_never_stopped(built, tmp_path, label_source, votes):
    plan = replace(PLAN, votes=votes)
    whole = plain(selector_run(built, tmp_path / "whole", label_source=label_source, plan=plan).rounds())
    given = []
    for attempt in range(30):
        dying = StopsAfter(label_source, left=2 + attempt % 3)
        try:
            results = plain(selector_run(built, tmp_path / "stopped", label_source=dying, plan=plan).rounds())
            break
        except Killed:
            pass
        finally:
            given += dying.given
    assert attempt >= 4
    assert results == whole
    assert sum(count for _, count in given) == whole[-1]["labels"]  # every vote was obtained once
    journal = [Journal(tmp_path / name / "journal.jsonl") for name in ("whole", "stopped")]
    assert [e["pairs"] for e in journal[0].of("selected")] == [e["pairs"] for e in journal[1].of("selected")]


def test_a_torn_line_is_cut_off_and_a_broken_one_is_named(built, tmp_path):
    whole = plain(selector_run(built, tmp_path / "a").rounds())
    path = tmp_path / "a" / "journal.jsonl"
    data = path.read_bytes()
    for cut in (len(data) // 3, len(data) // 2, len(data) - 4):
        path.write_bytes(data[:cut])
        assert plain(selector_run(built, tmp_path / "a").rounds()) == whole
    path.write_bytes(data[:200] + b"\n" + data[200:])
    with pytest.raises(JournalError, match=r"journal.jsonl:1: not an event"):
        Journal(path)


def test_two_processes_cannot_work_on_one_arm(tmp_path):
    first = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(JournalError, match="another process is at work"):
        Journal(tmp_path / "journal.jsonl")
    first.close()
    Journal(tmp_path / "journal.jsonl").close()


def test_budgets_are_exact_and_labels_count_votes(built, tmp_path):
    results = list(selector_run(built, tmp_path).rounds())
    assert [r["labels"] for r in results] == [8, 14, 20, 26]
    twice = list(selector_run(built, tmp_path / "b", plan=replace(PLAN, votes=Votes(again=0.5))).rounds())
    assert [r["labels"] for r in twice] == [8, 14, 20, 26]
    again = [p for e in Journal(tmp_path / "b" / "journal.jsonl").of("selected") for p in e["pairs"] if p["second"]]
    assert len(again) == 9
    assert all(p["reason"].startswith("second vote") for p in again)


def test_quotas_by_name_from_the_configuration(built, root):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["task=active", "selector=domain_quotas", "selector.shares={arithmetic:3,safety:1}"])
    state = LabelState.empty(built.pool.width)
    assert {"arithmetic", "safety"} <= set(built.domains)
    selector = hydra.utils.instantiate(cfg.selector, _convert_="all")
    found = query(built.pool, state, 8, np.random.default_rng(0), selector=selector)
    names = [built.domains[code] for code in built.pool.domain[found.indices]]
    assert (names.count("arithmetic"), names.count("safety")) == (6, 2)


def test_a_wrong_option_is_refused_before_the_first_vote_is_obtained(built, tmp_path):
    wrong = partial(domain_quotas, shares={"arithmetics": 1.0})
    counting = StopsAfter(HeldBack(), left=100)
    with pytest.raises(RecordError, match=r"selector\.shares.*arithmetics.*the domains are .*arithmetic"):
        next(selector_run(built, tmp_path, selector=wrong, label_source=counting).rounds())
    assert not counting.given
    assert not Journal(tmp_path / "journal.jsonl").of("selected")


def test_the_pool_may_run_out(tmp_path):
    small = build_pool(ToyWorld(size=20), BalancedSplit(val=0.1, test=0.4), ToyQualities(), soft, only_voted=True)
    results = list(selector_run(small, tmp_path, plan=LabelBudget(start=5, batch=25, rounds=9)).rounds())
    votes = sum(1 for held in small.held_back if held)
    assert results[-1]["labels"] == votes


def test_selectors_on_one_seed_share_first_labels_and_votes(built, tmp_path):
    first = next(selector_run(built, tmp_path / "a").rounds())
    other = next(selector_run(built, tmp_path / "b", selector=at_random).rounds())
    assert first["nll"] == other["nll"]
    orders = [Order(row, 2) for row in (3, 0, 5)]
    where = {"seed": 4, "round_": 0, "folder": tmp_path}
    for label_source in (HeldBack(), Simulated(SimulatedAnnotators)):
        forth = dict(label_source.votes(built, orders, **where))
        back = dict(label_source.votes(built, orders[::-1], **where))
        assert forth == back
        later = dict(label_source.votes(built, [Order(3, 1, already=1)], **where))
        assert later[3] == forth[3][1:2]


def test_no_prompt_of_the_test_is_ever_labelled(built, tmp_path):
    list(selector_run(built, tmp_path).rounds())
    test_prompts = set(built.pool.prompt[built.test])
    rows = {str(name): row for row, name in enumerate(built.pool.ids)}
    for event in Journal(tmp_path / "journal.jsonl").of("votes"):
        assert built.pool.prompt[rows[event["pair_id"]]] not in test_prompts
    assert not set(built.pool.prompt[built.pool.selectable]) & test_prompts


def test_people_answer_in_files_and_the_loop_goes_on(built, tmp_path):
    simulated = SimulatedAnnotators(votes_per_item=1)

    def visit():
        return list(selector_run(built, tmp_path, label_source=People(), plan=replace(PLAN, rounds=1)).rounds())

    with pytest.raises(Waiting, match=r"(?s)8 pairs wait.*annotate.py"):
        visit()
    tasks = list(read(tmp_path / "tasks-0.jsonl"))
    assert len(tasks) == 8
    assert all(len(t.completions) == 2 and not t.votes for t in tasks)
    known = list(with_gold(tmp_path / "tasks-0.jsonl"))
    write(tmp_path / "votes-0-ann.jsonl", simulated.vote(known[:5]))
    with pytest.raises(Waiting, match="3 pairs wait"):
        visit()
    rest = list(read(tmp_path / "tasks-0.jsonl"))
    assert [t.meta for t in rest] == [t.meta for t in tasks[5:]]
    write(tmp_path / "votes-0-ben.jsonl", simulated.vote(with_gold(tmp_path / "tasks-0.jsonl")))
    with pytest.raises(Waiting, match="6 pairs wait"):
        visit()
    write(tmp_path / "votes-1.jsonl", simulated.vote(with_gold(tmp_path / "tasks-1.jsonl")))
    assert [r["labels"] for r in visit()] == [8, 14]
    write(tmp_path / "votes-1.jsonl", [replace(tasks[0], meta={})])
    (tmp_path / "journal.jsonl").unlink()
    write(tmp_path / "votes-0-ann.jsonl", [replace(tasks[0], meta={})])
    with pytest.raises(ValueError, match=r"votes-0-ann.jsonl.*meta.pair_id.*tasks-0"):
        visit()


def test_task_files_are_blind_and_votes_come_back_to_the_right_answers(built, tmp_path):
    """Everybody votes for the answer of higher true reward; that comes back, whatever the order shown."""
    rows = np.flatnonzero(built.pool.selectable)[:12].tolist()
    orders = [Order(row, 1) for row in rows]
    where = {"seed": 0, "round_": 0, "folder": tmp_path}
    with pytest.raises(Waiting):
        list(People().votes(built, orders, **where))
    text = (tmp_path / "tasks-0.jsonl").read_text()
    assert not any(word in text for word in ('"gold"', '"qualities"', *map(str, built.pool.ids[rows])))
    shown = [(c, r) for r in read(tmp_path / "tasks-0.jsonl") for c in r.completions]
    assert all(not c.source and not c.meta and set(r.meta) == {"pair_id"} for c, r in shown)
    known = list(with_gold(tmp_path / "tasks-0.jsonl"))
    firsts = {record.completions[0].id for record in known}
    assert firsts == {"c0", "c1"}, "the order is drawn"
    voted = []
    for number, record in enumerate(known):
        one, other = record.completions
        better = max(record.completions, key=lambda c: c.meta["gold"]).id
        vote = Vote("ann", pair=(one.id, other.id), choice=better if number else "tie", seconds=2.0)
        voted.append(replace(record, votes=(vote,)))
    write(tmp_path / "votes-0.jsonl", voted)
    for place, (row, (vote,)) in enumerate(People().votes(built, orders, **where)):
        task = built.task(row)
        assert vote.pair == tuple(c.id for c in task.completions)
        assert vote.choice == (max(task.completions, key=lambda c: c.meta["gold"]).id if place else "tie")
    assert place == 11


def test_answers_to_task_files_that_were_not_blind_still_count(built, tmp_path):
    row = int(np.flatnonzero(built.pool.selectable)[0])
    answered = list(SimulatedAnnotators(votes_per_item=1).vote([built.task(row)]))
    write(tmp_path / "votes-0.jsonl", answered)
    ((found, votes),) = People().votes(built, [Order(row, 1)], seed=0, round_=0, folder=tmp_path)
    assert (found, votes) == (row, on_pair(answered[0], 0, 1))


def test_votes_of_round_ten_are_not_taken_for_round_one(built, tmp_path):
    orders = [Order(int(row), 1) for row in np.flatnonzero(built.pool.selectable)[:2]]
    where = {"seed": 0, "round_": 1, "folder": tmp_path}
    answered = list(SimulatedAnnotators(votes_per_item=1).vote([built.task(o.row) for o in orders]))
    write(tmp_path / "votes-1-ann.jsonl", answered[:1])
    write(tmp_path / "votes-10.jsonl", answered)
    given = People().votes(built, orders, **where)
    row, votes = next(given)
    assert (row, len(votes)) == (orders[0].row, 1)
    with pytest.raises(Waiting, match="1 pairs wait"):
        next(given)


@dataclass
class Longer:
    """A judge that prefers the longer answer."""

    name: str = "longer"
    asked: int = 0

    def prefer(self, prompt, first, second, principle=""):
        self.asked += 1
        return 0.9 if len(first) > len(second) else 0.1

    def usage(self):
        return {}


def test_ai_judges_are_asked_once_per_pair_whatever_happens(built, tmp_path):
    judge = Longer()
    label_source = Ai(AiFeedback([judge], parallel=1))
    dying = StopsAfter(label_source, left=5)
    with pytest.raises(Killed):
        list(selector_run(built, tmp_path, label_source=dying).rounds())
    results = list(selector_run(built, tmp_path, label_source=label_source).rounds())
    assert results[-1]["labels"] == 26
    assert judge.asked <= 2 * (26 + 2)  # both orders; what was under way when it died is asked again
    events = Journal(tmp_path / "journal.jsonl").of("votes")
    assert all(e["votes"][0]["kind"] == "ai" and e["votes"][0]["p"] in (0.9, 0.1) for e in events)


def test_costly_votes_are_asked_for_one_selector_only(built, tmp_path):
    both = {"safe": safe, "random": at_random}
    run = ActiveRun(
        tmp_path, None, lambda seed: built, both, [3, 4], LinearLearner(), Ai(AiFeedback([Longer()])), soft, PLAN
    )
    assert (list(run.selectors), list(run.seeds)) == (["safe"], [3])


def test_a_lopsided_pool_keeps_one_domain_whole(built):
    thin = skewed(built, 0.1, seed=0)
    before, after = (np.bincount(w.pool.domain[w.pool.selectable], minlength=6) for w in (built, thin))
    assert sum(before == after) == 1
    assert after.sum() < before.sum() * 0.45
    np.testing.assert_array_equal(thin.test, built.test)
    assert skewed(built, 0.1, seed=0).pool.selectable.tolist() == thin.pool.selectable.tolist()


def test_votes_of_rankings_become_choices_on_pairs():
    records = [r for r in ToyWorld(size=60).records() if any(v.ranking for v in r.votes)]
    record = records[0]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        share = soft(replace(record, completions=(record.completions[i], record.completions[j]),
                             votes=tuple(on_pair(record, i, j)))).win_prob[0, 1]  # fmt: skip
        assert share == pytest.approx(soft(record).win_prob[i, j])


def test_a_head_on_the_true_qualities_learns_and_a_network_too(built):
    rows = np.flatnonzero(built.pool.selectable)
    share = np.array([soft(replace(built.task(r), votes=tuple(built.held_back[r]))).win_prob[0, 1] for r in rows])
    labels = Labels(rows, share, np.ones(len(rows)))
    for learner in (LinearLearner(), MlpLearner(steps=60, members=2)):
        trained = learner(built.pool, labels, 0)
        difference = built.pool.reward_differences(trained.rewards, built.test)
        decided = built.test_share != 0.5
        right = (difference > 0) == (built.test_share > 0.5)
        assert right[decided].mean() > 0.65
        assert len(trained.state.out_of_fold) == len(rows)
        assert trained.nll < np.log(2)
    assert trained.pool.members.shape == (2, len(built.pool.features))


def test_a_policys_samples_become_the_target(built):
    moved = with_policy(built, ToyWorld(size=9, seed=3).records())
    assert moved.pool.target.shape[1] == built.pool.width
    assert len(moved.policy) == len(moved.pool.target) == len(moved.pool.target_prompt)
    assert len(set(moved.pool.target_prompt)) == 9


@pytest.mark.parametrize("cached", [False, True])
def test_word_features_of_a_policy_lie_in_the_pools_basis(tmp_path, cached):
    given = (ToyWorld(size=60), BalancedSplit(val=0.1, test=0.3))
    pools = []
    for part in (slice(0, 20), slice(20, 40)):  # the second has the pool from the cache, without its basis
        words = Reduced(HashedWords(dims=32), dims=8, length=0.5, cache=tmp_path if cached else None)
        built = build_pool(*given, words, soft, only_voted=True)
        pools.append(with_policy(built, built.records[part]))
    for moved in pools:
        place = {(a.prompt, a.text): row for row, a in enumerate(moved.answers)}
        rows = [place[a.prompt, a.text] for a in moved.policy]
        np.testing.assert_allclose(moved.pool.target, moved.pool.features[rows], atol=1e-4)


@pytest.mark.parametrize("learner", [LinearLearner(), MlpLearner(steps=20, members=2, warm_until=4)])
def test_coverage_of_the_policy_is_measured_with_every_kind_of_head(built, tmp_path, learner):
    moved = with_policy(built, ToyWorld(size=9, seed=3).records())
    plan = LabelBudget(start=30, batch=6, rounds=1)
    for result in selector_run(moved, tmp_path, learner=learner, plan=plan, selector=at_random).rounds():
        assert 0 <= result["shift"]["coverage/policy"] <= 1


def test_features_are_cached_and_fitted_without_test_answers(tmp_path):
    calls = []

    def embed(texts):
        calls.append(len(texts))
        return np.array([[len(a), a.count("e"), a.count("a"), 1.0] for _, a in texts])

    made = [
        build_pool(ToyWorld(size=60), BalancedSplit(val=0.2, test=0.2, seed=s), Reduced(embed, dims=3, cache=tmp_path),
                    soft, only_voted=True).pool for s in (0, 0, 1)
    ]  # fmt: skip
    assert len(calls) == 1  # equal data, whatever the split, is embedded once
    np.testing.assert_array_equal(made[0].features, made[1].features)
    train = made[0].z(np.flatnonzero(made[0].selectable))
    assert (train**2).sum(1).mean() == pytest.approx(1.0, rel=0.7)  # pairs weigh prompts by k (k - 1) / 2
