"""The key of a prompt: two spellings of the same prompt share it, so splits and de-duplication can trust it."""

from __future__ import annotations

import unicodedata
from hashlib import sha256

from rlhf.records.types import Prompt, prompt_text


def prompt_hash(prompt: Prompt) -> str:
    """sha256 of the prompt's words after NFKC, case folding and collapsing of whitespace; 16 hex characters.

    A text and a conversation of that one user turn are the same prompt.
    """
    alone = not isinstance(prompt, str) and len(prompt) == 1 and prompt[0]["role"] == "user"
    text = prompt[0]["content"] if alone else prompt_text(prompt)  # type: ignore[index]
    words = unicodedata.normalize("NFKC", text).casefold().split()
    return sha256(" ".join(words).encode("utf-8", "replace")).hexdigest()[:16]
