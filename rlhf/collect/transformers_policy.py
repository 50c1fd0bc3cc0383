"""Completions by `transformers`' own `generate`: any causal language model of a folder or the hub."""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig

from rlhf.collect.decoding import Decoding
from rlhf.collect.sampling import Draft
from rlhf.data.render import Renderer
from rlhf.models.pretrained import load_causal
from rlhf.records import Prompt

BLOCK = 1 << 20
LOADING = threading.Lock()  # transformers cannot load two models at once: weights of one can stay empty


@dataclass
class TransformersPolicy:
    """A causal language model that answers prompts.

    Every answer is decoded alone under its own seed, so that it depends on nothing else. For throughput on a large
    scale use `VllmPolicy`.

    Args:
        path: folder or hub id.
        revision: branch, tag or commit of the hub repository.
        dtype: of the weights: float32, bfloat16.
        device: cpu, cuda, cuda:1, ...
        max_new_tokens: length limit of an answer.
        max_length: tokens of prompt and answer together; longer prompts lose their beginning.
        template: Jinja chat template; the tokenizer's own, or a plain one, by default. `{{ messages[-1].content }}`
            continues the prompt as plain text.
        stop: texts that end an answer; they are cut off.
        trust_remote_code: run code that the hub repository ships.
    """

    path: str
    revision: str | None = None
    dtype: str = "float32"
    device: str = "cpu"
    max_new_tokens: int = 256
    max_length: int = 2048
    template: str | None = None
    stop: Sequence[str] = ("\n\nHuman:",)
    trust_remote_code: bool = False
    _loaded: tuple[Any, Renderer] | None = field(default=None, init=False, repr=False)

    @property
    def provenance(self) -> dict[str, Any]:
        """Name and a fingerprint of the weights: sha256 of the weight files, or the hub's commit."""
        self._load()
        return {"model": Path(self.path).name, "checkpoint": self._checkpoint}

    def answer(self, prompt: Prompt, decoding: Decoding, seeds: Sequence[int]) -> list[Draft]:
        """One answer per seed."""
        model, renderer = self._load()
        ids = renderer.opening_ids(prompt)
        room = min(self.max_length, getattr(model.config, "max_position_embeddings", self.max_length))
        ids = ids[-max(1, room - self.max_new_tokens) :]
        tokens = torch.tensor([ids], device=self.device)
        return [self._one(model, renderer.tokenizer, tokens, decoding, seed) for seed in seeds]

    def next_token(self, prompt: Prompt, words: Sequence[str]) -> dict[str, float]:
        """Probabilities of words as the answer's first token, made to add up to 1 (each by its first token)."""
        model, renderer = self._load()
        ids = renderer.opening_ids(prompt)[-self.max_length :]
        with torch.inference_mode():
            logits = model(torch.tensor([ids], device=self.device)).logits[0, -1].double()
        first = {w: {renderer.tokenizer.encode(f, add_special_tokens=False)[0] for f in (w, f" {w}")} for w in words}
        weight = {w: float(torch.logsumexp(logits[sorted(tokens)], 0)) for w, tokens in first.items()}
        share = torch.softmax(torch.tensor(list(weight.values()), dtype=torch.float64), 0).tolist()
        return dict(zip(words, share, strict=True))

    def _one(self, model: Any, tokenizer: Any, tokens: Any, decoding: Decoding, seed: int) -> Draft:
        devices = [tokens.device] if tokens.is_cuda else []
        with torch.random.fork_rng(devices=devices), torch.inference_mode():
            torch.manual_seed(seed)
            out = model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                generation_config=generation(tokenizer, decoding, self.max_new_tokens, self.stop),
                tokenizer=tokenizer,
            )
        new = out[0, tokens.shape[1] :].tolist()
        ended = bool(new) and new[-1] == tokenizer.eos_token_id
        text, stopped = cut(tokenizer.decode(new, skip_special_tokens=True), self.stop)
        return Draft(text.strip(), ended or stopped, len(new))

    def _load(self) -> tuple[Any, Renderer]:
        with LOADING:
            self._loaded = self._loaded or self._load_once()
        return self._loaded

    def _load_once(self) -> tuple[Any, Renderer]:
        source: dict[str, Any] = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        tokenizer = AutoTokenizer.from_pretrained(self.path, **source)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        model: Any = load_causal(self.path, dtype=getattr(torch, self.dtype), **source)
        renderer = Renderer(tokenizer, max_length=self.max_length, template=self.template)
        commit = getattr(model.config, "_commit_hash", None)
        self._checkpoint = fingerprint(self.path) if Path(self.path).is_dir() else str(commit)[:12]
        return model.eval().to(self.device), renderer


def generation(tokenizer: Any, decoding: Decoding, max_new_tokens: int, stop: Sequence[str]) -> GenerationConfig:
    """A decoding as `generate` takes it."""
    sampled = decoding.as_dict() | {"min_p": decoding.min_p or None}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=decoding.temperature > 0,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        stop_strings=list(stop) or None,
        **sampled if decoding.temperature > 0 else {},
    )


def cut(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """The text up to the first of the stops, and whether there was one."""
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    return (text[: min(places)], True) if places else (text, False)


def fingerprint(folder: str) -> str:
    """First 12 hex digits of the sha256 of the weight files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(p for pattern in ("*.safetensors", "*.bin") for p in Path(folder).glob(pattern)):
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()[:12]
