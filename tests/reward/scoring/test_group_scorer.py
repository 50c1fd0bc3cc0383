"""Many prompts at once: the same scores as one at a time, whatever the architecture and the cut into batches."""

import pytest
import torch
from model_zoo import small
from rlhf.reward.scoring.group_scorer import GroupScorer

from rlhf.data.render import PLAIN_ENCODER, Renderer
from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.models.backbone import Backbone
from rlhf.models.heads import EnsembleHead, LinearHead
from rlhf.models.pretrained import Tiny
from rlhf.models.reward_model import RewardModel
from rlhf.reward.scoring.scorer import Scorer
from rlhf.toy.world import ToyWorld

RECORDS = list(ToyWorld(size=9).records())
LAYOUTS = {"llama_gqa": "shared", "gpt2": "shared", "bert": "packed", "deberta": "padded", "bloom": "padded"}


def build(name, head=LinearHead):
    tokenizer = Tiny().tokenizer()
    backbone = Backbone(small(name, max_position_embeddings=600) if name != "bloom" else small(name))
    template = PLAIN_ENCODER.replace("cls_token", "bos_token").replace("sep_token", "eos_token")
    renderer = Renderer(tokenizer, max_length=500, template=None if backbone.causal else template)
    return Scorer(RewardModel(backbone, head(backbone.hidden_size)), renderer, Calibration.identity())


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("budget", [1, 700, 10**6])
def test_scores_do_not_depend_on_the_batch(name, budget):
    scorer = build(name)
    groups = GroupScorer(scorer, batch_tokens=budget)
    assert groups.layout_name == LAYOUTS[name]
    texts = [[c.text for c in r.completions] for r in RECORDS]
    encoded = [scorer.encode(r.prompt, t) for r, t in zip(RECORDS, texts, strict=True)]
    found = groups.score(encoded)
    for record, some, scores in zip(RECORDS, texts, found, strict=True):
        assert groups.combine(scores.members) == pytest.approx(scorer.score(record.prompt, some), abs=2e-6)


def test_members_keep_their_order_and_no_batch_is_over_its_budget(monkeypatch):
    scorer = build("llama_gqa", EnsembleHead)
    groups = GroupScorer(scorer, batch_tokens=400)
    sizes = []
    layout = groups.layout

    def measured(prompts, responses):
        tokens = layout(prompts, responses)
        sizes.append((tokens.input_ids.shape[1], len(tokens.last)))
        return tokens

    groups.layout = measured
    texts = [f"answer {i} " * (i % 5 + 1) for i in range(30)]
    (found,) = groups.score([scorer.encode("Why?", texts)])
    torch.testing.assert_close(found.members, scorer.members("Why?", texts), atol=2e-6, rtol=0)
    assert sum(n for _, n in sizes) == 30
    assert all(tokens <= 400 or n == 1 for tokens, n in sizes)
    assert len(sizes) > 3
