"""`task=sft`, `task=dpo`, `task=policy` from the command line; a policy run that is stopped goes on bit for bit."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.optimise.policy.module import PolicyModule

pytestmark = pytest.mark.slow
TINY = ["model=toy", "model.width=16", "model.depth=1", "data.size=80", "split=balanced", "batch_size=16"]
SMALL = ["data.size=80", "split=balanced", "batch_size=16"]


def metrics(folder: Path) -> dict[str, float]:
    return json.loads((folder / "metrics.json").read_text())


def test_from_demonstrations_to_a_policy_on_a_reward_and_a_resumed_one(train, capsys, monkeypatch):
    start = train("task=sft", *TINY)
    assert metrics(start)["export/difference"] < 1e-4
    assert 0 < metrics(start)["test/nll"] < math.log(1000)
    model = AutoModelForCausalLM.from_pretrained(start / "model")
    tokenizer = AutoTokenizer.from_pretrained(start / "model")
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert model(**tokenizer(text, add_special_tokens=False, return_tensors="pt")).logits.shape[-1] == len(tokenizer)

    given = ["model=local", f"model.path={start}/model", *SMALL]
    found = metrics(train("task=dpo", *given, "adapter=lora", "adapter.build.rank=2", "bootstrap=0"))
    assert found["export/difference"] < 1e-4
    assert math.isfinite(found["test/pair_accuracy"])

    reward = train(*TINY, "head=ensemble", "head.members=2")
    policy = [
        "task=policy", f"reward={reward}", *given, "adapter=lora", "shaping=adaptive", "shaping.controller.horizon=100",
        "task.prompts=4", "task.completions=2", "task.max_new_tokens=8", "task.reference_samples=32",
        "task.eval_prompts=8", "trainer.save_every=1", "optimizer.build.lr=1e-2", "scheduler=constant",
    ]  # fmt: skip
    capsys.readouterr()
    train(*policy, "task.dry_run=true")
    shown = capsys.readouterr().out
    assert "= reward" in shown
    assert "token rewards" in shown

    whole = train(*policy, "task.steps=4")
    step = PolicyModule.training_step

    def dying(self, tasks, batch_idx):
        if self.trainer.global_step == 2:
            raise RuntimeError("killed")
        return step(self, tasks, batch_idx)

    monkeypatch.setattr(PolicyModule, "training_step", dying)
    stopped = whole.parent / "stopped"
    with pytest.raises(SystemExit):
        train(*policy, "task.steps=4", folder=stopped)
    monkeypatch.setattr(PolicyModule, "training_step", step)
    resumed = train(*policy, "task.steps=4", "ckpt=last", folder=stopped)
    assert (whole / "traces.csv").read_text() == (resumed / "traces.csv").read_text()
    assert metrics(whole) == metrics(resumed)
    short = train(*policy, "task.steps=3")  # ends in the middle of an epoch of 16 prompts, 4 at a time
    longer = train(*policy, "task.steps=4", f"ckpt={short}")
    assert (whole / "traces.csv").read_text() == (longer / "traces.csv").read_text()
    assert metrics(whole) == metrics(longer)
    one, two = (torch.load(f / "checkpoints" / "last.ckpt", weights_only=True) for f in (whole, resumed))
    assert all(torch.equal(one["state_dict"][k], two["state_dict"][k]) for k in one["state_dict"])
    assert all("lora" in name for name in one["state_dict"])
    assert one["controller"] == two["controller"]
    header = (whole / "traces.csv").read_text().splitlines()[0].split(",")
    assert {"kl", "reward", "gold"} <= set(header)
    assert AutoModelForCausalLM.from_pretrained(whole / "model") is not None


def test_a_policy_without_a_reward_is_refused(train):
    with pytest.raises((SystemExit, ValueError)):
        train("task=policy", *TINY)
