"""One render for training, evaluation and serving: ids, end tokens, lengths."""

import pytest

from rlhf.data.render import FIXED_DATE, Renderer
from rlhf.models.pretrained import Tiny

CHAT = (
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "How are you?"},
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def tokenizer():
    return Tiny().tokenizer()


@pytest.fixture(params=["plain", "chatml"])
def renderer(request, tokenizer):
    if request.param == "chatml":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
        tokenizer.chat_template = CHATML
    return Renderer(tokenizer)


@pytest.mark.parametrize("prompt", ["Why?", CHAT, ""])
def test_ids_equal_what_the_tokenizer_gives_for_the_text(renderer, prompt):
    encoded = renderer.encode(prompt, ["Because.", "No idea"])
    for response, ids in zip(["Because.", "No idea"], encoded.responses, strict=True):
        outside = renderer.tokenizer(renderer.text(prompt, response), add_special_tokens=False)["input_ids"]
        assert encoded.prompt + ids == outside


@pytest.mark.parametrize("prompt", ["Why?", CHAT])
def test_every_answer_ends_in_an_end_token_even_when_the_template_adds_a_newline(renderer, prompt):
    encoded = renderer.encode(prompt, ["Because.", "No idea"])
    ends = {renderer.tokenizer.convert_tokens_to_ids(t) for t in renderer.special}
    assert all(ids[-1] in ends for ids in encoded.responses)


def test_plain_text_has_one_begin_and_one_end_token(tokenizer):
    renderer = Renderer(tokenizer)
    encoded = renderer.encode("Why?", ["Because.", "x"])
    for ids in encoded.responses:
        row = encoded.prompt + ids
        assert row.count(tokenizer.bos_token_id) == 1
        assert row.count(tokenizer.eos_token_id) == 1


def test_the_prompt_is_trimmed_from_its_beginning_and_answers_stay_whole(tokenizer):
    renderer = Renderer(tokenizer, max_length=60, min_prompt=5)
    encoded = renderer.encode("a long prompt " * 20, ["short", "another one"])
    assert encoded.trimmed > 0
    assert len(encoded.prompt) + max(map(len, encoded.responses)) == 60
    assert encoded.prompt[0] == tokenizer.bos_token_id
    assert tokenizer.decode(encoded.prompt).endswith("Assistant:")
    assert [tokenizer.decode(r) for r in encoded.responses] == [" short</s>", " another one</s>"]


def test_an_answer_too_long_for_the_model_is_dropped_not_cut(tokenizer):
    renderer = Renderer(tokenizer, max_length=60, min_prompt=5)
    encoded = renderer.encode("p", ["fits", "x" * 100, "fits too"])
    assert encoded.kept == [0, 2]
    assert len(encoded.responses) == 2


def test_trimming_never_makes_different_answers_equal(tokenizer):
    renderer = Renderer(tokenizer, max_length=40, min_prompt=5)
    encoded = renderer.encode("p" * 500, ["same start, end A", "same start, end B"])
    assert encoded.responses[0] != encoded.responses[1]


def test_the_score_of_a_row_does_not_depend_on_its_neighbours_unless_the_prompt_is_trimmed(tokenizer):
    renderer = Renderer(tokenizer)
    alone = renderer.encode("Why?", ["Because."])
    among = renderer.encode("Why?", ["Because.", "Bec", "zzz"])
    assert alone.prompt + alone.responses[0] == among.prompt + among.responses[0]


def test_a_template_that_prints_the_date_gets_a_fixed_one(tokenizer):
    tokenizer.chat_template = (
        "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ date_string }}" + CHATML
    )
    assert Renderer(tokenizer).text("a", "b").startswith(FIXED_DATE)


def test_an_end_token_typed_by_a_user_does_not_move_the_answers_last_token(tokenizer):
    renderer = Renderer(tokenizer)
    encoded = renderer.encode("what does </s> mean?", ["it ends </s> a text"])
    row = encoded.prompt + encoded.responses[0]
    assert row[-1] == tokenizer.eos_token_id
    assert row.count(tokenizer.eos_token_id) == 3


def test_a_merge_across_the_joint_is_counted_and_ids_stay_those_of_the_whole_text():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    letters = [*"abHumnAsist:\n ", "</s>", "ab"]
    core = Tokenizer(models.BPE({t: i for i, t in enumerate(letters)}, [("a", "b")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", pad_token="</s>")
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    renderer = Renderer(tokenizer, template=template)
    encoded = renderer.encode("ma", ["b"])
    assert encoded.merged == 1
    assert tokenizer.convert_ids_to_tokens(encoded.prompt + encoded.responses[0]) == ["m", "ab", "</s>"]


def test_the_fingerprint_changes_with_template_and_lengths(tokenizer):
    prints = {Renderer(tokenizer, max_length=n, template=t).fingerprint for n in (64, 128) for t in (None, CHATML)}
    assert len(prints) == 4


@pytest.mark.parametrize("lengths", [{"max_length": 10, "min_prompt": 10}, {"min_prompt": -1}])
def test_lengths_that_make_no_sense_are_refused(tokenizer, lengths):
    with pytest.raises(ValueError, match="min_prompt"):
        Renderer(tokenizer, **lengths)
