"""`task=iterate` and its kin before anything is long: learning rates, own prompts, where a run goes on."""

import csv
import json

import hydra
import pytest
from omegaconf import OmegaConf
from wandb_run import history

from rlhf.assemble import CONF
from rlhf.assemble.tasks.early_stopping import check_exact_gold
from rlhf.assemble.tasks.iterate import loop_of
from rlhf.assemble.tasks.policy import policy_run
from rlhf.assemble.tasks.tradeoff import _world
from rlhf.optimise.shaping.kl_controllers import Fixed, PerDomain, PerPrompt, check_domains
from rlhf.records import RecordError, read, write
from rlhf.toy.gold import ToyGold
from rlhf.toy.world import ToyWorld

SMALL = [
    "task=iterate", "task.plan.generations=1", "task.plan.steps=2", "task.plan.prompts=8",
    "task.plan.samples=8", "task.plan.k=2", "task.plan.labelled=5", "task.plan.reference_samples=64",
    "task.plan.eval_prompts=10", "task.plan.oversight=4",
]  # fmt: skip


def compose(*overrides):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("train", overrides=list(overrides))


def test_the_learning_rate_is_the_policys():
    assert compose("task=iterate").optimizer.build.lr == 0.1
    assert compose("task=iterate", "policy=language").optimizer.build.lr == 1e-3
    assert compose("task=iterate", "policy=language", "adapter=lora").optimizer.build.lr == 1e-4
    assert compose("task=policy").optimizer.build.lr == 1e-3
    own = compose("task=iterate", "reward_learner=trained")
    own.policy = None  # as `reward_learner_run` does
    assert own.optimizer.build.lr == 1e-3


@pytest.mark.slow
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
        replace(r, completions=tuple(replace(c, meta={}) for c in r.completions)) for r in ToyWorld(size=60).records()
    ]
    write(tmp_path / "own.jsonl", records)
    return [*SMALL, "data=jsonl", f"data.path={tmp_path}/own.jsonl"]


@pytest.mark.slow
def test_one_wandb_run_gets_every_step_and_generation_and_the_figure_and_goes_on(train, capsys):
    first = train(*SMALL, "logger=wandb", "task.label_source=null")
    said = capsys.readouterr().out
    assert "gold [95%]" in said
    assert "KL, nats" in said
    (run,) = (first / "wandb").glob("offline-run-*")
    logged = history(first)
    for name in ("train/disagreement", "train/distance", "train/gold", "generation/kl", "final/reference/gold"):
        assert name in logged
    assert list(run.glob("files/media/images/traces_*.png"))
    assert "{" not in said.split("run:")[0]  # tables, not dicts
    train(*SMALL, "logger=wandb", "task.label_source=null", f"ckpt={first}")
    ids = [path.name.split("-")[-1] for path in (first / "wandb").glob("offline-run-*")]
    assert len(ids) == 2
    assert len(set(ids)) == 1


@pytest.mark.slow
def test_who_votes_does_not_see_the_truth_and_the_loop_knows_it(train):
    run = train(*SMALL, "task.label_source=null")
    folder = run / "generation-0"
    waiting = list(read(folder / "unlabelled.jsonl"))
    assert len(waiting) == 5
    assert "gold" not in (folder / "unlabelled.jsonl").read_text()
    truth = json.loads((folder / "unlabelled.gold.json").read_text())
    world = ToyGold(ToyWorld(size=200, items=6, off_topic=5))
    for record in waiting:
        wanted = world([record.prompt] * 2, [c.text for c in record.completions])
        assert [truth[record.prompt_id][c.id] for c in record.completions] == wanted
    again = train(*SMALL)  # simulated annotators know it
    assert all(len(r.votes) == 3 for r in read(again / "generation-0" / "records.jsonl"))
    rows = list(csv.DictReader((again / "generations.csv").open()))
    assert [row["generation"] for row in rows] == ["reference", "0"]
    assert all(float(r["gold/low"]) < float(r["gold"]) < float(r["gold/high"]) for r in rows)


def test_a_domain_that_no_prompt_has_is_refused_at_the_start(tmp_path):
    given = [*SMALL, "data.size=60", "shaping=per_domain"]
    assert loop_of(compose(*given), tmp_path, 0).shaper.controller.factors == {"safety": 4.0}
    with pytest.raises(RecordError, match=r"factors': .*domain saftey; its domains: .*safety.*~shaping"):
        loop_of(compose(*given, "+shaping.controller.factors.saftey=2"), tmp_path, 0)


def test_a_domain_inside_another_controller_is_looked_at():
    inner = PerDomain(Fixed(0.1), {"law": 2.0})
    with pytest.raises(RecordError, match="its domains: none: its records have no `domain`"):
        check_domains(PerPrompt(inner), {None})
    check_domains(PerPrompt(inner), {None, "law"})


def test_early_stopping_of_a_language_model_is_refused_with_what_to_do():
    with pytest.raises(RecordError, match=r"key 'policy'.*exactly \(policy=toy; .*task=iterate"):
        check_exact_gold(compose("experiment=early_stopping", "policy=language", "model=toy"))
    check_exact_gold(compose("experiment=early_stopping"))


@pytest.mark.slow
def test_own_prompts_go_through_the_loop_without_gold(train, own):
    run = train(
        *own, "policy=language", "policy.max_new_tokens=4", "model=toy", "model.width=16", "model.depth=1",
        "task.label_source=null", "task.plan.prompts=2", "shaping.rules.missing_eos=null",
    )  # fmt: skip
    header = (run / "traces.csv").read_text().splitlines()[0].split(",")
    assert "kl" in header
    assert "gold" not in header
    assert (run / "generation-0" / "unlabelled.jsonl").is_file()  # it waits for people


def test_what_needs_the_toy_world_says_so(tmp_path, own):
    with pytest.raises(RecordError, match=r"key 'policy'.*data=toy"):
        loop_of(compose(*own, "task.label_source=null"), tmp_path, 0)
    with pytest.raises(RecordError, match=r"task\.label_source.*task\.label_source=null"):
        loop_of(compose(*own, "policy=language", "model=toy"), tmp_path, 0)
    with pytest.raises(RecordError, match=r"key 'data'.*data=toy"):
        _world(compose("task=tradeoff", *own[-2:]), 0)


@pytest.mark.parametrize(
    ("task", "leaves", "longer"),
    [
        (["task=iterate"], "generation-0", "task.plan.generations=9"),
        (["experiment=early_stopping"], "biased/seed-0", "task.margin=0.2"),
    ],
)
@pytest.mark.slow
def test_a_loop_goes_on_in_its_own_folder_only(tmp_path, monkeypatch, task, leaves, longer):
    """Named or `last`; a mistyped name, another task's folder and other settings are refused."""
    monkeypatch.setattr("rlhf.assemble.tasks.iterate.run_folder", lambda: tmp_path / "runs" / "new")
    monkeypatch.setattr("rlhf.assemble.tasks.early_stopping.run_folder", lambda: tmp_path / "runs" / "new")
    given = [*task, f"runs={tmp_path}/runs", "logger=csv"]

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
