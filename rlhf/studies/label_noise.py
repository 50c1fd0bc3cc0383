"""How much an ensemble gains over one reward model as labels get noisier (Coste et al. 2024: with 25% flipped, much).

Gains are measured twice: on pairs like those that were voted on, measured by gold, and in the gold of best-of-n picks,
where the single model is overoptimised. What noise adds to a gain is paired by world with the first level of noise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.evaluation.report.style import FAINT, SERIES, legend_below, plot
from rlhf.records import RecordError
from rlhf.studies.best_of_n import SINGLE, Picking, plain
from rlhf.studies.study import Findings, Row, cell, ends_of, over_worlds, whole, within


@dataclass(frozen=True, kw_only=True)
class LabelNoise(Picking):
    """The study: `Picking`, and

    noise   shares of votes that are flipped, each 0..0.5; the others are compared with the first
    at      n of best-of-n, each one of 2, 4, 8, ..., answers
    fresh   pairs, as those voted on, that accuracy against gold is measured on
    """

    noise: Sequence[float]
    at: Sequence[int]
    fresh: int

    name = "label_noise"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("fresh", self.fresh, 2)
        for key, values in (("noise", self.noise), ("at", self.at)):
            if not isinstance(values, list | tuple) or not values or len({*values}) < len(values):
                raise RecordError(
                    f"{values!r} is no list of different numbers", key=f"task.study.{key}", remedy="such as [0, 0.25]"
                    if key == "noise" else "such as [64]"
                )  # fmt: skip
        for level in self.noise:
            within("noise", level, 0, 0.5)
        strange = [n for n in self.at if n not in self.ns[1:]]
        if strange:
            known = ", ".join(map(str, self.ns[1:]))
            raise RecordError(f"{strange} with answers={self.answers}", key="task.study.at", remedy=f"some of {known}")

    def one(self, seed: int) -> Row:
        """One world, all levels. Keys below `noise=<level>/<way>/`: `accuracy`, `gold/<n>`; their `lead` and `added`.

        `lead/<key>` is what an aggregator has more than the single model, `added/<key>` that less the lead at the
        first level of noise.
        """
        out: Row = {}
        for level in self.noise:
            measured = self._measured(seed, level)
            for way, found in measured.items():
                here = f"noise={level:g}/{way}"
                out |= {f"{here}/{key}": value for key, value in found.items()}
                if way != SINGLE:
                    out |= {f"{here}/lead/{key}": v - measured[SINGLE][key] for key, v in found.items()}
        for level in self.noise[1:]:
            for way in self.aggregators:
                for key in self._names:
                    now, first = (out[f"noise={x:g}/{way}/lead/{key}"] for x in (level, self.noise[0]))
                    out[f"noise={level:g}/{way}/added/{key}"] = now - first
        return out

    def found(self, rows: Sequence[Row]) -> Findings:
        """A row per level and way."""
        metrics = over_worlds(rows, bootstrap=self.bootstrap)
        names = self._names
        columns = ["flipped", "by", *(x for name in names.values() for x in (name, "over one model"))]
        table = []
        for level in self.noise:
            for way in self.ways:
                row = [f"{level:.0%}", plain(way)]
                for key in names:
                    digits = 3 if key == "accuracy" else 2
                    here = f"noise={level:g}/{way}"
                    lead = "" if way == SINGLE else cell(metrics, f"{here}/lead/{key}", digits, "+")
                    row += [cell(metrics, f"{here}/{key}", digits), lead]
                table.append(row)
        every = [f"noise={x:g}/{way}/lead" for x in self.noise for way in self.aggregators]
        sweep_metrics = [f"{lead}/{key}" for lead in every for key in names]
        figure = draw(metrics, names, self.noise, list(self.aggregators))
        return Findings(metrics, sweep_metrics, columns, table, figure)

    @property
    def _names(self) -> dict[str, str]:
        return {"accuracy": "accuracy"} | {f"gold/{n}": f"gold, n = {n}" for n in self.at}

    def _measured(self, seed: int, level: float) -> dict[str, Row]:
        world, rng, model = self.learned(seed, level)
        gains = self.gains(world, rng, model)
        x, better = world.votes(self.fresh, 0.0, rng, spread=self.voted_spread)
        out: dict[str, Row] = {}
        for way, rewards in self.rewards(model, x).items():
            lead = rewards[0::2] - rewards[1::2]
            of_n = {f"gold/{n}": float(g) for n, g in zip(self.ns, gains[way], strict=True) if n in self.at}
            out[way] = {"accuracy": float(credit(lead, better).mean()), **of_n}
        return out


def draw(metrics: Mapping[str, float], names: Mapping[str, str], noise: Sequence[float], ways: Sequence[str]) -> Figure:
    """Lead over the single model against the share of flipped votes, a panel per measure, bars of 95% over worlds."""
    figure = Figure(figsize=(3.6 * len(names), 3.6), layout="constrained")
    reach = max(noise) - min(noise) or 1.0
    panels = figure.add_gridspec(1, len(names))
    for panel, (key, name) in enumerate(names.items()):
        axes = plot(figure, "share of votes flipped", f"{name}: lead over one model", panels[0, panel])
        axes.axhline(0, color=FAINT, linewidth=0.8)
        for place, (way, colour) in enumerate(zip(ways, SERIES[1:], strict=False)):
            side = 0.012 * reach * (place - (len(ways) - 1) / 2)
            at = [level + side for level in noise]  # bars side by side
            keys = [f"noise={level:g}/{way}/lead/{key}" for level in noise]
            axes.plot(at, [metrics[k] for k in keys], "o-", markersize=4, color=colour, label=plain(way))
            for x, k in zip(at, keys, strict=True):
                axes.plot([x, x], ends_of(metrics, k), color=colour, alpha=0.45, linewidth=2)
    legend_below(figure, axes)
    return figure
