"""Reward models as reward functions: what TRL sees is what `rlhf.load` gives, in TRL's own trainers."""

import math
from functools import partial

import pytest
import torch
from datasets import Dataset

import rlhf
from rlhf.models.pretrained import Tiny
from rlhf.optimise.shaping.ensemble import mean, mean_minus_variance, worst_case
from rlhf.optimise.shaping.kl_controllers import Fixed
from rlhf.optimise.shaping.rules import Penalty, malformed, overlong, repeated, unfinished
from rlhf.optimise.shaping.shaper import Shaper
from rlhf.records import RecordError
from rlhf.serve.interop.trl import TrlReward, combined, every_member
from rlhf.toy.world import ToyWorld

PROMPTS = ["Name a colour.", "Why is the sky blue?", "Translate: good morning", "Tell me a story."]
TOKENIZER = Tiny().tokenizer()


def chat(text):
    return [{"role": "user", "content": text}]


def answer(text):
    return [{"role": "assistant", "content": text}]


def test_rewards_are_the_scores_of_python_in_both_formats(exported):
    reward, scorer = TrlReward([exported()]), rlhf.load(exported())
    prompts = [p for p in PROMPTS for _ in range(3)][::-1]  # completions of one prompt apart from each other as well
    prompts[0], prompts[5] = prompts[5], prompts[0]
    texts = [f"answer {i} " * (1 + i % 4) for i in range(len(prompts))]
    expected = [scorer.score(p, [t])[0] for p, t in zip(prompts, texts, strict=True)]
    assert reward(prompts, texts, some_column=[1] * 12) == pytest.approx(expected, abs=1e-6)
    assert reward([chat(p) for p in prompts], [answer(t) for t in texts]) == pytest.approx(expected, abs=1e-6)
    longer = [[*chat("Hello."), *answer("Yes?"), *chat(p)] for p in prompts]
    expected = [scorer.score(p, [t])[0] for p, t in zip(longer, texts, strict=True)]
    assert reward(longer, [answer(t) for t in texts]) == pytest.approx(expected, abs=1e-6)


def test_what_is_too_long_to_be_scored_gets_none_and_is_counted(exported):
    logged = {}
    reward = TrlReward([exported()], name="rm")
    found = reward(["a", "a", "b"], ["x", "y" * 600, "z" * 600], log_metric=logged.__setitem__)
    assert found[1:] == [None, None]
    assert found[0] == pytest.approx(rlhf.load(exported()).score("a", ["x"])[0], abs=1e-6)
    assert logged == {"rm/unreadable": 2.0}
    shaped = TrlReward([exported()], shaping=Shaper(Fixed(0.0), mean))
    assert shaped(["b"], ["z" * 600]) == [None]


@pytest.mark.parametrize(
    "completion",
    [[], [{"role": "user", "content": "x"}], [{"role": "assistant", "content": None}], answer("a") + answer("b"), 5],
)  # fmt: skip
def test_completions_that_are_not_one_answer_are_refused(exported, completion):
    with pytest.raises(ValueError, match="one assistant message"):
        TrlReward([exported()])([chat("a")], [completion])


def test_prompts_with_unknown_parts_are_refused_and_rendered_ones_warned_about(exported):
    reward = TrlReward([exported()])
    with pytest.raises(RecordError, match="content"):
        reward([[{"role": "user", "content": [{"type": "text", "text": "x"}]}]], [answer("a")])
    with pytest.warns(UserWarning, match="a second time"):
        reward(["<s>Human: hi"], ["x"])


def test_runs_are_an_ensemble_with_an_uncertainty_penalty(exported):
    folders = [exported(seed) for seed in (0, 1, 2)]
    shaping = Shaper(Fixed(0.3), partial(mean_minus_variance, weight=0.5))
    texts = ["Blue.", "Because of the air. " * 5, "No idea."]
    prompts = ["Why?", "Why?", "How?"]
    rows = []
    for scorer in map(rlhf.load, folders):
        raw = torch.tensor([scorer.score(p, [t])[0] for p, t in zip(prompts, texts, strict=True)])
        rows.append((raw - scorer.calibration.reward_mean) / scorer.calibration.reward_std)
    members = torch.stack(rows)
    expected = members.mean(0) - 0.5 * members.var(0, correction=0)
    assert TrlReward(folders, shaping=shaping)(prompts, texts) == pytest.approx(expected.tolist(), abs=1e-5)


def test_members_of_one_run_are_normalised_on_reference_records(exported):
    folder, scorer = exported(1, members=3), rlhf.load(exported(1, members=3))
    records = list(ToyWorld(size=12).records())
    reference = torch.cat([scorer.members(r.prompt, [c.text for c in r.completions]) for r in records], 1)
    reward = TrlReward([folder], shaping=Shaper(Fixed(0.0), worst_case), rows=every_member, reference=iter(records))
    texts = ["Blue.", "No idea. " * 4]
    members = scorer.members("Why?", texts)
    normal = (members - reference.mean(1, keepdim=True)) / reference.std(1, correction=0, keepdim=True)
    assert reward(["Why?"] * 2, texts) == pytest.approx(normal.amin(0).tolist(), abs=1e-5)


def test_rules_and_clip_shape_the_reward_and_every_part_is_logged(exported):
    scorer = rlhf.load(exported())
    shaping = Shaper(
        Fixed(0.1),
        mean,
        clip=0.8,
        rules={
            "missing_eos": Penalty(unfinished, size=2.0, replace=True),
            "length": Penalty(partial(overlong, limit=8, buffer=4), size=0.3),
            "repetition": Penalty(partial(repeated, n=1), size=0.5),
            "format": Penalty(partial(malformed, pattern=".*[.]"), size=0.25),
        },
    )
    texts = ["ab.", "aaaa.aa", "never ends."]
    ids = [[10, 11, 12, 2], [10, 10, 10, 10, 12, 10, 2], [5, 6, 7, 8, 9]]
    logged = {}
    reward = TrlReward([exported()], shaping=shaping, end_ids=[2])
    found = reward(["p"] * 3, texts, completion_ids=ids, log_metric=logged.__setitem__)
    score = [float(scorer.calibration.normalise(s)) for s in scorer.score("p", texts)]
    terms = [0.0, -0.3 * 3 / 4 - 0.5 * 4 / 7 - 0.25, -2.0 - 0.3 * 1 / 4]
    expected = [max(-0.8, min(0.8, s)) for s in (score[0], score[1] + terms[1], terms[2])]
    assert found == pytest.approx(expected, abs=1e-5)
    assert logged["rlhf/unreadable"] == 0
    parts = sum(v for k, v in logged.items() if k != "rlhf/unreadable")
    assert parts == pytest.approx(sum(expected) / 3, abs=1e-5)
    assert logged["rlhf/length"] == pytest.approx(-0.3 * (3 / 4 + 1 / 4) / 3)


def test_choices_that_leave_something_open_are_refused(exported):
    shaper = Shaper(Fixed(0.0), mean)
    ending = Shaper(Fixed(0.0), mean, rules={"missing_eos": Penalty(unfinished)})
    with pytest.raises(ValueError, match="need shaping"):
        TrlReward([exported(0), exported(1)])
    with pytest.raises(ValueError, match="reference=<records>"):
        TrlReward([exported(1, members=3)], shaping=shaper, rows=every_member)
    with pytest.raises(ValueError, match="end_ids"):
        TrlReward([exported()], shaping=ending)
    with pytest.raises(ValueError, match="completion_ids is missing"):
        TrlReward([exported()], shaping=ending, end_ids=[2])(["a"], ["b"])
    with pytest.raises(ValueError, match="list of runs"):
        TrlReward(str(exported()))
    assert combined is not every_member


# ------------------------------------------------------------------------------------------- the real trainers


@pytest.fixture(scope="module")
def trl():
    return pytest.importorskip("trl", reason="pip install 'preference-reward-models[trl]'")


def options(folder, **more):
    return {
        "output_dir": str(folder), "per_device_train_batch_size": 8, "num_generations": 4, "max_steps": 2,
        "max_completion_length": 12, "learning_rate": 1e-2, "report_to": "none", "use_cpu": True, "bf16": False,
        "beta": 0.04,
        "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True, "activation_checkpointing": False,
    } | more  # fmt: skip


def watched(trainer_class):
    """The trainer, keeping what its reward step was given and what it made of it."""

    class Watched(trainer_class):
        def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
            rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
            self.__dict__.setdefault("seen", []).append((prompts, completions, completion_ids_list, rewards))
            return rewards

    return Watched


def trained(trainer_class, config, policy, reward, prompts):
    trainer = watched(trainer_class)(
        model=str(policy), reward_funcs=reward, args=config,
        train_dataset=Dataset.from_dict({"prompt": prompts, "domain": ["d"] * len(prompts)}),
    )  # fmt: skip
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    assert len(trainer.seen) == 2
    assert any((p != before[name]).any() for name, p in trainer.model.named_parameters())
    return trainer


def test_what_does_not_fit_together_is_told(exported):
    rules = Shaper(Fixed(0.0), mean, rules={"missing_eos": Penalty(unfinished, size=1.0)})
    reward = TrlReward([exported()], shaping=rules, end_ids=[TOKENIZER.eos_token_id])
    with pytest.raises(ValueError, match=r"completion_ids of completions \[1\] are empty"):
        reward(["a", "a"], ["b", "c"], completion_ids=[[5], []])
    for prompts, completions, ids in ((["a"], ["b", "c"], None), (["a", "a"], ["b", "c"], [[5]])):
        with pytest.raises(ValueError, match=r"'completions': 2.*one of each per completion"):
            reward(prompts, completions, completion_ids=ids)
    plain = Shaper(Fixed(0.0), mean)
    found = TrlReward([exported()], shaping=plain)(["a", "a"], ["b", "c"], completion_ids=[[5], []])
    assert all(math.isfinite(value) for value in found)  # no rule reads the tokens


@pytest.mark.slow
def test_grpo_sees_the_scores_of_python(trl, policy, exported, tmp_path):
    config = trl.GRPOConfig(**options(tmp_path))
    trainer = trained(trl.GRPOTrainer, config, policy, TrlReward([exported()], name="rm"), PROMPTS * 2)
    scorer = rlhf.load(exported())
    for prompts, completions, _, rewards in trainer.seen:
        assert len(prompts) == 8
        expected = [scorer.score(p, [c])[0] for p, c in zip(prompts, completions, strict=True)]
        assert rewards[:, 0].tolist() == pytest.approx(expected, abs=1e-6)
    logged = [log["rewards/rm/mean"] for log in trainer.state.log_history if "rewards/rm/mean" in log]
    means = [float(rewards.mean()) for *_, rewards in trainer.seen]
    assert logged == pytest.approx(means, abs=1e-5)


@pytest.mark.slow
def test_rloo_sees_the_shaped_scores_of_an_ensemble_in_chats(trl, policy, exported, tmp_path):
    folders = [exported(0), exported(1)]
    penalty = {"missing_eos": Penalty(unfinished, size=1.0)}
    shaping = Shaper(Fixed(0.0), partial(mean_minus_variance, weight=0.5), rules=penalty)
    reward = TrlReward(folders, shaping=shaping, end_ids=[TOKENIZER.eos_token_id])
    config = trl.RLOOConfig(**options(tmp_path))
    trainer = trained(trl.RLOOTrainer, config, policy, reward, [chat(p) for p in PROMPTS * 2])
    scorers = [rlhf.load(folder) for folder in folders]
    cut = 0
    for prompts, completions, ids, rewards in trainer.seen:
        for prompt, completion, row, found in zip(prompts, completions, ids, rewards[:, 0], strict=True):
            text = completion[0]["content"]
            members = [float(s.calibration.normalise(s.score(prompt, [text])[0])) for s in scorers]
            unended = row[-1] != TOKENIZER.eos_token_id
            cut += unended
            middle, spread = sum(members) / 2, abs(members[0] - members[1]) / 2
            assert float(found) == pytest.approx(middle - 0.5 * spread**2 - unended, abs=1e-5)
    assert cut > 0
    logged = [log for log in trainer.state.log_history if "rlhf/eos" in log]
    assert len(logged) == 2
    assert all(math.isfinite(log["rlhf/score"]) for log in logged)
