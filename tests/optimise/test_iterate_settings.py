"""`task=iterate` and its kin before anything is long: learning rates, own prompts, where a run goes on."""

import csv

import hydra
import pytest
from omegaconf import OmegaConf

from rlhf.assemble import CONF
from rlhf.assemble.iterate import loop_of
from rlhf.assemble.policy import policy_run
from rlhf.assemble.tradeoff import _world
from rlhf.data.toy import ToyWorld
from rlhf.record_types import RecordError
from rlhf.records import write

SMALL = [
    "task=iterate", "task.plan.generations=1", "task.plan.steps=2", "task.plan.prompts=8",
    "task.plan.samples=8", "task.plan.k=2", "task.plan.labelled=5", "task.plan.reference_samples=64",
    "task.plan.judged=10", "task.plan.oversight=4",
]  # fmt: skip


def compose(*overrides):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("train", overrides=list(overrides))


def test_the_learning_rate_is_the_speakers():
    assert compose("task=iterate").optimizer.build.lr == 0.1
    assert compose("task=iterate", "speaker=language").optimizer.build.lr == 1e-3
    assert compose("task=iterate", "speaker=language", "adapter=lora").optimizer.build.lr == 1e-4
    assert compose("task=policy").optimizer.build.lr == 1e-3
    own = compose("task=iterate", "teacher=trained")
    own.speaker = None  # as `rewarded_run` does
    assert own.optimizer.build.lr == 1e-3


def test_the_default_loop_trains_the_toy_policy(train):
    run = train(*SMALL, "task.plan.steps=40")
    rows = list(csv.DictReader((run / "traces.csv").open()))
    assert len(rows) == 40
    assert float(rows[0]["kl"]) == 0
    assert float(rows[-1]["kl"]) > 0.3  # with a learning rate for networks: 0.00


@pytest.fixture
def own(tmp_path):
    """A file of records that say nothing of the truth."""
    from dataclasses import replace

    records = [
        replace(r, completions=tuple(replace(c, meta={}) for c in r.completions))
        for r in ToyWorld(size=60).records()
    ]
    write(tmp_path / "own.jsonl", records)
    return [*SMALL, "data=jsonl", f"data.path={tmp_path}/own.jsonl"]


def test_own_prompts_go_through_the_loop_without_gold(train, own):
    run = train(
        *own, "speaker=language", "speaker.max_new_tokens=4", "model=toy", "model.width=16", "model.depth=1",
        "task.voter=null", "task.plan.prompts=2", "shaping.rules.missing_eos=null",
    )  # fmt: skip
    header = (run / "traces.csv").read_text().splitlines()[0].split(",")
    assert "kl" in header
    assert "gold" not in header
    assert (run / "generation-0" / "unlabelled.jsonl").is_file()  # it waits for people


def test_what_needs_the_toy_world_says_so(tmp_path, own):
    with pytest.raises(RecordError, match=r"key 'speaker'.*data=toy"):
        loop_of(compose(*own, "task.voter=null"), tmp_path, 0)
    with pytest.raises(RecordError, match=r"task\.voter.*task\.voter=null"):
        loop_of(compose(*own, "speaker=language", "model=toy"), tmp_path, 0)
    with pytest.raises(RecordError, match=r"key 'data'.*data=toy"):
        _world(compose("task=tradeoff", *own[-2:]), 0)


@pytest.mark.parametrize(
    ("task", "leaves", "longer"),
    [
        (["task=iterate"], "generation-0", "task.plan.generations=9"),
        (["experiment=early_warning"], "biased/seed-0", "task.margin=0.2"),
    ],
)
def test_a_loop_goes_on_in_its_own_folder_only(tmp_path, monkeypatch, task, leaves, longer):
    """Named or `last`; a mistyped name, another task's folder and other settings are refused."""
    monkeypatch.setattr("rlhf.assemble.iterate.run_folder", lambda: tmp_path / "runs" / "new")
    monkeypatch.setattr("rlhf.assemble.warnings.run_folder", lambda: tmp_path / "runs" / "new")
    given = [*task, f"runs={tmp_path}/runs"]

    def folder(*overrides):
        cfg = compose(*given, *overrides)
        return hydra.utils.instantiate(cfg.task.build)(cfg).folder

    assert folder() == tmp_path / "runs" / "new"
    with pytest.raises(FileNotFoundError, match="no run of this task"):
        folder("ckpt=last")
    own = tmp_path / "runs" / "own"
    (own / ".hydra").mkdir(parents=True)
    OmegaConf.save(compose(*given), own / ".hydra" / "config.yaml")
    with pytest.raises(FileNotFoundError, match="no folder of a run of this task"):
        folder(f"ckpt={own}")
    (own / leaves).mkdir(parents=True)
    assert folder("ckpt=last") == folder(f"ckpt={own}") == folder(f"ckpt={own}", longer) == own
    with pytest.raises(FileNotFoundError, match="no folder of a run of this task"):
        folder(f"ckpt={own}x")
    with pytest.raises(ValueError, match=r"data, task\.plan\.steps differ"):
        folder(f"ckpt={own}", "data.size=9", "task.plan.steps=3")
    with pytest.raises(FileNotFoundError, match="these settings"):
        folder("ckpt=last", "data.size=9")


def test_a_policy_without_a_reward_model_is_refused_first():
    with pytest.raises(RecordError, match="key 'reward': task=policy needs"):
        policy_run(compose("task=policy"))
    with pytest.raises(RecordError, match="key 'reward': there is no folder nowhere"):
        policy_run(compose("task=policy", "reward=nowhere"))
