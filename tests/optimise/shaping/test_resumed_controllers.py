"""`ckpt=<run>` with other settings of the controller, from the command line: what is configured counts."""

import csv

import pytest

pytestmark = pytest.mark.slow
SMALL = ["data.size=80", "split=balanced", "batch_size=16", "model=toy", "model.width=16", "model.depth=1"]


def betas(folder):
    with (folder / "traces.csv").open(encoding="utf-8") as file:
        return [float(row["beta"]) for row in csv.DictReader(file)]


def test_a_resumed_run_has_the_beta_it_is_given(train, exported, capsys):
    policy = [
        "task=policy", f"reward={exported()}", *SMALL, "task.prompts=4", "task.completions=2", "task.max_new_tokens=4",
        "task.reference_samples=32", "task.eval_prompts=4", "trainer.save_every=1", "logger=csv",
    ]  # fmt: skip
    fixed = train(*policy, "shaping=fixed", "task.steps=2")
    assert betas(fixed) == pytest.approx([0.05] * 2)
    changed = train(*policy, "task.steps=4", f"ckpt={fixed}", "shaping.controller.beta=0.7")
    assert betas(changed) == pytest.approx([0.05] * 2 + [0.7] * 2)
    with pytest.warns(UserWarning, match="the checkpoint is of Fixed: Annealed starts from its configuration"):
        annealed = train(*policy, "task.steps=3", f"ckpt={fixed}", "shaping=annealed")
    assert betas(annealed) == pytest.approx([0.05] * 2 + [0.2])
    capsys.readouterr()
    with pytest.warns(UserWarning, match="the checkpoint is of Annealed: Fixed starts from its configuration"):
        train(*policy, f"ckpt={annealed}", "shaping=fixed", "shaping.controller.beta=0.3", "task.dry_run=true")
    assert "beta 0.3," in capsys.readouterr().out
