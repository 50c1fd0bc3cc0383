"""The file that OpenRLHF and verl are given, against the service that it asks."""

import importlib.util
from dataclasses import replace

import pytest
import torch
from datasets import load_dataset
from running import Served

import rlhf
from rlhf.data.importers import openrlhf as read_openrlhf
from rlhf.data.source import Source
from rlhf.serve.interop import openrlhf_verl
from rlhf.serve.interop.pairs import conversational, drop, export_pairs
from rlhf.serve.interop.prompts import export_prompts, openrlhf, verl
from rlhf.toy.world import ToyWorld

pytestmark = pytest.mark.slow
RECORDS = list(ToyWorld(size=10).records())
CHAT = (
    {"role": "user", "content": "I lost my keys."},
    {"role": "assistant", "content": "Where did you see them last?"},
    {"role": "user", "content": "In the kitchen."},
)


@pytest.fixture(scope="module")
def served(root, exported, tmp_path_factory):
    running = Served(root, exported(), tmp_path_factory.mktemp("log") / "log")
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def scorer(exported):
    return rlhf.load(exported())


def test_the_reward_functions_of_openrlhf_and_verl_get_the_same_rewards(served, scorer, tmp_path, monkeypatch):
    """As the two call them: from the file, one answer at a time, on the sets that we export."""
    monkeypatch.setenv("RLHF_SERVICE", served.url)
    monkeypatch.setenv("RLHF_END_TOKENS", "<|im_end|>")
    own = importlib.util.spec_from_file_location("reward_func", openrlhf_verl.__file__)
    module = importlib.util.module_from_spec(own)
    own.loader.exec_module(module)
    records = [*RECORDS[:5], replace(RECORDS[0], prompt=CHAT), replace(RECORDS[0], prompt='[{"a": 1}]')]
    assert export_prompts([*records, records[0]], tmp_path / "o.jsonl", openrlhf) == len(records)
    assert export_prompts(records, tmp_path / "v.jsonl", verl) == len(records)
    rows = zip(
        load_dataset("json", data_files=str(tmp_path / "o.jsonl"), cache_dir=str(tmp_path / "cache"))["train"],
        load_dataset("json", data_files=str(tmp_path / "v.jsonl"), cache_dir=str(tmp_path / "cache"))["train"],
        records,
        strict=True,
    )
    for one, two, record in rows:
        text = record.completions[0].text
        expected = scorer.score(record.prompt, [text])[0]
        normalised = float(scorer.calibration.normalise(expected))
        opening = "".join(f"<|{m['role']}|>{m['content']}" for m in one["input"])  # another template
        found = module.reward_func([f"{opening} {text}<|im_end|>"], [opening], [one["label"]])
        assert torch.tensor([found["rewards"]]).tolist() == pytest.approx([normalised], abs=1e-6)  # as it reads it
        assert float(found["extra_logs"]["raw_reward"]) == pytest.approx(expected, abs=1e-6)
        score = module.compute_score(
            data_source=two["data_source"], solution_str=text, extra_info=two["extra_info"],
            ground_truth=two["reward_model"]["ground_truth"], reward_router_address=None,
        )  # fmt: skip
        assert score == pytest.approx({"score": normalised, "raw_reward": expected}, abs=1e-6)
    with pytest.raises(ValueError, match="does not begin with its prompt"):
        module.reward_func(["cut"], ["a prompt"], ["a prompt"])
    with pytest.raises(RuntimeError, match=r"answered 422: .*longer than max_length"):
        module.compute_score("d", "b" * 600, "", {"prompt": "Why?"})
    monkeypatch.setenv("RLHF_SERVICE", "http://127.0.0.1:1")
    with pytest.raises(RuntimeError, match="RLHF_SERVICE="):
        module.compute_score("d", "b", "", {"prompt": "Why?"})


def test_openrlhf_reads_the_exported_pairs(tmp_path):
    """`--data.prompt_key prompt --data.apply_chat_template`: prompt and answers are lists that it joins."""
    report = export_pairs(RECORDS, tmp_path / "pairs.jsonl", ties=drop, form=conversational)
    data = load_dataset("json", data_files=str(tmp_path / "pairs.jsonl"), split="train", cache_dir=str(tmp_path))
    back = list(Source(read_openrlhf, path=str(tmp_path / "pairs.jsonl")).records())
    assert len(data) == len(back) == report["rows"] > 5
    for row, record in zip(data, back, strict=True):
        whole = row["prompt"] + row["chosen"]
        assert [turn["role"] for turn in whole] == ["user", "assistant"]
        assert whole[0]["content"] == record.prompt[0]["content"]
        assert whole[1]["content"] == record.completions[0].text


def test_what_vllm_is_asked_is_what_transformers_scores(scorer, exported):
    """`/classify` without activation is the stock classifier's logit of `input`, tokenised without special tokens."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = exported()
    folder = folder / "model" if (folder / "model").is_dir() else folder
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    for record in RECORDS[:5]:
        text = record.completions[0].text
        body = {"input": scorer.renderer.text(record.prompt, text), "add_special_tokens": False}
        tokens = tokenizer(body["input"], add_special_tokens=body["add_special_tokens"], return_tensors="pt")
        with torch.inference_mode():
            logit = model(**tokens).logits[0, 0]
        assert float(logit) == pytest.approx(scorer.score(record.prompt, [text])[0], abs=1e-5)
