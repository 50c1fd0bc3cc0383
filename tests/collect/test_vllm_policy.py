"""What the vLLM policy asks of vLLM, against a stand-in with the same interface; the engine itself needs a GPU."""

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import pytest

from rlhf.collect.decoding import Decoding
from rlhf.collect.vllm_policy import VllmPolicy


@dataclass
class SamplingParams:
    """The parameters under the names that vLLM documents."""

    temperature: float
    top_p: float
    top_k: int
    min_p: float
    max_tokens: int
    stop: list
    seed: int


@dataclass
class Engine:
    """Answers with what it was asked, in the shape of vLLM's outputs."""

    model: str
    dtype: str = "auto"
    asked: list = field(default_factory=list)

    def chat(self, messages, parameters, use_tqdm):
        self.asked.append((messages, parameters))
        texts = [f" {m[-1]['content']} {p.seed}\n" for m, p in zip(messages, parameters, strict=True)]
        return [
            SimpleNamespace(outputs=[SimpleNamespace(text=t, finish_reason=reason, token_ids=[1, 2])])
            for t, reason in zip(texts, ["stop", "length"] * len(texts), strict=False)
        ]


@pytest.fixture
def vllm(monkeypatch):
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = Engine, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)


@pytest.mark.usefixtures("vllm")
def test_every_answer_has_its_own_seed_and_the_decoding_that_was_asked_for():
    policy = VllmPolicy("some/model", max_new_tokens=7, stop=["\n\nHuman:"], engine={"dtype": "bfloat16"})
    drafts = policy.answer("Hi", Decoding(0.8, top_p=0.9, top_k=0, min_p=0.1), [5, 2**62])
    assert [d.text for d in drafts] == ["Hi 5", f"Hi {2**62}"]
    assert [d.finished for d in drafts] == [True, False]
    assert [d.tokens for d in drafts] == [2, 2]
    ((messages, parameters),) = policy._llm.asked
    assert messages == [[{"role": "user", "content": "Hi"}]] * 2
    assert parameters == [SamplingParams(0.8, 0.9, -1, 0.1, 7, ["\n\nHuman:"], seed) for seed in (5, 2**62)]
    assert policy._llm.dtype == "bfloat16"
    assert policy.provenance == {"model": "model", "checkpoint": "some/model"}


def test_without_vllm_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ImportError, match=r"preference-reward-models\[vllm\]"):
        VllmPolicy("some/model").answer("Hi", Decoding(), [1])
