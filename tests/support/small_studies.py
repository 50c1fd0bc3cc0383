"""Studies in small."""

from rlhf.stats.ensemble import mean, worst_case
from rlhf.studies.best_of_n import BestOfNStudy
from rlhf.studies.label_noise import LabelNoise
from rlhf.studies.temperature import TemperatureScaling

PICKING = {
    "worlds": 2, "votes": 100, "sharpness": None, "voted_spread": 0.7, "sampled_spread": 1.0, "steps": 20, "members": 2,
    "aggregators": {"mean": mean, "worst_case": worst_case}, "answers": 64, "seed": 0, "bootstrap": 200,
}  # fmt: skip
SCALING = {
    "worlds": 2, "votes": 200, "noise": 0.1, "sharpness": 2.0, "spread": 0.7, "steps": 200, "members": 2,
    "held_out": 200, "fresh": 1000, "seed": 0, "bootstrap": 200,
}  # fmt: skip


def best_of_n(**changed):
    return BestOfNStudy(**PICKING | {"noise": 0.25} | changed)


def label_noise(**changed):
    return LabelNoise(**PICKING | {"noise": [0.0, 0.25], "at": [8, 64], "fresh": 500} | changed)


def temperature(**changed):
    return TemperatureScaling(**SCALING | changed)
