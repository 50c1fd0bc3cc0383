"""The project's own files: records, as `rlhf.records` writes them, and prompts alone."""

from collections.abc import Iterator

from rlhf.data.file_formats import Rows
from rlhf.data.importers.raw import Row, per_row
from rlhf.records import Comparison, OnBad, RecordError, parse_prompt, parse_rows, prompt_hash


def jsonl(rows: Rows, on_bad: OnBad) -> Iterator[Comparison]:
    """Records; a header line `{"header": {"likert": [low, high]}}` sets the scale of the rest of its file."""
    return parse_rows(rows, on_bad)


@per_row
def prompts(
    row: Row, *, prompt_key: str = "prompt", domain_key: str = "domain", id_key: str = "prompt_id"
) -> Comparison:
    """Prompts to be answered by `sample.py`: text or messages, with a domain and an id where a row has one.

    Other keys go to `meta`. There is nothing to train on.

    Raises:
        RecordError: a row without a prompt goes to `on_bad`.
    """
    if row.get(prompt_key) in (None, "", []):
        remedy = f"data.importer.prompt_key=<one of {', '.join(map(str, row))}>"
        raise RecordError("no prompt", key=prompt_key, remedy=remedy)
    prompt = parse_prompt(row[prompt_key])
    domain = row.get(domain_key)
    rest = {k: v for k, v in row.items() if k not in (prompt_key, domain_key, id_key) and v is not None}
    own = {k: v for k, v in rest.items() if isinstance(v, str | int | float | bool)}
    name = str(row.get(id_key) or prompt_hash(prompt))
    return Comparison(name, prompt, (), (), None if domain is None else str(domain), own)
