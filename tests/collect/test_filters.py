"""Every filter on texts it must drop and texts it must not."""

from collections import Counter
from dataclasses import replace

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from rlhf.collect import filters as f
from rlhf.collect.filtering import Filtering
from rlhf.records import Comparison, Completion, RecordError, Vote

WORDS = "The quick brown fox jumps over the lazy dog while seven wise owls watch from an old oak tree at night."
CASES = [
    (f.Length(), WORDS, None),
    (f.Length(), "  \n", "empty"),
    (f.Length(min_words=3), "two words", "too short"),
    (f.Length(max_chars=10), WORDS, "too long"),
    (f.Matches("no answer line", r"(?m)^Answer: \d+$"), "Think.\nAnswer: 42", None),
    (f.Matches("no answer line", r"(?m)^Answer: \d+$"), "Answer: many", "no answer line"),
    (f.Matches("link", r"https?://", must=False), "see http://x.y", "link"),
    (f.EndsProperly(), "It is done.", None),
    (f.EndsProperly(), "It is", "no proper end"),
    (f.JsonSchema({"type": "object", "required": ["a"]}), '{"a": 1}', None),
    (f.JsonSchema({"type": "object", "required": ["a"]}), '{"b": 1}', "does not fit the schema"),
    (f.JsonSchema({"type": "object"}), "{a}", "not JSON"),
    (f.Repetition(), WORDS, None),
    (f.Repetition(), "I like it very much. " * 8, "repetitive"),
    (f.Repetition(max_share=1.0), "ab" * 400, "repetitive"),
    (f.Charset(), WORDS, None),
    (f.Charset(), "Привет, как дела?", "other script"),
    (f.Charset(scripts=("CYRILLIC",)), "Привет, как дела?", None),
    (f.Charset(), "12 + 30 = 42", None),
    (f.Charset(), "bad \x00 byte", "control characters"),
    (f.Language(["en"]), WORDS, None),
    (f.Language(["en"]), "Das ist ein ganz gewöhnlicher deutscher Satz, den jeder lesen kann.", "language de"),
    (f.Language(["en"]), "Bonjour", None),
    (f.Refusal(), "I'm sorry, but I can't help with that.", "refusal"),
    (f.Refusal(), "As an AI language model, I have no opinion.", "refusal"),
    (f.Refusal(), "I cannot help with that.", "refusal"),
    (f.Refusal(), "You can't divide by zero, so there is no answer.", None),
    (f.Refusal(), "As an AI, I must decline.", "refusal"),
    (f.Refusal(), "I’m unable to help.", "refusal"),
    (f.Refusal(), "I'm not able to help with that.", "refusal"),
    (f.Refusal(), "Sorry, I can not do it.", "refusal"),
    (f.Refusal(), "My apologies, but I won't write that.", "refusal"),
    (f.Refusal(), "Unfortunately, I must respectfully decline this request.", "refusal"),
    (f.Refusal(), "I do not feel comfortable with this.", "refusal"),
    (f.Refusal(), "Sorry, that is something I won't do for you.", "refusal"),
    (f.Refusal(), "I'd rather not provide instructions for that.", "refusal"),
    (f.Refusal(), "It would be inappropriate for me to share that.", "refusal"),
    (f.Refusal(), "No. I'm not going to do that for you.", "refusal"),
    (f.Refusal(), "Thank you for asking, but I cannot comply with this.", "refusal"),
    (f.Refusal(), "I'm sorry to hear about your loss; here is what you can do next.", None),
    (f.Refusal(), '"I won\'t do it!" said Tom, and ran to the big red ball.', None),
    (f.Refusal(), "I'm not going to lie: it is hard.", None),
    (f.Refusal(), "Sorry for the wait! The answer is 42.", None),
    (f.Refusal(), "I can't wait to tell you about this!", None),
    (f.Refusal(), "I couldn't agree more: tea is best.", None),
    (f.Refusal(), "I can help with that. Sorry for the delay.", None),
    (f.Refusal(), "As an airline pilot, I fly.", None),
    (f.Refusal(), "I am sure that it will not rain.", None),
    (f.Profanity(), "You fucking idiot", "profane"),
    (f.Profanity(), WORDS, None),
    (f.PersonalData(), "Write to jane.doe@example.org today.", "personal data: e-mail address"),
    (f.PersonalData(), "Call +1 415-555-0132 now.", "personal data: phone number"),
    (f.PersonalData(), "Call +49 30 12345678 now.", "personal data: phone number"),
    (f.PersonalData(), "Call +44 (0)20 7946 0958.", "personal data: phone number"),
    (f.PersonalData(), "Call 020 7946 0958 for the London office.", "personal data: phone number"),
    (f.PersonalData(), "john dot doe at example dot com", "personal data: e-mail address"),
    (f.PersonalData(), "Version 1.2.3.4 was released at noon.", None),
    (f.PersonalData(), "Call (415) 555-2671.", "personal data: phone number"),
    (f.PersonalData(), "It is +12 degrees, or 3 + 4 = 7.", None),
    (f.PersonalData(), "Use version 1.2.3.4 or v10.0.0.1 of it.", None),
    (f.PersonalData(), "My card is 4111 1111 1111 1111.", "personal data: card number"),
    (f.PersonalData(), "The number 4111 1111 1111 1112 is no card.", None),
    (f.PersonalData(), "SSN 123-45-6789", "personal data: social security number"),
    (f.PersonalData(), "Host 192.168.0.17 is down.", "personal data: IP address"),
    (f.PersonalData(), "IBAN DE89 3704 0044 0532 0130 00", "personal data: IBAN"),
    (f.PersonalData(), "In 1998, 300 people came; version 2.10.3 is out.", None),
]


@pytest.mark.parametrize(("one", "text", "reason"), CASES)
def test_reason(one, text, reason):
    assert one("Ask.", text) == reason


def test_what_the_prompt_gave_is_no_personal_data_of_the_answer():
    assert f.PersonalData()("Write to bob@example.org", "I wrote to bob@example.org.") is None


def test_a_wrong_pattern_is_named():
    with pytest.raises(ValueError, match="filter x"):
        f.Matches("x", "(")


def record(*texts, votes=()):
    return Comparison(
        "p", "Ask.", tuple(Completion(f"c{i}", t, {"model": f"m{i % 2}"}) for i, t in enumerate(texts)), votes
    )


def test_nothing_disappears_silently():
    filtering = Filtering({"length": f.Length(min_chars=5)}, near_duplicates=0.9)
    gone = []
    records = [record(WORDS, WORDS + " ", "no"), record("It is a fine day.", "Tomorrow it may rain in the hills.", "x")]
    kept = list(filtering(records, gone.append))
    assert [[c.id for c in r.completions] for r in kept] == [["c0", "c1"]]
    report = filtering.as_dict()
    assert report["records"] == {"read": 2, "kept": 1, "too few left": 1, "votes dropped": 0}
    dropped = {"near duplicate of another completion": 1, "too short": 2}
    assert report["completions_dropped"] == dropped
    assert Counter(d["reason"] for d in gone) == dropped | {"too few left": 1}
    assert sum(len(r.completions) for r in kept) + len(gone) == 6, "every completion is somewhere"
    assert report["drop_rate_by_model"] == {"m0": 0.5, "m1": 0.5}
    assert all(d["text"] for d in gone)


def test_votes_on_a_dropped_completion_go_the_others_stay():
    votes = (Vote("a", pair=("c0", "c1"), choice="c0"), Vote("a", pair=("c0", "c2"), choice="c0"))
    filtering = Filtering({"length": f.Length(min_chars=5)}, near_duplicates=None)
    (kept,) = filtering([record("a long text", "another text", "x", votes=votes)])
    assert kept.votes == votes[:1]


def test_a_filter_is_switched_off_by_null():
    filtering = Filtering({"length": None}, near_duplicates=None)
    assert len(list(filtering([record("", "")]))) == 1


def configured(root, name):
    cfg = OmegaConf.create({"min_completions": 2, "filter": OmegaConf.load(root / "conf" / "filter" / f"{name}.yaml")})
    return instantiate(cfg.filter, _convert_="all")


@pytest.mark.parametrize("name", ["none", "default", "strict"])
def test_configured_filters_keep_good_answers(root, name):
    filtering = configured(root, name)
    good = record("The capital of Peru is Lima, a city on the coast.", "I believe that it is Lima, which is in Peru.")
    assert len(list(filtering([good]))) == 1
    if name != "none":
        bad = record("The capital of Peru is Lima, a city on the coast.", "You fucking idiot", "You fucking idiot!")
        with_profanity = {**filtering.filters, "profanity": f.Profanity(max_probability=0.95)}
        assert list(replace(filtering, filters=with_profanity)([bad])) == []
        assert bool(filtering.filters["profanity"]) is (name == "strict")


def test_a_model_of_your_own_by_path(tmp_path):
    from transformers import AutoModelForSequenceClassification, BertConfig, BertTokenizerFast

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"]))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "model")
    config = BertConfig(
        vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        id2label={0: "fine", 1: "toxic"}, label2id={"fine": 0, "toxic": 1},
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "model")
    path = str(tmp_path / "model")
    assert f.ModelScore(path, "toxic", max_probability=0.0)("p", "bad") == "toxic"
    assert f.ModelScore(path, "toxic", max_probability=1.0)("p", "bad") is None
    with pytest.raises(ValueError, match=r"one of (fine, toxic|toxic, fine)"):
        f.ModelScore(path, "rude")("p", "bad")


def test_a_filter_that_needs_an_absent_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(f, "find_spec", lambda name: None)
    for build in (f.Profanity, lambda: f.Language(["en"]), lambda: f.JsonSchema({})):
        with pytest.raises(RecordError, match=r"pip install 'preference.*\[filters\]', or filter.filters.\w+=null"):
            build()


def test_the_default_filters_need_no_extra(monkeypatch, root):
    monkeypatch.setattr(f, "find_spec", lambda name: None)
    filtering = configured(root, "default")
    assert {name for name, one in filtering.filters.items() if one} == {"length", "repetition", "personal_data"}
