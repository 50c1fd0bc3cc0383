"""One row of each research set as its file has it, and the sources that the configuration builds."""

import json
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import OmegaConf

from rlhf.assemble.schema.options import option

ROOT = Path(__file__).parents[2]

ARGUMENTS = [
    {"prompt_id": "p", "debate": "d", "prompt": "Tea?", "response_id": "x", "text": "Yes.", "pagerank_score": 0.2},
    {"prompt_id": "p", "debate": "d", "prompt": "Tea?", "response_id": "y", "text": "No.", "pagerank_score": 0.1},
]
PAIR = {
    "pair_id": "x_y", "prompt_id": "p", "debate": "d", "a": "x", "b": "y", "gold": "b", "in_strict": True,
    "annotations": [["w1", "a", 12], ["w2", "b", 40], ["w3", "tie", 7]],
}  # fmt: skip
PANDALM = {
    "pair_id": 7, "prompt": "Translate.", "input": "Hund", "a": "dog", "b": "cat", "models": "llama-7b_opt-7b",
    "annotations": [["ann1", "a"], ["ann2", "a"], ["ann3", "tie"]],
}  # fmt: skip
QA = {
    "prompt_id": "q1", "prompt": "Who?", "responses": ["one", "two", "three", "four"],
    "comparisons": [{"a": 0, "b": 1, "label": "tie"}, {"a": 0, "b": 2, "label": "b"}, {"a": 1, "b": 3, "label": "a"}],
}  # fmt: skip
LLMBAR = {
    "pair_id": 3, "prompt": "Sum up.", "a": "short", "b": "long", "gold": "b",
    "ai_labels": [["J", "CoT", "b", "b"], ["J", "Plain", "a", "b"], ["K", "CoT", None, "a"], ["K", "Plain", "a", "a"]],
}  # fmt: skip


def rankme_row(system, prompt_id="m1", **ratings):
    given = [
        {"annotator": who, "informativeness": i, "naturalness": n, "quality": q} for who, (i, n, q) in ratings.items()
    ]
    return {
        "item_id": f"1-{system}", "prompt_id": prompt_id, "prompt": "name[Inn]", "response": f"The Inn, {system}.",
        "system": system, "ratings": given,
    }  # fmt: skip


def rows(*values):
    return ((f"file:{n}", value) for n, value in enumerate(values, start=1))


def jsonl(path, values):
    path.write_text("".join(json.dumps(v) + "\n" for v in values), encoding="utf-8")
    return str(path)


def source(name, **changes):
    """The source that `data=<name>` builds."""
    return instantiate(OmegaConf.merge(option("data", name), changes))
