"""`evaluate.py` from the command line to report.json, report.html, figures and examples.parquet."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hydra.core.global_hydra import GlobalHydra

import evaluate as script
import rlhf
import train as training
from rlhf.data.toy import ToyWorld
from rlhf.records import Comparison, Completion, Vote, write

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
KEYS = (
    "pair_accuracy", "pair_accuracy/ci_low", "pair_accuracy/ci_high", "pair_accuracy/longer_won",
    "pair_accuracy/shorter_won", "baseline/length", "baseline/majority", "ceiling/annotators", "nll", "brier", "ece",
    "ece_uncalibrated", "temperature", "spearman", "kendall", "top1", "length/spearman", "n_pairs", "n_prompts",
)  # fmt: skip
"""The names that other programs read."""
FAST = ["logger=csv", "bootstrap=20", "changed=20"]


def main(module, *arguments):
    with pytest.MonkeyPatch.context() as patch:
        GlobalHydra.instance().clear()
        patch.setattr("sys.argv", [f"{module.__name__}.py", *arguments])
        patch.chdir(ROOT)
        module.main()


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two small runs that differ by their seed."""
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        main(
            training, f"runs={root}", f"hydra.run.dir={root}/run{seed}", f"seed={seed}", "data.size=250", "epochs=1",
            "logger=csv", "trainer.enable_progress_bar=false", "bootstrap=20", "model.width=32", "model.depth=1",
            "max_length=256",
        )  # fmt: skip
    return root


@pytest.fixture(scope="module")
def report(runs):
    """The first run's report."""
    folder = runs / "report"
    main(script, f"run={runs}/run0", f"hydra.run.dir={folder}", *FAST)
    return folder


def read(folder):
    return json.loads((folder / "report.json").read_text())


def test_the_report_has_the_contract_s_keys_and_the_run_s_own_numbers(runs, report):
    found = read(report)
    assert not [key for key in KEYS if key not in found]
    assert list(found) == sorted(found)
    assert all(isinstance(value, int | float) for value in found.values())
    stored = json.loads((runs / "run0" / "metrics.json").read_text())
    for key in ("pair_accuracy", "nll", "ece", "temperature", "baseline/length", "n_pairs", "n_prompts"):
        assert found[key] == pytest.approx(stored[f"test/{key}"], abs=1e-6), key
    shifts = {tuple(k.split("/")[1:3]) for k in found if re.fullmatch(r"ood/[^/]+/[^/]+/auroc", k)}
    assert {s for s, _ in shifts} >= {"truncated", "shuffled", "long", "held_out", "other_sampler"}
    assert {d for _, d in shifts} >= {"mahalanobis", "laplace", "energy", "length"}


def test_the_same_input_gives_the_same_bytes(runs, report):
    again = runs / "again"
    main(script, f"run={runs}/run0", f"hydra.run.dir={again}", *FAST)
    assert (again / "report.json").read_bytes() == (report / "report.json").read_bytes()


def test_files_are_whole_and_the_page_needs_nothing_else(report):
    page = (report / "report.html").read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|\#)""", page)
    assert "@import" not in page
    assert "http-equiv" not in page
    images = sorted((report / "figures").glob("*.png"))
    assert len(images) >= 5
    assert all(image.read_bytes()[:4] == b"\x89PNG" for image in images)
    rows = pq.read_table(report / "examples.parquet").to_pandas()
    assert len(rows) == read(report)["n_pairs"]
    wanted = {"example_id", "prompt_id", "prompt_hash", "domain", "part", "annotators", "win_prob", "reward_a",
              "reward_b", "margin", "p_calibrated", "mahalanobis_a", "chars_a", "tokens_b", "tied",
              "trimmed", "gold_a"}  # fmt: skip
    assert wanted <= set(rows.columns)
    np.testing.assert_allclose(rows.margin, rows.reward_a - rows.reward_b, rtol=1e-9)
    decided = rows.win_prob != 0.5
    right = np.where(rows.margin == 0, 0.5, (rows.margin > 0) == (rows.win_prob > 0.5))[decided]
    assert right.mean() == pytest.approx(read(report)["pair_accuracy"])


def test_an_ensemble_and_a_comparison(runs):
    folder = runs / "set"
    main(
        script, f"run=[{runs}/run0,{runs}/run1]", f"against=[{runs}/run0]", f"hydra.run.dir={folder}", *FAST,
        "shifts={}", "probes={}",
    )  # fmt: skip
    found = read(folder)
    assert found["members/n"] == 2
    assert 0 <= found["members/all_wrong"] <= 1
    assert any(key.startswith("model/") for key in found)


def hostile(n):
    text = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    return Comparison(
        f"p{n}", f"{text} question {n}", (Completion("a", f"{text} {n}"), Completion("b", f"no {n} & <b>")),
        (Vote("w", pair=("a", "b"), choice="ab"[n % 2]),), domain=text,
    )  # fmt: skip


def test_a_plain_hugging_face_model_on_other_data_and_texts_that_would_run(runs, tmp_path):
    data = tmp_path / "data.jsonl"
    write(data, (hostile(n) for n in range(40)))
    for extra in ("rlhf.json", "calibration.json", "ood.safetensors"):
        assert (runs / "run1" / "model" / extra).is_file()
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in (runs / "run1" / "model").iterdir():
        if file.name not in ("rlhf.json", "calibration.json", "ood.safetensors", "probes.json"):
            (plain / file.name).write_bytes(file.read_bytes())
    main(
        script, f"run={plain}", "data=jsonl", f"data.path={data}", f"hydra.run.dir={tmp_path}/out", *FAST,
        "bag_of_words=false",
    )  # fmt: skip
    assert read(tmp_path / "out")["n_pairs"] == 40
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run=<folder"),
        (["run=/nowhere"], "/nowhere"),
    ],
)
def test_what_cannot_be_judged_is_said(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(script, *arguments, f"hydra.run.dir={tmp_path}/out", *FAST)
    assert message in capsys.readouterr().err


def test_two_processes_give_the_bytes_of_one(runs, tmp_path):  # T48
    data = tmp_path / "data.jsonl"
    write(data, ToyWorld(size=65, seed=9).records())
    found = []
    for devices in (1, 2):
        out = tmp_path / f"out{devices}"
        command = [
            sys.executable, "evaluate.py", f"run={runs}/run0", "data=jsonl", f"data.path={data}", "block=64",
            f"devices={devices}", f"hydra.run.dir={out}", *FAST, "shifts={}", "probes={}", "bag_of_words=false",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.splitlines()[-1] == f"report: {out}"
        found.append((out / "report.json").read_bytes())
    assert found[0] == found[1]
    assert json.loads(found[0])["n_prompts"] > 60


def test_a_loaded_run_says_how_unusual_an_answer_is(runs):
    scorer = rlhf.load(runs / "run0")
    world = list(ToyWorld(size=40, seed=3).records())
    ordinary = [u for r in world for u in scorer.unusual(r.prompt, [c.text for c in r.completions])]
    garbage = scorer.unusual("Name a colour.", ["\x00\x01 zzzz" * 12, "ÿÿÿÿ" * 20])
    assert 0.2 < np.mean(ordinary) < 0.8
    assert min(garbage) > 0.9
    with pytest.raises(ValueError, match="detector"):
        scorer.unusual("p", ["x"], detector="magic")
