"""The small random Llama with a vocabulary of its own: byte-pair tokens learned from the toy world's texts.

A word of the toy world is about one token, so that policies that use it train in seconds on a CPU. Any other text is
still spelled in bytes: nothing is unknown.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rlhf.models.pretrained import Tiny
from rlhf.records import prompt_text
from rlhf.toy.world import ToyWorld

TEXTS = 2000
"""Records of the toy world (seed 0) that the vocabulary is learned from."""


@dataclass(frozen=True)
class ToyModel(Tiny):
    """As `Tiny`, with a `vocabulary` of so many tokens, at most."""

    vocabulary: int = 1000

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Byte-pair tokens; the same on every machine."""
        pad, begin, end = self.special
        return PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(_learned(self.vocabulary, self.special)), pad_token=pad,
            bos_token=begin, eos_token=end, model_max_length=self.max_length, clean_up_tokenization_spaces=False,
        )  # fmt: skip


@lru_cache(maxsize=4)
def _learned(vocabulary: int, special: tuple[str, ...]) -> str:
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=list(special), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    texts = ["Human: \n\nAssistant:"]
    for record in ToyWorld(size=TEXTS).records():
        texts += [prompt_text(record.prompt), *(" " + c.text for c in record.completions)]
    tokenizer.train_from_iterator(texts, trainer)
    learned: str = tokenizer.to_str()
    return learned
