"""Records to JSON Lines and back; a bad line names file, line, key and remedy."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.records import Comparison, Completion, RecordError, Vote, dump, parse, prompt_text, read, write

GOOD = {
    "prompt_id": "p1",
    "prompt": [{"role": "user", "content": "Hi"}],
    "domain": "chat",
    "completions": [
        {"id": "c0", "text": "a", "source": {"seed": 3}},
        {"id": "c1", "text": "b"},
        {"id": "c2", "text": "c"},
    ],
    "votes": [
        {"annotator": "w1", "pair": ["c0", "c1"], "choice": "tie"},
        {"annotator": "w2", "kind": "ai", "pair": ["c0", "c1"], "choice": "c1", "margin": 1.5, "gold": True},
        {"annotator": "w3", "ranking": [["c2"], ["c0", "c1"]]},
        {"annotator": "w4", "criterion": "honesty", "likert": {"c0": 4, "c1": 2}, "meta": {"note": "x"}},
    ],
    "meta": {"own": [1, 2]},
}  # fmt: skip


def bad(change):
    row = json.loads(json.dumps(GOOD))
    change(row)
    return row


def vote(row, **changes):
    row["votes"][0] = {"annotator": "w1", "pair": ["c0", "c1"], "choice": "tie"} | changes


BAD = {
    "votes": (lambda r: r.update(vote=r.pop("votes")), "vote", "did you mean 'votes'"),
    "missing prompt": (lambda r: r.pop("prompt"), "prompt", "every record needs"),
    "own key": (lambda r: r.update(xyzzy=1), "xyzzy", "under 'meta'"),
    "choice": (lambda r: vote(r, choice="c2"), "votes.choice", "one of c0, c1, tie"),
    "pair": (lambda r: vote(r, pair=["c0", "c9"]), "votes.pair", "ids here: c0, c1, c2"),
    "two forms": (lambda r: vote(r, likert={"c0": 1}), "votes", "pair+choice, ranking, or likert"),
    "margin": (lambda r: vote(r, margin=-1), "votes.margin", "swap choice"),
    "scale": (lambda r: r["votes"][3]["likert"].update(c0=6), "votes.likert.c0", "scale is 1..5"),
    "kind": (lambda r: vote(r, kind="robot"), "votes.kind", "one of human, ai, simulated"),
    "ranking twice": (lambda r: r["votes"][2].update(ranking=[["c0"], ["c0"]]), "votes.ranking", ""),
    "same ids": (lambda r: r["completions"][1].update(id="c0"), "completions.id", "got c0, c0"),
    "no completions": (lambda r: r.update(completions=[]), "completions", ""),
    "prompt number": (lambda r: r.update(prompt=3), "prompt", ""),
    "nan": (lambda r: vote(r, seconds=float("nan")), "votes.seconds", ""),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_names_file_line_key_and_remedy(tmp_path, name):
    change, key, remedy = BAD[name]
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(GOOD) + "\n\n" + json.dumps(bad(change)) + "\n")
    with pytest.raises(RecordError) as error:
        list(read(path))
    assert f"{path}:3" in str(error.value)
    assert f"'{key}'" in str(error.value)
    assert remedy in str(error.value)


def test_skipping_counts_the_bad_and_keeps_the_good(tmp_path):
    path = tmp_path / "data.jsonl"
    lines = [json.dumps(GOOD), "{broken", json.dumps(bad(BAD["votes"][0])), json.dumps(GOOD)]
    path.write_text("\n".join(lines))
    skipped: list[RecordError] = []
    assert len(list(read(path, skipped.append))) == 2
    assert [e.place for e in skipped] == [f"{path}:2", f"{path}:3"]


def test_files_that_are_missing_or_not_utf8_say_so(tmp_path):
    with pytest.raises(RecordError, match="no such file"):
        list(read(tmp_path / "nothing.jsonl"))
    (tmp_path / "latin.jsonl").write_bytes("é".encode("latin-1"))
    with pytest.raises(RecordError, match="save as UTF-8"):
        list(read(tmp_path / "latin.jsonl"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prompt": "\xe9"}', r":2.*is not UTF-8.*save as UTF-8"),
        (rb'{"prompt": "\ud83d"}', r":2.*is not UTF-8.*surrogates"),
        (b"[" * 100_000, r":2.*nested too deeply"),
        (json.dumps(GOOD).encode()[:-5], r":2.*is not JSON"),
    ],
)
def test_a_line_that_cannot_be_decoded_is_one_bad_line(tmp_path, line, message):
    path = tmp_path / "data.jsonl"
    good = json.dumps(GOOD).encode()
    path.write_bytes(b"\n".join([good, line, good]))
    with pytest.raises(RecordError, match=message):
        list(read(path))
    skipped: list[RecordError] = []
    assert len(list(read(path, skipped.append))) == 2
    assert len(skipped) == 1


def test_both_halves_of_an_escaped_character_are_one_character(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({**GOOD, "prompt": "smile 😀"}))
    assert "\\ud83d" in path.read_text()
    assert next(read(path)).prompt == "smile 😀"


@pytest.mark.parametrize("damage", [lambda b: b"no gzip", lambda b: b[:-20], lambda b: b[:30] + b"!!" + b[32:]])
def test_a_damaged_gzip_file_is_named(tmp_path, damage):
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(damage(gzip.compress(json.dumps(GOOD).encode() * 50)))
    with pytest.raises(RecordError, match=r"data\.jsonl\.gz.*gzip fails.*copy it again"):
        list(read(path))


@pytest.mark.parametrize(
    ("key", "vote"),
    [
        ("votes.margin", {"annotator": "w", "pair": ["c0", "c1"], "choice": "c0", "margin": float("inf")}),
        ("votes.margin", {"annotator": "w", "pair": ["c0", "c1"], "choice": "c0", "margin": 10**400}),
        ("votes.seconds", {"annotator": "w", "pair": ["c0", "c1"], "choice": "c0", "seconds": float("inf")}),
        ("votes.ranking", {"annotator": "w", "ranking": []}),
        ("votes.likert", {"annotator": "w", "likert": {}}),
    ],
)
def test_votes_that_say_nothing_or_infinity_are_refused(key, vote):
    with pytest.raises(RecordError) as error:
        parse({**GOOD, "votes": [vote]})
    assert error.value.key == key


def test_an_empty_id_is_refused():
    completions = [{"id": "", "text": "x"}, {"id": "c1", "text": "y"}]
    with pytest.raises(RecordError, match="is empty"):
        parse({**GOOD, "completions": completions, "votes": []})


def test_a_header_sets_the_likert_scale(tmp_path):
    record = parse(GOOD)
    path = tmp_path / "six.jsonl"
    six = json.loads(json.dumps(GOOD))
    six["votes"][3]["likert"]["c0"] = 6
    write(path, [parse(six, (1, 6))], likert=(1, 6))
    assert next(read(path)).votes[3].likert["c0"] == 6
    write(path, [record])
    assert "header" not in path.read_text()


def test_reading_is_lazy(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(GOOD) + "\n{broken\n")
    assert next(read(path)).prompt_id == "p1"


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz"])
def test_what_is_written_is_read_back(tmp_path, name):
    record = parse(GOOD)
    assert write(tmp_path / name, [record, record]) == 2
    assert list(read(tmp_path / name)) == [record, record]
    assert (gzip.open if name.endswith("gz") else open)(tmp_path / name).read(2)


def test_a_crash_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "data.jsonl"
    write(path, [parse(GOOD)])
    before = path.read_text()

    def failing():
        yield parse(GOOD)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write(path, failing())
    assert path.read_text() == before


texts = st.text(max_size=20)
ids = st.lists(st.text(min_size=1, max_size=4).filter(lambda s: s != "tie"), min_size=2, max_size=5, unique=True)


@st.composite
def records(draw):
    names = draw(ids)
    order = draw(st.permutations(names))
    cut = draw(st.integers(1, len(order)))
    votes = draw(
        st.lists(
            st.one_of(
                st.builds(Vote, texts, pair=st.just(tuple(order[:2])), choice=st.sampled_from([*order[:2], "tie"])),
                st.builds(Vote, texts, ranking=st.just((tuple(order[:cut]), *((i,) for i in order[cut:])))),
                st.builds(Vote, texts, likert=st.dictionaries(st.sampled_from(names), st.floats(1, 5), min_size=1)),
            ),
            max_size=3,
        )
    )
    completions = tuple(Completion(i, draw(texts)) for i in names)
    prompt = draw(texts | st.just(({"role": "user", "content": "x"},)))
    return Comparison(draw(texts), prompt, completions, tuple(votes), draw(st.none() | texts))


@given(records())
def test_every_record_survives_the_disk(record):
    assert parse(json.loads(json.dumps(dump(record)))) == record


def test_the_words_of_a_chat_keep_their_speakers():
    assert prompt_text(parse(GOOD).prompt) == "user: Hi"
