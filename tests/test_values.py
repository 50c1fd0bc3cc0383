"""Numbers and paths that cannot be meant are refused before torch is imported."""

import subprocess
import sys

import hydra
import pytest

from rlhf.assemble import CONF
from rlhf.assemble.policy import named
from rlhf.assemble.values import check_values
from rlhf.record_types import RecordError


def compose(*overrides):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("train", overrides=list(overrides))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["task=sft", "optimizer.build.lr=0"], r"optimizer\.build\.lr': 0 must be above 0"),
        (["task=dpo", "optimizer.build.lr=-1e-3"], r"optimizer\.build\.lr': -0\.001 must be above 0"),
        (["task=dpo", "task.loss.beta=-1"], r"task\.loss\.beta': -1 must be above 0"),
        (["task=dpo", "task.loss.label_smoothing=0.5"], r"label_smoothing': 0\.5 must be below 0\.5"),
        (["task=dpo", "epochs=none"], r"epochs': none must be a number, at least 1"),
        (["task=policy", "shaping.controller.beta=-0.1"], r"controller\.beta': -0\.1 must be 0 or more"),
        (["task=policy", "shaping=adaptive", "shaping.controller.target=0"], r"target': 0 must be above 0"),
        (["task=policy", "task.completions=1"], r"task\.completions': 1 must be at least 2"),
        (["task=iterate", "task.plan.reference_samples=31"], "31 must be at least 32"),
        (["task=policy", "task.steps=.inf"], r"task\.steps': \.inf must be a number"),
        (["task=sft", "model=local"], r"model\.path': is not given"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_named(overrides, said):
    with pytest.raises(RecordError, match=said):
        check_values(compose(*overrides))


@pytest.mark.parametrize("task", ["reward", "sft", "dpo", "policy", "iterate", "tradeoff", "active"])
def test_the_defaults_can_be_meant(task):
    check_values(compose(f"task={task}"))


def test_a_run_is_no_model_but_its_model_is(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    given = ["task=policy", "model=local"]
    with pytest.raises(RecordError, match=rf"no config\.json in it \(model\.path={tmp_path}/model\)"):
        check_values(compose(*given, f"model.path={tmp_path}"))
    check_values(compose(*given, f"model.path={tmp_path}/model"))
    with pytest.raises(FileNotFoundError, match=r"model\.path=.*nowhere: no such folder"):
        check_values(compose(*given, f"model.path={tmp_path}/nowhere"))
    with pytest.raises(
        RecordError, match=r"'reward': .*holds no model of a run of task=reward: no rlhf\.json"
    ):
        named(compose(*given, f"model.path={tmp_path}/model", f"reward={tmp_path}"))
    (tmp_path / "model" / "rlhf.json").write_text("{}")
    named(compose(*given, f"model.path={tmp_path}/model", f"reward={tmp_path}"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["task=dpo", "task.loss.beta=-1"],
        ["task=policy", "reward=nowhere"],
        ["experiment=early_warning", "speaker=language", "model=toy"],
    ],
)
def test_torch_is_not_imported_for_it(root, tmp_path, overrides):
    code = (
        "import sys, train\n"
        f"sys.argv = ['train.py', 'hydra.run.dir={tmp_path}', *{overrides}]\n"
        "try:\n    train.main()\nexcept SystemExit:\n    print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "False", done.stderr
    assert "key '" in done.stderr
