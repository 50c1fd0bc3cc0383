"""Models that no stock classifier can hold: one number through every door, and NaN where the door is another's."""

import json

import numpy as np
import pytest
import torch
from running import Served
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import rlhf
from rlhf.collect.pick import reward_of
from rlhf.optimise.shaping.reward_source import RunReward
from rlhf.reward.scoring.score_source import RunSource
from rlhf.toy.world import ToyWorld

pytestmark = pytest.mark.slow
RECORDS = list(ToyWorld(size=8).records())
OWN = {
    "mean": ["model.pooling=mean"],
    "all": ["model.pooling=mean", "model.surface=true", "head=mlp", "adapter=frozen"],
}


@pytest.mark.parametrize("kind", OWN)
@pytest.mark.fresh_process
def test_one_number_through_every_door(kind, train, root, tmp_path):
    folder = train("model=tiny", "model.width=16", "model.depth=1", "max_length=512", *OWN[kind])
    assert json.loads((folder / "metrics.json").read_text())["export/difference"] < 1e-5
    about = json.loads((folder / "model" / "rlhf.json").read_text())
    assert about["needs_rlhf"]
    scorer = rlhf.load(folder)
    expected = [scorer.score(r.prompt, [c.text for c in r.completions]) for r in RECORDS]
    assert np.std(np.concatenate(expected)) > 0
    found = RunSource("x", rlhf.load(folder / "model")).score(RECORDS)  # reports, pools
    for scores, rewards in zip(found, expected, strict=True):
        np.testing.assert_allclose(scores.reward, rewards, atol=1e-5)
    pick = reward_of(str(folder))  # best of n
    flat = [
        (r.prompt, c.text, x)
        for r, xs in zip(RECORDS, expected, strict=True)
        for c, x in zip(r.completions, xs, strict=True)
    ]
    normalised = [float(scorer.calibration.normalise(x)) for _, _, x in flat]
    np.testing.assert_allclose([pick(prompt, [text])[0] for prompt, text, _ in flat], normalised, atol=1e-4)
    rows, _ = RunReward([folder]).score([p for p, _, _ in flat], [t for _, t, _ in flat])  # policies
    np.testing.assert_allclose(rows[0].detach().numpy(), [x for _, _, x in flat], atol=1e-5)
    if kind == "all":  # a process of its own costs seconds
        served = Served(root, folder, tmp_path / "log")
        body = {"prompt": RECORDS[0].prompt, "completions": [c.text for c in RECORDS[0].completions]}
        assert served.post("/score", body).json()["scores"] == pytest.approx(expected[0], abs=1e-5)
        assert served.stop() == 0


def test_other_libraries_get_nan_and_no_wrong_number(train):
    model = train("model=tiny", "model.width=16", "model.depth=1", "max_length=512", "model.surface=true") / "model"
    plain, tokenizer = AutoModelForSequenceClassification.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    with torch.inference_mode():
        logits = plain(**tokenizer("Human: hi\n\nAssistant: yes", return_tensors="pt")).logits
    assert logits.isnan().all()
    card = (model / "README.md").read_text()
    assert "rlhf.load" in card
    assert "NaN" in card
