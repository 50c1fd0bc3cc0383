"""A preference on disk: prompt, completions and raw votes, as JSON Lines."""

from rlhf.records.jsonl import OnBad, dump, lines, open_text, parse_rows, read, readable, stop, write
from rlhf.records.parsing import parse, parse_header, parse_prompt
from rlhf.records.types import (
    KINDS,
    LIKERT,
    Comparison,
    Completion,
    Kind,
    Message,
    Prompt,
    RecordError,
    Vote,
    as_messages,
    prompt_hash,
    prompt_text,
)

__all__ = [
    "KINDS", "LIKERT", "Comparison", "Completion", "Kind", "Message", "OnBad", "Prompt", "RecordError", "Vote",
    "as_messages", "dump", "lines", "open_text", "parse", "parse_header", "parse_prompt", "parse_rows", "prompt_hash",
    "prompt_text", "read", "readable", "stop", "write",
]  # fmt: skip
