"""The figure of a training says what its lines are, and an earlier log is kept."""

import csv

import pytest
from matplotlib.figure import Figure

from rlhf.assemble.loggers import keep_earlier
from rlhf.optimise.policy.figures import draw_traces

TRACE = [
    {"step": t, "reward": t / 10, "gold": 1.0, "watch": 0.0, "kl": t / 5, "length": 9.0, "disagreement": 1.0,
     "distance": 1.0, "beta": 0.1} for t in range(20)
]  # fmt: skip


@pytest.mark.slow
def test_every_line_is_explained_and_no_legend_covers_a_curve(tmp_path, monkeypatch):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k))[1])
    draw_traces(tmp_path / "t.png", TRACE, {}, generations=[0, 10], stopped=[8, 18])
    (figure,) = drawn
    figure.canvas.draw()
    for axis in figure.axes[:6]:
        said = [text.get_text() for text in axis.get_legend().get_texts()]
        assert said[-2:] == ["a generation begins", "early stopping"]
        assert not axis.get_legend().get_window_extent().overlaps(axis.get_window_extent().shrunk(0.98, 0.98))
    assert figure.axes[6].get_ylabel() == "share of votes"  # who voted, people or a simulation, is not known here


def test_an_earlier_log_keeps_its_rows_under_another_name(tmp_path):
    path = tmp_path / "metrics.csv"
    keep_earlier(path)
    for text in ("one", "two"):
        path.write_text(text)
        keep_earlier(path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"metrics.1.csv": "one", "metrics.2.csv": "two"}


@pytest.mark.slow
def test_a_policy_logs_every_step_and_keeps_its_log_when_it_is_drawn_again(train, exported, policy, capsys):
    given = ["task=policy", f"reward={exported()}", "model=local", f"model.path={policy}", "shaping=fixed",
             "task.prompts=2", "task.completions=2", "task.max_new_tokens=4", "task.reference_samples=32",
             "task.eval_prompts=4", "task.steps=3", "optimizer.build.lr=1e-2", "scheduler=constant"]  # fmt: skip
    run = train(*given)

    def steps(name):
        rows = csv.DictReader((run / "csv" / name).open())
        return [row["step"] for row in rows if row["train/kl"]]

    assert steps("metrics.csv") == ["0", "1", "2"]
    train(*given, "ckpt=last", folder=run)
    assert steps("metrics.1.csv") == ["0", "1", "2"]
    capsys.readouterr()
    train(*given, "task.dry_run=true", f"ckpt={run}")
    said = capsys.readouterr().out
    assert "last.ckpt, after 3 steps" in said
    nats = float(said.split(", KL ")[1].split()[0])
    assert abs(nats) > 1e-4
    train(*given, "task.dry_run=true")
    said = capsys.readouterr().out
    assert "KL is 0 by construction" in said
    assert abs(float(said.split(", KL ")[1].split()[0])) < 1e-4
