"""`algorithm=ppo` as a Lightning module: passes over a rollout, values, resume, language models, half precision."""

import json
import math
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from transformers import AutoModelForCausalLM

from rlhf.collect.decoding import Decoding
from rlhf.collect.prompts import Task
from rlhf.data.render import Renderer
from rlhf.models.lora import Lora
from rlhf.models.policy import CausalPolicy
from rlhf.optimise.policy.module import PolicyModule, RewardSources
from rlhf.optimise.policy.ppo_module import PpoModule
from rlhf.optimise.policy.rollout import CausalRolloutPolicy
from rlhf.optimise.shaping.ensemble import mean
from rlhf.optimise.shaping.kl_controllers import Fixed
from rlhf.optimise.shaping.shaper import Shaper
from rlhf.reward.schedule import constant
from rlhf.toy.gold import ToyGold
from rlhf.toy.tabular_policy import TabularPolicy
from rlhf.toy.texts import DOMAINS
from rlhf.toy.tokenizer_model import ToyModel
from rlhf.toy.world import QUALITIES, ToyWorld

WORLD = ToyWorld(size=100)
GOLD = ToyGold(WORLD)
TASKS = [Task(str(i), r.prompt_id, r.prompt, r.domain, None) for i, r in enumerate(WORLD.records())]
MODEL_SOURCE = ToyModel(width=16, depth=1, heads=2, max_length=256, vocabulary=400)


class Counts:
    """One member: how often a word stands in the text; the features are its length and that."""

    def score(self, prompts, texts):
        values = torch.tensor([float(t.count("e")) for t in texts])
        return values[None], torch.stack([values, torch.tensor([len(t) / 50 for t in texts])], 1).double().numpy()


def module(policy=None, kind=PpoModule, lr=0.02, **options):
    optimizing = {"optimizer": partial(torch.optim.Adam, lr=lr), "schedule": constant}
    options = {"completions": 4, "early_stopping": None} | options
    made = kind(
        policy or TabularPolicy(GOLD), RewardSources(Counts()), Shaper(Fixed(0.1), mean), **options, **optimizing
    )
    made.set_reward_scale(TASKS[:48], 0)
    return made


def fit(made, steps, size=8, **trainer):
    options = {
        "accelerator": "cpu", "max_steps": steps, "max_epochs": -1, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "gradient_clip_val": 1.0,
    }  # fmt: skip
    run = pl.Trainer(**options | trainer)
    batches = [TASKS[(i * size) % 80 :][:size] for i in range(steps)]
    torch.manual_seed(1)
    run.fit(made, torch.utils.data.DataLoader(batches, batch_size=None, collate_fn=list))
    return run


@pytest.fixture(scope="module")
def tokenizer():
    return MODEL_SOURCE.tokenizer()


def language(tokenizer, adapter=None):
    model = MODEL_SOURCE.causal(tokenizer)
    policy = CausalPolicy(adapter.causal(model) if adapter else model)
    decoding = Decoding(temperature=1.0, top_p=1.0)
    return CausalRolloutPolicy(policy, Renderer(tokenizer, max_length=200), decoding=decoding, max_new_tokens=6)


def test_a_rollout_is_one_step_of_many_passes():
    made = module(epochs=3, minibatches=2, value_lr=0.05)
    steps = []
    made.on_before_optimizer_step = steps.append  # Lightning's own: the last pass
    run = fit(made, 4)
    assert run.global_step == len(made.trace) == len(steps) == 4
    assert [row["step"] for row in made.trace] == [0, 1, 2, 3]
    state = run.optimizers[0].state
    assert {int(s["step"]) for s in state.values()} == {4 * 3 * 2}
    assert [g["lr"] for g in run.optimizers[0].param_groups] == [0.02, 0.02, 0.05]
    assert made.trace[0]["kl"] == 0  # of the policy that sampled, before any pass
    assert made.trace[0]["moved"] > 0
    assert made.trace[-1]["kl"] != 0


def test_one_pass_is_the_policy_gradient_with_values_as_the_baseline():
    made = module(epochs=1, minibatches=1)
    torch.manual_seed(0)
    batch, reward, _ = made._experience(TASKS[:8])
    loss, share, moved = made._pass(batch, torch.arange(32))
    (found,) = torch.autograd.grad(loss, made.policy.logits)
    to_go = reward[:, None] - torch.zeros_like(batch.old_logp)  # at the start KL and values are 0
    torch.testing.assert_close(batch.advantage, to_go)
    plain = -(to_go * made.policy.logp(batch.rollout)).sum(1).mean()
    (wanted,) = torch.autograd.grad(plain, made.policy.logits)
    torch.testing.assert_close(found, wanted)
    assert (float(share), float(moved)) == (0, pytest.approx(0, abs=1e-6))


def test_values_learn_to_explain_the_rewards():
    made = module(lr=0.0, value_lr=0.05)  # the policy stays where it is
    fit(made, 25)
    assert made.trace[0]["value_explained"] == pytest.approx(0, abs=1e-5)
    late = [row["value_explained"] for row in made.trace[-5:]]
    assert sum(late) / 5 > 0.15
    assert all(row["clipped"] == 0 for row in made.trace)


def test_states_of_decisions_hold_what_was_decided_and_nothing_later():
    policy = TabularPolicy(GOLD)
    torch.manual_seed(0)
    rollout = policy.rollout(TASKS[:6], 2)
    states = policy.states(rollout)
    assert states.shape == (12, len(QUALITIES), policy.width)
    domain, chosen = rollout.state
    here = states[:, :, : len(QUALITIES) * len(DOMAINS)]
    assert torch.equal(here.argmax(2) % len(QUALITIES), torch.arange(len(QUALITIES)).expand(12, -1))
    assert torch.equal(here.argmax(2) // len(QUALITIES), domain[:, None].expand(-1, len(QUALITIES)))
    assert torch.equal(states[:, 3].sum(1), torch.full((12,), 1.0 + 3))
    made = states[:, :, here.shape[2] :].unflatten(2, (len(QUALITIES), -1))
    assert torch.equal(made[:, -1, :-1].argmax(-1), chosen[:, :-1])


@pytest.mark.parametrize("adapter", [None, Lora(rank=2, alpha=4, seed=1)], ids=["copy", "lora"])
def test_states_of_a_language_model_predict_its_tokens(tokenizer, adapter):
    policy = language(tokenizer, adapter).eval()
    torch.manual_seed(0)
    rollout = policy.rollout(TASKS[:3], 2)
    states = policy.states(rollout)
    assert states.shape[2] == policy.width
    plain = policy.policy.plain()
    logp = plain.lm_head(states).log_softmax(-1).gather(2, rollout.state.input_ids[..., None])[..., 0]
    wanted = policy.logp(rollout).detach()
    torch.testing.assert_close(logp[rollout.mask].detach(), wanted[rollout.mask], atol=1e-4, rtol=1e-4)
    some = torch.tensor([4, 1])
    torch.testing.assert_close(policy.logp(rollout, some).detach(), wanted[some])


def test_half_precision_sees_the_weights_of_every_pass(tokenizer):
    """Autocast keeps casts of the weights: kept over a pass they would be old, and the second backward would fail."""
    made = module(language(tokenizer), epochs=2, minibatches=2, lr=0.05)
    fit(made, 2, precision="bf16-mixed")
    assert made.trace[0]["moved"] > 1e-3


def test_what_ppo_cannot_do_is_refused():
    with pytest.raises(ValueError, match=r"'algorithm': epochs=0"):
        module(epochs=0)
    with pytest.raises(ValueError, match="0 must be 1 or more per prompt"):
        module(completions=0)
    with pytest.raises(ValueError, match=r"1 must be 2 or more per prompt.*algorithm=ppo"):
        module(kind=PolicyModule, completions=1)
    with pytest.raises(ValueError, match="accumulate_grad_batches=1"):
        fit(module(), 2, accumulate_grad_batches=2)
    one = module(completions=1)
    fit(one, 2)
    assert one.trace[-1]["group_std"] == 0


@pytest.mark.slow
def test_a_stopped_run_of_the_command_goes_on_bit_for_bit_and_values_are_not_exported(train, monkeypatch):
    tiny = ["model=toy", "model.width=16", "model.depth=1", "data.size=80", "split=balanced", "batch_size=16"]
    reward = train(*tiny)
    policy = [
        "task=policy", "algorithm=ppo", f"reward={reward}", *tiny, "adapter=lora", "shaping=fixed", "task.prompts=4",
        "algorithm.epochs=2", "algorithm.minibatches=2", "task.completions=1", "task.max_new_tokens=8",
        "task.reference_samples=32", "task.eval_prompts=8", "trainer.save_every=1", "optimizer.build.lr=1e-2", 
        "scheduler=constant",
    ]  # fmt: skip
    whole = train(*policy, "task.steps=4")
    step = PpoModule.training_step

    def dying(self, tasks, batch_idx):
        if self.trainer.global_step == 2:
            raise RuntimeError("killed")
        return step(self, tasks, batch_idx)

    monkeypatch.setattr(PpoModule, "training_step", dying)
    stopped = whole.parent / "stopped"
    with pytest.raises(SystemExit):
        train(*policy, "task.steps=4", folder=stopped)
    monkeypatch.setattr(PpoModule, "training_step", step)
    resumed = train(*policy, "task.steps=4", "ckpt=last", folder=stopped)
    assert (whole / "traces.csv").read_text() == (resumed / "traces.csv").read_text()
    found = json.loads((whole / "metrics.json").read_text())
    assert found == json.loads((resumed / "metrics.json").read_text())
    assert math.isfinite(found["kl"])
    assert found["export/difference"] < 1e-4
    one, two = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (whole, resumed))
    assert all(torch.equal(one["state_dict"][k], two["state_dict"][k]) for k in one["state_dict"])
    values = [name for name in one["state_dict"] if name.startswith("value.")]
    assert len(values) == 2
    assert one["state_dict"]["value.linear.weight"].abs().sum() > 0
    assert all("lora" in name for name in one["state_dict"] if name not in values)
    exported = AutoModelForCausalLM.from_pretrained(whole / "model")
    assert not any("value" in name for name, _ in exported.named_parameters())
