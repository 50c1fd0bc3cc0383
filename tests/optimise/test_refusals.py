"""What cannot be meant is refused with key and remedy, before anything is trained."""

import hydra
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaModel

from rlhf.assemble import CONF
from rlhf.assemble.tasks.early_stopping import check_study
from rlhf.assemble.tasks.iterate import iterate_run
from rlhf.assemble.tasks.policy import policy_run
from rlhf.assemble.tasks.tradeoff import tradeoff_run
from rlhf.collect.decoding import Decoding
from rlhf.models.pretrained import Pretrained, load_causal
from rlhf.optimise.policy.module import PolicyModule
from rlhf.optimise.policy.oversight import Oversight
from rlhf.optimise.policy.ppo_module import PpoModule
from rlhf.optimise.shaping.kl_controllers import Context, Fixed, PerPrompt
from rlhf.records import RecordError


def compose(*overrides):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("train", overrides=list(overrides))


def test_a_reward_model_is_no_policy(exported, policy, tmp_path):
    folder = str(exported() / "model" if (exported() / "model").is_dir() else exported())
    model_source = Pretrained(folder)
    with pytest.raises(RecordError, match=r"'model\.path'.*LlamaForSequenceClassification.*causal language"):
        model_source.causal(model_source.tokenizer())
    trunk = LlamaModel.from_pretrained(str(policy))  # its config names another architecture, and it has no head
    trunk.save_pretrained(tmp_path)
    with pytest.raises(RecordError, match=r"LlamaModel and holds no language-model head"):
        load_causal(str(tmp_path))
    whole = load_causal(str(policy))
    own = AutoModelForCausalLM.from_pretrained(str(policy))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), own.parameters(), strict=True))


def test_a_model_with_tied_weights_stores_no_head_and_is_a_policy(policy, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(str(policy), tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(str(policy)).save_pretrained(tmp_path)
    assert load_causal(str(tmp_path)).get_output_embeddings() is not None


@pytest.mark.parametrize("task", ["sft", "dpo", "policy"])
def test_no_task_generates_with_a_reward_model(task, exported, tmp_path, monkeypatch):
    for name in ("policy", "tuning"):
        monkeypatch.setattr(f"rlhf.assemble.tasks.{name}.run_folder", lambda: tmp_path)
    given = ["model=local", f"model.path={exported()}", "data.size=80", "split=balanced", "logger=csv"]
    reward = [f"reward={exported()}"] if task == "policy" else []
    cfg = compose(f"task={task}", *given, *reward, f"batches.cache={tmp_path}")
    with pytest.raises(RecordError, match="LlamaForSequenceClassification"):
        hydra.utils.instantiate(cfg.task.build)(cfg)


def test_how_many_completions_is_the_algorithms_matter(exported):
    given = ["task=policy", f"reward={exported()}", "task.completions=1"]
    with pytest.raises(RecordError, match=r"'task\.completions': 1 must be 2 or more.*algorithm=ppo"):
        policy_run(compose(*given))
    PpoModule.check_completions(1)
    with pytest.raises(RecordError, match=r"'task\.plan\.completions': 1"):
        iterate_run(compose("task=iterate", "task.plan.completions=1"))
    with pytest.raises(RecordError, match=r"'task\.completions': 1"):
        tradeoff_run(compose("task=tradeoff", "task.completions=1"))


@pytest.mark.parametrize("seeds", ["[0,0]", "[1,2,1]", "[3]"])
def test_a_seed_counts_once(seeds):
    with pytest.raises(RecordError, match=r"'task\.seeds'"):
        tradeoff_run(compose("task=tradeoff", f"task.seeds={seeds}"))
    with pytest.raises(RecordError, match=r"'task\.seeds'"):
        iterate_run(compose("experiment=mitigations", f"task.seeds={seeds}"))
    with pytest.raises(RecordError, match=r"'task\.seeds'"):
        check_study(compose("experiment=early_stopping", f"task.seeds={seeds}"))


def test_early_stopping_is_evaluated_on_other_runs_of_known_worlds():
    check_study(compose("experiment=early_stopping"))
    with pytest.raises(RecordError, match=r"'task\.chosen_seeds': \[1\] are in task\.seeds"):
        check_study(compose("experiment=early_stopping", "task.seeds=[0,1]", "task.chosen_seeds=[1]"))
    with pytest.raises(RecordError, match=r"'task\.chosen_on': nowhere not in task\.worlds"):
        check_study(compose("experiment=early_stopping", "task.chosen_on=[nowhere]"))


def test_what_others_are_compared_with_is_measured():
    with pytest.raises(RecordError, match=r"'task\.against': 8 is none of task\.best_of=\[4, 24, 64\]"):
        tradeoff_run(compose("task=tradeoff", "task.against=8"))


def test_oversight_happens_sometimes():
    with pytest.raises(RecordError, match=r"'task\.oversight\.every': 0"):
        Oversight(every=0)
    with pytest.raises(RecordError, match=r"'task\.oversight\.prompts': 0"):
        Oversight(prompts=0)


def test_a_distribution_is_whole_before_a_model_is_loaded(exported, policy, tmp_path, monkeypatch):
    monkeypatch.setattr("rlhf.assemble.tasks.policy.run_folder", lambda: tmp_path)
    cfg = compose("task=policy", f"reward={exported()}", "task.decoding.top_p=0.9", "data.size=80",
                  "split=balanced", "model=local", f"model.path={policy}")  # fmt: skip
    with pytest.raises(RecordError, match=r"'task\.decoding'.*'top_p': 0\.9.*whole distribution.*top_p=1"):
        policy_run(cfg)
    with pytest.raises(RecordError, match=r"'decoding\.top_p': 2 is out of range"):
        Decoding(top_p=2)


def test_a_single_head_cannot_doubt():
    with pytest.raises(RecordError, match=r"'shaping'.*single member.*head=ensemble"):
        PerPrompt(Fixed(0.1)).betas(Context(torch.zeros(3), [None] * 3))


@pytest.mark.parametrize(
    ("kind", "stored", "said"),
    [
        (PpoModule, {"state_dict": {"policy.x": 0}, "controller": {}}, r"'ckpt'.* of rloo.*algorithm=rloo"),
        (PolicyModule, {"state_dict": {"value.linear.bias": 0}, "controller": {}}, r"'ckpt'.* of ppo.*algorithm=ppo"),
        (PolicyModule, {"state_dict": {"model.head": 0}}, "'ckpt'.*another task.*task=policy"),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_algorithm_is_refused(kind, stored, said):
    from rlhf.optimise.shaping.ensemble import mean
    from rlhf.optimise.shaping.shaper import Shaper
    from rlhf.reward.schedule import constant
    from rlhf.toy.gold import ToyGold
    from rlhf.toy.tabular_policy import TabularPolicy
    from rlhf.toy.world import ToyWorld

    module = kind(
        TabularPolicy(ToyGold(ToyWorld(size=40))), None, Shaper(Fixed(0.1), mean), completions=2, early_stopping=None,
        optimizer=torch.optim.Adam, schedule=constant,
    )  # fmt: skip
    with pytest.raises(RecordError, match=said):
        module.on_load_checkpoint(stored)


def test_defaults_pass(tmp_path, monkeypatch):
    for name in ("iterate", "tradeoff"):
        monkeypatch.setattr(f"rlhf.assemble.tasks.{name}.run_folder", lambda: tmp_path)
    cfg = compose("experiment=mitigations", "logger=csv")
    assert list(iterate_run(cfg).loops) == list(cfg.task.conditions)
    assert list(tradeoff_run(compose("task=tradeoff", "logger=csv")).kinds) == ["RLOO", "PPO", "DPO"]
