"""What the configuration of a policy alone shows to be wrong is said with its key, before torch is imported."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import get_args

import hydra
import pytest
import torch

from rlhf.annotate.judges import gold_of
from rlhf.assemble import CONF
from rlhf.assemble.checks.rollouts import COMPARED, check_rollouts
from rlhf.assemble.checks.suggestions import BadInput, plain_errors
from rlhf.assemble.resume import folder_to_go_on_in
from rlhf.assemble.schema.bounds import check_ranges
from rlhf.assemble.schema.commands import Train
from rlhf.assemble.schema.groups import Estimator, Placement
from rlhf.assemble.tasks.early_stopping import check_worlds
from rlhf.assemble.tasks.iterate import check_iterate
from rlhf.optimise.policy.early_stopping import StoppingRule
from rlhf.optimise.policy.module import advantages
from rlhf.optimise.shaping.ensemble import mean
from rlhf.optimise.shaping.kl_controllers import Fixed
from rlhf.optimise.shaping.shape import ESTIMATORS, PLACEMENTS
from rlhf.optimise.shaping.shaper import Shaper
from rlhf.records import Comparison, Completion, RecordError

PENALTY = "_target_: rlhf.optimise.shaping.rules.Penalty"
LENGTH = "_target_: rlhf.optimise.shaping.rules.overlong, _partial_: true"
FORMAT = "_target_: rlhf.optimise.shaping.rules.malformed, _partial_: true"
REPETITION = "_target_: rlhf.optimise.shaping.rules.repeated, _partial_: true"


def compose(*overrides):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("train", overrides=list(overrides))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["task=policy", "shaping.estimator=k4"], r"^shaping\.estimator=k4 must be one of k1, k2, k3$"),
        (["task=policy", "shaping.placement=end"], r"^shaping\.placement=end must be one of token, sequence$"),
        (["task=policy", "task.decoding.top_p=0.9"], r"^task\.decoding\.top_p=0\.9 must be 1: .*whole distribution"),
        (["task=policy", "+task.decoding.top_k=5"], r"^task\.decoding\.top_k=5 must be 0: "),
        (["task=iterate", "policy=language", "policy.decoding.top_p=0.9"], r"^policy\.decoding\.top_p=0\.9 must"),
        (["task=policy", "early_stopping.window=1"], r"^early_stopping\.window=1 must be a whole number, 2 or more$"),
    ],
)  # fmt: skip
def test_words_and_numbers_are_looked_at_first(overrides, said):
    with pytest.raises(RecordError, match=said):
        check_ranges(compose(*overrides), Train)


@pytest.mark.parametrize("task", ["sft", "dpo"])
def test_a_policy_has_no_head_to_train_on_a_frozen_trunk(task):
    cfg = compose(f"task={task}", "adapter=frozen")
    with pytest.raises(RecordError, match=r"'adapter': frozen trains a reward head alone.*adapter=lora"):
        hydra.utils.instantiate(cfg.task.check)(cfg)


def test_what_is_said_without_torch_is_what_torch_code_knows():
    assert get_args(Estimator) == tuple(ESTIMATORS)
    assert get_args(Placement) == tuple(PLACEMENTS)
    assert all(hydra.utils.get_class(name).least == least for name, least in COMPARED.items())
    algorithms = [
        compose("task=policy", f"algorithm={path.stem}").algorithm for path in (CONF / "algorithm").glob("*.yaml")
    ]
    assert all(hydra.utils.get_class(a._target_).least == COMPARED.get(a._target_, 1) for a in algorithms)


RULES = [
    (f"shaping.rules.length={{{PENALTY}, violation: {{{LENGTH}, limit: 16, buffer: 64}}}}",
     r"'shaping\.rules\.length\.violation\.buffer': 64 is more than limit=16.*\(1 to 16\)"),
    (f"shaping.rules.length={{{PENALTY}, violation: {{{LENGTH}, limit: 16, buffer: 0}}}}",
     r"^shaping\.rules\.length\.violation\.buffer=0 must be"),
    (f"shaping.rules.format={{{PENALTY}, violation: {{{FORMAT}, pattern: '('}}}}",
     r"'shaping\.rules\.format\.violation\.pattern': \( is no regular expression: missing \)"),
    (f"shaping.rules.repetition={{{PENALTY}, violation: {{{REPETITION}, n: 0}}}}",
     r"^shaping\.rules\.repetition\.violation\.n=0 must be a whole number, 1 or more"),
    ("shaping.rules.missing_eos.size=0", r"^shaping\.rules\.missing_eos\.size=0 must be a number above 0"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "said"), RULES)
@pytest.mark.parametrize("task", ["policy", "iterate"])
def test_rules_are_looked_at_first(task, wrong, said):
    with pytest.raises(RecordError, match=said):
        check_rollouts(compose(f"task={task}", wrong))


def test_rules_that_can_be_meant_pass():
    length = f"shaping.rules.length={{{PENALTY}, violation: {{{LENGTH}, limit: 16, buffer: 16}}}}"
    wanted = f"shaping.rules.format={{{PENALTY}, violation: {{{FORMAT}, pattern: '[^(]*'}}}}"
    check_rollouts(compose("task=policy", length, wanted))
    for path in (CONF / "shaping").glob("*.yaml"):
        for task in ("policy", "iterate"):
            check_rollouts(compose(f"task={task}", f"shaping={path.stem}"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["task=policy", "shaping=adaptive", "shaping.controller.horizon=6"],
         r"'shaping\.controller\.horizon': 6 with 32 episodes.*above 6\.4 keeps it positive"),
        (["task=iterate", "shaping=adaptive", "shaping.controller.horizon=5"], r"horizon': 5 with 64 episodes"),
        (["task=policy", "shaping=per_prompt", "+shaping.controller.controller.horizon=2"],
         r"'shaping\.controller\.controller\.horizon': 2 with"),
        (["task=policy", "task.completions=1"], r"'task\.completions': 1 must be 2 or more.*algorithm=ppo"),
        (["task=iterate", "task.plan.completions=1"], r"'task\.plan\.completions': 1 must be 2 or more"),
    ],
)  # fmt: skip
def test_rollouts_are_large_and_small_enough(overrides, said):
    with pytest.raises(RecordError, match=said):
        check_rollouts(compose(*overrides))


def test_a_rollout_that_is_just_right_passes():
    check_rollouts(compose("task=policy", "shaping=adaptive", "shaping.controller.horizon=7"))
    check_rollouts(compose("task=policy", "algorithm=ppo", "task.completions=1"))


def test_a_toy_world_with_too_few_prompts_to_oversee_with_is_refused_first():
    with pytest.raises(RecordError, match=r"'task\.plan\.oversight': 30 of 25 .*\(23 at most, .*data\.size"):
        check_iterate(compose("task=iterate", "data.size=100"))
    check_iterate(compose("task=iterate", "data.size=100", "task.plan.oversight=23"))
    check_iterate(compose("experiment=mitigations"))
    with pytest.raises(RecordError, match=r"^task\.worlds\.biased: .*'task\.plan\.oversight': 30 of 25"):
        check_worlds(compose("experiment=early_stopping", "data.size=100"))
    check_worlds(compose("experiment=early_stopping"))


def test_every_condition_is_looked_at_first():
    with pytest.raises(RecordError, match=r"^task\.conditions\.KL: shaping\.estimator=k5 must be"):
        check_iterate(compose("experiment=mitigations", "+task.conditions.KL.override.estimator=k5"))
    with pytest.raises(RecordError, match=r"^task\.conditions\.all: .*'task\.plan\.oversight': 99 of"):
        check_iterate(compose("experiment=mitigations", "+task.conditions.all.task.plan.oversight=99"))


def test_a_loop_that_was_begun_before_there_was_a_check_goes_on(tmp_path):
    from omegaconf import OmegaConf

    cfg = compose("task=iterate", f"ckpt={tmp_path}")
    before = compose("task=iterate")
    del before.task.check
    (tmp_path / "generation-0").mkdir()
    (tmp_path / ".hydra").mkdir()
    OmegaConf.save(before, tmp_path / ".hydra" / "config.yaml")
    assert folder_to_go_on_in(cfg, Path("new"), leaves="**/generation-0") == tmp_path


def test_nothing_of_this_needs_torch(root):
    code = (
        "import sys\nimport hydra\nfrom rlhf import assemble\n"
        "hydra.initialize_config_dir(str(assemble.CONF), version_base='1.3')\n"
        "for given in (['task=iterate', 'task.plan.completions=1'], ['task=iterate', 'data.size=100'],\n"
        "              ['experiment=early_stopping', 'data.size=100'], ['task=policy', 'shaping.estimator=k4']):\n"
        "    try:\n        assemble.train(hydra.compose('train', overrides=given))\n"
        "    except ValueError as error:\n        print(str(error)[:30])\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "key 'task.plan.completions': 1 must be 2"[:30],
        "key 'task.plan.oversight': 30 of 25"[:30],
        "task.worlds.biased: key 'task.plan"[:30],
        "shaping.estimator=k4 must be one of"[:30],
        "False",
    ]


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_an_estimator_with_a_wrong_gradient_is_warned_of_at_the_start(estimator):
    with pytest.warns(UserWarning, match=rf"^shaping\.estimator={estimator}: in the reward its gradient is not"):
        Shaper(Fixed(0.1), mean, estimator=estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Shaper(Fixed(0.1), mean, estimator="k1")


def test_what_is_built_without_a_configuration_names_the_same_keys():
    with pytest.raises(RecordError, match=r"'shaping\.estimator': k4: one of k1, k2, k3"):
        Shaper(Fixed(0.1), mean, estimator="k4")
    with pytest.raises(RecordError, match=r"'shaping\.rules\.lenght': one of"):
        Shaper(Fixed(0.1), mean, rules={"lenght": None})
    with pytest.raises(RecordError, match=r"'early_stopping\.window': 1"):
        StoppingRule({}, window=1)
    with pytest.raises(ValueError, match=r"got 1: task\.completions=4$"):
        advantages(torch.zeros(3, 1))


def test_a_missing_truth_is_told_with_its_file_and_where_it_should_be(tmp_path):
    for text, said in ((None, "no such file"), ("{", "is not JSON")):
        path = tmp_path / "step-000002.gold.json"
        if text is not None:
            path.write_text(text)
        with pytest.raises(
            RecordError, match=rf"gold\.json: key 'annotator\.gold\.file': {said}.*beside the task file"
        ):
            gold_of(None, str(path))
    path.write_text(json.dumps({"p": {"a": 1.5}}))
    truth = gold_of(None, str(path))
    assert truth(Comparison("p", "Hi", (Completion("a", "x"),))) == [1.5]
    for record in (Comparison("p", "Hi", (Completion("b", "x"),)), Comparison("q", "Hi", (Completion("b", "x"),))):
        with pytest.raises(RecordError, match="knows nothing of b of prompt"):
            truth(record)


def test_a_file_that_a_named_part_does_not_find_is_told_without_hydras_words():
    with pytest.raises(BadInput, match=r"^\n.*nowhere"), plain_errors():
        hydra.utils.instantiate({"_target_": "pathlib.Path.read_text", "_args_": [Path("/nowhere")]})
