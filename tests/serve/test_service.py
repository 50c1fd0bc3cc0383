"""The scoring service over real connections: the same numbers as in Python, and nothing said in confidence."""

import json
import random
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from running import WAIT, Served

import rlhf
from rlhf.assemble.serve import usable
from rlhf.toy.world import ToyWorld

pytestmark = pytest.mark.slow
RECORDS = [r for r in ToyWorld(size=40).records()]
CHAT = [
    {"role": "user", "content": "I lost my keys."},
    {"role": "assistant", "content": "Where did you see them last?"},
    {"role": "user", "content": "In the kitchen."},
]
SECRET = "xylophone-7731"


@pytest.fixture(scope="module")
def served(root, exported, tmp_path_factory):
    log = tmp_path_factory.mktemp("log") / "log"
    limits = ("limits.max_bytes=60000", "limits.max_completions=24", "limits.max_tokens=6000", "batch_tokens=1500")
    running = Served(root, exported(), log, "log_level=debug", *limits)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def scorer(exported):
    return rlhf.load(exported())


def test_scores_are_those_of_python(served, scorer):
    for record in RECORDS:
        texts = [c.text for c in record.completions]
        found = served.post("/score", {"prompt": record.prompt, "completions": texts}).json()
        expected = scorer.score(record.prompt, texts)
        assert found["scores"] == pytest.approx(expected, abs=1e-6)
        assert found["normalised"] == pytest.approx(
            [float(scorer.calibration.normalise(r)) for r in expected], abs=1e-6
        )
        assert found["members"] is None


def test_chats_and_odd_texts_are_scored_as_in_python(served, scorer):
    for prompt in (CHAT, "?", "Übersetze: ☀️ → ?"):
        texts = ["", "Blue.", " Guten Morgen! ☀️", "Look.\n\nHuman: no\n\nAssistant: yes"]
        found = served.post("/score", {"prompt": prompt, "completions": texts}).json()
        assert found["scores"] == pytest.approx(scorer.score(prompt, texts), abs=1e-6)


def test_several_prompts_in_one_request(served, scorer):
    groups = [{"prompt": r.prompt, "completions": [c.text for c in r.completions]} for r in RECORDS[:6]]
    found = served.post("/score_batch", {"groups": groups}).json()["groups"]
    for group, scores in zip(groups, found, strict=True):
        assert scores["scores"] == pytest.approx(scorer.score(group["prompt"], group["completions"]), abs=1e-6)


def test_comparing_gives_the_calibrated_probability(served, scorer):
    for record in RECORDS[:10]:
        a, b = (c.text for c in record.completions[:2])
        found = served.post("/compare", {"prompt": record.prompt, "a": a, "b": b}).json()
        assert found["probability"] == pytest.approx(scorer.compare(record.prompt, a, b), abs=1e-6)


def test_the_ood_score_of_an_answer_comes_along(served, scorer):
    texts = ["Blue.", "zzzz " * 40]
    found = served.post("/score", {"prompt": "Name a colour.", "completions": texts}).json()["ood_score"]
    assert found == pytest.approx(scorer.ood_score("Name a colour.", texts), abs=2e-3)  # steps of 1e-3


def test_what_is_served_is_told(served, scorer):
    assert served.client.get("/health").json()["status"] == "ok"
    info = served.client.get("/info").json()
    assert info["template_hash"] == scorer.renderer.template_hash
    assert info["calibration"]["temperature"] == scorer.calibration.temperature
    assert (info["max_length"], info["members"], info["ood_score"], info["layout"]) == (512, 1, True, "shared")


def test_many_clients_at_once_get_their_own_scores(served, scorer):
    expected = {r.prompt_id: scorer.score(r.prompt, [c.text for c in r.completions]) for r in RECORDS}

    def client(seed):
        wrong = 0
        with httpx.Client(base_url=served.url, timeout=WAIT) as own:
            for record in random.Random(seed).sample(RECORDS, 15):
                body = {"prompt": record.prompt, "completions": [c.text for c in record.completions]}
                wrong += own.post("/score", json=body).json()["scores"] != pytest.approx(
                    expected[record.prompt_id], abs=1e-6
                )
        return wrong

    with ThreadPoolExecutor(12) as clients:
        assert list(clients.map(client, range(12))) == [0] * 12


def test_openrlhf_gets_the_same_scores_for_texts_in_this_template(served, scorer):
    for record in RECORDS[:10]:
        text = record.completions[0].text
        whole = scorer.renderer.text(record.prompt, text)
        opening = scorer.renderer.opening_text(record.prompt)
        cut = whole.removesuffix(scorer.renderer.end)  # an answer that was cut at the length limit
        body = {"query": [whole, cut], "prompts": [opening, opening], "labels": [None, ""]}
        found = served.post("/get_reward", body).json()
        expected = scorer.score(record.prompt, [text]) * 2
        assert found["rewards"] == found["scores"] == pytest.approx(expected, abs=1e-6)


def test_openrlhf_long_prompts_lose_their_beginning_as_in_training(served, scorer):
    prompt, text = "Tell me more. " * 60, "No."
    whole, opening = scorer.renderer.text(prompt, text), scorer.renderer.opening_text(prompt)
    found = served.post("/get_reward", {"query": [whole], "prompts": [opening]}).json()
    with pytest.warns(UserWarning, match="lost"):
        expected = scorer.score(prompt, [text])
    assert found["rewards"] == pytest.approx(expected, abs=1e-6)
    assert found["extra_logs"]["prompt_tokens_lost"][0] > 0
    refused = served.post("/get_reward", {"query": [whole]})  # where the prompt ends is not known
    assert refused.status_code == 422
    assert refused.json()["field"] == "query[0]"


GOOD = {"prompt": "Name a colour.", "completions": ["Blue."]}
BAD = {
    "mistyped key": ("/score", {"prompt": "a", "completion": ["b"]}, 422, "completion", "did you mean 'completions'"),
    "missing": ("/score", {"prompt": "a"}, 422, "completions", "add it"),
    "no prompt": ("/score", {"completions": ["a"]}, 422, "prompt", "add it"),
    "prompt a number": ("/score", GOOD | {"prompt": 5}, 422, "prompt", "string or a non-empty list"),
    "empty chat": ("/score", GOOD | {"prompt": []}, 422, "prompt", "non-empty"),
    "message key": ("/score", GOOD | {"prompt": [{"role": "user", "contnt": "x"}]}, 422,
                    "prompt[0].contnt", "'content'"),
    "text for a list": ("/score", GOOD | {"completions": "Blue."}, 422, "completions", "must be a list"),
    "number for a text": ("/score", GOOD | {"completions": ["a", 4]}, 422, "completions[1]", "quote it"),
    "none": ("/score", GOOD | {"completions": []}, 422, "completions", "at least one"),
    "list for an object": ("/score", [1], 422, "", "JSON object"),
    "inside a batch": ("/score_batch", {"groups": [GOOD, {"prompt": "a", "completions": [None]}]}, 422,
                       "groups[1].completions[0]", "must be a string"),
    "too many": ("/score", GOOD | {"completions": ["a"] * 25}, 413, "completions", "max_completions=24"),
    "too many together": ("/score_batch", {"groups": [GOOD] * 25}, 413, "completions", "max_completions=24"),
    "too long to read": ("/score", GOOD | {"completions": ["a", "b" * 600]}, 422, "completions[1]", "max_length=512"),
    "too long in a batch": ("/score_batch", {"groups": [GOOD, GOOD | {"completions": ["b" * 600]}]}, 422,
                            "groups[1].completions[0]", "max_length=512"),
    "too long to compare": ("/compare", {"prompt": "a", "a": "x", "b": "b" * 600}, 422, "b", "max_length=512"),
    "too many tokens": ("/score", GOOD | {"completions": ["b" * 400] * 20}, 413, "completions", "max_tokens=6000"),
    "too many bytes": ("/score", GOOD | {"completions": ["b" * 70000]}, 413, "", "max_bytes=60000"),
    "prompts for some": ("/get_reward", {"query": ["a", "b"], "prompts": ["a"]}, 422, "prompts", "as many as query"),
    "key of another route": ("/score", GOOD | {"groups": []}, 422, "groups", "known: completions, prompt)"),
    "half a character": ("/score", GOOD | {"completions": ["ok", "a\ud800"]}, 422, "completions[1]", "surrogate"),
    "half a character in a prompt": ("/score", GOOD | {"prompt": "a\ud800"}, 422, "prompt", "surrogate"),
    "half a character in a chat": ("/score", GOOD | {"prompt": [{"role": "user", "content": "\udfff"}]}, 422,
                                   "prompt[0].content", "surrogate"),
    "half a character to compare": ("/compare", {"prompt": "a", "a": "x", "b": "\ud800"}, 422, "b", "surrogate"),
    "half a character rendered": ("/get_reward", {"query": ["\ud800"]}, 422, "query[0]", "surrogate"),
    "empty prompt": ("/score", GOOD | {"prompt": ""}, 422, "prompt", "is empty"),
    "unknown role": ("/score", GOOD | {"prompt": [{"role": "usr", "content": "x"}]}, 422, "prompt[0].role", "one of"),
    "unknown role later": ("/score", GOOD | {"prompt": [*CHAT, {"role": "usr", "content": "x"}]},
        422, "prompt[3].role", "one of"),
    "a turn that is no object": ("/score", GOOD | {"prompt": [*CHAT, "x"]}, 422, "prompt[3]", "JSON object"),
    "empty turn": ("/score", GOOD | {"prompt": [*CHAT[:2], {"role": "user", "content": " \n"}]},
        422, "prompt[2].content", "is empty"),
    "blank prompt": ("/compare", {"prompt": " \n\t", "a": "x", "b": "y"}, 422, "prompt", "is empty"),
    "another prompt": ("/get_reward", {"query": ["a b", "a b"], "prompts": ["a", "b"]},
        422, "prompts[1]", "does not begin"),
    "answered already": ("/score", GOOD | {"prompt": CHAT[:2]}, 422, "prompt", "ends with the assistant"),
    "query a text": ("/get_reward", {"query": "a"}, 422, "query", "must be a list"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_are_refused_with_field_and_remedy(served, case):
    route, body, status, field, said = BAD[case]
    json_type = {"Content-Type": "application/json"}
    answer = served.client.post(route, content=json.dumps(body), headers=json_type)  # in ASCII
    assert answer.status_code == status
    assert answer.json()["field"] == field
    assert said in answer.json()["error"]


def test_bodies_that_are_no_json_or_come_in_pieces_are_refused(served):
    json_type = {"Content-Type": "application/json"}
    broken = served.client.post("/score", content=b'{"prompt": "a",', headers=json_type)
    assert (broken.status_code, "not JSON" in broken.json()["error"]) == (422, True)
    pieces = served.client.post("/score", content=iter([b"x" * 4000] * 20), headers=json_type)
    for body, said in ((b'{"prompt": "\xff"}', "not UTF-8 at byte 12"), (b"[" * 50000, "nested too deeply")):
        answer = served.client.post("/score", content=body, headers=json_type)
        assert answer.status_code == 400
        assert said in answer.json()["error"]
    assert (pieces.status_code, "max_bytes=60000" in pieces.json()["error"]) == (413, True)
    assert served.client.post("/score", content=b"{}").status_code == 422
    assert served.client.get("/score").status_code == 405


def test_no_text_reaches_the_log(served):
    served.post("/score", {"prompt": f"Why {SECRET}?", "completions": [f"Because {SECRET}."]})
    served.post("/compare", {"prompt": f"Why {SECRET}?", "a": SECRET, "b": "b" * 600})
    served.post("/get_reward", {"query": [SECRET], "prompts": [SECRET]})
    served.post("/score", {"prompt": SECRET, SECRET: SECRET})
    served.post("/score", {"prompt": [{"role": SECRET, SECRET: SECRET}], "completions": [SECRET, 1]})
    served.post("/score", {"prompt": "Tell me more. " * 60 + SECRET, "completions": [SECRET]})
    served.client.post("/score", content=SECRET.encode())
    served.client.get(f"/{SECRET}", params={"prompt": SECRET})
    served.client.post(f"/score?prompt={SECRET}", json={"prompt": SECRET, "completions": [SECRET]})
    deadline = time.monotonic() + WAIT
    while (log := served.log.read_text()).count("other route") < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert log.count("POST /score ") >= 6
    assert SECRET not in log


@pytest.mark.slow
def test_what_was_begun_is_finished_when_the_service_is_stopped(root, exported, tmp_path, scorer):
    running = Served(root, exported(), tmp_path / "log", "batch_tokens=600")
    groups = [{"prompt": f"{i} " * 80, "completions": ["yes " * 50]} for i in range(80)]
    answers = []
    asking = threading.Thread(target=lambda: answers.append(running.post("/score_batch", {"groups": groups})))
    asking.start()
    with httpx.Client(base_url=running.url, timeout=WAIT) as other:
        while not other.get("/health").json()["waiting_tokens"]:
            assert asking.is_alive(), "the request was answered before it was seen waiting"
    assert running.stop() == 0
    asking.join(WAIT)
    found = [g["scores"][0] for g in answers[0].json()["groups"]]
    some = range(0, 80, 16)
    expected = [scorer.score(groups[i]["prompt"], groups[i]["completions"])[0] for i in some]
    assert [found[i] for i in some] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(httpx.ConnectError):
        httpx.get(running.url + "/health")


def refused(root, *overrides):
    done = subprocess.run(
        [sys.executable, "-m", "rlhf.serve", *overrides], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    return done.stderr


@pytest.mark.parametrize(
    ("override", "meant"),
    [("prot=1", "port=1"), ("limits.max_byte=3", "limits.max_bytes=3"), ("batch_token=9", "batch_tokens=9")],
)
def test_a_mistyped_override_is_answered_with_a_suggestion(root, override, meant):
    assert f"did you mean {meant} ?" in refused(root, "run=x", override)


def test_what_cannot_be_served_is_told_with_a_remedy(root, exported, tmp_path):
    assert "run=<folder" in refused(root)
    assert f"{tmp_path} holds no exported reward model" in refused(root, f"run={tmp_path}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "port=0 takes a free one" in refused(root, f"run={exported()}", f"port={port}")
    for wrong, said in {
        "port=99999": "port=99999 must be a whole number, 0 to 65535",
        "batch_tokens=0": "batch_tokens=0 must be a whole number, 1 or more",
        "limits.max_tokens=-1": "limits.max_tokens=-1 must be",
        "log_level=foo": "log_level=foo: one of debug, info",
    }.items():
        answer = refused(root, f"run={exported()}", wrong)
        assert said in answer
        assert "Traceback" not in answer
    with pytest.raises(SystemExit, match="device=cpu"):
        usable("abacus")


def test_nothing_heavy_is_imported_before_the_configuration_is_sound(root, tmp_path):
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['serve', 'run={tmp_path}', 'prot=1']\n"
        "try:\n    runpy.run_module('rlhf.serve', run_name='__main__')\n"
        "except SystemExit as end:\n    assert end.code\n"
        "print(sorted(m for m in ('torch', 'transformers', 'fastapi') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_routes_are_described(served):
    described = served.client.get("/openapi.json").json()
    assert {"/score", "/score_batch", "/compare", "/get_reward", "/health", "/info"} == set(described["paths"])
    assert "completions" in json.dumps(described["components"]["schemas"]["GroupBody"])
