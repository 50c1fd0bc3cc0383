"""Numbers that cannot be meant are refused at once, all of them in one message, and before torch is there."""

import subprocess
import sys
from typing import get_args

import pytest
from hydra import compose, initialize_config_dir

from rlhf.assemble import CONF
from rlhf.assemble.checks.rollouts import check_room
from rlhf.assemble.evaluate import evaluate
from rlhf.assemble.schema.bounds import check_ranges
from rlhf.assemble.schema.commands import Evaluate, Monitored, Train
from rlhf.records import RecordError
from rlhf.reward import checkpoint


def composed(command, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, overrides=list(overrides))


@pytest.mark.parametrize(
    "wrong",
    ["epochs=0.4", "epochs=0", "epochs=-1", "epochs=null", "batch_size=0", "batches.eval_batch_size=0",
     "batches.batch_tokens=0",
     "max_length=0", "trainer.validate_every=0", "trainer.validate_every=1.5",
     "trainer.validate_every=2", "trainer.save_every=0", "bootstrap=-1",
     "seed=true", "trainer.patience=-1", "optimizer.build.lr=0", "optimizer.build.lr=nan", "optimizer.centring=-0.1",
     "trainer.accumulate_grad_batches=0"],
)  # fmt: skip
def test_training_refuses(wrong):
    key = wrong.split("=")[0]
    with pytest.raises(RecordError, match=rf"^{key}=.* must be a"):
        check_ranges(composed("train", wrong), Train)


def test_a_monitor_that_nobody_measures_is_refused_with_those_that_are():
    with pytest.raises(
        RecordError, match=r"^trainer\.monitor=val/nlll must be one of val/nll, val/pair_accuracy, val/ece$"
    ):
        check_ranges(composed("train", "trainer.monitor=val/nlll"), Train)
    check_ranges(composed("train", "trainer.monitor=val/ece"), Train)
    assert get_args(Monitored) == tuple(checkpoint.MONITORED)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["task=dpo", "task.loss.beta=-1"], r"task\.loss\.beta=-1 must be a number above 0$"),
        (["task=dpo", "task.loss.label_smoothing=0.5"], r"=0\.5 must be a number of at least 0, below 0\.5$"),
        (["task=policy", "shaping.controller.beta=-0.1"], r"controller\.beta=-0\.1 must be a number of at least 0$"),
        (["task=policy", "shaping=adaptive", "shaping.controller.target=0"], r"target=0 must be a number above 0$"),
        (["task=policy", "task.completions=0"], r"^task\.completions=0 must be a whole number, 1 or more$"),
        (["task=policy", "task.steps=.inf"], r"^task\.steps=\.?inf must be a whole number"),
        (["task=iterate", "task.plan.reference_samples=31"], "=31 must be a whole number, 32 or more$"),
    ],
)  # fmt: skip
def test_tasks_refuse(overrides, said):
    with pytest.raises(RecordError, match=said):
        check_ranges(composed("train", *overrides), Train)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["task.seeds=0"], r"^task\.seeds=0 must be a whole number, 1 or more$"),
        (["task.skew=5"], r"^task\.skew=5 must be a share, from 0 to 1, or null$"),
        (["task.skew=-0.1"], r"task\.skew=-0\.1 must be"),
        (["task.plan.batch=0"], r"task\.plan\.batch=0 must be"),
        (["votes.again=1"], r"votes\.again=1 must be"),
        (["learner.fixed=0"], r"learner\.fixed=0 must be"),
    ],
)
def test_active_learning_refuses(wrong, said):
    cfg = composed("train", "task=active", *wrong)
    with pytest.raises(RecordError, match=said):
        check_ranges(cfg, Train)


@pytest.mark.parametrize(
    ("option", "wrong"),
    [("laplace_power", "temperature=0"), ("laplace_power", "temperature=-1"), ("fisher", "reliability=3"),
     ("fisher", "reliability=-1"), ("fisher", "votes=0"), ("logdet", "votes=0"), ("logdet", "cap=2"),
     ("bald", "cost_power=-1"), ("safe", "random_share=2"), ("disagreement", "members=1"), ("kcentre", "sample=0"),
     ("facility", "reference=0"), ("delta_ucb", "confidence=-1"), ("error_focused", "most=0"),
     ("prompt_coverage", "clusters=0"), ("distinct", "then.similarity=2")],
)  # fmt: skip
def test_selectors_refuse(option, wrong):
    with pytest.raises(RecordError, match=rf"^selector\.{wrong} must be a"):
        check_ranges(composed("train", "task=active", f"selector={option}", f"selector.{wrong}"), Train)


@pytest.mark.parametrize("option", sorted(path.stem for path in (CONF / "selector").glob("*.yaml")))
def test_every_selector_is_let_through(option):
    cfg = composed("train", "task=active", f"selector={option}")
    check_ranges(cfg, Train)


@pytest.mark.parametrize("task", ["sft", "dpo", "policy", "iterate", "tradeoff", "early_stopping", "active"])
def test_the_defaults_of_every_task_are_let_through(task):
    check_ranges(composed("train", f"task={task}"), Train)
    check_room(composed("train", f"task={task}"))


@pytest.mark.parametrize(
    ("overrides", "key", "length", "longest", "left"),
    [
        (["task=policy"], "task", 64, 56, 8),
        (["task=policy"], "task", 20, 40, 0),
        (["task=iterate", "policy=language"], "policy", 64, 49, 15),
        (["task=policy", "batches.min_prompt=0"], "task", 40, 40, 0),
    ],
)
def test_a_policy_is_shown_some_of_its_prompt(overrides, key, length, longest, left):
    key = f"{key}.max_new_tokens"
    given = [*overrides, f"max_length={length}", f"{key}={longest}"]
    with pytest.raises(RecordError, match=rf"^key '{key}': max_length={length}.* {left} tokens of a prompt") as said:
        check_room(composed("train", *given))
    least, most = (int(said.value.remedy.split(word)[1].split()[0]) for word in ("max_length=", "tokens="))
    for fits, still_not in ((f"max_length={least}", f"max_length={least - 1}"), (f"{key}={most}", f"{key}={most + 1}")):
        check_room(composed("train", *given, fits))
        with pytest.raises(RecordError, match="tokens of a prompt"):
            check_room(composed("train", *given, still_not))


@pytest.mark.parametrize(
    "wrong",
    ["bootstrap=0", "block=0", "batch_tokens=0", "max_length=1", "perturbed_records=0", "red_team_size=0", "devices=0"],
)
def test_evaluation_refuses(wrong):
    with pytest.raises(RecordError, match=f"^{wrong} must be a whole number, [12] or more($|; shifts=null)"):
        check_ranges(composed("evaluate", "run=x", wrong), Evaluate)


@pytest.mark.parametrize("key", ["shifts.truncated.keep", "probes.truncated_end.keep"])
@pytest.mark.parametrize("value", ["abc", "0", "1", "2"])
def test_evaluation_refuses_to_keep_all_or_nothing(key, value):
    with pytest.raises(RecordError, match=f"^{key}={value} must be a number above 0, below 1$"):
        check_ranges(composed("evaluate", "run=x", f"{key}={value}"), Evaluate)


def test_evaluation_refuses_answers_made_no_longer():
    with pytest.raises(RecordError, match=r"^shifts\.long\.times=1 must be a number above 1$"):
        check_ranges(composed("evaluate", "run=x", "shifts.long.times=1"), Evaluate)


@pytest.mark.parametrize("off", [[], ["shifts.truncated=null"], ["shifts=null", "probes=null"]])
def test_evaluation_without_shifts_and_probes_is_let_through(off):
    check_ranges(composed("evaluate", "run=x", *off), Evaluate)


@pytest.mark.parametrize(
    ("key", "wrong", "right"),
    [
        ("shifts.truncated.keep", ("abc", "2", "1", "0"), "0.9"),
        ("probes.truncated_end.keep", ("abc", "1", "0"), "0.1"),
        ("shifts.long.times", ("abc", "1", "-3"), "1.5"),
    ],
)
def test_changes_of_answers_that_change_nothing_or_cannot_be_are_refused(key, wrong, right):
    for value in wrong:
        with pytest.raises(RecordError, match=rf"^{key}={value} must be a number above [01]"):
            check_ranges(composed("evaluate", f"{key}={value}"), Evaluate)
    change = key.rpartition(".")[0]
    for fits in (f"{key}={right}", f"{change}=null", f"{change.split('.')[0]}=null"):
        check_ranges(composed("evaluate", fits), Evaluate)


def test_no_changes_at_all_are_asked_for_by_null():
    with pytest.raises(RecordError, match="shifts=null probes=null changes no answer"):
        check_ranges(composed("evaluate", "perturbed_records=0"), Evaluate)
    check_ranges(composed("evaluate", "shifts=null", "probes=null"), Evaluate)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["run=[]"], r"^run=<folder of a run"),
        (["run=x", "sections.accuracy=null"], r"^key 'sections\.accuracy': the numbers that report"),
        (["run=x", "sections=null"], r"^key 'sections\.accuracy': the numbers that report"),
        (["scores=x.parquet", "sections.accuracy=null"], r"^key 'sections\.accuracy': the numbers that report"),
    ],
)
def test_a_report_of_nothing_or_without_its_numbers_is_refused(overrides, said):
    with pytest.raises(RecordError, match=said):
        evaluate(composed("evaluate", *overrides))


@pytest.mark.parametrize(
    "right",
    [[], ["trainer.validate_every=1"], ["bootstrap=0"], ["batches.batch_tokens=4096"], ["experiment=ukpconvarg_tiny"]],
)
def test_what_can_be_meant_is_let_through(right):
    check_ranges(composed("train", *right), Train)


def test_every_wrong_number_is_said_and_torch_stays_out(root, tmp_path):
    code = (
        "import sys\nfrom omegaconf import OmegaConf\nfrom rlhf import assemble\n"
        "train, evaluate = assemble.train, assemble.evaluate\n"
        "for command, wrong in ((train, {'epochs': 0.4, 'batch_size': 0}), (evaluate, {'bootstrap': 0}),\n"
        "                       (train, {'max_length': 64, 'batches': {'min_prompt': 16},\n"
        "                                'task': {'max_new_tokens': 56}}),\n"
        "                       (evaluate, {'part': 'tset'})):\n"
        "    try:\n        command(OmegaConf.create(wrong))\n"
        "    except ValueError as error:\n        print(error)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "epochs=0.4 must be a whole number, 1 or more",
        "batch_size=0 must be a whole number, 1 or more",
        "bootstrap=0 must be a whole number, 1 or more",
        "key 'task.max_new_tokens': max_length=64, of which task.max_new_tokens=56 are for the completion, leaves the "
        "policy 8 tokens of a prompt; batches.min_prompt=16: at least 16 "
        "(task.max_new_tokens=48 or less, or max_length=72 or more)",
        "part=tset: one of train, val, test, all",
        "False",
    ]
