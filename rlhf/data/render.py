"""THE one place where a prompt and an answer become tokens: training, evaluation, export and serving use it.

The text is the tokenizer's chat template, or a plain one where it has none; prompt and answer are tokenised
together, so that ids equal what `tokenizer(text)` gives outside. A plain string prompt is one user message.

Length: the prompt is trimmed first, from its beginning; answers are kept whole. An answer too long for
`max_length` beside `min_prompt` tokens is dropped, and so counted; nothing is cut in silence.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlhf.records import Message, Prompt, as_messages

PLAIN_CAUSAL = (
    "{{ bos_token or '' }}{% for m in messages %}"
    "{% if not loop.first %}{{ '\n\n' }}{% endif %}"
    "{% if m.role == 'assistant' %}{{ 'Assistant: ' + m.content + eos_token }}"
    "{% else %}{{ ('Human' if m.role == 'user' else m.role | capitalize) + ': ' + m.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)
"""For causal tokenizers without a chat template. The space after the colon belongs to the answer, so that
byte-pair tokenizers do not merge tokens across the joint."""

PLAIN_ENCODER = (
    "{{ cls_token }}{% for m in messages %}"
    "{% if m.role == 'assistant' %}{{ sep_token + m.content + sep_token }}"
    "{% else %}{{ m.content + '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ sep_token }}{% endif %}"
)
"""For encoders: [CLS] prompt [SEP] answer [SEP]."""

FIXED_DATE = "26 Jul 2024"  # templates that print today's date get this one, so that a score does not depend on the day


@dataclass(frozen=True, slots=True)
class Encoded:
    """One group as tokens.

    prompt      ids that all kept completions begin with
    responses   ids that follow, one list per kept completion (each ends in the end token)
    kept        which completions these are; the others were longer than the model may read
    trimmed     how many tokens the prompt lost
    merged      how many completions merged tokens across the joint of prompt and answer
    """

    prompt: list[int]
    responses: list[list[int]]
    kept: list[int]
    trimmed: int
    merged: int


class Renderer:
    """Prompt and completions to tokens.

    Args:
        tokenizer: a Hugging Face tokenizer.
        max_length: the most tokens a prompt and one completion may have together.
        min_prompt: the least tokens of the prompt that must stay when it is trimmed.
        template: Jinja chat template; the tokenizer's own by default, else a plain one.

    Raises:
        ValueError: the tokenizer has neither an end token nor a separator, or the lengths make no sense.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, max_length: int = 1024, min_prompt: int = 16,
        template: str | None = None,
    ) -> None:  # fmt: skip
        if not 0 <= min_prompt < max_length:
            raise ValueError(f"min_prompt={min_prompt} must be less than max_length={max_length}")
        plain = PLAIN_CAUSAL if tokenizer.eos_token is not None else PLAIN_ENCODER
        if tokenizer.eos_token is None and tokenizer.sep_token is None:
            raise ValueError("the tokenizer has no end token: set eos_token in its tokenizer_config.json")
        self.tokenizer, self.max_length, self.min_prompt = tokenizer, max_length, min_prompt
        self.template: str = template or tokenizer.chat_template or plain
        self.end = tokenizer.eos_token if tokenizer.eos_token is not None else tokenizer.sep_token
        self.special = set(tokenizer.all_special_tokens) | set(tokenizer.get_added_vocab())
        head = self.opening_ids("x")
        opening = {tokenizer.bos_token_id, tokenizer.cls_token_id} - {None}
        self.opening = 1 if head and head[0] in opening else 0

    @property
    def template_hash(self) -> str:
        """First 16 hex digits of the template's SHA-256; saved with every run."""
        return hashlib.sha256(self.template.encode()).hexdigest()[:16]

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same text could become other tokens."""
        model = getattr(self.tokenizer, "backend_tokenizer", None)
        vocabulary = model.to_str() if model else json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        lengths = (str(self.max_length), str(self.min_prompt))
        parts = (vocabulary, self.template, *lengths, str(self.tokenizer.special_tokens_map))
        return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:16]

    def text(self, prompt: Prompt, response: str) -> str:
        """The exact text that is scored; `tokenizer(text, add_special_tokens=False)` gives its ids."""
        answer = Message(role="assistant", content=response)
        return self._ended(self._template([*as_messages(prompt), answer], generate=False))

    def encode(self, prompt: Prompt, responses: Sequence[str]) -> Encoded:
        """Tokens of one group; see `Encoded` and the module's rules on length."""
        head = self.opening_ids(prompt)
        rows = [self._ids(self.text(prompt, response)) for response in responses]
        joints = [_common(head, row) for row in rows]
        shared = min(joints, default=len(head))
        room = self.max_length - min(self.min_prompt, shared)
        kept = [i for i, row in enumerate(rows) if len(row) - shared <= room]
        longest = max((len(rows[i]) - shared for i in kept), default=0)
        trimmed = max(0, shared + longest - self.max_length)
        start = rows[0][:shared] if rows else head
        start = start[: self.opening] + start[self.opening + trimmed :]
        merged = sum(joint < len(head) for joint in joints)
        return Encoded(start, [rows[i][shared:] for i in kept], kept, trimmed, merged)

    def encode_rendered(self, text: str, prompt: str = "") -> Encoded:
        """Tokens of a text that went through a chat template elsewhere, with the end that training gave it.

        Args:
            text: prompt and answer; scored as it is.
            prompt: what it begins with: a text over `max_length` may lose the beginning of this, as in training.
                Empty: a text that is too long is not kept.
        """
        ids = self._ids(self._ended(text))
        trimmed = max(0, len(ids) - self.max_length)
        shared = _common(self._ids(prompt), ids)
        kept = [0] if trimmed <= shared - min(self.min_prompt, shared) else []
        row = ids[: self.opening] + ids[self.opening + trimmed :]
        return Encoded([], [row] if kept else [], kept, trimmed, 0)

    def opening_ids(self, prompt: Prompt) -> list[int]:
        """Tokens of the prompt up to where an answer begins: what a policy continues."""
        return self._ids(self.opening_text(prompt))

    def opening_text(self, prompt: Prompt) -> str:
        """The text of `opening_ids`."""
        return self._template(as_messages(prompt), generate=True)

    def _ended(self, text: str) -> str:
        bare = text.rstrip()
        return bare if any(bare.endswith(token) for token in self.special) else text + str(self.end)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def _template(self, messages: list[Message], *, generate: bool) -> str:
        options: dict[str, Any] = {"tokenize": False, "date_string": FIXED_DATE}
        text: str = self.tokenizer.apply_chat_template(
            messages, chat_template=self.template, add_generation_prompt=generate, **options
        )
        return text


def _common(a: list[int], b: list[int]) -> int:
    """Length of the prefix that two lists share."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))
