"""Figures of a policy's training: gold beside proxy, and everything that could have warned."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rlhf.evaluation.report.style import FAINT, RED, SERIES, legend_above, plot

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
    figure = Figure(figsize=(18, 8.5), layout="constrained")
    steps = [row["step"] for row in trace]
    for place, (names, label) in enumerate(PANELS):
        axis = plot(figure, "step", label, (2, 4, place + 1))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        for name, colour in zip(names, SERIES, strict=False):
            if name in trace[0]:
                axis.plot(steps, [row[name] for row in trace], color=colour, label=name, linewidth=1)
        for i, step in enumerate(generations):
            axis.axvline(step, color=FAINT, linestyle=":", label=None if i else "a generation begins")
        for i, step in enumerate(stopped):
            axis.axvline(step, color=RED, linestyle="--", label=None if i else "early stopping")
        legend_above(axis, columns=2)
    _draw_votes(plot(figure, "step", "share of votes", (2, 4, 7)), votes)
    last = plot(figure, "√KL", "reward", (2, 4, 8))
    if "gold" in trace[0]:
        root = [max(row["kl"], 0) ** 0.5 for row in trace]
        for name, colour in zip(("reward", "gold"), SERIES, strict=False):
            last.plot(root, [row[name] for row in trace], ".", color=colour, label=name)
        legend_above(last, columns=2)
    figure.savefig(path, dpi=110)


def _draw_votes(axis: Any, votes: Mapping[int, Mapping[str, float]]) -> None:
    for other, colour in zip(("reference", "previous"), SERIES, strict=False):
        name = f"policy/{other}"
        steps = [s for s in sorted(votes) if name in votes[s]]
        if steps:
            share, low, high = np.array([[votes[s][name + end] for s in steps] for end in ("", "/ci_low", "/ci_high")])
            ends = [share - low, high - share]
            axis.errorbar(steps, share, ends, marker="o", capsize=3, color=colour, label=f"policy against {other}")
            legend_above(axis, columns=1)
    axis.axhline(0.5, color=FAINT, linewidth=0.5)
    axis.set_ylim(0, 1)
