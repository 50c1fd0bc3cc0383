"""Prompts of records to the sets that other trainers roll out on, as JSON Lines.

    openrlhf   {input, label}: --data.prompt_dataset <file> --data.input_key input --data.label_key label
               --data.apply_chat_template
    verl       {data_source, prompt, ability, reward_model, extra_info}: data.train_files=<file>

`label` and `extra_info.prompt` hold the prompt before a chat template, for `rlhf.serve.interop.openrlhf_verl`: a
text, or the JSON of a chat's messages.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rlhf.records import Comparison, Prompt, as_messages, prompt_hash
from rlhf.serve.interop.pairs import write_rows

Row = Callable[[Comparison], dict[str, Any]]
"""A record to the row of its prompt."""


def openrlhf(record: Comparison) -> dict[str, Any]:
    """A row of OpenRLHF's prompt set."""
    return {"input": as_messages(record.prompt), "label": _written(record.prompt)}


def verl(record: Comparison) -> dict[str, Any]:
    """A row of verl's set; `ground_truth` is empty, because a reward model needs none."""
    return {
        "data_source": record.domain or "prompts",
        "prompt": as_messages(record.prompt),
        "ability": "alignment",
        "reward_model": {"style": "model", "ground_truth": ""},
        "extra_info": {"prompt": _written(record.prompt), "prompt_id": record.prompt_id},
    }


def export_prompts(records: Iterable[Comparison], path: str | Path, row: Row) -> int:
    """Write one row per different prompt, in the order of the records.

    Args:
        records: of which the prompts are taken.
        path: of the file.
        row: `openrlhf` or `verl`.

    Returns:
        The number of rows.
    """
    first: dict[str, Comparison] = {}
    for record in records:
        first.setdefault(prompt_hash(record.prompt), record)
    return write_rows(map(row, first.values()), path)


def _written(prompt: Prompt) -> str:
    plain = isinstance(prompt, str) and not prompt.startswith("[{")  # what looks like messages is written as messages
    return str(prompt) if plain else json.dumps(as_messages(prompt), ensure_ascii=False)
