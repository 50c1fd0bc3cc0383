"""Task files of active learning with the true rewards that lie beside them: what annotators can be simulated on."""

import json
from dataclasses import replace

from rlhf.records import read


def with_gold(path):
    """The records of a task file with the rewards of its `.gold.json` as `meta.gold`."""
    truth = json.loads(path.with_suffix(".gold.json").read_text(encoding="utf-8"))
    for record in read(path):
        known = truth[str(record.meta["pair_id"])]
        completions = (replace(c, meta={**c.meta, "gold": known[c.id]}) for c in record.completions)
        yield replace(record, completions=tuple(completions))
