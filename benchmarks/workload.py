"""What both sides train on: the same random models, and groups of a prompt with k ranked completions.

Prompts are lognormal with median 150 tokens up to 1000, completions lognormal with median 80 up to 400.
"""

import copy
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, LlamaConfig, PreTrainedModel

from rlhf.data.store import Rows, write_store

VOCABULARY = 259
"""Bytes and three special tokens: the tokenizer of `rlhf.models.pretrained.Tiny`."""


def llama(width: int = 256, depth: int = 4) -> PreTrainedModel:
    """A random Llama classifier."""
    return _build(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=width, intermediate_size=11 * width // 4, num_hidden_layers=depth,
            num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=4096,
        )
    )  # fmt: skip


def minilm(vocabulary: int = VOCABULARY) -> PreTrainedModel:
    """A random BERT of MiniLM's size (6 layers, width 384, 10.6 M parameters outside the embeddings)."""
    return _build(
        BertConfig(
            vocab_size=vocabulary, hidden_size=384, intermediate_size=1536, num_hidden_layers=6,
            num_attention_heads=12, max_position_embeddings=2048, attention_probs_dropout_prob=0.0,
            hidden_dropout_prob=0.0,
        )
    )  # fmt: skip


def _build(config: Any) -> PreTrainedModel:
    config.num_labels, config.pad_token_id = 1, 0
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config)


@dataclass(frozen=True)
class Workload:
    """`groups` prompts with `k` completions each; completion 0 is the best, and so on."""

    groups: int
    k: int
    seed: int = 0
    prompt_median: float = 150.0

    @cached_property
    def prompts(self) -> list[list[int]]:
        """Token ids of the prompts."""
        rng = np.random.default_rng(self.seed)
        return [self._ids(rng, self.prompt_median, 0.7, 1000) for _ in range(self.groups)]

    @cached_property
    def responses(self) -> list[list[list[int]]]:
        """Token ids of the completions of every prompt."""
        rng = np.random.default_rng(self.seed + 1)
        return [[self._ids(rng, 80, 0.6, 400) for _ in range(self.k)] for _ in range(self.groups)]

    @staticmethod
    def _ids(rng: np.random.Generator, median: float, sigma: float, longest: int) -> list[int]:
        length = int(np.clip(rng.lognormal(np.log(median), sigma), 4, longest))
        ids: list[int] = rng.integers(3, VOCABULARY, length).tolist()
        return ids

    @property
    def comparisons(self) -> int:
        """Pairs of completions of one prompt: what a pairwise trainer sees as rows."""
        return self.groups * self.k * (self.k - 1) // 2

    @property
    def sequence_tokens(self) -> int:
        """Tokens of every completion with its prompt, without padding: what must be read at least, unshared."""
        return sum(len(p) + len(r) for p, rs in zip(self.prompts, self.responses, strict=True) for r in rs)

    @property
    def unique_tokens(self) -> int:
        """The same with every prompt counted once."""
        return sum(map(len, self.prompts)) + sum(len(r) for rs in self.responses for r in rs)

    def pairs(self) -> dict[str, list[Any]]:
        """Columns of TRL's tokenised preference format: one row per comparison."""
        rows: dict[str, list[Any]] = {"chosen_ids": [], "rejected_ids": [], "length": []}
        for prompt, responses in zip(self.prompts, self.responses, strict=True):
            for better, worse in combinations(responses, 2):
                rows["chosen_ids"].append(prompt + better)
                rows["rejected_ids"].append(prompt + worse)
                rows["length"].append(len(prompt) + max(len(better), len(worse)))
        return rows

    def store(self, folder: Path) -> Rows:
        """This project's prepared rows: memory-mapped Arrow."""
        k = self.k
        order = np.arange(k)
        wins = (order[:, None] < order[None, :]).astype(float)
        observed = ~np.eye(k, dtype=bool)
        row = {
            "prompt_key": "", "domain": "", "completion_id": [str(i) for i in range(k)], "length": [1] * k,
            "win_prob": wins.ravel().tolist(), "tie_prob": [0.0] * k * k, "observed": observed.ravel().tolist(),
            "margin": [0.0] * k * k, "votes": observed.ravel().astype(float).tolist(), "rank": order.tolist(),
            "score": [], "weight": 1.0, "pair_weight": observed.ravel().astype(float).tolist(),
            "rankings": order.tolist(), "ranking_weight": [1.0], "prompt_pairs": k * (k - 1) / 2, "records": [],
        }  # fmt: skip
        pairs = zip(self.prompts, self.responses, strict=True)
        rows = (
            ("train", copy.copy(row) | {"prompt_id": str(i), "prompt": p, "responses": r})
            for i, (p, r) in enumerate(pairs)
        )
        write_store(folder, rows, dict)
        return Rows(folder / "train.arrow")
