"""A small data module and reward module of the toy world."""

from functools import partial

import torch

from rlhf.data.datamodule import PreferenceData
from rlhf.data.render import Renderer
from rlhf.data.splits import HashSplit
from rlhf.labels.aggregation import soft
from rlhf.models.backbone import Backbone
from rlhf.models.heads import LinearHead
from rlhf.models.pretrained import Tiny
from rlhf.models.reward_model import RewardModel
from rlhf.reward.losses import soft_label
from rlhf.reward.module import RewardModule
from rlhf.reward.schedule import constant
from rlhf.toy.world import ToyWorld


def build_data(cache, size=120, **kwargs):
    renderer = Renderer(Tiny().tokenizer(), max_length=256)
    settings = {"batch_size": 8, "eval_batch_size": 64, "seed": 0} | kwargs
    data = PreferenceData(
        source=ToyWorld(size=size), aggregation=partial(soft), splitter=HashSplit(), renderer=renderer,
        cache=cache, **settings,
    )  # fmt: skip
    data.setup()
    return data


def build_module(loss=soft_label, head=LinearHead, **kwargs):
    model_source = Tiny(width=16, depth=1, heads=2)
    backbone = Backbone(model_source.classifier(model_source.tokenizer()))
    return RewardModule(
        RewardModel(backbone, head(16)), loss=loss, optimizer=torch.optim.AdamW, schedule=constant, **kwargs
    )
