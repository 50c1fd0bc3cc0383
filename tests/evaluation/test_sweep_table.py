"""A sweep's jobs as one table."""

import csv
import json

import pytest
import yaml

from rlhf.evaluation.sweep_table import KEYS, compare, write_comparison


def job(root, number, overrides, accuracy):
    folder = root / str(number)
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(overrides))
    if accuracy is not None:
        (folder / "metrics.json").write_text(json.dumps(dict.fromkeys(KEYS, accuracy) | {"other": 1}))
    return folder


def test_jobs_stand_in_numeric_order_with_their_settings_and_failures(tmp_path):
    for number in range(11):
        overrides = [f"loss=l{number}", "attributes=[a,b]", "+more.key=x=y"]
        job(tmp_path, number, overrides, None if number == 3 else number / 20)
    table, page = write_comparison(tmp_path)
    rows = list(csv.DictReader(table.open()))
    assert [r["job"] for r in rows] == [str(n) for n in range(11)]
    assert [r["status"] for r in rows] == ["done"] * 3 + ["failed"] + ["done"] * 7
    assert rows[3]["test/nll"] == ""
    assert rows[10]["loss"] == "l10"
    assert rows[10]["overrides"] == "loss=l10 attributes=[a,b] +more.key=x=y"
    assert rows[2]["attributes"] == "[a,b]"
    assert rows[2]["more.key"] == "x=y"
    assert float(rows[10]["test/pair_accuracy"]) == 0.5
    assert rows[10]["folder"] == str(tmp_path / "10")
    text = page.read_text()
    assert "**l10**" in text
    assert "**l9**" not in text
    assert "±" not in text


def test_the_best_job_is_chosen_on_validation_never_on_test(tmp_path):
    for number, (val, test) in enumerate([(0.8, 0.6), (0.7, 0.9)]):
        metrics = {"val/pair_accuracy": val, "test/pair_accuracy": test}
        (job(tmp_path, number, [f"loss=l{number}"], None) / "metrics.json").write_text(json.dumps(metrics))
    text = write_comparison(tmp_path)[1].read_text()
    assert "**l0**" in text
    assert "**l1**" not in text


def test_seeds_of_one_setting_are_averaged(tmp_path):
    values = [("a", 1, 0.6), ("a", 2, 0.8), ("b", 1, 0.5), ("b", 2, 0.5), ("c", 1, 0.9), ("b", 3, None)]
    for number, (loss, seed, accuracy) in enumerate(values):
        job(tmp_path, number, [f"loss={loss}", f"seed={seed}"], accuracy)
    page = write_comparison(tmp_path)[1].read_text()
    assert "| loss=a | 2 | 0.7000 ± 0.1414 |" in page
    assert "| loss=b | 2 | 0.5000 ± 0.0000 |" in page
    assert "| loss=c |" not in page


def test_a_sweep_over_seeds_alone_is_one_setting(tmp_path):
    for seed, accuracy in enumerate([0.6, 0.8]):
        job(tmp_path, seed, [f"seed={seed}"], accuracy)
    assert "| all | 2 | 0.7000 ± 0.1414 |" in write_comparison(tmp_path)[1].read_text()


@pytest.mark.parametrize("half", ["", '{"val/pair_acc', "[]"])
def test_a_job_that_was_stopped_while_writing_has_failed(tmp_path, half):
    folder = job(tmp_path, 0, ["loss=a"], None)
    (folder / "metrics.json").write_text(half)
    (row,) = compare([folder])
    assert row["status"] == "failed"


def test_a_sweep_where_everything_failed_still_has_its_table(tmp_path):
    job(tmp_path, 0, ["loss=a"], None)
    assert "failed" in write_comparison(tmp_path)[1].read_text()


def test_a_sweep_without_jobs_has_an_empty_table(tmp_path):
    table, page = write_comparison(tmp_path)
    assert list(csv.DictReader(table.open())) == []
    assert page.is_file()


def test_added_deleted_and_missing_overrides_have_columns_too(tmp_path):
    first = job(tmp_path, 0, ["++seed=1", "~logger"], 0.5)
    second = job(tmp_path, 1, [], 0.5)
    one, two = compare([second, first], keys=["other"])
    assert (one["job"], one["seed"], one["logger"], one["other"]) == ("0", "1", "deleted", 1)
    assert (two["overrides"], "seed" in two) == ("", False)
    rows = list(csv.DictReader(write_comparison(tmp_path)[0].open()))
    assert [r["seed"] for r in rows] == ["1", ""]


def test_a_bar_in_a_setting_does_not_break_the_table(tmp_path):
    job(tmp_path, 0, ["pattern=a|b"], 0.5)
    lines = write_comparison(tmp_path)[1].read_text().splitlines()
    assert lines[0].count("|") == lines[2].replace("\\|", "").count("|")


def test_a_task_that_measures_something_else_names_what_its_jobs_are_compared_by(tmp_path):
    for number in (0, 1):
        folder = job(tmp_path, number, [f"task.study.noise=0.{number}", f"seed={number}"], None)
        (folder / "metrics.json").write_text(json.dumps({"mean/lead/64": number + 0.5, "more": 1.0}))
        (folder / "headline.json").write_text(json.dumps(["mean/lead/64"]))
    table, page = write_comparison(tmp_path)
    rows = list(csv.DictReader(table.open()))
    assert [(r["task.study.noise"], r["mean/lead/64"]) for r in rows] == [("0.0", "0.5"), ("0.1", "1.5")]
    assert "test/nll" not in rows[0]
    text = page.read_text()
    assert "| 1 | done | 0.1 | 1 | 1.5000 |" in text
    assert "Bold" not in text


def left_out(root, number, accuracy, folds=(0, 0, 1)):
    folder = job(root, number, [f"loss=l{number}"], 0.5)
    rows = [f"g{i},{fold},{a},{1 - a}" for i, (a, fold) in enumerate(zip(accuracy, folds, strict=True))]
    (folder / "groups.csv").write_text("\n".join(["group,fold,pair_accuracy,nll", *rows]))


def test_cross_validations_on_the_same_folds_are_compared_by_the_group_that_was_left_out(tmp_path):
    """Differences .1 .2 .3: mean .2, s = .1, and t(2) = 4.3027."""
    left_out(tmp_path, 0, [0.5, 0.6, 0.4])
    left_out(tmp_path, 1, [0.6, 0.8, 0.7])
    left_out(tmp_path, 2, [0.6, 0.8, 0.7], folds=(0, 1, 1))
    table, page = write_comparison(tmp_path)
    first, second, third = csv.DictReader(table.open())
    half = 4.3027 * 0.1 / 3**0.5
    for key, mean in (("pair_accuracy", 0.2), ("nll", -0.2)):
        found = [float(second[f"{key}/minus_0{end}"]) for end in ("", "/ci_low", "/ci_high")]
        assert found == pytest.approx([mean, mean - half, mean + half], abs=1e-4)
        assert first[f"{key}/minus_0"] == third[f"{key}/minus_0"] == ""
    text = page.read_text()
    assert "| 1 | +0.2000 [-0.0484, +0.4484] | -0.2000 [-0.4484, +0.0484] |" in text
    assert "Job 2: other folds, not compared." in text
