"""Prompts alone, to be answered by `sample.py`: nothing to train on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rlhf.data.source import Rows, each
from rlhf.records import Comparison, OnBad, RecordError, parse_prompt, prompt_hash


def prompts(
    rows: Rows,
    on_bad: OnBad,
    *,
    prompt_key: str = "prompt",
    domain_key: str = "domain",
    id_key: str = "prompt_id",
) -> Iterator[Comparison]:
    """Rows with a prompt (text or messages), and a domain and an id where they have one; other keys go to `meta`.

    Raises:
        RecordError: a row without a prompt goes to `on_bad`.
    """
    yield from each(rows, on_bad, lambda row: [_task(row, prompt_key, domain_key, id_key)])


def _task(row: Mapping[str, Any], prompt_key: str, domain_key: str, id_key: str) -> Comparison:
    if row.get(prompt_key) in (None, "", []):
        remedy = f"data.importer.prompt_key=<one of {', '.join(map(str, row))}>"
        raise RecordError("no prompt", key=prompt_key, remedy=remedy)
    prompt = parse_prompt(row[prompt_key])
    domain = row.get(domain_key)
    rest = {k: v for k, v in row.items() if k not in (prompt_key, domain_key, id_key) and v is not None}
    own = {k: v for k, v in rest.items() if isinstance(v, str | int | float | bool)}
    name = str(row.get(id_key) or prompt_hash(prompt))
    return Comparison(name, prompt, (), (), None if domain is None else str(domain), own)
