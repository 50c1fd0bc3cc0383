"""Models and runs that are not there are refused before torch is imported."""

import subprocess
import sys

import hydra
import pytest

from rlhf.assemble import CONF
from rlhf.assemble.checks.paths import check_augment, check_model
from rlhf.assemble.checks.suggestions import _suggest as suggested
from rlhf.assemble.tasks.policy import check_policy
from rlhf.assemble.tasks.study import study_run
from rlhf.assemble.tasks.tradeoff import tradeoff_run
from rlhf.records import RecordError


def compose(*overrides):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("train", overrides=list(overrides))


def test_a_model_of_ones_own_must_be_named():
    with pytest.raises(RecordError, match=r"model\.path': is not given"):
        check_model(compose("task=sft", "model=local"))


def test_a_run_is_no_model_but_its_model_is(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    given = ["task=policy", "model=local"]
    with pytest.raises(RecordError, match=rf"no config\.json in it \(model\.path={tmp_path}/model\)"):
        check_model(compose(*given, f"model.path={tmp_path}"))
    check_model(compose(*given, f"model.path={tmp_path}/model"))
    with pytest.raises(FileNotFoundError, match=r"model\.path=.*nowhere: no such folder"):
        check_model(compose(*given, f"model.path={tmp_path}/nowhere"))
    with pytest.raises(RecordError, match=r"'reward': .*holds no model of a run of task=reward: no rlhf\.json"):
        check_policy(compose(*given, f"model.path={tmp_path}/model", f"reward={tmp_path}"))
    (tmp_path / "model" / "rlhf.json").write_text("{}")
    check_policy(compose(*given, f"model.path={tmp_path}/model", f"reward={tmp_path}"))


def test_a_model_that_paraphrases_must_be_named_and_there(tmp_path):
    key = "augment.prompts.0.policy.path"
    with pytest.raises(RecordError, match=rf"'{key}': is not given"):
        check_augment(compose("augment=model"))
    with pytest.raises(FileNotFoundError, match=rf"{key}=/nowhere: no such folder"):
        check_augment(compose("augment=model", f"{key}=/nowhere"))
    with pytest.raises(RecordError, match=rf"'{key}': {tmp_path} holds no model"):
        check_augment(compose("augment=model", f"{key}={tmp_path}"))
    for right in (["augment=model", f"{key}=organisation/name"], ["augment=rules"], []):
        check_augment(compose(*right))


def test_a_key_inside_a_list_is_not_taken_for_a_mistyped_one():
    path, tries = (f"augment.prompts.0.{key}" for key in ("policy.path=/nowhere", "trise=3"))
    assert not list(suggested("train", ["augment=model", path]))
    (said,) = suggested("train", ["augment=model", tries])
    assert "did you mean augment.prompts.0.tries=3 ?" in said


@pytest.mark.parametrize(("build", "task"), [(study_run, "experiment=temperature"), (tradeoff_run, "task=tradeoff")])
def test_a_task_without_state_does_not_pretend_to_go_on(build, task):
    with pytest.raises(RecordError, match=r"'ckpt': last: this task keeps no state to go on from \(leave it out\)"):
        build(compose(task, "ckpt=last"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        ["task=dpo", "task.loss.beta=-1"],
        ["task=policy", "reward=nowhere"],
        ["experiment=early_stopping", "policy=language", "model=toy"],
        ["augment=model"],
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
    assert "must be" in done.stderr or "key '" in done.stderr
