"""Temperature scaling of an overconfident reward model, single and ensemble (Guo et al. 2017).

Trained on few votes for many steps, a reward model is sure of what it has learned by heart. One temperature, fitted on
other votes (`rlhf.evaluation.metrics.calibration`), is measured on fresh ones. Expected: a large fall of the
calibration error, the accuracy unchanged to the last digit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from scipy.special import expit

from rlhf.evaluation.metrics.calibration import ece, fit_temperature, nll
from rlhf.evaluation.metrics.pair_credit import credit
from rlhf.evaluation.report.style import AMBER, BLUE, legend_below, plot
from rlhf.stats.arrays import Floats
from rlhf.studies.feature_world import FeatureWorld, train
from rlhf.studies.study import Findings, Row, Study, cell, ends_of, over_worlds, whole, within

MODELS = ("single", "ensemble")
SWEEP_METRICS = ("temperature", "accuracy/after", "ece/before", "ece/after", "nll/after")
MEASURES = ("accuracy", "ece", "nll", "brier")


@dataclass(frozen=True, kw_only=True)
class TemperatureScaling(Study):
    """The study: `Study`, of whose ensemble the rewards are averaged, and

    noise       share of all votes that is flipped, 0..0.5
    sharpness   P(i preferred to j) = σ(sharpness · (gold_i - gold_j)) before flipping
    spread      standard deviation of the answers
    held_out    votes that the temperature is fitted on
    fresh       votes that everything is measured on
    """

    noise: float
    sharpness: float
    spread: float
    held_out: int
    fresh: int

    name = "temperature"

    def __post_init__(self) -> None:
        super().__post_init__()
        whole("held_out", self.held_out, 2)
        whole("fresh", self.fresh, 2)
        within("noise", self.noise, 0, 0.5)
        within("sharpness", self.sharpness, 0, above=True)
        within("spread", self.spread, 0, above=True)

    def one(self, seed: int) -> Row:
        """One world. Keys `<single or ensemble>/<measure>/<before or after>`, `.../temperature`, `lead/...`.

        `lead/` is the ensemble's number less the single model's. NLL in nats; Brier and ECE of probabilities, against
        single votes.
        """
        world, rng = FeatureWorld.draw(seed), np.random.default_rng((seed, self.votes))
        model = train(*self._voted(world, self.votes, rng), members=self.members, steps=self.steps, seed=seed)
        held_out, fresh = (self._voted(world, n, rng) for n in (self.held_out, self.fresh))
        on_held_out, on_fresh = model.rewards(held_out[0]), model.rewards(fresh[0])
        out: Row = {}
        for name, rows in zip(MODELS, (slice(0, 1), slice(1, None)), strict=True):
            temperature = fit_temperature(difference(on_held_out[rows]), held_out[1])
            out[f"{name}/temperature"] = temperature
            lead, win = difference(on_fresh[rows]), fresh[1]
            for when, scaled in (("before", lead), ("after", lead / temperature)):
                out |= {f"{name}/{key}/{when}": value for key, value in measured(scaled, win).items()}
        for key in ("accuracy/after", "nll/after", "brier/after", "ece/before", "ece/after"):
            out[f"lead/{key}"] = out[f"ensemble/{key}"] - out[f"single/{key}"]
        return out

    def found(self, rows: Sequence[Row]) -> Findings:
        """A row per model and moment."""
        metrics = over_worlds(rows, bootstrap=self.bootstrap)
        columns = ["model", "temperature", "accuracy", "ECE", "NLL", "Brier"]
        names = {"single": "one model", "ensemble": f"mean of {self.members}"}
        table = []
        for name, shown in names.items():
            for when in ("before", "after"):
                scale = "1" if when == "before" else cell(metrics, f"{name}/temperature", 2)
                table.append([shown, scale, *(cell(metrics, f"{name}/{key}/{when}") for key in MEASURES)])
        leads = (cell(metrics, f"lead/{key}/after", 3, "+") for key in MEASURES)
        table.append(["mean less one, after", "", *leads])
        sweep_metrics = [f"{name}/{key}" for name in MODELS for key in SWEEP_METRICS]
        return Findings(metrics, sweep_metrics, columns, table, draw(metrics, names))

    def _voted(self, world: FeatureWorld, pairs: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
        return world.votes(pairs, self.noise, rng, spread=self.spread, sharpness=self.sharpness)


def difference(members: Floats) -> Floats:
    """Reward of the first of every pair less that of the second [P], the mean over members [M, 2P]."""
    pairs = members.mean(0).reshape(-1, 2)
    return np.asarray(pairs[:, 0] - pairs[:, 1])


def measured(lead: Floats, win: Floats) -> Row:
    """Accuracy, ECE, NLL and Brier of σ(lead) [P] against votes [P]."""
    p = expit(lead)
    return {
        "accuracy": float(credit(lead, win).mean()),
        "ece": ece(p, win),
        "nll": float(nll(lead, win).mean()),
        "brier": float(((p - win) ** 2).mean()),
    }


def draw(metrics: Mapping[str, float], names: Mapping[str, str]) -> Figure:
    """Calibration error and NLL before and after, both models."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    for panel, (key, label) in enumerate({"ece": "ECE", "nll": "NLL in nats"}.items(), start=1):
        axes = plot(figure, "", label, int(f"12{panel}"))
        for (name, shown), colour in zip(names.items(), (BLUE, AMBER), strict=True):
            keys = [f"{name}/{key}/{when}" for when in ("before", "after")]
            axes.plot([0, 1], [metrics[k] for k in keys], "o-", color=colour, label=shown)
            for place, k in enumerate(keys):
                axes.plot([place, place], ends_of(metrics, k), color=colour, alpha=0.45, linewidth=3)
        axes.set_xticks([0, 1], ["before", "after"])
        axes.set_xlim(-0.4, 1.4)
        axes.set_ylim(0, None)
    legend_below(figure, axes)
    return figure
