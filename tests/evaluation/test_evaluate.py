"""One pass: what stays of a text, whose temperature counts, and what W&B gets."""

import json
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from wandb_run import history

from rlhf.evaluation.metrics.calibration import Calibration, ece, nll
from rlhf.evaluation.report.sections.accuracy import accuracy, slices
from rlhf.evaluation.report.sections.calibration import calibration
from rlhf.evaluation.report.sections.ensemble_members import comparison
from rlhf.evaluation.report.write import log_to_wandb
from rlhf.evaluation.run import EvaluationRun
from rlhf.evaluation.score_pass import Pass, write_spool
from rlhf.evaluation.score_source import Ensemble, Scores
from rlhf.labels.aggregation import soft
from rlhf.toy.world import ToyWorld

SECTIONS = {"accuracy": accuracy, "slices": slices, "calibration": calibration, "comparison": comparison}


class Scaled:
    """Gold times a factor; `other` as well, but of the reversed answers."""

    def __init__(self, name, factor, temperature=None, *, turned=False):
        self.name, self.factor, self.turned = name, factor, turned
        self.calibration = None if temperature is None else replace(Calibration.identity(), temperature=temperature)

    def score(self, records):
        rewards = [[self.factor * c.meta["gold"] for c in r.completions] for r in records]
        return [Scores.plain(r[::-1] if self.turned else r) for r in rewards]


def evaluation_of(folder, source, *, others=(), validation=None, names=("gold",)):
    scoring = Pass(source, soft, others)
    return EvaluationRun(
        folder, scoring, ToyWorld(size=60), names, SECTIONS, validation=validation, samples=50, about="x"
    )()


def test_the_spool_holds_no_word_of_a_prompt_or_an_answer(tmp_path):
    secret = "Xylophon"
    records = [
        replace(r, prompt=f"{secret} {r.prompt}", completions=tuple(replace(c, text=f"{c.text} {secret}{i}")
                for i, c in enumerate(r.completions)))
        for r in ToyWorld(size=20).records()
    ]  # fmt: skip
    write_spool(tmp_path / "spool", Pass(Scaled("gold", 1.0), soft).entries(records))
    held = (tmp_path / "spool").read_bytes()
    assert secret.encode() not in held
    assert secret.encode("utf-16-le") not in held
    assert records[3].prompt_id.encode() in held
    longer = [replace(r, completions=tuple(replace(c, text=c.text * 50) for c in r.completions)) for r in records]
    write_spool(tmp_path / "longer", Pass(Scaled("gold", 1.0), soft).entries(longer))
    assert (tmp_path / "longer").stat().st_size < 1.1 * len(held)


@pytest.mark.slow
def test_where_nothing_could_fit_a_temperature_the_page_and_the_numbers_say_so(tmp_path):
    warning = "No temperature was fitted"
    other = Scaled("other", 1.0, 2.0, turned=True)
    raw = evaluation_of(tmp_path / "raw", Scaled("gold", 3.0), others=[other])
    assert raw.metrics["temperature"] == 1.0
    assert raw.metrics["temperature/fitted"] == 0.0
    page = (tmp_path / "raw" / "report.html").read_text()
    assert warning in page
    assert "nothing to fit T on for gold: T = 1" in page
    fitted = evaluation_of(
        tmp_path / "fitted", Scaled("gold", 3.0), validation=ToyWorld(size=80, seed=9), others=[other]
    )
    assert fitted.metrics["temperature/fitted"] == 1.0
    assert fitted.metrics["temperature"] == pytest.approx(fitted.metrics["model/gold/temperature"])
    assert fitted.metrics["temperature"] != 1.0
    own = evaluation_of(tmp_path / "own", Scaled("gold", 3.0, 3.0))
    assert own.metrics["temperature/fitted"] == 1.0
    for folder in ("fitted", "own"):
        assert warning not in (tmp_path / folder / "report.html").read_text()


def test_every_compared_model_has_its_calibration_at_its_own_temperature(tmp_path):
    other = Scaled("other", 5.0, 4.0, turned=True)
    report = evaluation_of(tmp_path, Scaled("gold", 1.0, 2.0), others=[other])
    scored = report.evaluation.results.scored
    for name, reward, t in (("gold", scored.reward, 2.0), ("other", report.evaluation.results.others["other"], 4.0)):
        difference = (reward[scored.first] - reward[scored.second]) / t
        m = {
            key.removeprefix(f"model/{name}/"): v
            for key, v in report.metrics.items()
            if key.startswith(f"model/{name}/")
        }
        p, w = expit(difference), scored.win_prob
        assert m["ece"] == pytest.approx(ece(p, w))
        assert m["nll"] == pytest.approx(nll(difference, w).mean())
        assert m["brier"] == pytest.approx(((p - w) ** 2).mean())
        assert m["temperature"] == t
        for key in ("pair_accuracy", "nll", "brier", "ece"):
            assert m[f"{key}/ci_low"] <= m[key] <= m[f"{key}/ci_high"], key
    for key in ("pair_accuracy", "nll", "brier", "ece", "ece/by_chance", "ece/ci_low"):
        assert report.metrics[f"model/gold/{key}"] == report.metrics[key], key
    page = (tmp_path / "report.html").read_text()
    assert "ECE by chance" in page


def test_a_run_in_an_ensemble_has_the_numbers_that_it_has_alone_before_and_after_its_own_temperature(tmp_path):
    """A member is (r - mean) / T by then; dividing by the temperature of the set as well would flatten it."""
    runs = [Scaled("a", 10.0, 10.0), Scaled("b", 90.0, 5.0)]
    together = evaluation_of(tmp_path / "set", Ensemble(runs), names=("a", "b"), validation=ToyWorld(size=80, seed=9))
    alone = evaluation_of(tmp_path / "one", Scaled("a", 10.0, 10.0))
    assert together.metrics["temperature"] != 1.0
    for key in ("nll", "ece", "brier", "ece_uncalibrated", "temperature"):
        assert together.metrics[f"model/a/{key}"] == pytest.approx(alone.metrics[key], abs=1e-9), key
    assert together.metrics["model/a/temperature"] == 10.0
    assert together.metrics["model/a/ece_uncalibrated"] > together.metrics["model/a/ece"] + 0.05
    said = "is the mean of its members' log-odds, each after its own temperature"
    assert unescape((tmp_path / "set" / "report.html").read_text()).count(f"ensemble {said}") == 2
    assert said not in unescape((tmp_path / "one" / "report.html").read_text())
    scored = together.evaluation.results.scored
    before = ece(expit(scored.difference), scored.win_prob)  # of the mean of log-odds
    assert together.metrics["ece_uncalibrated"] == pytest.approx(before)


@pytest.mark.slow
def test_an_offline_run_of_weights_and_biases_holds_the_numbers_tables_and_images(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    report = evaluation_of(tmp_path / "r", Scaled("gold", 1.0), others=[Scaled("other", 1.0, turned=True)])
    run = wandb.init(mode="offline", dir=str(tmp_path), project="rlhf")
    log_to_wandb(run, report)
    files = Path(run.dir)
    run.finish()
    found = history(tmp_path)
    assert found["pair_accuracy"] == report.metrics["pair_accuracy"]
    assert found["model/other/ece"] == report.metrics["model/other/ece"]
    for figure in (f for section in report.sections for f in section.figures):
        said = found[f"figures/{figure.name}"]
        assert said["_type"] == "image-file"
        assert said["caption"] == figure.caption
        assert (files / said["path"]).read_bytes() == (report.folder / "figures" / f"{figure.name}.png").read_bytes()
    shown = 0
    for section in report.sections:
        for table in section.tables:
            said = found[f"tables/{section.title}/{table.title}"]
            assert said["_type"] == "table-file"
            held = json.loads((files / said["path"]).read_text())
            assert [row[0] for row in held["data"]] == [row[0] for row in table.rows]
            shown += 1
    assert shown >= 5
    examples = json.loads((files / found["examples"]["path"]).read_text())
    margin = examples["columns"].index("margin")
    np.testing.assert_allclose([row[margin] for row in examples["data"]], report.evaluation.results.scored.difference)
