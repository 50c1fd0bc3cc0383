"""Figures of a policy's training: gold beside proxy, and everything that could have warned."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Trace = Sequence[Mapping[str, float]]
PANELS = (
    (("reward", "gold", "exact_gold", "watch"), "reward"),
    (("kl",), "KL in nats per completion"),
    (("length",), "characters"),
    (("disagreement",), "std over members"),
    (("distance",), "distance from the reference (1 = its own)"),
    (("beta",), "β"),
)


def draw_traces(
    path: Path, trace: Trace, votes: Mapping[int, Mapping[str, float]], *,
    generations: Sequence[int] = (), stopped: Sequence[int] = (),
) -> None:  # fmt: skip
    """All traces on one figure.

    Args:
        path: of the PNG.
        trace: rows with `step`.
        votes: step -> win rates of votes (`policy/reference` with its interval).
        generations: steps at which a generation begins.
        stopped: steps at which early stopping fired.
    """
    if not trace:
        return
    figure = Figure(figsize=(18, 8), layout="constrained")
    axes = figure.subplots(2, 4)
    steps = [row["step"] for row in trace]
    for axis, (names, label) in zip(axes.flat, PANELS, strict=False):
        for name in names:
            if name in trace[0]:
                axis.plot(steps, [row[name] for row in trace], label=name, linewidth=1)
        axis.set(xlabel="step", ylabel=label)
        for i, step in enumerate(generations):
            axis.axvline(step, color="grey", linestyle=":", label=None if i else "a generation begins")
        for i, step in enumerate(stopped):
            axis.axvline(step, color="tab:red", linestyle="--", label=None if i else "early stopping")
        _legend(axis)
    _draw_votes(axes.flat[6], votes)
    if "gold" in trace[0]:
        root = [max(row["kl"], 0) ** 0.5 for row in trace]
        for name in ("gold", "reward"):
            axes.flat[7].plot(root, [row[name] for row in trace], ".", label=name)
        axes.flat[7].set(xlabel="√KL", ylabel="reward")
        _legend(axes.flat[7])
    figure.savefig(path, dpi=110)


def _legend(axis: Axes) -> None:
    """Above the panel, where it covers no curve."""
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), ncol=2, fontsize=8, frameon=False)


def _draw_votes(axis: Axes, votes: Mapping[int, Mapping[str, float]]) -> None:
    for other in ("reference", "previous"):
        name = f"policy/{other}"
        steps = [s for s in sorted(votes) if name in votes[s]]
        if steps:
            share, low, high = np.array([[votes[s][name + end] for s in steps] for end in ("", "/ci_low", "/ci_high")])
            ends = [share - low, high - share]
            axis.errorbar(steps, share, ends, marker="o", capsize=3, label=f"policy against {other}")
            _legend(axis)
    axis.axhline(0.5, color="grey", linewidth=0.5)
    axis.set(xlabel="step", ylabel="share of votes", ylim=(0, 1))
