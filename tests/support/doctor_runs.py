"""Small sound runs for the doctor, to plant one defect in; `verdicts` tells what it finds."""

import json
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace

import torch

from rlhf.data.datamodule import PreferenceData
from rlhf.data.prepare import MERGED
from rlhf.data.render import Renderer
from rlhf.labels.aggregation import soft
from rlhf.models.backbone import Backbone
from rlhf.models.heads import LinearHead
from rlhf.models.lora import no_adapter
from rlhf.models.pretrained import Tiny
from rlhf.models.reward_model import RewardModel
from rlhf.records import Comparison, Completion, Vote
from rlhf.reward.doctor import doctor
from rlhf.reward.losses import soft_label
from rlhf.reward.module import RewardModule
from rlhf.reward.schedule import constant
from rlhf.reward.training import RewardRun

MODEL_SOURCE = Tiny(width=32, depth=1)


def record(number, prompt=None, good=None, bad=None, winner=None):
    """Two votes of three for the good answer, first in every second record and longer in half of them."""
    own = ("Yes, gladly.", "No.") if number % 4 < 2 else ("Yes.", "Not today.")
    good, bad = own[0] if good is None else good, own[1] if bad is None else bad
    texts = (good, bad) if number % 2 else (bad, good)
    wins = f"c{1 - number % 2}" if winner is None else winner
    loses = {"c0": "c1", "c1": "c0", "tie": "tie"}[wins]
    votes = [Vote(f"w{i}", pair=("c0", "c1"), choice=c) for i, c in enumerate((wins, loses, wins))]
    completions = tuple(Completion(f"c{i}", t) for i, t in enumerate(texts))
    return Comparison(f"p{number}", prompt or f"Question {number}?", completions, tuple(votes))


SOUND = [record(n) for n in range(30)]


@dataclass
class Given:
    """Records as a source."""

    given: list
    skipped: list = field(default_factory=list)
    skipped_count: int = 0

    def records(self):
        return iter(self.given)


@dataclass
class ByNumber:
    """Every fifth record validates, the next one tests: decided by the id, so that prompts can be made to leak."""

    needs_fit = False

    def split_of(self, record):
        return {0: "val", 1: "test"}.get(int(record.prompt_id[1:]) % 5, "train")


def data_of(cache, records=SOUND, *, tokenizer=None, source=None, aggregation=soft, grouping=MERGED, **rendering):
    renderer = Renderer(tokenizer or MODEL_SOURCE.tokenizer(), **{"max_length": 128} | rendering)
    data = PreferenceData(
        source=source or Given(records), aggregation=partial(aggregation), eval_aggregation=partial(aggregation),
        splitter=ByNumber(), renderer=renderer, cache=cache, batch_size=8, eval_batch_size=8, seed=0,
        grouping=grouping,
    )  # fmt: skip
    data.setup()
    return data


def module_of(classifier=None, *, loss=soft_label, adapter=no_adapter, head=LinearHead):
    backbone = adapter(
        Backbone(MODEL_SOURCE.classifier(MODEL_SOURCE.tokenizer()) if classifier is None else classifier)
    )
    model = RewardModel(backbone, head(backbone.hidden_size))
    return RewardModule(model, loss=loss, optimizer=torch.optim.AdamW, schedule=constant)


def run_of(folder, data, module=None):
    return RewardRun(
        folder=folder, data=data, module=module or module_of(), monitor="val/nll", checkpoint=None,
        trainer=SimpleNamespace(precision="32-true"),
        bootstrap=0, seed=0,
    )  # fmt: skip


def verdicts(run):
    """Everything that is not `ok`: {name: verdict}; each says what to do."""
    counts = doctor.examine(run)
    checks = json.loads((run.folder / "doctor.json").read_text())
    assert counts["doctor/checks"] == len(checks) == len({c["name"] for c in checks})
    found = {c["name"]: c["verdict"] for c in checks if c["verdict"] != "ok"}
    assert counts["doctor/failed"] == list(found.values()).count("FAIL")
    assert all(c["remedy"] and c["measured"] for c in checks if c["name"] in found)
    return found
