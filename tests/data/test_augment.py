"""Variations of training records: votes stay, validation and test stay, and the same settings give the same records."""

import warnings
from dataclasses import replace
from functools import partial
from random import Random

import numpy as np
import pytest

from rlhf.collect.paraphrase import Paraphrase, keeps_facts, names
from rlhf.collect.sampling import Draft
from rlhf.data import augment
from rlhf.data.augment import Augment
from rlhf.data.datamodule import PreferenceData
from rlhf.data.render import Renderer
from rlhf.data.splits import HashSplit
from rlhf.labels.aggregation import soft
from rlhf.models.pretrained import Tiny
from rlhf.records import Comparison, Completion, RecordError, Vote
from rlhf.toy.world import ToyWorld

STYLES = (augment.as_it_is, augment.opening, augment.closing, augment.listed, augment.lines, augment.plain)
RECORD = Comparison(
    "p", "Why is {this}?", (Completion("a", "One. Two!"), Completion("b", "## Head\n\n- **Three**")),
    (Vote("w", pair=("a", "b"), choice="a"),),
)  # fmt: skip


@pytest.mark.parametrize("style", STYLES)
def test_a_style_keeps_every_word(style):
    for seed in range(5):
        said = style("One two. Three four!", Random(seed))
        assert [w for w in said.split() if w in {"One", "two.", "Three", "four!"}] == ["One", "two.", "Three", "four!"]
        assert said == style("One two. Three four!", Random(seed))


def test_styles_by_hand():
    assert augment.plain("## Head\n\n1. **One** two\n- `three`", Random(0)) == "Head One two three"
    assert augment.lines("One two. Three!", Random(0)) == "One two.\n\nThree!"
    assert augment.listed("One two. Three!", Random(0)).splitlines()[1].endswith(" Three!")
    assert "Why is {this}?" in augment.asked_otherwise("Why is {this}?", Random(0))


def test_votes_and_ids_stay_and_answers_are_styled_on_their_own():
    world = list(ToyWorld(size=200).records())
    vary = Augment(copies=3, prompts=(augment.asked_otherwise,), styles=STYLES[:2])
    both = np.zeros((2, 2), int)
    for record in world:
        first, *others = vary(record)
        assert first is record
        assert [o.prompt_id for o in others] == [f"{record.prompt_id}+{i + 1}" for i in range(3)]
        for other in others:
            assert (other.votes, other.domain) == (record.votes, record.domain)
            assert record.prompt in other.prompt
            changed = [a.text != b.text for a, b in zip(record.completions, other.completions, strict=True)]
            assert [c.id for c in other.completions] == [c.id for c in record.completions]
            both[int(changed[0]), int(changed[1])] += 1
    share = both / both.sum()
    np.testing.assert_allclose(share, 0.25, atol=4 * np.sqrt(0.25 * 0.75 / both.sum()))  # independent, even


def test_equal_settings_vary_equally_and_another_seed_does_not():
    vary = Augment(copies=2, styles=STYLES)
    assert list(vary(RECORD)) == list(Augment(copies=2, styles=STYLES)(RECORD))
    assert list(vary(RECORD)) != list(Augment(copies=2, styles=STYLES, seed=1)(RECORD))
    assert len(list(Augment(copies=5, styles=(augment.as_it_is,))(RECORD))) == 1, "nothing changed: no variation"
    names = {a.fingerprint for a in (vary, Augment(styles=STYLES), Augment(copies=2, styles=STYLES[:1]))}
    assert len(names) == 3
    assert " at 0x" not in Augment(styles=[partial(augment.opening)]).fingerprint


def test_of_a_chat_the_last_message_is_asked_otherwise():
    chat = replace(RECORD, prompt=({"role": "user", "content": "Hi"}, {"role": "user", "content": "Why?"}))
    prompt = list(Augment(prompts=(augment.asked_otherwise,))(chat))[1].prompt
    assert prompt[0] == {"role": "user", "content": "Hi"}
    assert "Why?" in prompt[1]["content"] != "Why?"


def test_what_cannot_vary_is_refused():
    with pytest.raises(ValueError, match="nothing to vary"):
        Augment(copies=1)
    with pytest.raises(ValueError, match="0 or more"):
        Augment(copies=-1)


def rows(cache, **options):
    data = PreferenceData(
        source=ToyWorld(size=60), aggregation=soft, splitter=HashSplit(val=0.2, test=0.2),
        renderer=Renderer(Tiny().tokenizer(), max_length=512, min_prompt=16), batch_size=4, eval_batch_size=4,
        seed=0, cache=cache, **options,
    )  # fmt: skip
    data.setup()
    return data


def test_only_training_rows_are_varied_and_the_report_counts_them(tmp_path):
    plain, varied = rows(tmp_path), rows(tmp_path, augment=Augment(copies=2, styles=STYLES[1:3]))
    assert plain.data_hash != varied.data_hash
    for split in ("val", "test"):
        assert varied.report["rows"][split] == plain.report["rows"][split]
    before, after = plain.report["rows"]["train"], varied.report["rows"]["train"]
    assert before["augmented"] == 0
    assert after["augmented"] == 2 * before["records"]
    assert (after["augmented/prompts"], after["augmented/answers"]) == (0, after["augmented"])
    assert after["records"] == 3 * before["records"] == 3 * (after["kept"] + after["dropped/no_votes"]) / 3
    assert len(varied.rows["train"]) == after["kept"]
    assert varied.report["splits"] == plain.report["splits"]


def test_changed_prompts_are_counted_apart_from_changed_answers(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        counts = rows(tmp_path, augment=Augment(copies=1, prompts=[augment.asked_otherwise], styles=STYLES[:2])).report[
            "rows"
        ]["train"]
    assert counts["augmented/prompts"] == counts["augmented"] == counts["records"] / 2
    assert 0 < counts["augmented/answers"] < counts["augmented"]  # one of four: both answers as they are


def test_prompts_none_of_which_changed_are_warned_of_each_time(tmp_path):
    vain = Augment(copies=1, prompts=[augment.as_it_is], styles=STYLES[1:2])
    for _ in ("made", "from the cache"):
        with pytest.warns(UserWarning, match="augment.prompts changed no prompt of the whole training part"):
            data = rows(tmp_path, augment=vain)
    counts = data.report["rows"]["train"]
    assert counts["augmented/prompts"] == 0 < counts["augmented/answers"] == counts["augmented"]


class Echo:
    def __init__(self, said):
        self.said, self.provenance = said, {"model": "echo"}

    def answer(self, prompt, decoding, seeds):
        self.asked = prompt
        return [Draft(self.said, True, 1) for _ in seeds]


def test_a_model_says_a_prompt_in_other_words_unless_it_says_nothing_or_rambles():
    good = Echo(" How come? ")
    assert Paraphrase(good)("Why?", Random(0)) == "How come?"
    assert good.asked.endswith("\n\nWhy?")
    for bad in ("  ", "word " * 50):
        assert Paraphrase(Echo(bad))("Why?", Random(0)) == "Why?"


class Several(Echo):
    def answer(self, prompt, decoding, seeds):
        return super().answer(prompt, decoding, seeds) if len(self.said) == 1 else self.next()

    def next(self):
        return [Draft(self.said.pop(0), True, 1)]


def test_a_model_is_asked_again_until_its_words_keep_the_facts():
    text = "What is 3 + 2, Mia asks?"
    model = Several(["It is 5.", "How much is 3 and 2?", "Mia asks: what is 3 plus 2?", "never asked"])
    assert Paraphrase(model, tries=3)(text, Random(0)) == "Mia asks: what is 3 plus 2?"
    assert model.said == ["never asked"]
    model = Several(["It is 5.", "How much is 3 and 2?", "Mia asks: what is 3 plus 2?", "never asked"])
    assert Paraphrase(model, tries=2)(text, Random(0)) == text
    assert Paraphrase(Several(["It is 5.", ""]), same=None)(text, Random(0)) == "It is 5."


@pytest.mark.parametrize(
    ("text", "said", "same"),
    [
        ("Tell Ron that the dinner is on Monday.", "Let Ron know that the dinner will be on Monday.", True),
        ("Tell Ron that the dinner is on Monday.", "Let Ron know that the dinner is on Tuesday.", False),
        ("Which city is the capital of Peru?", "What is the name of Peru's capital city?", True),
        ("Which city is the capital of Peru?", "The capital city of Peru is Lima.", False),
        ("Write music and nothing else.", "Let us talk about a story.", False),
        ("What is 3 + 2?", "What is 3 + 4?", False),
        ("What costs 1,5 in 2020?", "In 2020, what was sold at 1,5 and costs it?", True),
        ("Say it", "Do say it?", False),
    ],
)
def test_numbers_names_questions_and_most_long_words_stay(text, said, same):
    assert keeps_facts(text, said) is same


def test_the_first_word_of_a_sentence_is_no_name_and_i_is_none():
    assert names("Hi, Ada here. Where do I find Bern? Lost: Rex, a dog. Thank you") == ["Ada", "Bern"]


def test_impossible_settings_of_a_paraphrase_are_refused():
    with pytest.raises(RecordError, match="tries=0"):
        Paraphrase(Echo("x"), tries=0)
    with pytest.raises(RecordError, match="instruction"):
        Paraphrase(Echo("x"), instruction="Say it in other words")


def test_every_setting_of_a_paraphrase_changes_what_the_cache_knows_it_by():
    plain = Paraphrase(Echo("x"))
    others = [
        Paraphrase(Echo("x"), tries=1), Paraphrase(Echo("x"), instruction="Again: {}"),
        Paraphrase(Echo("x"), same=None),
        Paraphrase(Echo("x"), same=partial(keeps_facts, words=0.1)), Paraphrase(Echo("x"), longest=2.0),
    ]  # fmt: skip
    assert len({plain.fingerprint, *(p.fingerprint for p in others)}) == 6
