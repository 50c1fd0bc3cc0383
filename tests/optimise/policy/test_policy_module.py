"""Policies: log-probabilities, rollouts, the loop, people's votes. The tabular policy makes KL and optimum exact."""

import copy
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from rlhf.annotate.judges import gold_of
from rlhf.annotate.simulated import SimulatedAnnotators
from rlhf.collect.decoding import Decoding
from rlhf.collect.prompts import Task
from rlhf.data.render import Renderer
from rlhf.models.lora import Lora
from rlhf.models.policy import CausalPolicy, spans, token_logp
from rlhf.optimise.iterate.generation import (
    IteratePlan,
    Loop,
    evaluated,
    exact_gold,
    module_of,
    optimise,
    reward_sources_of,
)
from rlhf.optimise.iterate.pair_selection import PairSelection
from rlhf.optimise.iterate.run import iterate
from rlhf.optimise.policy.early_stopping import StoppingRule, above, apart, fallen, grown
from rlhf.optimise.policy.module import PolicyModule, RewardSources
from rlhf.optimise.policy.oversight import read_votes, win_rates, with_gold, write_tasks
from rlhf.optimise.policy.rollout import CausalRolloutPolicy, CollectPolicy
from rlhf.optimise.shaping.ensemble import mean
from rlhf.optimise.shaping.kl_controllers import Fixed
from rlhf.optimise.shaping.reward_source import ProxyReward
from rlhf.optimise.shaping.shape import sequence_kl
from rlhf.optimise.shaping.shaper import Shaper
from rlhf.records import RecordError, read, write
from rlhf.reward.schedule import constant
from rlhf.select.features import HashedWords, Reduced
from rlhf.select.strategies.log_det import log_det
from rlhf.select.strategies.mixed import policy_aware
from rlhf.select.strategies.selector import at_random
from rlhf.select.strategies.uncertainty import disagreement
from rlhf.studies.ablation import ablation
from rlhf.toy.gold import ToyGold
from rlhf.toy.linear_reward import LinearReward
from rlhf.toy.tabular_policy import TabularPolicy
from rlhf.toy.tokenizer_model import ToyModel
from rlhf.toy.world import ToyWorld

MODEL_SOURCE = ToyModel(width=16, depth=1, heads=2, max_length=256, vocabulary=400)
WORLD = ToyWorld(size=150)
GOLD = ToyGold(WORLD)
TASKS = [Task(str(i), r.prompt_id, r.prompt, r.domain, None) for i, r in enumerate(WORLD.records())]
OPTIMIZING = {"optimizer": partial(torch.optim.Adam, lr=0.1), "schedule": constant}


@pytest.fixture(scope="module")
def tokenizer():
    return MODEL_SOURCE.tokenizer()


def test_the_toy_vocabulary_spells_anything_and_is_short(tokenizer):
    for text in ("The capital is Paris. I hope this helps you.", "Zwölf Boxkämpfer ✓"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert len(tokenizer("The capital is Paris.")["input_ids"]) <= 8


def test_log_probabilities_are_those_of_the_plain_model_on_either_side(tokenizer):
    model = MODEL_SOURCE.causal(tokenizer).eval()
    prompts, responses = [[5, 6, 7], [8, 9]], [[[10, 11], [12]], [[13, 14, 15]]]
    for left in (False, True):
        rows = spans(prompts, responses, pad_id=0, left=left)
        logp = token_logp(model, rows, 0.7)
        assert bool((logp[~rows.response_mask] == 0).all())
        for n, (prompt, response) in enumerate(
            [(prompts[0], responses[0][0]), (prompts[0], [12]), (prompts[1], [13, 14, 15])]
        ):
            logits = model(torch.tensor([prompt + response])).logits[0].float() / 0.7
            wanted = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(response)[:, None])[:, 0]
            torch.testing.assert_close(logp[n][rows.response_mask[n]], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("adapter", [None, Lora(rank=2, alpha=4, seed=1)], ids=["copy", "lora"])
def test_the_reference_is_the_model_before_training(tokenizer, adapter):
    model = MODEL_SOURCE.causal(tokenizer)
    before = copy.deepcopy(model).eval()
    policy = CausalPolicy(adapter.causal(model) if adapter else model)
    rows = spans([[5, 6]], [[[7, 8], [9, 10]]], pad_id=0)
    assert float((policy.logp(rows) - policy.ref_logp(rows)).detach().abs().max()) < 1e-6  # nothing is trained yet
    optimizer = torch.optim.Adam([p for p in policy.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        (-policy.logp(rows).sum()).backward()
        optimizer.step()
    torch.testing.assert_close(policy.ref_logp(rows), token_logp(before, rows))
    assert float((policy.logp(rows) - policy.ref_logp(rows)).detach().sum()) > 0.1
    torch.testing.assert_close(token_logp(policy.plain().eval(), rows), policy.logp(rows), atol=1e-4, rtol=1e-4)


def test_sampled_completions_have_the_log_probabilities_they_were_drawn_with(tokenizer):
    """The mean KL of a policy against itself is 0; against a changed reference, k1 and k3 agree within their errors."""
    policy = CausalPolicy(MODEL_SOURCE.causal(tokenizer))
    rollout_policy = CausalRolloutPolicy(
        policy, Renderer(tokenizer, max_length=200), decoding=Decoding(temperature=0.8, top_p=1.0), max_new_tokens=6
    )
    torch.manual_seed(0)
    with torch.no_grad():
        policy.model.lm_head.weight.mul_(4)
    rollout = rollout_policy.rollout(TASKS[:8], 8)
    assert rollout.completions.mask.sum(1).max() <= 6
    ended = rollout.completions.ended
    last = rollout.completions.mask.long().mul(torch.arange(1, rollout.mask.shape[1] + 1)).argmax(1)
    assert torch.equal(ended, rollout.completions.tokens[torch.arange(64), last] == tokenizer.eos_token_id)
    assert policy.temperature == 0.8
    with torch.no_grad():
        logp, ref = rollout_policy.logp(rollout), rollout_policy.ref_logp(rollout)
        from rlhf.optimise.shaping.shape import k1, k3

        one, three = (sequence_kl(logp, ref, rollout.mask, k) for k in (k1, k3))
    error = float((one - three).std() / 8)
    assert float(one.mean()) > 0
    assert abs(float(one.mean() - three.mean())) < 4 * error


def test_a_truncated_distribution_is_refused(tokenizer):
    policy = CausalPolicy(MODEL_SOURCE.causal(tokenizer))
    for wrong in (Decoding(top_p=0.9), Decoding(top_p=1.0, top_k=5), Decoding(temperature=0.0, top_p=1.0)):
        with pytest.raises(ValueError, match="whole distribution"):
            CausalRolloutPolicy(policy, Renderer(tokenizer), decoding=wrong, max_new_tokens=4)


def test_the_tabular_policys_kl_is_exact():
    policy = TabularPolicy(GOLD)
    domains = [t.domain for t in TASKS]
    assert policy.kl(domains) == pytest.approx(0, abs=1e-6)
    with torch.no_grad():
        policy.logits += 0.5 * torch.randn(policy.logits.shape, generator=torch.Generator().manual_seed(0))
        torch.manual_seed(0)
        rollout = policy.rollout(TASKS, 20)
        found = sequence_kl(policy.logp(rollout), policy.ref_logp(rollout), rollout.mask)
    assert float(found.mean()) == pytest.approx(policy.kl(domains), abs=4 * float(found.std()) / len(found) ** 0.5)


class Known:
    """A reward source of one member whose reward is a function of the text."""

    def __init__(self, reward):
        self.reward = reward

    def score(self, prompts, texts):
        values = torch.tensor([self.reward(t) for t in texts])
        return values[None], np.stack([values.numpy(), [len(t) / 50 for t in texts]], 1).astype(float)


def trained(policy, reward_sources, beta, steps, size=16, early_stopping=None):
    shaper = Shaper(Fixed(beta), mean)
    module = PolicyModule(policy, reward_sources, shaper, completions=4, early_stopping=early_stopping, **OPTIMIZING)
    module.set_reward_scale(TASKS, 0)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=-1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    batches = [TASKS[(i * size) % 128 :][:size] for i in range(steps)]
    torch.manual_seed(1)
    trainer.fit(module, torch.utils.data.DataLoader(batches, batch_size=None, collate_fn=list))
    return module


@pytest.mark.slow
def test_training_reaches_the_closed_form_policy_on_texts():
    """Reward 1 for polite answers: π* has log-odds of the reference + 1/(std·β); everything else stays as it was."""
    policy = TabularPolicy(GOLD)
    module = trained(
        policy, RewardSources(Known(lambda t: float("help" in t or "asking" in t or "nice day" in t))), 0.5, 120
    )
    scale = float(module.proxy.std[0])
    polite = policy.table()[:, 1].detach()
    found = (polite[:, 1] - polite[:, 0]).mean()
    assert float(found) == pytest.approx(-0.4 + 1 / (scale * 0.5), abs=0.8)
    assert float((policy.table()[:, 0] - policy.table(True)[:, 0])[:, :2].detach().abs().mean()) < 0.6


def signs(**named):
    return StoppingRule(named, window=10)


def test_every_sign_fires_where_it_should_and_not_before():
    rng = np.random.default_rng(0)
    home = {"distance": 1.0, "disagreement": 0.5, "reward": 0.1, "watch": 0.1, "kl": 0.0}
    calm = {"distance": 1.0, "disagreement": 0.5, "reward": 1.0, "kl": 0.5}
    rows = [calm | {"watch": min(i, 40) / 10 + float(rng.normal(0, 0.1))} for i in range(60)]
    every = {
        "fallen": partial(fallen, column="watch", errors=3.0),
        "distance": partial(grown, column="distance", times=3.0),
        "disagreement": partial(grown, column="disagreement", times=1.5),
        "kl": partial(above, column="kl", level=2.0),
        "apart": partial(apart, level=1.0),
        "off": None,
    }
    assert all(signs(**every)(rows[:n], home) is None for n in range(1, 61))

    def after(**change):
        return rows + [calm | {"watch": 4.0 + float(rng.normal(0, 0.1))} | change for _ in range(10)]

    for change, said in (
        ({"watch": 3.0}, "fell by"), ({"distance": 5.0}, "distance is 5.00 times"),
        ({"disagreement": 0.8}, "disagreement is 1.60 times"), ({"kl": 2.5}, "kl is 2.50"),
        ({"reward": 5.5}, "behind"),
    ):  # fmt: skip
        trace = after(**change)
        assert said in (signs(**every)(trace, home) or "")
        assert signs(**every).first(trace, home) == 70
        assert all(signs(**every)(trace[:n], home) is None for n in range(70))
        assert signs(off=None)(trace, home) is None
    with pytest.raises(ValueError, match="head=ensemble"):
        signs(disagreement=every["disagreement"]).check(home | {"disagreement": 0.0})
    with pytest.raises(ValueError, match="watch, which is not measured"):
        signs(fallen=every["fallen"]).check({"reward": 0.0})
    with pytest.raises(ValueError, match="window"):
        StoppingRule({}, window=1)


def test_a_stopped_run_is_the_beginning_of_the_run_that_nothing_stops():
    """The reward is the length: completions grow until early stopping ends the run; what it saw is what the other
    saw.
    """
    reward_sources = RewardSources(Known(lambda t: float(len(t))))
    early_stopping = StoppingRule({"length": partial(grown, column="length", times=1.3)}, window=5)
    whole = trained(TabularPolicy(GOLD), reward_sources, 0.0, 40)
    stopped = trained(TabularPolicy(GOLD), reward_sources, 0.0, 40, early_stopping=early_stopping)
    step = early_stopping.first(whole.trace, whole.reference)
    assert step is not None
    assert stopped.warned["step"] == step == len(stopped.trace) < 40
    assert stopped.trace == whole.trace[:step]
    told = trained(TabularPolicy(GOLD), reward_sources, 0.0, 40, early_stopping=replace(early_stopping, stop=False))
    assert (told.warned["step"], told.trace) == (step, whole.trace)


@pytest.mark.parametrize(("stop", "steps"), [(True, 10), (False, 14)])
def test_a_run_that_was_stopped_early_stays_stopped_when_it_is_resumed(tmp_path, stop, steps):
    def module(stop):
        early_stopping = StoppingRule({"length": partial(above, column="length", level=0.0)}, window=5, stop=stop)
        reward_sources = RewardSources(Known(lambda t: float(len(t))))
        made = PolicyModule(
            TabularPolicy(GOLD),
            reward_sources,
            Shaper(Fixed(0.0), mean),
            completions=2,
            early_stopping=early_stopping,
            **OPTIMIZING,
        )
        made.set_reward_scale(TASKS[:64], 0)
        return made

    def fit(made, ckpt=None):
        trainer = pl.Trainer(
            accelerator="cpu", max_steps=14, max_epochs=-1, logger=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path,
        )  # fmt: skip
        loader = torch.utils.data.DataLoader([TASKS[:4]] * 20, batch_size=None, collate_fn=list)
        trainer.fit(made, loader, ckpt_path=ckpt, weights_only=True)
        return trainer

    fit(module(stop=True)).save_checkpoint(tmp_path / "last.ckpt")
    resumed = module(stop)
    fit(resumed, str(tmp_path / "last.ckpt"))
    assert len(resumed.trace) == steps
    assert resumed.warned["step"] == 10


def test_every_estimator_of_the_kl_is_logged():
    module = trained(TabularPolicy(GOLD), RewardSources(Known(lambda t: float(len(t)))), 0.1, 12)
    first, last = module.trace[0], module.trace[-1]
    assert first["kl"] == first["kl_k2"] == first["kl_k3"] == 0
    assert min(last["kl_k2"], last["kl_k3"]) > 0
    assert last["kl_k3"] == pytest.approx(last["kl"], abs=4 * last["kl_error"])


def test_the_expected_gold_of_decisions_is_that_of_their_texts():
    policy = TabularPolicy(GOLD)
    with torch.no_grad():
        policy.logits += torch.randn(policy.logits.shape, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    rollout = policy.rollout(TASKS, 40)
    values = np.array(GOLD([TASKS[i].prompt for i in rollout.group.tolist()], rollout.completions.texts))
    wanted = policy.expected_gold([t.domain for t in TASKS])
    assert values.mean() == pytest.approx(wanted, abs=4 * values.std() / len(values) ** 0.5)


def test_a_linear_reward_learns_what_annotators_like():
    records = list(ToyWorld(size=400).records())
    reward_source = LinearReward(records[:300], members=3)
    rewards, features = reward_source.score(
        [r.prompt for r in records[300:]], [r.completions[0].text for r in records[300:]]
    )
    assert rewards.shape == (3, 100)
    assert features.shape[0] == 100
    hits = []
    for record in records[300:]:
        values = reward_source.score([record.prompt] * 2, [c.text for c in record.completions[:2]])[0].mean(0)
        truth = WORLD.gold(record)[:2]
        hits += [float((values[0] > values[1]) == (truth[0] > truth[1]))] if truth[0] != truth[1] else []
    assert np.mean(hits) > 0.5
    with pytest.raises(ValueError, match="no labelled pair"):
        LinearReward([replace(r, votes=()) for r in records[:50]])
    with pytest.raises(ValueError, match="at least 32"):
        ProxyReward(reward_source, ["p"] * 5, ["t"] * 5)


def test_oversight_is_blind_and_votes_come_back(tmp_path):
    tasks = TASKS[:12]
    said = {"policy": ["Good. " + str(i) for i in range(12)], "reference": ["Bad."] * 12, "previous": ["So."] * 12}
    path = write_tasks(tmp_path, 50, tasks, said, seed=0)
    blind = list(read(path))
    assert "policy" not in path.read_text()
    assert all(not c.source for r in blind for c in r.completions)
    assert len({tuple("Good" in c.text for c in r.completions) for r in blind}) > 1  # the order is not always the same
    annotators = SimulatedAnnotators(
        gold=lambda r: [20.0 * c.text.startswith("Good") for c in r.completions], careless=0.0, position_bias=0.0,
        length_bias=0.0, tie_width=0.1,
    )  # fmt: skip
    write(tmp_path / "step-000050.votes.jsonl", annotators.vote(blind))
    ((step, records),) = read_votes(tmp_path)
    rates = win_rates(records)
    assert step == 50
    assert rates["policy/reference"] > 0.9
    assert rates["policy/reference"] == pytest.approx(1 - rates["reference/policy"])
    assert rates["previous/reference/ci_low"] < 0.5 < rates["previous/reference/ci_high"]
    assert rates["policy/reference/ci_low"] < rates["policy/reference"] <= rates["policy/reference/ci_high"]
    alone = win_rates(records[:1])
    assert (alone["policy/reference/ci_low"], alone["policy/reference/ci_high"]) == (0.0, 1.0)
    sure = [replace(r, votes=tuple(v for v in r.votes if v.choice != "tie")) for r in records]
    wins = [r for r in sure if win_rates([r]).get("policy/reference") == 1.0]
    same = win_rates(wins)  # all agree: the exact binomial interval, Clopper & Pearson 1934
    assert same["policy/reference/ci_low"] == pytest.approx(0.025 ** (1 / len(wins)), rel=1e-6)
    write(tmp_path / "step-000050.votes.jsonl", [replace(blind[0], prompt_id="other")])
    with pytest.raises(RecordError, match="not in the key"):
        list(read_votes(tmp_path))


def HashedFeatures():  # as the class it makes
    return Reduced(HashedWords(dims=16), dims=8)


def loop(folder, **changes):
    plan = IteratePlan(generations=2, steps=4, prompts=6, completions=2, samples=20, k=2, labelled=12,
                      reference_samples=40, eval_prompts=20, oversight=6)  # fmt: skip

    def trainer(steps):
        return pl.Trainer(accelerator="cpu", max_steps=steps, max_epochs=-1, logger=False, enable_checkpointing=False,
                          enable_progress_bar=False, enable_model_summary=False)  # fmt: skip

    options = {
        "folder": folder, "policy": TabularPolicy(GOLD), "start": list(WORLD.records())[:100], "tasks": TASKS[:100],
        "held_out": TASKS[100:], "reward_learner": lambda r, s: LinearReward(r, members=2, seed=s),
        "shaper": Shaper(Fixed(0.1), mean), "trainer": trainer, "optimizing": OPTIMIZING, "plan": plan, "gold": GOLD,
        "label_source": SimulatedAnnotators().vote, "pair_selection": PairSelection(at_random, HashedFeatures),
    }  # fmt: skip
    return Loop(**options | changes)


@pytest.mark.slow
def test_a_loop_that_was_stopped_goes_on_to_the_same_end(tmp_path):
    whole = iterate(loop(tmp_path / "whole"))
    assert whole["steps"] == 8
    first = loop(tmp_path / "stopped")
    iterate(replace(first, plan=replace(first.plan, generations=1)))
    again = iterate(loop(tmp_path / "stopped"))
    assert again == whole
    assert (tmp_path / "whole" / "traces.png").stat().st_size > 10_000
    new = list(read(tmp_path / "whole" / "generation-0" / "records.jsonl"))
    assert len(new) == 12
    assert all(c.source["model"] == "policy" for r in new for c in r.completions)


def test_any_selector_chooses_pairs_of_new_answers(tmp_path):
    known = list(WORLD.records())[:60]
    new = [replace(r, votes=(), prompt_id=f"new-{r.prompt_id}") for r in list(WORLD.records())[100:130]]
    reward_source = reward_sources_of(loop(tmp_path), known).proxy
    picks = {}
    for name, selector in {
        "random": at_random, "logdet": log_det, "disagreement": disagreement, "policy": policy_aware,
    }.items():  # fmt: skip
        chosen = PairSelection(selector, HashedFeatures)(new, known, reward_source, 15, np.random.default_rng(0))
        picks[name] = [r.prompt_id for r in chosen]
        assert len(set(picks[name])) == 15
        assert all(len(r.completions) == 2 and not r.votes and r.prompt_id.startswith("new-") for r in chosen)
    assert len({tuple(sorted(ids)) for ids in picks.values()}) == 4
    members = {}
    for record in new:
        spread = reward_source.score([record.prompt] * len(record.completions), [c.text for c in record.completions])[0]
        for i in range(len(record.completions)):
            for j in range(i + 1, len(record.completions)):
                name = f"{record.prompt_id}/{record.completions[i].id}/{record.completions[j].id}"
                members[name] = float((spread[:, i] - spread[:, j]).var())
    picked = np.mean([members[name] for name in picks["disagreement"]])
    assert picked > 2 * np.mean([members[name] for name in picks["random"]])
    every = PairSelection(at_random, HashedFeatures)(new, known, reward_source, 10_000, np.random.default_rng(0))
    assert {r.prompt_id for r in every} == set(members)


@pytest.mark.slow
def test_without_a_label_source_the_loop_waits_for_people(tmp_path, capsys):
    iterate(loop(tmp_path, label_source=None))
    assert "annotate.py annotator=web" in capsys.readouterr().out
    folder = tmp_path / "generation-0"
    people = SimulatedAnnotators()
    write(
        folder / "step-000000.votes.jsonl",
        people.vote(with_gold(read(folder / "step-000000.tasks.jsonl"), folder / "step-000000.gold.json")),
    )
    waiting = with_gold(read(folder / "unlabelled.jsonl"), folder / "unlabelled.gold.json")
    write(folder / "records.jsonl", people.vote(waiting))
    iterate(loop(tmp_path, label_source=None))
    assert (tmp_path / "generation-1" / "policy.pt").is_file()
    key = json.loads((folder / "step-000000.key.json").read_text())
    assert {who for names in key.values() for who in names.values()} == {"policy", "reference"}


def test_a_policy_in_training_is_a_policy_of_collecting():
    policy = CollectPolicy(TabularPolicy(GOLD), "policy", "g0")
    before = torch.get_rng_state()
    one = policy.answer(TASKS[0].prompt, Decoding(), [3, 4])
    assert [d.text for d in policy.answer(TASKS[0].prompt, Decoding(), [4, 3])] == [one[1].text, one[0].text]
    assert torch.equal(before, torch.get_rng_state())


def test_people_see_neither_the_truth_nor_equal_answers(tmp_path):
    said = {"policy": ["Same.", "A.", "A."], "reference": ["Same.", "B.", "B."], "previous": ["Same.", "B.", "C."]}
    path = write_tasks(tmp_path, 7, TASKS[:3], said, seed=0, gold=lambda prompts, texts: [len(texts)] * len(texts))
    blind = list(read(path))
    assert "gold" not in path.read_text()
    assert [(r.prompt_id, sorted(c.text for c in r.completions)) for r in blind] == [
        ("oversight-7-1", ["A.", "B."]),
        ("oversight-7-2", ["A.", "B.", "C."]),
    ]
    truth = tmp_path / "step-000007.gold.json"
    assert [[c.meta["gold"] for c in r.completions] for r in with_gold(blind, truth)] == [[2] * 2, [3] * 3]
    people = SimulatedAnnotators(gold=gold_of(None, file=str(truth)))  # annotator.gold.file
    assert all(len(r.votes) == 3 for r in people.vote(blind[:1]))
    assert list(with_gold(blind, tmp_path / "nowhere.json")) == blind


def test_exact_gold_is_that_of_the_policy_on_whose_samples_a_step_is_taken(tmp_path):
    made = loop(tmp_path)
    domains = [t.domain for t in made.eval_tasks]
    before = exact_gold(made.policy, made.eval_tasks)
    assert before != exact_gold(made.policy, made.held_out)
    module = module_of(made, reward_sources_of(made, made.start), 0)
    optimise(made, module, 0)
    rows = [row["exact_gold"] for row in module.trace]
    assert rows[0] == before == TabularPolicy(GOLD).expected_gold(domains)
    assert len(set(rows)) == 4
    end = evaluated(made, module)["exact_gold"]
    assert end == made.policy.expected_gold(domains) != rows[-1]
    assert evaluated(made, module, reference=True)["exact_gold"] == before
    assert exact_gold(object(), made.eval_tasks) is None


def test_a_fall_is_exact_where_gold_is(tmp_path):
    found = {"gold": 1.0, "peak_gold": 1.5, "exact_gold": 1.2, "exact_peak_gold": 1.3}
    sampled = {"gold": 1.0, "peak_gold": 1.5}
    runs = {"exact": lambda seed, folder: dict(found), "sampled": lambda seed, folder: dict(sampled)}
    metrics = ablation(runs, [0, 1], tmp_path)
    assert (metrics["exact/gold"], metrics["exact/lost"]) == (1.2, pytest.approx(0.1))
    assert (metrics["sampled/gold"], metrics["sampled/lost"]) == (1.0, 0.5)
