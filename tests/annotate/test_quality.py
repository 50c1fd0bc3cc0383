"""Quality of annotators: what a simulated pool is known to be must be seen, and honest pools must not be flagged."""

import json
from dataclasses import replace

import numpy as np
import pytest

from rlhf.annotate.agreement import krippendorff_alpha
from rlhf.annotate.job import Job, report_only
from rlhf.annotate.judges import gold_of
from rlhf.annotate.quality import bonus, quality, rows
from rlhf.annotate.quality import flags as flags_of
from rlhf.annotate.report import ReportOptions, disputed, next_votes, report, spot_check
from rlhf.annotate.simulated import SimulatedAnnotators, gold_in_meta
from rlhf.data.importers import jsonl
from rlhf.data.source import Source
from rlhf.labels.vote_table import collect
from rlhf.records import Comparison, Completion, RecordError, Vote, read, write
from rlhf.toy.world import ToyWorld


def tasks(size=300):
    return [replace(r, votes=()) for r in ToyWorld(size=size, min_completions=2, max_completions=2).records()]


def flags(size=300, **options):
    pool = SimulatedAnnotators(people=20, votes_per_item=5, careless=0.0, **options)
    vote_table = collect(pool.vote(tasks(size))).vote_table()
    found = flags_of(quality(vote_table))
    return {name: set(found[a]) for a, name in enumerate(vote_table.annotators)}


def test_each_kind_of_bad_annotator_gets_its_flag():
    found = flags(size=1500, clickers=0.2, patterns=0.2, colluders=0.2)
    assert all("fast" in f for name, f in found.items() if name.startswith("clicker"))
    assert all("pattern" in f for name, f in found.items() if name.startswith("pattern"))
    assert all("copies" in f for name, f in found.items() if name.startswith("colluder"))


def test_careful_annotators_are_left_alone():
    found = flags(position_bias=0.0)
    assert sum(bool(f) for f in found.values()) <= 1


def test_gold_accuracy_reads_the_known_answers_and_flags_who_fails_them():
    completions = (Completion("x", "one"), Completion("y", "two"))
    votes = [Vote(who, pair=("x", "y"), choice=choice, gold=True) for who, choice in (("good", "x"), ("bad", "y"))]
    records = [Comparison(f"p{i}", f"q{i}", completions, tuple(votes), meta={"gold": "x"}) for i in range(8)]
    vote_table = collect(records).vote_table()
    q = quality(vote_table)
    found = {r["annotator"]: r for r in rows(q)}
    assert found["good"]["gold_accuracy"] == 1
    assert found["good"]["flags"] == ""
    assert found["bad"]["gold_accuracy"] == 0
    assert found["bad"]["flags"] == "gold"
    assert np.isnan(q.leave_one_out).all(), "gold checks are no work to compare annotators by"
    assert bonus(q, per_vote=1.0).tolist()[1] == 0


@pytest.mark.parametrize(("form", "size"), [("pair", 2), ("pair", 4), ("ranking", 3), ("likert", 3)])
def test_simulated_checks_are_scored_against_the_truth_and_catch_clickers(form, size):
    world = ToyWorld(size=600, min_completions=size, max_completions=size)
    bare = [replace(r, votes=()) for r in world.records()]
    pool = SimulatedAnnotators(
        people=12, votes_per_item=5, form=form, clickers=0.25, careless=0.0, length_bias=0.0, gold_items=1.0
    )
    annotated = list(pool.vote(bare))
    for record in annotated:
        gold = dict(zip([c.id for c in record.completions], gold_in_meta(record), strict=True))
        checked = any(v.gold for v in record.votes)
        assert ("gold" in record.meta) == checked
        assert not checked or record.meta["gold"] == max(gold, key=lambda i: gold[i])
    q = quality(collect(annotated).vote_table())
    found = rows(q)
    clickers = [r for r in found if r["annotator"].startswith("clicker")]
    careful = [r for r in found if r["annotator"].startswith("careful")]
    assert min(r["gold_votes"] for r in found) >= 20
    assert max(r["gold_accuracy"] for r in clickers) < min(r["gold_accuracy"] for r in careful)
    assert all("gold" in r["flags"] for r in clickers)
    assert not any("gold" in r["flags"] for r in careful)


def test_no_checks_are_cast_without_gold_items_and_known_answers_are_always_checks():
    bare = tasks(20)
    assert not any(v.gold for r in SimulatedAnnotators().vote(bare) for v in r.votes)
    known = [replace(r, meta={**r.meta, "gold": r.completions[0].id}) for r in bare]
    assert all(v.gold for r in SimulatedAnnotators().vote(known) for v in r.votes)


def test_a_reward_model_can_be_the_truth(monkeypatch):
    class Longest:
        def score(self, prompt, completions):
            return [float(len(c)) for c in completions]

    monkeypatch.setattr("rlhf.load", lambda folder: {"runs/x": Longest()}[folder])
    gold = gold_of("runs/x")
    assert [gold(r) for r in tasks(3)] == [[len(c.text) for c in r.completions] for r in tasks(3)]
    assert gold_of(None) is gold_in_meta


def test_leave_one_out_by_hand():
    completions = (Completion("x", "one"), Completion("y", "two"))

    def vote(who, choice):
        return Vote(who, pair=("x", "y"), choice=choice)

    first = Comparison("1", "1", completions, (vote("a", "x"), vote("b", "x"), vote("c", "y")))
    second = Comparison("2", "2", completions, (vote("a", "y"), vote("b", "y"), vote("c", "y")))
    q = quality(collect([first, second]).vote_table())
    # unit 1: without a, x and y tie: no majority; the same for b; c is against x, x. unit 2: everybody agrees
    assert q.leave_one_out.tolist() == [1.0, 1.0, 0.5]
    assert q.majority.tolist() == [1.0, 1.0, 0.5]


def test_the_next_vote_goes_where_few_voted_and_disagree():
    completions = (Completion("x", "one"), Completion("y", "two"))

    def record(name, choices):
        votes = tuple(Vote(f"w{i}", pair=("x", "y"), choice=c) for i, c in enumerate(choices))
        return Comparison(name, name, completions, votes)

    records = [record("sure", "xxxxx"), record("split", "xy"), record("two alike", "xx"), record("even", "xyxyxy")]
    order = [row["prompt_id"] for row in next_votes(collect(records).vote_table(), 10)]
    assert order == ["split", "two alike", "even", "sure"]
    assert [r.prompt_id for r in disputed(records, 0.6)] == ["split", "even"]


def test_agreement_on_a_tie_is_agreement_and_needs_no_further_vote():
    completions = (Completion("x", "one"), Completion("y", "two"))
    records = [
        Comparison(name, name, completions, tuple(Vote(f"w{i}", pair=("x", "y"), choice=c) for i, c in enumerate(said)))
        for name, said in {"all tie": ["tie"] * 3, "all x": ["x"] * 3, "mixed": ["x", "tie", "y"]}.items()
    ]
    order = [row["prompt_id"] for row in next_votes(collect(records).vote_table(), 10)]
    assert order == ["mixed", "all x", "all tie"]


def test_the_value_of_a_vote_is_the_variance_that_it_moves():
    rng = np.random.default_rng(0)
    counts, worth = np.array([4, 1, 2]), np.array([1.0, 0.5, 0.0])
    said = [c for c, n in zip(("x", "tie", "y"), counts, strict=True) for _ in range(n)]
    votes = tuple(Vote(f"w{i}", pair=("x", "y"), choice=c) for i, c in enumerate(said))
    record = Comparison("p", "p", (Completion("x", "one"), Completion("y", "two")), votes)
    truth = rng.dirichlet(counts + 1, size=200_000)
    new = (rng.random((len(truth), 1)) > truth.cumsum(1)).sum(1)
    after = (counts + 1 + np.eye(3)[new]) @ worth / (counts.sum() + 4)
    (row,) = next_votes(collect([record]).vote_table(), 1)
    assert row["value"] == pytest.approx(after.var(), rel=0.02)


def test_lists_name_the_record_where_prompts_share_an_id():
    texts = [("one", "two"), ("three", "four")]
    records = [
        Comparison("same", "q", (Completion("x", a), Completion("y", b)), (Vote("w", pair=("x", "y"), choice="x"),))
        for a, b in texts
    ]
    vote_table = collect(records).vote_table()
    assert sorted(row["record"] for row in next_votes(vote_table, 10)) == [1, 2]
    assert sorted(row["record"] for row in spot_check(vote_table, 5, seed=0)) == [1, 2]


def test_two_reports_in_one_folder_keep_their_lists(tmp_path):
    file = tmp_path / "tasks.jsonl"
    write(file, tasks(10))
    for name, people in (("a", 3), ("b", 4), ("a", 3)):
        out = tmp_path / f"{name}.jsonl"
        out.unlink(missing_ok=True)
        SimulatedAnnotators(people=people)(Job(ToyWorld(), file, out, ReportOptions(samples=20)))
    lists = {p.name: len(p.read_text().splitlines()) - 1 for p in tmp_path.glob("*annotators.csv")}
    assert lists == {"annotators.csv": 3, "b.jsonl.report.annotators.csv": 4}
    assert (tmp_path / "b.jsonl.report.adjudicate.jsonl").exists()


def test_agreement_on_how_much_better_reads_margins_and_ties_alone():
    def vote(who, s):
        return Vote(who, pair=("x", "y"), choice="tie" if s == 0 else "xy"[s > 0], margin=abs(s))

    said = [[-3, -3], [-1, 1], [0, 2], [2, 2], [3, 1]]
    texts = (Completion("x", "one"), Completion("y", "two"))
    plain = Vote("w9", pair=("x", "y"), choice="x")
    records = [
        Comparison(f"p{n}", f"q {n}", texts, (vote("w0", a), vote("w1", b), plain)) for n, (a, b) in enumerate(said)
    ]
    flat = report(collect(records), ReportOptions(samples=20))
    values = [-3, -1, 0, 1, 2, 3]
    table = np.array([[of_unit.count(v) for v in values] for of_unit in said])
    assert flat["graded/n_verdicts"] == 10
    for level in ("ordinal", "interval"):
        assert flat[f"graded/{level}"] == pytest.approx(krippendorff_alpha(table, level=level, values=values))
    ungraded = report(collect([replace(records[0], votes=(plain,))]), ReportOptions(samples=20))
    assert not any(key.startswith("graded") for key in ungraded)


def test_a_report_tells_of_rows_that_it_could_not_read(tmp_path, capsys):
    votes = tmp_path / "votes.jsonl"
    write(votes, SimulatedAnnotators().vote(tasks(10)))
    with votes.open("a") as file:
        file.write("torn\n")
    source = Source(importer=jsonl, path=str(votes), on_error="skip")
    report_only(Job(source, None, tmp_path / "report.json", ReportOptions(samples=20)))
    assert f"1 rows could not be read, the first: {votes}:11" in capsys.readouterr().out


def test_spot_checks_take_the_same_number_from_everybody():
    vote_table = collect(SimulatedAnnotators().vote(tasks(40))).vote_table()
    found = spot_check(vote_table, 3, seed=0)
    assert {sum(r["annotator"] == who for r in found) for who in vote_table.annotators} == {3}


def test_a_job_writes_votes_and_reports_and_overwrites_nothing(tmp_path):
    file = tmp_path / "tasks.jsonl"
    write(file, tasks(30))
    job = Job(ToyWorld(), file, tmp_path / "votes.jsonl", ReportOptions(samples=50, per_vote=0.1))
    SimulatedAnnotators(gold_items=0.2)(job)
    assert all(len(r.votes) == 3 for r in read(tmp_path / "votes.jsonl"))
    numbers = json.loads((tmp_path / "votes.jsonl.report.json").read_text())
    keys = ("percent", "kappa/fleiss", "alpha/nominal", "alpha/ordinal", "alpha/interval")
    for key in keys:
        assert numbers[f"{key}/ci_low"] <= numbers[key] <= numbers[f"{key}/ci_high"]
    assert "kappa/cohen/mean" in numbers or numbers["n_units"] < 60
    assert {p.name for p in tmp_path.glob("*.csv")} == {"annotators.csv", "reannotate.csv", "spot_check.csv"}
    assert (tmp_path / "annotators.csv").read_text().startswith("annotator,votes,majority")
    with pytest.raises(RecordError, match="exists already"):
        SimulatedAnnotators()(job)


@pytest.mark.parametrize("form", ["pair", "ranking", "likert"])
def test_simulated_votes_follow_the_gold_reward(form):
    records = [r for r in ToyWorld(size=200, min_completions=3, max_completions=3).records()]
    pool = SimulatedAnnotators(form=form, careless=0.0, temperature=0.5, tie_width=0.0)
    right = total = 0
    for record in pool.vote(replace(r, votes=()) for r in records):
        b = collect([record]).vote_table()
        gold = dict(zip([c.id for c in record.completions], gold_in_meta(record), strict=True))
        for unit, verdict in zip(b.unit, b.verdict, strict=True):
            _, first, second = b.keys[unit]
            if verdict != 1 and abs(gold[first] - gold[second]) > 1.5:
                total += 1
                right += (gold[first] > gold[second]) == (verdict == 0)
    assert total > 100
    assert right / total > 0.9


def test_fatigue_makes_votes_worse_with_time():
    def accuracy(fatigue):
        pool = SimulatedAnnotators(people=3, careless=0.0, fatigue=fatigue, length_bias=0.0)
        right = []
        for record in pool.vote(tasks(400)):
            gold = gold_in_meta(record)
            better = record.completions[int(gold[1] > gold[0])].id
            right += [v.choice == better for v in record.votes if gold[0] != gold[1] and v.choice != "tie"]
        return np.mean(right[len(right) // 2 :])

    assert accuracy(0.02) < accuracy(0.0) - 0.1


def test_without_a_gold_reward_the_remedy_is_named():
    record = Comparison("p", "q", (Completion("a", "x"), Completion("b", "y")))
    with pytest.raises(RecordError, match=r"completions\.meta\.gold"):
        list(SimulatedAnnotators().vote([record]))
