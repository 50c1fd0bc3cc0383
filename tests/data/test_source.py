"""Rows from files of every format, folders, globs and hub folders; bad rows stop or are counted."""

import csv
import gzip
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from rlhf.data.importers import jsonl, pairs
from rlhf.data.source import Source, file_rows
from rlhf.records import RecordError

ROWS = [{"prompt": "p", "chosen": f"good {i}", "rejected": "bad"} for i in range(3)]


def save(path):
    text = "\n".join(map(json.dumps, ROWS))
    if path.name.endswith(".jsonl.gz"):
        with gzip.open(path, "wt") as file:
            file.write(text)
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS))
    elif path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ROWS[0])
            writer.writeheader()
            writer.writerows(ROWS)
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.parquet", "a.csv"])
def test_every_format_gives_the_same_records(tmp_path, name):
    found = list(Source(pairs, path=str(save(tmp_path / name))).records())
    assert [r.completions[0].text for r in found] == ["good 0", "good 1", "good 2"]
    assert all(v.choice == "c0" for r in found for v in r.votes)


def test_folders_globs_and_lists_are_read_in_the_order_of_names(tmp_path):
    for name in ("b.jsonl", "a.json"):
        save(tmp_path / name)
    (tmp_path / "notes.md").write_text("not data")
    for path in (str(tmp_path), str(tmp_path / "*.json*"), [str(tmp_path / "a.json"), str(tmp_path / "b.jsonl")]):
        places = [place for place, _ in file_rows(path)]
        assert [p.split("/")[-1].split(":")[0] for p in places] == ["a.json"] * 3 + ["b.jsonl"] * 3


def test_a_hub_folder_is_read_through_datasets(tmp_path):
    save(tmp_path / "train.jsonl")
    for streaming in (False, True):
        source = Source(pairs, hub=str(tmp_path), streaming=streaming, limit=2)
        assert len(list(source.records())) == 2


def test_bad_rows_stop_with_their_place_or_are_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([json.dumps(ROWS[0]), json.dumps({"chosen": "x"}), "{broken", json.dumps(ROWS[1])]))
    with pytest.raises(RecordError, match=rf"{path}:2.*rejected"):
        list(Source(pairs, path=str(path)).records())
    source = Source(pairs, path=str(path), on_error="skip")
    for _ in range(2):  # counted anew every time
        assert len(list(source.records())) == 2
        assert source.skipped_count == 2
        assert f"{path}:3" in source.skipped[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "nothing.jsonl"}, "no such file"),
        ({"path": "Makefile"}, "unknown extension"),
        ({"path": "no/*.jsonl"}, "no data file found"),
        ({}, "data.path=<file> or data.hub=<name>"),
        ({"path": "x", "on_error": "ignore"}, "raise or skip"),
    ],
)
def test_sources_that_cannot_be_read_say_what_to_do(root, monkeypatch, arguments, message):
    monkeypatch.chdir(root)
    with pytest.raises(RecordError, match=message):
        list(Source(pairs, **arguments).records())


def test_the_fingerprint_sees_a_changed_file(tmp_path):
    path = save(tmp_path / "a.jsonl")
    before = Source(pairs, path=str(path)).fingerprint
    path.write_text(path.read_text() + "\n")
    assert Source(pairs, path=str(path)).fingerprint != before


def test_records_with_a_header_keep_their_scale(tmp_path):
    record = {
        "prompt_id": "p", "prompt": "q", "completions": [{"id": "a", "text": "1"}, {"id": "b", "text": "2"}],
        "votes": [{"annotator": "w", "likert": {"a": 9, "b": 7}}],
    }  # fmt: skip
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"header": {"likert": [0, 10]}}) + "\n" + json.dumps(record))
    assert next(iter(Source(jsonl, path=str(path)).records())).votes[0].likert == {"a": 9, "b": 7}
    path.write_text(json.dumps(record))
    with pytest.raises(RecordError, match="header line"):
        list(Source(jsonl, path=str(path)).records())


def test_a_header_ends_with_its_file(tmp_path):
    record = {
        "prompt_id": "p", "prompt": "q", "completions": [{"id": "a", "text": "1"}],
        "votes": [{"annotator": "w", "likert": {"a": 9}}],
    }  # fmt: skip
    (tmp_path / "a.jsonl").write_text(json.dumps({"header": {"likert": [0, 10]}}) + "\n" + json.dumps(record))
    (tmp_path / "b.jsonl").write_text(json.dumps(record))
    with pytest.raises(RecordError, match=r"b.jsonl:1.*scale is 1..5"):
        list(Source(jsonl, path=str(tmp_path)).records())


def test_the_fingerprint_sees_a_change_in_a_second_file_of_an_importer(tmp_path):
    from functools import partial

    path, texts = save(tmp_path / "a.jsonl"), tmp_path / "texts.jsonl"
    texts.write_text("{}")
    source = Source(partial(pairs, responses_path=str(texts)), path=str(path))
    before = source.fingerprint
    texts.write_text("{} ")
    assert source.fingerprint != before


def test_a_hub_set_that_cannot_be_reached_is_one_message_with_the_remedy(monkeypatch):
    import datasets

    def unreachable(name, *_, **__):
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub (LocalEntryNotFoundError)")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(RecordError) as caught:
        next(Source(pairs, hub="org/set").records())
    assert str(caught.value).startswith("org/set: key 'data.hub': cannot be read from the Hugging Face hub: ")
    assert "data.path=<file>" in caught.value.remedy
