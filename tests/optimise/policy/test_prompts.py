"""Prompts that a policy cannot read whole are counted and said, in task=policy and in task=iterate."""

import json
import warnings

import pytest

from rlhf.collect.decoding import Decoding
from rlhf.collect.prompts import Task
from rlhf.data.render import Renderer
from rlhf.models.policy import CausalPolicy
from rlhf.optimise.policy.prompts import count_trimmed
from rlhf.optimise.policy.rollout import CausalRolloutPolicy
from rlhf.toy.gold import ToyGold
from rlhf.toy.tabular_policy import TabularPolicy
from rlhf.toy.tokenizer_model import ToyModel
from rlhf.toy.world import ToyWorld

MODEL_SOURCE = ToyModel(width=16, depth=1, heads=2, max_length=256, vocabulary=400)
TASKS = [Task(str(n), str(n), "word " * n, None, None) for n in (1, 4, 20, 30)]


def language_policy(length):
    tokenizer = MODEL_SOURCE.tokenizer()
    return CausalRolloutPolicy(
        CausalPolicy(MODEL_SOURCE.causal(tokenizer)), Renderer(tokenizer, max_length=length),
        decoding=Decoding(top_p=1.0), max_new_tokens=6,
    )  # fmt: skip


def test_a_prompt_counts_where_the_policy_reads_less_than_all_of_it():
    policy = language_policy(250)
    whole = [len(policy.renderer.opening_ids(task.prompt)) for task in TASKS]
    for length in (whole[0] + 6, whole[1] + 5, whole[2] + 6, 250):
        rollout = language_policy(length).rollout(TASKS, 1)
        read = (rollout.state.attention_mask.sum(1) - rollout.mask.sum(1)).tolist()
        lost = sum(a < b for a, b in zip(read, whole, strict=True))
        assert language_policy(length).trimmed(TASKS) == lost
    with pytest.warns(
        UserWarning, match=r": 2 of 4 \(train\), 0 of 1 \(evaluated\); .*larger max_length.*smaller my\.key"
    ):
        found = count_trimmed(language_policy(whole[2] + 5), {"train": TASKS, "evaluated": TASKS[:1]}, key="my.key")
    assert found == {
        "prompts/train/count": 4, "prompts/train/trimmed": 2,
        "prompts/evaluated/count": 1, "prompts/evaluated/trimmed": 0,
    }  # fmt: skip


def test_nothing_is_said_where_nothing_is_lost():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert count_trimmed(language_policy(250), {"train": TASKS})["prompts/train/trimmed"] == 0
        assert count_trimmed(TabularPolicy(ToyGold(ToyWorld(size=40))), {"train": TASKS})["prompts/train/trimmed"] == 0


def counts(run):
    found = json.loads((run / "metrics.json").read_text())
    return {
        name: (found[f"prompts/{name}/trimmed"], found[f"prompts/{name}/count"])
        for name in ("train", "evaluated", "oversight")
    }


@pytest.mark.slow
def test_a_policy_says_how_many_prompts_it_reads_the_end_of(train, exported, policy, capsys):
    given = ["task=policy", f"reward={exported()}", "model=local", f"model.path={policy}", "shaping=fixed",
             "task.prompts=2", "task.completions=2", "task.max_new_tokens=4", "task.reference_samples=32",
             "task.eval_prompts=4", "task.steps=1", "max_length=20",
             "task.oversight={_target_:rlhf.optimise.policy.oversight.Oversight,every:5,prompts:6}"]  # fmt: skip
    with pytest.warns(
        UserWarning, match=r"(\d+) of \1 \(train\), 4 of 4 \(evaluated\), 6 of 6 \(oversight\).*'?task\.max"
    ):
        found = counts(train(*given))
    assert found["evaluated"] == (4, 4)
    assert found["oversight"] == (6, 6)
    assert found["train"][0] == found["train"][1] > 10
    capsys.readouterr()
    train(*given, "task.dry_run=true")
    assert "prompt, which the policy reads without its beginning: " in capsys.readouterr().out


@pytest.mark.slow
def test_a_loop_says_it_too(train):
    given = ["task=iterate", "policy=language", "policy.max_new_tokens=4", "model=toy", "model.width=16",
             "model.depth=1", "data.size=60", "task.plan.generations=1", "task.plan.steps=1", "task.plan.prompts=2",
             "task.plan.samples=4", "task.plan.k=2", "task.plan.labelled=2", "task.plan.reference_samples=32",
             "task.plan.eval_prompts=5", "task.plan.oversight=4", "shaping.rules.missing_eos=null"]  # fmt: skip
    with pytest.warns(UserWarning, match=r"5 of 5 \(evaluated\), 4 of 4 \(oversight\).*smaller policy\.max_new_tokens"):
        found = counts(train(*given, "max_length=20"))
    assert (found["evaluated"], found["oversight"]) == ((5, 5), (4, 4))
    assert counts(train(*given))["evaluated"] == (0, 5)
