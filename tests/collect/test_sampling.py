"""Prompts to completions: curation, determinism, distance, kills, and real generation."""

import json
import math
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from rlhf.collect.backends import auto
from rlhf.collect.decoding import AcrossCheckpoints, Decoding, Same, Varied
from rlhf.collect.filtering import Filtering
from rlhf.collect.pick import BestOfN, Rejection, everything
from rlhf.collect.prompts import Curation
from rlhf.collect.run import SamplingRun
from rlhf.collect.sampling import Completer, Draft
from rlhf.data.importers import prompts as prompt_rows
from rlhf.data.source import Source
from rlhf.records import Comparison, Completion, RecordError, read
from rlhf.toy.source import ToyPolicy
from rlhf.toy.world import ToyWorld


def prompts(*texts, domain=None):
    return [Comparison(f"p{i}", t, (), domain=domain) for i, t in enumerate(texts)]


@dataclass
class Parrot:
    """Says one of a few sentences; dies after a number of answers."""

    sentences: int = 1000
    lives: float = math.inf
    asked: list = field(default_factory=list)

    @property
    def provenance(self):
        return {"model": "parrot", "checkpoint": "1"}

    def answer(self, prompt, decoding, seeds):
        self.asked.append((prompt, decoding, tuple(seeds)))
        if len(self.asked) > self.lives:
            raise KeyboardInterrupt
        return [Draft(f"Sentence number {seed % self.sentences} it is, said to {prompt}.", True, 5) for seed in seeds]


def test_curation_counts_everything_it_reads():
    texts = ["What is the capital of Peru?", "what is the  capital of peru?", "x" * 50, "Name seven wise owls, please."]
    near = "Please tell me which of the seven wise owls in the old oak tree is the oldest one of all"
    curation = Curation(max_chars=100, quota=None, limit=2, min_chars=2)
    chosen = curation(prompts(*texts, near, near + " today", "q"))
    assert curation.read == 7
    assert curation.dropped == {"exact duplicate": 1, "near duplicate": 1, "length": 1, "over limit": 2}
    assert len(chosen) == 2


def test_curation_takes_strata_in_turns_whatever_the_order_of_the_file():
    records = [*prompts(*(f"alpha question {i * 7919}" for i in range(30)), domain="a"),
               *prompts(*(f"beta {i * 104729} thing" for i in range(5)), domain="b")]  # fmt: skip
    curation = Curation(limit=10, near_duplicates=None)
    chosen = curation(records)
    assert sorted(t.domain for t in chosen) == ["a"] * 5 + ["b"] * 5
    assert [t.key for t in Curation(limit=10, near_duplicates=None)(records[::-1])] == [t.key for t in chosen]
    quotas = Curation(near_duplicates=None, quota=2, quotas={"a": 3})(records)
    assert sorted(t.domain for t in quotas) == ["a"] * 3 + ["b"] * 2


def tasks(number=6):
    return Curation(near_duplicates=None)(prompts(*(f"question {i}" for i in range(number))))


def test_a_completion_depends_on_prompt_checkpoint_and_seed_only():
    sampler = Varied([Decoding(0.7), Decoding(1.0)])
    complete = Completer([Parrot()], sampler, k=3)
    alone = [Completer([Parrot()], sampler, k=3)(task) for task in tasks()[::-1]]
    assert [complete(task) for task in tasks()] == alone[::-1]
    assert Completer([Parrot()], sampler, k=3, seed=1)(tasks()[0]) != alone[-1]


def test_slots_vary_decodings_and_policies():
    slots = Varied([Decoding(0.7), Decoding(1.0)]).slots(4, 2)
    assert len({(s.policy, s.decoding) for s in slots}) == 4
    assert [s.policy for s in Same(Decoding()).slots(4, 3)] == [0, 1, 2, 0]
    assert len(AcrossCheckpoints([Decoding()], ["a", "b"]).slots(2, 2)) == 2


@pytest.mark.parametrize("number", [1, 2, 3, 4])
@pytest.mark.parametrize("policies", [1, 2, 3, 4])
def test_every_checkpoint_answers_with_every_decoding(number, policies):
    decodings = [Decoding(0.7 + 0.1 * i) for i in range(number)]
    slots = AcrossCheckpoints(decodings, ["x"] * policies).slots(number * policies, policies)
    assert {(s.policy, s.decoding.temperature) for s in slots} == {
        (p, d.temperature) for p in range(policies) for d in decodings
    }
    assert {s.policy for s in slots[:policies]} == set(range(policies)), "all of them in the first turn"
    for wrong in ({"temperature": -1}, {"top_p": 0}, {"min_p": 2}):
        with pytest.raises(ValueError, match="out of range"):
            Decoding(**wrong)


def test_texts_too_close_are_drawn_anew_up_to_a_limit():
    few = Completer([Parrot(sentences=6)], Same(Decoding()), k=4, min_distance=0.01, attempts=40)
    for task in tasks(10):
        assert len({c.text for c in few(task).completions}) == 4
    assert few.counts["drawn anew"] > 0
    one = Completer([Parrot(sentences=1)], Same(Decoding()), k=3, attempts=2)
    record = one(tasks()[0])
    assert len({c.text for c in record.completions}) == 1
    assert one.counts["too similar"] == 2
    assert [c.source["attempt"] for c in record.completions] == [0, 1, 1]


def run(out, policy, number=8):
    return sampled(out, policy, Given(prompts(*(f"question {i}" for i in range(number)))))


@dataclass
class Given:
    """Prompts at hand."""

    given: list[Comparison]
    skipped_count: int = 0

    def records(self):
        return iter(self.given)


def sampled(out, policy, source, pick=everything, filtering=None, **curation):
    completer = Completer([policy], Same(Decoding()), k=2)
    curation = Curation(**({"near_duplicates": None} | curation))
    return SamplingRun(out, curation, completer, pick, filtering or Filtering(), {"k": 2})(source)


def dropped_of(out):
    lines = [json.loads(line) for line in Path(f"{out}.dropped.jsonl").read_text().splitlines()]
    assert len({json.dumps(line) for line in lines}) == len(lines)
    return lines


def test_everything_that_is_left_out_is_written_with_its_stage_and_reason(tmp_path):
    file = tmp_path / "prompts.jsonl"
    rows = [
        *({"prompt": f"question {i}"} for i in range(6)), {"prompt": "Question  3"}, {"prompt": "x" * 99}, {"q": 1},
    ]  # fmt: skip
    file.write_text("not JSON\n" + "".join(json.dumps(row) + "\n" for row in rows))
    source = Source(importer=prompt_rows, path=str(file), on_error="skip")
    out = tmp_path / "o.jsonl"
    only = Filtering({"odd": lambda prompt, text: "names 3" if "3," in text or "3." in text else None})

    def first(record):
        return replace(record, completions=record.completions[: 1 + ("5" not in record.prompt)])

    report = sampled(out, Parrot(), source, first, only, max_chars=50, limit=4)
    lines = dropped_of(out)
    by_stage = {s: [x for x in lines if x["stage"] == s] for s in ("read", "curation", "pick", "filter")}
    assert sum(map(len, by_stage.values())) == len(lines)
    assert report["unreadable"] == 2 == len(by_stage["read"])
    assert f"{file}:1" in by_stage["read"][0]["reason"]
    assert f"{file}:10" in by_stage["read"][1]["reason"]
    counted = report["prompts"]["dropped"]
    assert counted == {"exact duplicate": 1, "length": 1, "over limit": 2}
    assert Counter(x["reason"] for x in by_stage["curation"]) == counted
    assert {x["text"] for x in by_stage["curation"] if x["reason"] == "length"} == {"x" * 99}
    records = list(read(out))
    chosen = report["prompts"]["chosen"]
    assert chosen == 4
    kept = sum(len(r.completions) for r in records)
    assert 2 * chosen == kept + len(by_stage["pick"]) + len(by_stage["filter"]), "every completion is somewhere"


def test_a_new_prompt_has_no_old_gold_answer():
    source = [replace(r, meta={"gold": "c0", "difficulty": 1}) for r in prompts("a question")]
    (task,) = Curation()(source)
    assert task.meta == {"difficulty": 1}


def test_usage_of_every_draft_is_summed_whichever_process_asked(tmp_path):
    class Paid(Parrot):
        def answer(self, prompt, decoding, seeds):
            return [replace(d, usage={"requests": 1, "cost": 0.5}) for d in super().answer(prompt, decoding, seeds)]

    out = tmp_path / "o.jsonl"
    given = Given(prompts(*(f"question {i}" for i in range(6))))
    with pytest.raises(KeyboardInterrupt):
        sampled(out, Paid(lives=3), given)
    assert sampled(out, Paid(), given)["usage"] == {"requests": 12, "cost": 6.0}


@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_run_goes_on_with_nothing_lost_or_doubled(tmp_path, torn):
    whole = run(tmp_path / "whole.jsonl", Parrot())
    out = tmp_path / "killed.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run(out, Parrot(lives=3))
    assert not out.exists()
    if torn:
        with (tmp_path / "killed.jsonl.partial" / "samples.jsonl").open("a") as file:
            file.write('{"record": {"prompt_id": "p')
    second = Parrot()
    report = run(out, second)
    assert len(second.asked) == 5
    assert out.read_text() == (tmp_path / "whole.jsonl").read_text()
    assert report["sampling"] == whole["sampling"]
    assert {p.name for p in tmp_path.glob("killed*")} == {
        "killed.jsonl", "killed.jsonl.report.json", "killed.jsonl.dropped.jsonl"
    }  # fmt: skip
    with pytest.raises(RecordError, match="exists already"):
        run(out, Parrot())


def test_other_settings_do_not_go_on_with_a_stopped_run(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "o.jsonl", Parrot(lives=1))
    (tmp_path / "o.jsonl.partial" / "settings.json").write_text('{"k": 3}')
    with pytest.raises(RecordError, match="other settings"):
        run(tmp_path / "o.jsonl", Parrot())


def test_the_toy_policy_is_better_with_skill_and_carries_its_gold_reward():
    world = ToyWorld(size=200)
    means = []
    for skill in (-2.0, 2.0):
        policy = ToyPolicy(world, skill)
        drafts = [policy.answer(world.record(i).prompt, Decoding(1.0), [i])[0] for i in range(200)]
        assert drafts[0] == policy.answer(world.record(0).prompt, Decoding(1.0), [0])[0]
        means.append(sum(d.meta["gold"] for d in drafts) / 200)
    assert means[1] > means[0] + 1
    with pytest.raises(ValueError, match="data=toy"):
        policy.answer("another world", Decoding(), [0])
    with pytest.raises(ValueError, match=r"model\.path"):
        auto(object(), path=None)


def scored_record(rewards):
    return Comparison("p", "q", tuple(Completion(f"c{i}", str(r)) for i, r in enumerate(rewards)))


def reward(prompt, texts):
    return [float(t) for t in texts]


def test_best_of_n_keeps_the_best():
    record = BestOfN(reward, keep=2, worst=True)(scored_record([1, 5, 3, 0]))
    assert [c.id for c in record.completions] == ["c1", "c2", "c3"]
    assert record.completions[0].meta["reward"] == 5


def test_rejection_sampling_has_the_tilted_distribution():
    """The first accepted of many candidates of reward 0 or 1 is a 1 in e^(1/b) / (e^(1/b) + 1) of the prompts."""
    beta, ones, trials = 1.0, 0, 3000
    for n in range(trials):
        record = scored_record([0, 1] * 60)
        accepted = Rejection(reward, beta=beta, keep=1, seed=n)(record).completions
        ones += accepted[0].text == "1"
    expected = math.e / (math.e + 1)
    assert ones / trials == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / trials))


@pytest.fixture
def small_model(tmp_path):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rlhf.models.pretrained import Tiny

    tokenizer = Tiny().tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    return str(tmp_path / "lm")


def test_generation_depends_on_the_seed_and_not_on_its_neighbours(small_model):
    from rlhf.collect.transformers_policy import TransformersPolicy

    policy = TransformersPolicy(small_model, max_new_tokens=12)
    together = policy.answer("Hello", Decoding(1.0), [1, 2, 3])
    assert [policy.answer("Hello", Decoding(1.0), [s])[0] for s in (3, 2, 1)] == together[::-1]
    assert len({d.text for d in together}) == 3
    assert all(d.tokens <= 12 for d in together)
    greedy = policy.answer("Hello", Decoding(0.0), [1, 2])
    assert greedy[0] == greedy[1]
    long = policy.answer("word " * 100, Decoding(0.0), [1])[0]
    assert long.tokens > 0
    assert set(policy.provenance) == {"model", "checkpoint"}
    assert sum(policy.next_token("Hello", ["A", "B"]).values()) == pytest.approx(1)


def sample_command(root, *overrides):
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "sample.py", *overrides], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_command_on_the_toy_policy_and_votes_on_its_tasks(root, tmp_path):
    import subprocess
    import sys

    out = tmp_path / "tasks.jsonl"
    said = sample_command(root, f"out={out}", "limit=12", "k=3")
    assert said.strip().endswith(f"tasks: {out}")
    records = list(read(out))
    assert 10 <= len(records) <= 12
    assert all(not r.votes and len({c.text for c in r.completions}) == len(r.completions) for r in records)
    keys = {"model", "checkpoint", "temperature", "top_p", "top_k", "min_p", "seed", "attempt"}
    assert all(set(c.source) == keys for r in records for c in r.completions)
    report = json.loads((tmp_path / "tasks.jsonl.report.json").read_text())
    assert report["prompts"]["read"] == 10000
    assert report["filters"]["records"]["kept"] == len(records)
    votes = tmp_path / "votes.jsonl"
    command = [sys.executable, "annotate.py", "annotator=simulated", f"tasks={out}", f"out={votes}"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(r.votes for r in read(votes))
    assert "percent" in json.loads((tmp_path / "votes.jsonl.report.json").read_text())


@pytest.mark.slow
def test_the_command_on_a_real_language_model(root, shared, tmp_path):
    (tmp_path / "prompts.txt").write_text("Once upon a time, there was a dog.\nTom had a big red ball.\n")
    out = tmp_path / "stories.jsonl"
    sample_command(
        root, "data=prompts", f"data.path={tmp_path}/prompts.txt", "model=local",
        f"model.path={shared}/models/stories260k", "template='{{ messages[-1].content }}'", "max_new_tokens=30",
        f"out={out}",
    )  # fmt: skip
    records = list(read(out))
    assert len(records) == 2
    assert all(len(r.completions) >= 2 and c.source["model"] == "stories260k" for r in records for c in r.completions)
