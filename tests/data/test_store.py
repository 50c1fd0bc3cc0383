"""The key of prepared data changes with the code that prepares it, and with no other code."""

from functools import partial
from pathlib import Path

import pytest
from reward_modules import build_data

from rlhf.collect.paraphrase import Paraphrase
from rlhf.data import importers, store
from rlhf.data.augment import Augment, opening
from rlhf.data.distinct import key_of, keys_of
from rlhf.data.source import Source
from rlhf.data.splits import HashSplit
from rlhf.labels.aggregation import soft
from rlhf.labels.dawid_skene import DawidSkene
from rlhf.toy.source import ToySource

ROOT = Path(store.__file__).parent.parent


def named(*parts):
    return {str(path.relative_to(ROOT)) for path in store.code(*parts)}


def touched(monkeypatch, name):
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read(self) + b"#" * (self == ROOT / name))


@pytest.mark.parametrize(
    "name",
    [
        "data/prepare.py", "data/render.py", "data/splits.py", "labels/aggregation.py", "records/parsing.py",
        "toy/texts.py", "annotate/annotator.py",
    ],
)  # fmt: skip
def test_a_touched_module_that_prepares_changes_the_key(monkeypatch, name):
    parts = ToySource(size=9), partial(soft), HashSplit()
    before = store.fingerprint(*parts)
    assert store.fingerprint(*parts) == before
    touched(monkeypatch, name)
    assert store.fingerprint(*parts) != before


@pytest.mark.parametrize("name", ["annotate/web.py", "data/order.py", "evaluation/run.py", "assemble/run.py"])
def test_a_touched_module_that_does_not_prepare_changes_nothing(monkeypatch, name):
    parts = ToySource(size=9), partial(soft), HashSplit()
    before = store.fingerprint(*parts)
    assert (ROOT / name).is_file()
    touched(monkeypatch, name)
    assert store.fingerprint(*parts) == before


def test_the_code_is_that_of_the_parts_and_of_what_they_hold(tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    read = Source(importers.pairs, path=str(tmp_path / "rows.jsonl"))
    few = named(read, partial(soft), HashSplit())
    assert {"data/source.py", "data/importers/pairs.py", "data/importers/raw.py", "records/jsonl.py"} <= few
    assert not any(name.startswith(("annotate", "toy", "evaluation", "assemble", "collect")) for name in few)
    assert "labels/dawid_skene.py" not in few
    assert "labels/dawid_skene.py" in named(read, DawidSkene())
    paraphrased = Augment(1, [partial(opening), Paraphrase(policy=ToySource(size=9).policies()[0])])
    assert {"collect/paraphrase.py", "toy/source.py"} <= named(read, paraphrased)


def test_a_function_is_known_by_its_name_not_by_its_place_in_memory():
    assert store.describe(soft) == "rlhf.labels.aggregation.soft"
    assert store.describe(partial(soft, criterion="x")) == "rlhf.labels.aggregation.soft([('criterion', 'x')])"


def test_tokens_read_as_views_are_those_read_as_lists_and_have_their_keys(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 7)
    rows = build_data(tmp_path, 60).rows["train"]
    found = list(rows.texts())
    lists = [(prompt.tolist(), [answer.tolist() for answer in answers]) for prompt, answers in found]
    assert lists == rows.texts_of(list(range(len(rows))))
    assert len(rows.table.data.to_batches()) > 2
    for (prompt, answers), own in zip(found, lists, strict=True):
        assert keys_of(prompt, answers) == [key_of(own[0], answer) for answer in own[1]]
    assert key_of([1, 2], [3]) != key_of([1], [2, 3])
    nothing = found[0][0][:0]
    assert key_of([], []) == key_of(nothing, nothing)
