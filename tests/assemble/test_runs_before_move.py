"""Runs of the commit before modules moved still load, evaluate, resume and serve, by their old names."""

import csv
import json
import shutil
from importlib import import_module
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from running import Served
from safetensors.torch import load_file

import rlhf
from rlhf.assemble import CONF
from rlhf.assemble.aliases import new_target, stored_config, translated
from rlhf.assemble.checks.renamed import current
from rlhf.reward.checkpoint import load_weights

pytestmark = pytest.mark.slow
OLD = Path(__file__).parents[1] / "fixtures" / "run_before_move"
EXPECTED = json.loads((OLD / "expected.json").read_text())
QUIET = {
    "train": ("logger=csv", "trainer.threads=1", "bootstrap=20"),
    "evaluate": ("logger=csv", "threads=1", "bootstrap=20"),
}
AS_BEFORE = ["merge=false", "trainer.precision=32-true", "data.items=24", "data.off_topic=3"]
"""What was so before there was a choice."""


@pytest.fixture
def old(tmp_path):
    """A copy of the old runs whose checkpoints lie where they say they do."""
    folder = tmp_path / "runs"
    shutil.copytree(OLD, folder)
    for path in folder.glob("*/checkpoints/last.ckpt"):
        stored = torch.load(path, weights_only=True)
        for state in stored["callbacks"].values():
            for key in ("dirpath", "best_model_path", "kth_best_model_path"):
                if state.get(key):
                    state[key] = str(path.parents[1] / state[key])
            if "best_k_models" in state:
                state["best_k_models"] = {str(path.parents[1] / k): v for k, v in state["best_k_models"].items()}
        torch.save(stored, path)
    return folder


@pytest.fixture
def command(root, tmp_path, monkeypatch):
    """`command("train", ...)` runs train.py in this process and returns the folder it wrote in."""

    def run(script, *overrides):
        GlobalHydra.instance().clear()
        out = tmp_path / f"new{len(list(tmp_path.glob('new*')))}"
        own = (f"hydra.run.dir={out}", f"runs={tmp_path}/runs")
        monkeypatch.setattr("sys.argv", [f"{script}.py", *own, *QUIET[script], *overrides])
        monkeypatch.chdir(root)
        import_module(script).main()
        return out

    return run


def settings(run):
    """The command line of an old run."""
    given = OmegaConf.load(OLD / run / ".hydra" / "overrides.yaml")
    ours = {o.partition("=")[0]: o for o in given}
    kept = [o for key, o in ours.items() if key not in ("logger", "threads", "bootstrap", "reward")]
    renamed = [(current("train", o.partition("=")[0]) or o.partition("=")[0]) + "=" + o.partition("=")[2] for o in kept]
    model = [] if any(o.startswith("model=") for o in renamed) else ["model=tiny"]
    return model + renamed + AS_BEFORE


def test_an_exported_run_loads_and_scores_as_it_did():
    model, told = rlhf.load(OLD / "reward"), EXPECTED["scores"]
    found = model.score(told["prompt"], told["completions"])
    assert found == pytest.approx(told["rewards"], abs=1e-6)
    first, second, _ = told["completions"]
    assert model.compare(told["prompt"], first, second) == pytest.approx(told["first_over_second"], abs=1e-6)


def test_a_run_is_evaluated_on_its_own_data_as_it_was(old, command):
    report = command("evaluate", f"run={old / 'reward'}", "perturbed_records=20")
    found = json.loads((report / "report.json").read_text())
    """But for orders, which go as far as votes compared, and AUPR, which reads exact ties: equal texts tie today."""
    told = {k: v for k, v in EXPECTED["report"].items() if k not in ("kendall", "top1") and not k.endswith("/aupr")}
    assert {key: found[key] for key in told} == pytest.approx(told, abs=1e-6)
    before = json.loads((OLD / "reward" / "metrics.json").read_text())
    assert found["pair_accuracy"] == pytest.approx(before["test/pair_accuracy"])


@pytest.mark.parametrize("ckpt", ["the folder", "last"])
def test_a_stopped_run_ends_as_it_would_have_ended(old, command, ckpt):
    """But for what a step is a mean over: prompts then, judged pairs now, a scale that Adam hardly sees."""
    shutil.rmtree(old / "reward")  # equal in configuration, and over
    where = "last" if ckpt == "last" else old / "reward_stopped"
    found = command("train", *settings("reward_stopped"), f"ckpt={where}")
    ours, theirs = (load_file(f / "model" / "model.safetensors") for f in (found, OLD / "reward"))
    begun = torch.load(OLD / "reward_stopped" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        moved = weight - begun["model.head.weight" if name == "score.weight" else f"model.backbone.carrier.{name}"]
        assert (ours[name] - weight).norm() < 0.5 * moved.norm(), name
    metrics, before = (json.loads((f / "metrics.json").read_text()) for f in (found, OLD / "reward"))
    for key in ("steps", "epochs", "n_train", "n_val", "n_test", "test/n_pairs", "parameters/all"):
        assert metrics[key] == before[key], key
    assert metrics["test/reward/std"] == pytest.approx(before["test/reward/std"], rel=0.05)


def test_a_stopped_policy_ends_as_it_would_have_ended(old, command):
    reward, stopped = f"reward={old / 'reward'}", f"ckpt={old / 'policy_stopped'}"
    found = command("train", *settings("policy_stopped"), reward, stopped)
    told = EXPECTED["policy"]["weights"]
    norms = {k: v.double().norm().item() for k, v in load_file(found / "model" / "model.safetensors").items()}
    assert norms == pytest.approx(told, abs=1e-6)
    metrics = json.loads((found / "metrics.json").read_text())
    for key in ("reward", "shaped", "kl", "length", "steps"):
        assert metrics[key] == pytest.approx(EXPECTED["policy"]["metrics"][key], abs=1e-5)


def test_active_learning_goes_on_from_an_old_journal(old, command):
    command("train", *settings("active"), f"ckpt={old / 'active'}")
    (written,) = old.parent.rglob("curve.csv")
    found, told = (list(csv.DictReader(path.open())) for path in (written, OLD / "active_curve.csv"))
    for ours, theirs in zip(found, told, strict=True):
        assert ours["selector"] == theirs["selector"]
        for key in ("seed", "round", "labels", "pair_accuracy", "nll"):
            assert float(ours[key]) == pytest.approx(float(theirs[key]), abs=1e-9), key


def test_a_run_is_served(root, tmp_path):
    told = EXPECTED["scores"]
    served = Served(root, OLD / "reward", tmp_path / "log")
    body = {"prompt": told["prompt"], "completions": told["completions"]}
    assert served.post("/score", body).json()["scores"] == pytest.approx(told["rewards"], abs=1e-6)
    assert served.stop() == 0


def named(target):
    """What a dotted target names, or None."""
    module, _, name = target.rpartition(".")
    try:
        return getattr(import_module(module), name, None)
    except ModuleNotFoundError:
        return getattr(named(module), name, None) if "." in module else None


def test_every_old_target_means_something():
    old = (OLD / "targets.txt").read_text().split()
    assert [(t, new_target(t)) for t in old if not callable(named(new_target(t)))] == []


def test_todays_names_stay():
    for path in CONF.rglob("*.yaml"):
        cfg = OmegaConf.load(path)
        if isinstance(OmegaConf.to_container(cfg), dict):
            assert translated(cfg) is cfg, path


def test_old_keys_of_a_stored_run_move_with_what_is_in_them(tmp_path):
    stored = {
        "speaker": {"_target_": "rlhf.optimise.toy_speaker.ToySpeaker", "learning_rate": 0.1},
        "lr": "${oc.select:speaker.learning_rate,${adapter.lr}}",
        "judged_by": {"criterion": "${criterion}"},
        "task": {"act": 1, "only_judged": None, "conditions": {"all of it": {"early_warning": "kl"}}},
        "prompt": "the speaker is a teacher",
    }
    OmegaConf.save(OmegaConf.create(stored), tmp_path / "config.yaml")
    assert stored_config(tmp_path / "config.yaml") == {
        "policy": {"_target_": "rlhf.toy.tabular_policy.TabularPolicy", "learning_rate": 0.1},
        "lr": "${oc.select:policy.learning_rate,${adapter.lr}}",
        "batches": {"eval_aggregation": {"criterion": "${criterion}"}},
        "task": {"run": 1, "only_voted": None, "conditions": {"all of it": {"early_stopping": "kl"}}},
        "prompt": "the speaker is a teacher",
    }


def test_a_users_own_yaml_with_old_targets_still_trains(train, tmp_path):
    own = tmp_path / "conf" / "experiment"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text(
        "# @package _global_\nhead: {_target_: rlhf.reward.heads.LinearHead, _partial_: true, dropout: 0.0, seed: 0}\n"
    )
    folder = train(f"hydra.searchpath=[{tmp_path / 'conf'}]", "experiment=mine", "data.size=60")
    assert (folder / "metrics.json").is_file()


def test_weights_of_another_model_are_not_passed_over(tmp_path):
    module = torch.nn.ModuleDict({"head": torch.nn.Linear(2, 1)})
    torch.save({"state_dict": {"elsewhere.weight": torch.ones(1, 2)}}, tmp_path / "best.ckpt")
    with pytest.raises(ValueError, match=r"does not fit this model: missing .*head.weight.*elsewhere"):
        load_weights(module, tmp_path / "best.ckpt")
