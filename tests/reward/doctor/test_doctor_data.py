"""One planted defect per check of data and rendering: exactly that check tells, and its remedy is shown."""

from dataclasses import replace

import pytest
from doctor_runs import SOUND, Given, data_of, record, run_of, verdicts
from tokenizers import Tokenizer, models, processors
from transformers import PreTrainedTokenizerFast

from rlhf.labels.aggregation import soft
from rlhf.records import Vote
from rlhf.reward.doctor import doctor

TURNS = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ END if m.role == 'assistant' else '\n' }}{% endfor %}"
ANSWER = "{% if add_generation_prompt %}assistant: {% endif %}"
CLOSED = "{{ bos_token }}" + TURNS.replace("END", "eos_token") + ANSWER


@pytest.fixture(autouse=True)
def no_model_checks(monkeypatch):
    monkeypatch.setattr(doctor, "MODEL_CHECKS", ())


@pytest.fixture
def found(tmp_path, capsys):
    """What the doctor finds, and the table it prints."""

    def find(*records, **options):
        verdict = verdicts(run_of(tmp_path, data_of(tmp_path / "cache", list(records), **options)))
        return verdict, capsys.readouterr().out

    return find


def test_sound_data_passes_every_check(found):
    verdict, table = found(*SOUND)
    assert verdict == {}
    assert "15 checks: 0 failed, 0 to look at" in table
    assert "->" not in table


def without_votes(numbers):
    return [replace(r, votes=()) if i in numbers else r for i, r in enumerate(SOUND)]


def voted(text):
    return lambda i: record(i, good=text)


DEFECTS = [
    ("records without votes", "warn", without_votes({3}), {}, "collect votes"),
    ("duplicate records", "warn", [*SOUND, SOUND[2]], {}, "count twice"),
    ("ties", "warn", [record(i, winner="tie") if i < 20 else r for i, r in enumerate(SOUND)], {}, "rao_kupper"),
    ("first side wins", "warn", [record(2 * i + 1, prompt=f"Q {i}") for i in range(30)], {}, "shuffle"),
    ("longer answer wins", "warn", [record(i, good="Yes.", bad="No, never.") for i in range(30)], {}, "swapped"),
    ("longer answer wins", "warn", [record(i, good="Yes, gladly.", bad="No.") for i in range(30)], {}, "length"),
    ("identical pairs", "FAIL", [*SOUND[:-1], record(29, good="No.")], {}, "both sides to one text"),
    ("prompt leak", "FAIL", [*SOUND, record(32, prompt=" question 1? ")], {}, "split=near_duplicate"),
    ("answers too long", "FAIL", [*SOUND[:-4], *(record(i, good="x" * 200) for i in range(26, 30))], {}, "max_length"),
    ("prompts trimmed", "warn", [*SOUND[:-2], *(record(i, prompt=str(i) * 100) for i in (28, 29))], {}, "max_length"),
    ("special tokens in texts", "warn", [*SOUND[:-1], record(29, good="</s> ends a text")], {}, "escaping"),
    ("special tokens in texts", "warn", [*SOUND[:-1], record(29, prompt="What is <pad> for?")], {}, "escaping"),
    ("one begin token", "FAIL", SOUND, {"template": "{{ bos_token }}" + CLOSED}, "print the begin token once"),
    ("one end token", "FAIL", SOUND, {"template": CLOSED.replace("eos_token", "eos_token * 2")}, "close"),
    ("template", "FAIL", SOUND, {"template": CLOSED + "{% set day = strftime_now('%d') %}"}, "fixed date"),
]


@pytest.mark.parametrize(
    ("name", "verdict", "records", "options", "remedy"), DEFECTS, ids=[f"{d[0]}-{i}" for i, d in enumerate(DEFECTS)]
)  # fmt: skip
def test_a_planted_defect_is_told_by_its_check_alone_with_the_remedy(found, name, verdict, records, options, remedy):
    told, table = found(*records, **options)
    assert told == {name: verdict}
    line, advice = [row for row in table.splitlines() if name in row or "->" in row]
    assert line.startswith(verdict)
    assert remedy in advice


def test_a_sound_template_of_ones_own_passes(found):
    assert found(*SOUND, template=CLOSED)[0] == {}


def test_skipped_rows_are_told_with_the_first_error(found):
    source = Given(SOUND, skipped=["file:7: key 'chosen': missing"], skipped_count=1)
    told, table = found(source=source)
    assert told == {"skipped rows": "warn"}
    assert "file:7: key 'chosen': missing" in table


def test_an_answer_that_brings_its_own_end_token_ends_twice_and_was_typed(found):
    told, table = found(*SOUND[:-1], record(29, good="Yes.</s>"))
    assert told == {"one end token": "FAIL", "special tokens in texts": "warn"}
    assert "0 rows end without one, 1 with" in table.replace("0 of 60", "0")


def test_an_answer_without_an_end_token_is_told(found, monkeypatch):
    """The renderer closes every answer, so this defect is planted in the renderer."""
    from rlhf.data.render import Renderer

    monkeypatch.setattr(Renderer, "text", lambda self, prompt, response: f"Human: {prompt}\n\nAssistant: {response}")
    told, table = found(*SOUND)
    assert told["one end token"] == "FAIL"
    assert "60 of 60 rows end without one, 0 with" in table


def test_a_missing_begin_token_that_the_tokenizer_would_add_is_a_warning(found):
    from rlhf.models.pretrained import Tiny

    tokenizer = Tiny().tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    bare = CLOSED.removeprefix("{{ bos_token }}")
    told, table = found(*SOUND, tokenizer=tokenizer, template=bare)
    assert told == {"one begin token": "warn"}
    assert "0 of 60 rows begin with two, 60 with none" in table


def test_begin_tokens_of_later_turns_do_not_count(found):
    per_turn = CLOSED.removeprefix("{{ bos_token }}").replace("{{ m.role }}", "{{ bos_token }}{{ m.role }}")
    per_turn = per_turn.replace("assistant: {%", "{{ bos_token }}assistant: {%")
    assert found(*SOUND, template=per_turn)[0] == {}


def test_tokens_that_merge_across_the_joint_are_a_warning(found):
    letters = sorted({*"".join(chr(c) for c in range(32, 127)), "\n"})
    vocabulary = {t: i for i, t in enumerate(["<pad>", "</s>", *letters, ":Y"])}
    core = Tokenizer(models.BPE(vocabulary, [(":", "Y")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", pad_token="<pad>")
    glued = CLOSED.removeprefix("{{ bos_token }}").replace(": ", ":")
    told, table = found(*SOUND, tokenizer=tokenizer, template=glued)
    assert told == {"joint of prompt and answer": "warn"}
    assert "30 of 60 rows merge tokens across it" in table


def test_one_in_a_hundred_is_not_yet_too_much(found):
    many = [record(i) for i in range(120)]
    assert found(*many[:-1], record(119, good="No."), many[4])[0] == {}


def test_gold_checks_are_no_votes(found):
    gold = replace(SOUND[3], votes=(Vote("w", pair=("c0", "c1"), choice="c0", gold=True),))
    assert found(*SOUND[:3], gold, *SOUND[4:], aggregation=soft)[0] == {"records without votes": "warn"}
