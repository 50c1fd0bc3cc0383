"""`--help`, dashes and old names are answered at once; the reference of keys is what the schema says."""

import subprocess
import sys
import time

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from rlhf.assemble import CONF
from rlhf.assemble.checks.renamed import KEYS, current, refuse_old_names, renamed
from rlhf.assemble.checks.suggestions import _suggest, _without_dashes
from rlhf.assemble.help import WIDTH, command_rows, page, task_groups
from rlhf.assemble.reference import PATH, reference
from rlhf.assemble.schema.commands import COMMANDS
from rlhf.assemble.schema.options import groups_of, keys_of, options_of
from rlhf.records import RecordError


def composed(command, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, overrides=list(overrides))


def test_the_top_of_the_default_configuration_is_short():
    assert len(composed("train")) <= 25


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_that_is_no_groups_has_a_meaning_a_type_and_a_default(command):
    told = {row.key: row for row in command_rows(command)}
    groups = {group.name for group in groups_of(CONF / f"{command}.yaml")}
    for key in composed(command):
        if key not in groups:
            rows = [row for name, row in told.items() if name == key or name.startswith(f"{key}.")]
            assert any(row.meaning and row.default for row in rows), key


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_tells_of_every_group_and_key_and_is_narrow(command):
    told = page(command)
    assert max(map(len, told.splitlines())) <= WIDTH
    assert told.count(f"  {COMMANDS[command].command} ") >= 5
    for group in groups_of(CONF / f"{command}.yaml"):
        assert f"\n  {group.name}" in told
        assert all(f" {path.stem} " in told for path in options_of(group.name))
    for key in composed(command):
        assert f"  {key}" in told


def test_the_page_of_an_option_has_its_keys_and_bounds_those_of_its_base():
    told = page("train", ["loss=ranking", "adapter=qlora", "epochs=3"])
    assert told.startswith("loss=ranking: All pairs of a prompt")
    assert "loss.margin_scale=0.0" in told
    assert "adapter.build.rank=16" in told
    assert "adapter.load_in_4bit=true" in told
    assert "epochs" not in told


def test_values_and_comments_are_read_as_they_stand(tmp_path):
    (tmp_path / "base.yaml").write_text("# Base.\nk: 4   # how many\nto: {a: 1, b: x}   # both\n")
    (tmp_path / "one.yaml").write_text(
        "# One. More.\n# usage: x\ndefaults: [base]\nk: 5\nlong: 'a # b'   # first\n" + " " * 16 + "# second\n"
        "nested:   # outer\n  inner: null\n"
    )
    rows = {row.key: (row.default, row.meaning) for row in keys_of(tmp_path / "one.yaml")}
    assert rows == {
        "k": ("5", "how many"), "to.a": ("1", "both"), "to.b": ("x", "both"), "long": ("'a # b'", "first second"),
        "nested": ("", "outer"), "nested.inner": ("null", ""),
    }  # fmt: skip


def test_groups_that_only_some_tasks_have_are_named_with_them():
    own = {task: {group.name for group in groups} for task, groups in task_groups().items()}
    assert own["policy"] == {"algorithm", "shaping", "early_stopping"}
    assert {"selector", "votes", "learner"} <= own["active"]
    (said,) = _suggest("train", ["algorithm=ppo"])
    assert "algorithm is of task=iterate and task=policy: task=" in said
    assert not list(_suggest("train", ["task=policy", "algorithm=ppo", "reward=x"]))


def test_the_reference_is_what_the_schema_says():
    assert PATH.read_text() == reference(), "python -m rlhf.assemble.reference"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--epochs", "3"], "--epochs 3: keys are typed without dashes: epochs=3"),
        (["--epochs=3"], "--epochs=3: keys are typed without dashes: epochs=3"),
        (["--max-length", "9", "seed=1"], "--max-length 9: keys are typed without dashes: max_length=9"),
        (["--loss", "ranking"], "--loss ranking: keys are typed without dashes: loss=ranking"),
        (["--speaker=toy"], "--speaker=toy: keys are typed without dashes: policy=toy"),
        (["--epoch=3"], "--epoch=3: keys are typed without dashes: did you mean epochs=3 ?"),
    ],
)
def test_dashes_are_answered_with_the_key(typed, meant):
    assert list(_without_dashes("train", typed)) == [meant]


@pytest.mark.parametrize("flags", [["--multirun"], ["--cfg", "job"], ["--info", "all"], ["--config-dir=x"], ["-m"]])
def test_hydras_own_flags_pass(flags):
    assert not list(_without_dashes("train", flags))


def test_run_is_a_key_where_it_has_a_value():
    assert list(_without_dashes("evaluate", ["--run", "x"])) == ["--run x: keys are typed without dashes: run=x"]
    assert not list(_without_dashes("train", ["--run", "seed=1"]))


@pytest.mark.parametrize(
    ("command", "typed", "said"),
    [
        ("train", "speaker=toy", "speaker is called policy now: policy=toy"),
        ("train", "voter=ai", "voter is called label_source now: label_source=ai"),
        ("train", "teacher.ridge=3", "teacher.ridge is called reward_learner.ridge now: reward_learner.ridge=3"),
        ("train", "task=warnings", "task=warnings is called task=early_stopping now"),
        ("train", "experiment=early_warning", "experiment=early_warning is called experiment=early_stopping now"),
        ("train", "monitor=val/ece", "monitor is called trainer.monitor now: trainer.monitor=val/ece"),
        ("train", "judged_by.criterion=a",
         "judged_by.criterion is called batches.eval_aggregation.criterion now: batches.eval_aggregation.criterion=a"),
        ("train", "+task.conditions.mine.early_warning=kl",
         "task.conditions.mine.early_warning is called task.conditions.mine.early_stopping now: "
         "+task.conditions.mine.early_stopping=kl"),
        ("train", "+reward_learner.changes.patience=9",
         "reward_learner.changes.patience is called reward_learner.changes.trainer.patience now: "
         "+reward_learner.changes.trainer.patience=9"),
        ("evaluate", "changed=5", "changed is called perturbed_records now: perturbed_records=5"),
        ("evaluate", "sections.parts=null", "sections.parts is called sections.slices now: sections.slices=null"),
    ],
)  # fmt: skip
def test_old_names_are_answered_with_new_ones(command, typed, said):
    assert list(renamed(command, [typed])) == [said]


def test_new_names_are_there_and_old_ones_are_not():
    of = {"policy": "task=iterate", "label_source": "task=active", "reward_learner": "task=iterate",
          "early_stopping": "task=policy", "features.embed.model_source": "task=active"}  # fmt: skip
    tasks = {"task.reward_learner": "task=tradeoff", "task.policy": "task=tradeoff", "task.only_voted": "task=active",
             "task.label_source": "task=iterate", "task.plan.eval_prompts": "task=iterate"}  # fmt: skip
    for command, keys in KEYS.items():
        for old, new in keys.items():
            if "*" in new:
                continue
            given = [(of | tasks).get(new, "task=policy")] if command == "train" else ["run=x"]
            given += ["features=trunk"] if new.startswith("features") else []
            cfg = composed(command, *given)
            missing = object()
            assert OmegaConf.select(cfg, new, default=missing, throw_on_missing=False) is not missing, new
            assert OmegaConf.select(composed(command), old, default=missing) is missing, old
            assert current(command, new) is None


def test_an_experiment_of_ones_own_with_old_names_is_refused():
    cfg = OmegaConf.create(OmegaConf.to_container(composed("train")))
    cfg.merge_with({"task": {"conditions": {"a": {"early_warning": "kl"}}}, "patience": 3})
    with pytest.raises(RecordError, match=r"task\.conditions\.a\.early_warning is called .*\n?patience is called"):
        refuse_old_names(cfg, "train")
    for command in COMMANDS:
        refuse_old_names(composed(command), command)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["train.py", "--help"], 0, "Groups: group=option"),
        (["-m", "rlhf.serve", "--help"], 0, "Keys: key=value"),
        (["train.py", "--epochs", "3"], 1, "epochs=3"),
        (["train.py", "speaker=toy"], 1, "policy=toy"),
    ],
)
def test_it_takes_two_seconds_at_most_and_no_torch(root, arguments, code, said):
    start = time.process_time()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    assert time.process_time() - start < 2
    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert "| torch" not in done.stderr
