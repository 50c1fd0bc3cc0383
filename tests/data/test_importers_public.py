"""One golden row per format: which side is better is the mistake that nothing else would notice."""

import pytest
from golden_rows import BAD, GOLDEN, GOOD, HH, MORE, SYSTEM, USER, WHOLE, Q, best, read
from hydra.utils import instantiate

import rlhf.data.importers as importers
from rlhf.assemble.schema.options import option, option_names
from rlhf.data.source import Source
from rlhf.labels.aggregation import soft
from rlhf.records import parse, prompt_hash


@pytest.mark.parametrize(("name", "row", "prompt"), GOLDEN)
def test_the_better_answer_comes_out_better(name, row, prompt):
    (record,) = read(getattr(importers, name), row)
    assert best(record) == ["good", "bad"]
    assert record.prompt == prompt
    label = soft(record)
    assert label.win_prob[label.rank.argmin(), label.rank.argmax()] == 1.0


@pytest.mark.parametrize("name", WHOLE)
def test_a_row_becomes_exactly_this_record(name):
    row, expected = WHOLE[name]
    (record,) = read(getattr(importers, name), row)
    both = [{"id": "c0", "text": "good"}, {"id": "c1", "text": "bad"}]
    raw = {"completions": both} | expected
    if raw["prompt_id"] == "PROMPT":
        raw["prompt_id"] = prompt_hash(record.prompt)
    assert record == parse(raw, (0, 10))


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "Q", "chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]}, (SYSTEM, USER)),
        ({"prompt": [SYSTEM, USER], "chosen": [USER, GOOD], "rejected": [USER, BAD]}, (SYSTEM, USER)),
        ({"prompt": [USER], "chosen": [GOOD, MORE, GOOD], "rejected": [GOOD, MORE, BAD]}, (USER, GOOD, MORE)),
    ],
)
def test_a_stated_prompt_that_the_chats_repeat_or_go_on_from_is_there_once(row, prompt):
    (record,) = read(importers.pairs, row)
    assert record.prompt == prompt
    assert best(record) == ["good", "bad"]


def test_without_a_prompt_key_the_chats_say_the_prompt():
    row = {"prompt": " Q ", "chosen": [USER, GOOD], "rejected": [USER, BAD]}
    assert read(importers.pairs, row, prompt_key=None)[0].prompt == Q


def test_implicit_prompts_of_transcripts_end_where_the_answer_begins():
    (record,) = read(importers.pairs, {"chosen": HH + "I say good", "rejected": HH + "I say bad"})
    assert record.prompt == HH
    assert best(record) == ["I say good", "I say bad"]


def test_implicit_text_prompts_end_between_words():
    (record,) = read(importers.pairs, {"chosen": "Say hi. Hello you", "rejected": "Say hi. Help"})
    assert record.prompt == "Say hi. "
    assert best(record) == ["Hello you", "Help"]


def test_a_margin_survives():
    (record,) = read(importers.pairs, {"prompt": "Q", "chosen": "a", "rejected": "b", "margin": 2.5})
    assert record.votes[0].margin == 2.5


def test_other_columns_by_option():
    row = {"input": "Q", "better": "good", "worse": "bad"}
    (record,) = read(importers.pairs, row, prompt_key="input", chosen_key="better", rejected_key="worse")
    assert best(record) == ["good", "bad"]


def test_hh_transcripts_that_part_early_keep_the_rest_in_the_answer():
    row = {"chosen": HH + "hm\n\nHuman: R\n\nAssistant: good", "rejected": HH + "no\n\nHuman: S\n\nAssistant: bad"}
    (record,) = read(importers.hh_rlhf, row)
    assert record.prompt == Q
    assert best(record)[0] == "hm\n\nHuman: R\n\nAssistant: good"


@pytest.mark.parametrize("name", option_names("data"))
def test_every_importer_option_instantiates(name, tmp_path):
    cfg = option("data", name)
    if "importer" not in cfg:
        return
    cfg.path = str(tmp_path)
    source = instantiate(cfg)
    assert isinstance(source, Source)
    assert callable(source.importer)


@pytest.mark.parametrize(
    ("name", "file", "rows"), [("hh_rlhf", "hh_harmless_sample", 128), ("oasst", "oasst_rankings", 135)]
)
def test_real_files_import_whole(shared, name, file, rows):
    source = Source(getattr(importers, name), path=str(shared / "data" / f"{file}.jsonl"))
    found = list(source.records())
    assert len(found) == rows
    assert all(soft(r).observed.any() for r in found)
