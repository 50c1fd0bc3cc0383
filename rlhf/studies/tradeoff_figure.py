"""The figure of the trade-off: gold against KL, over seeds, and against what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def draw(path: Path, metrics: Mapping[str, float], gold: Mapping[str, Sequence[float]]) -> None:
    """Three panels.

    Args:
        path: of the PNG.
        metrics: of `rlhf.studies.tradeoff.compare`.
        gold: method -> gold of every world. Methods whose names are alike up to the last word are joined by a line.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(17, 5.2), layout="constrained")
    kinds: dict[str, list[str]] = {}
    for name in gold:
        kinds.setdefault(" ".join(name.split()[:-1]) or name, []).append(name)
    place = 0
    for number, (kind, names) in enumerate(kinds.items()):
        style = {"color": f"C{number}", "marker": "o", "capsize": 3, "linewidth": 1, "label": kind}
        means = [metrics[f"{n}/gold"] for n in names]
        bars = [
            [abs(metrics[f"{n}/gold/{end}"] - metrics[f"{n}/gold"]) for n in names] for end in ("low", "high")
        ]
        left.errorbar([metrics[f"{n}/kl"] for n in names], means, bars, **style)
        right.errorbar([metrics[f"{n}/seconds"] for n in names], means, bars, **style)
        for n in names:
            left.annotate(
                n.split()[-1], (metrics[f"{n}/kl"], metrics[f"{n}/gold"]), (4, 5), textcoords="offset points"
            )
            middle.plot([place] * len(gold[n]), gold[n], "o", color=f"C{number}", alpha=0.6)
            place += 1
    left.set(xlabel="KL from the reference, nats (best of n: upper bound)", ylabel="gold, log-odds")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(kinds))
    middle.set_xticks(range(len(gold)), list(gold), rotation=90)
    middle.set(ylabel="gold, one point per seed")
    right.set(
        xlabel="CPU seconds (best of n: all held-out answers)",
        ylabel="gold, log-odds",
    )
    figure.suptitle("means over seeds, 95% t intervals")
    figure.savefig(path, dpi=110)
    plt.close(figure)
