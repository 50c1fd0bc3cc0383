"""`python -m rlhf.data look`: formats are recognised, files are described, and the printed command trains."""

import csv
import json
import re
import shlex
import subprocess
import sys

import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict

from rlhf.data import importers
from rlhf.data.look import look
from rlhf.data.recognise import first_rows, recognise
from rlhf.data.source import Source, file_rows
from rlhf.records import RecordError

ROWS = [{"prompt": f"Question {n}?", "chosen": f"yes, of course {n}", "rejected": f"no {n}"} for n in range(40)]


def text(place, **options):
    return "\n".join(look(str(place), **options))


def table(path, rows, separator=",", bom=False):
    with path.open("w", newline="", encoding="utf-8-sig" if bom else "utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def zstd(path, rows):
    with pa.output_stream(str(path), compression="zstd") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("bom", [True, False])
def test_tables_from_a_spreadsheet_are_read_whatever_separates_their_cells(tmp_path, separator, bom):
    rows = [*ROWS, {"prompt": 'two\nlines, "quoted"; and | more', "chosen": "a\nb", "rejected": "c,d"}]
    records = list(Source(importers.pairs, path=str(table(tmp_path / "a.csv", rows, separator, bom))).records())
    assert len(records) == 41
    assert records[-1].prompt == rows[-1]["prompt"]
    assert [c.text for c in records[-1].completions] == ["a\nb", "c,d"]


def test_a_line_with_too_many_cells_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,chosen,rejected\nq,a,b\nq,a, and more,b\n")
    with pytest.raises(RecordError, match=r"a\.csv:3: .*more cells than the 3.*in quotes"):
        list(file_rows(str(tmp_path / "a.csv")))


def test_a_byte_order_mark_and_zstd_are_read(tmp_path):
    marked = tmp_path / "a.jsonl"
    marked.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8-sig")
    assert [row for _, row in file_rows(str(marked))] == ROWS
    assert [row for _, row in file_rows(str(zstd(tmp_path / "a.jsonl.zst", ROWS)))] == ROWS
    (tmp_path / "bad.jsonl.zst").write_bytes(b"this is no zstd at all")
    with pytest.raises(RecordError, match=r"bad\.jsonl\.zst.*zstd fails.*copy it again"):
        list(file_rows(str(tmp_path / "bad.jsonl.zst")))


def test_a_saved_dataset_is_read_and_one_of_several_splits_is_asked_for(tmp_path):
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")
    assert [row for _, row in file_rows(str(tmp_path / "one"))] == ROWS
    DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS[:2])).save_to_disk(tmp_path / "two")
    with pytest.raises(RecordError, match=r"splits train, test.*data.path=.*two/train"):
        list(file_rows(str(tmp_path / "two")))
    assert len(list(file_rows(str(tmp_path / "two" / "train")))) == 40


@pytest.mark.parametrize(
    ("row", "name", "columns"),
    [
        (ROWS[0], "pairs", {}),
        ({"question": "q", "better": "a", "worse": "b"}, "pairs",
         {"prompt": "question", "chosen": "better", "rejected": "worse"}),
        ({"Question": "q", "Chosen": "a", "REJECTED": "b"}, "pairs",
         {"prompt": "Question", "chosen": "Chosen", "rejected": "REJECTED"}),
        ({"Prompt": "q", "Answer A": "a", "Answer B": "b", "Preference": "A is much better"}, "graded",
         {"prompt": "Prompt", "response_a": "Answer A", "response_b": "Answer B", "preference": "Preference"}),
        ({"context": [{"role": "user", "content": "q"}], "response1": "a", "response2": "b", "overall_preference": 2},
         "helpsteer3", {}),
        ({"conversation_a": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
          "conversation_b": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
          "winner": "tie (bothbad)"}, "arena", {}),
        ({"chosen": "\n\nHuman: hi\n\nAssistant: yes", "rejected": "\n\nHuman: hi\n\nAssistant: no"}, "hh_rlhf", {}),
        ({"instruction": "say", "input": "", "chosen": "a", "rejected": "b"}, "llamafactory", {}),
        ({"history": "q", "human_ref_A": "a", "human_ref_B": "b", "labels": 1}, "shp", {}),
        ({"prompt": "q", "response": "a", "helpfulness": 4, "correctness": 4, "coherence": 4, "complexity": 1,
          "verbosity": 1}, "helpsteer", {}),
        ({"prompt_id": "p", "prompt": "q", "completions": [{"id": "c0", "text": "a"}, {"id": "c1", "text": "b"}],
          "votes": [{"annotator": "w", "pair": ["c0", "c1"], "choice": "c0"}]}, "jsonl", {}),
    ],
)  # fmt: skip
def test_formats_are_told_apart_by_their_rows(row, name, columns):
    second = row | ({"response": "another", "helpfulness": 1} if name == "helpsteer" else {})
    found = recognise([("f:1", row), ("f:2", second)])
    assert (found.name, found.columns) == (name, columns)


def test_what_nothing_reads_is_refused_with_what_it_holds(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"alpha": 1, "beta": 2}\n')
    with pytest.raises(RecordError, match=r"a\.jsonl:1: is in no known format.*alpha, beta"):
        text(tmp_path / "a.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(RecordError, match="is empty: it holds no row"):
        first_rows(str(tmp_path / "empty.jsonl"), hub=False)
    with pytest.raises(RecordError, match="no such file"):
        text(tmp_path / "absent.jsonl")


def test_three_records_are_shown_and_everything_is_counted(tmp_path):
    same = [{"prompt": "p", "chosen": "x", "rejected": "x"}]
    said = text(table(tmp_path / "a.csv", [*ROWS, ROWS[0], *same]))
    assert said.count("as it will be read") == 3
    assert "Question 2?" in said
    assert "Question 3?" not in said
    assert "records       41, 1 rows skipped" in said
    assert "same text" in said
    assert "data.on_error=skip" in said
    assert "prompts       40 different" in said
    assert "1 records repeat the prompt" in said
    assert "longer answer nearly always wins" in said
    assert "first answer nearly always wins" in said


def test_swapped_labels_are_noticed(tmp_path):
    swapped = [{"prompt": r["prompt"], "chosen": r["rejected"], "rejected": r["chosen"]} for r in ROWS]
    assert "are chosen and rejected swapped?" in text(table(tmp_path / "a.csv", swapped))


def test_the_command_that_is_printed_trains(tmp_path, train):
    rows = [{"question": r["prompt"], "better": r["chosen"], "worse": r["rejected"]} for r in ROWS]
    said = text(table(tmp_path / "my file;1.csv", rows, ";", bom=True))
    command = re.search(r"^  python train\.py (data=.*)$", said, re.M)[1]
    folder = train(*shlex.split(command))
    assert json.loads((folder / "metrics.json").read_text())["n_train"] >= 30


def test_the_command_line_speaks_at_once_and_fails_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "rlhf.data", "look", str(tmp_path / "no.csv")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.startswith("looking at")
    assert "no such file" in done.stderr
    assert len(done.stderr.splitlines()) == 1
