"""Prompts of records to the sets that other trainers roll out on, as JSON Lines.

    openrlhf   {input, label}: --data.prompt_dataset <file> --data.input_key input --data.label_key label
               --data.apply_chat_template
    verl       {data_source, prompt, ability, reward_model, extra_info}: data.train_files=<file>

`label` and `extra_info.prompt` hold the prompt before a chat template, for `rlhf.serve.interop.openrlhf_verl`: a
text, or the JSON of a chat's messages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rlhf.records import Comparison, Prompt, prompt_hash

Row = Callable[[Comparison], dict[str, Any]]
"""A record to the row of its prompt."""


def openrlhf(record: Comparison) -> dict[str, Any]:
    """A row of OpenRLHF's prompt set."""
    return {"input": _messages(record.prompt), "label": _written(record.prompt)}


def verl(record: Comparison) -> dict[str, Any]:
    """A row of verl's set; `ground_truth` is empty, because a reward model needs none."""
    return {
        "data_source": record.domain or "prompts",
        "prompt": _messages(record.prompt),
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
    path, seen = Path(path), set()
    partial = path.with_name("partial-" + path.name)
    with partial.open("w", encoding="utf-8") as file:
        for record in records:
            key = prompt_hash(record.prompt)
            if key not in seen:
                seen.add(key)
                file.write(json.dumps(row(record), ensure_ascii=False) + "\n")
    partial.replace(path)
    return len(seen)


def _messages(prompt: Prompt) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]


def _written(prompt: Prompt) -> str:
    plain = isinstance(prompt, str) and not prompt.startswith(
        "[{"
    )  # what looks like messages is written as messages
    return str(prompt) if plain else json.dumps(_messages(prompt), ensure_ascii=False)
