"""AI feedback against a real local server that speaks the chat-completions protocol."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rlhf.annotate.ai_feedback import AiFeedback, Principle
from rlhf.annotate.constitution import constitutional, principles_from
from rlhf.annotate.job import Job
from rlhf.annotate.judges import EndpointJudge, LocalJudge, Unreadable, letters, share, verdict
from rlhf.annotate.report import ReportOptions
from rlhf.collect.decoding import Decoding
from rlhf.collect.endpoint import Endpoint, EndpointPolicy
from rlhf.labels.aggregation import soft
from rlhf.records import Comparison, Completion, RecordError, read, write
from rlhf.toy.world import ToyWorld


class Server(ThreadingHTTPServer):
    """Prefers the longer answer with the given probability for the first side; can fail and count."""

    def __init__(self, **behaviour):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = {"fail": 0, "logprobs": True, "bias": 0.0, "reply": None} | behaviour
        self.seen = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        server.seen.append(body)
        if len(server.seen) <= server.behaviour["fail"]:
            self.send_response(429)
            self.send_header("Retry-After", "0")
            self.end_headers()
            return
        text = body["messages"][-1]["content"]
        content, logprobs = server.behaviour["reply"] or "A", None
        if "[Answer A]" in text:
            a, b = text.split("[Answer A]")[1].split("[Answer B]")
            b = b.split("Which answer")[0]
            p = min(max((0.9 if len(a) > len(b) else 0.1) + server.behaviour["bias"], 0.01), 0.99)
            content = server.behaviour["reply"] or ("A" if p > 0.5 else "B")
            import math

            top = [{"token": t, "logprob": math.log(q), "bytes": None} for t, q in (("A", p), ("B", 1 - p))]
            if server.behaviour["logprobs"]:
                logprobs = {"content": [{**top[0], "top_logprobs": top}], "refusal": None}
        reply = {
            "id": "1", "object": "chat.completion", "created": 0, "model": body["model"],
            "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop",
                         "logprobs": logprobs}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101},
        }  # fmt: skip
        data = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


PAIR = Comparison("p", "q", (Completion("short", "no"), Completion("long", "a long answer")))


def judge(server, tmp_path=None, **options):
    cache = None if tmp_path is None else str(tmp_path / "cache")
    own = {"logprobs": options.pop("ask_logprobs", True)}
    return EndpointJudge(Endpoint("judge", server.url, cache=cache, **options), **own)


def test_both_orders_are_asked_and_averaged_into_a_soft_vote():
    server = Server(bias=0.05)
    feedback = AiFeedback([judge(server)])
    (record,) = feedback.vote([PAIR])
    (vote,) = record.votes
    assert (vote.kind, vote.choice, vote.annotator) == ("ai", "long", "judge")
    assert vote.p == pytest.approx((0.15 + 1 - 0.95) / 2, abs=1e-6)
    assert soft(record).win_prob[0, 1] == pytest.approx(vote.p)
    tally = feedback.tallies["judge"].as_dict()
    assert tally["position/first"] == pytest.approx(0.55)
    assert tally["position/decides"] == 0


def test_a_judge_that_only_sees_the_first_side_says_one_half():
    feedback = AiFeedback([judge(Server(reply="A", logprobs=False), ask_logprobs=False)])
    (record,) = feedback.vote([PAIR])
    assert record.votes[0].p == 0.5
    assert record.votes[0].choice == "tie"
    assert feedback.tallies["judge"].as_dict()["position/decides"] == 1


def test_retries_cache_and_cost(tmp_path):
    server = Server(fail=2)
    first = judge(server, tmp_path, price_in=10.0, price_out=30.0)
    assert first.prefer("q", "a", "bb") == pytest.approx(0.1)
    assert len(server.seen) == 3, "two failures were tried again"
    assert first.usage() == {
        "requests": 1, "from_cache": 0, "tokens_in": 100, "tokens_out": 1, "cost": pytest.approx(0.00103)
    }  # fmt: skip
    again = judge(server, tmp_path)
    assert again.prefer("q", "a", "bb") == pytest.approx(0.1)
    assert len(server.seen) == 3, "the cache answered"
    assert again.usage()["from_cache"] == 1


class Clock:
    """Time that passes only in sleep."""

    def __init__(self):
        self.now, self.pauses = 100.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds


def test_the_rate_is_kept(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("rlhf.collect.endpoint.time", clock)
    slow = judge(Server(), requests_per_minute=600)
    for i in range(4):
        slow.prefer(f"q{i}", "a", "bb")
    assert clock.pauses == pytest.approx([0.1, 0.1, 0.1])
    clock.now += 60
    slow.prefer("q5", "a", "bb")
    assert len(clock.pauses) == 3, "nobody waits after a long pause"


def test_unreadable_replies_are_counted_and_give_no_vote():
    feedback = AiFeedback([judge(Server(reply="hmm", logprobs=False), ask_logprobs=False)])
    (record,) = feedback.vote([PAIR])
    assert record.votes == ()
    assert feedback.tallies["judge"].unreadable == 1


def test_letters_and_words():
    assert share(letters({" A": -1.0, "A": -1.0, "B": -2.0, "x": 0.0})) == pytest.approx(2 / (2 + 2.718281828**-1))
    assert letters({"x": 0.0}) == {}
    assert [verdict(t) for t in ("A", "Answer: B.", "I think A is wrong, so B", "C")] == [1.0, 0.0, 0.0, 0.5]
    with pytest.raises(Unreadable):
        verdict("Neither of Them")


def test_a_job_writes_votes_bias_and_cost(tmp_path):
    tasks = [replace(r, votes=()) for r in ToyWorld(size=12).records()]
    write(tmp_path / "t.jsonl", tasks)
    job = Job(ToyWorld(), tmp_path / "t.jsonl", tmp_path / "v.jsonl", ReportOptions(samples=20))
    AiFeedback([judge(Server(), tmp_path)])(job)
    records = list(read(tmp_path / "v.jsonl"))
    assert [r.prompt_id for r in records] == [r.prompt_id for r in tasks], "in their order"
    assert all(v.p is not None for r in records for v in r.votes)
    assert json.loads((tmp_path / "v.jsonl.judges.json").read_text())["judge"]["tokens_in"] > 0


def test_a_constitution_votes_by_principle_and_revises(root):
    server = Server(reply="A")
    rules = principles_from(str(root / "docs" / "examples" / "constitution.yaml"))
    assert [r.name for r in rules] == ["helpfulness", "harmlessness", "honesty"]
    build = {"tie": 0.05, "parallel": 2, "seed": 0}
    feedback = constitutional(
        constitution=str(root / "docs" / "examples" / "constitution.yaml"), judges=[judge(server)], revise=1, **build
    )
    (record,) = feedback.vote([PAIR])
    assert [c.id for c in record.completions] == ["short", "long", "short-revised"]
    revised = record.completions[2]
    assert revised.meta["revises"] == "short"
    assert revised.meta["principle"] in {r.name for r in rules}
    assert {v.criterion for v in record.votes} == {"helpfulness", "harmlessness", "honesty"}
    assert len(record.votes) == 9
    asked = [m["content"] for body in server.seen for m in body["messages"]]
    assert all(any(rule.text in text for text in asked) for rule in rules)


def test_bad_constitutions_are_named(tmp_path):
    (tmp_path / "c.yaml").write_text("- only a list\n")
    with pytest.raises(RecordError, match=r"c\.yaml"):
        principles_from(str(tmp_path / "c.yaml"))
    with pytest.raises(RecordError, match="judges"):
        AiFeedback([])
    with pytest.raises(RecordError, match="principles"):
        AiFeedback([judge(Server())], principles=[])
    assert AiFeedback([judge(Server())], principles=[Principle("x", "y")])


def test_an_endpoint_is_a_policy_too():
    server = Server(reply="Hello there.")
    policy = EndpointPolicy(Endpoint("chat", server.url))
    drafts = policy.answer("Hi", Decoding(0.8, min_p=0.1), [1, 2])
    assert [d.text for d in drafts] == ["Hello there."] * 2
    assert server.seen[0]["min_p"] == 0.1
    assert server.seen[0]["seed"] != server.seen[1]["seed"]


def test_a_policy_behind_an_endpoint_sends_its_stops_and_tells_what_it_cost(tmp_path):
    server = Server(reply="Hello there.")
    endpoint = Endpoint("chat", server.url, cache=str(tmp_path), price_in=10.0, price_out=30.0)
    policy = EndpointPolicy(endpoint, stop=["\n\nHuman:"])
    (paid,) = policy.answer("Hi", Decoding(0.8), [1])
    (cached,) = policy.answer("Hi", Decoding(0.8), [1])
    assert server.seen[0]["stop"] == ["\n\nHuman:"]
    assert paid.usage == {
        "requests": 1, "from_cache": 0, "tokens_in": 100, "tokens_out": 1, "cost": pytest.approx(0.00103)
    }  # fmt: skip
    assert cached.usage == {"requests": 0, "from_cache": 1, "tokens_in": 0, "tokens_out": 0, "cost": 0}


def test_a_dead_endpoint_is_named_with_a_remedy():
    server = Server()
    address = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(RecordError, match=f"endpoint {address}, model chat: gave no answer.*base_url"):
        Endpoint("chat", address, retries=0).chat([{"role": "user", "content": "Hi"}])
    with pytest.raises(RecordError, match=r"refused.*429.*OPENAI_API_KEY"):
        Endpoint("chat", Server(fail=9).url, retries=0).chat([{"role": "user", "content": "Hi"}])


def test_a_judge_whose_replies_cannot_be_read_leaves_its_report_and_no_votes(tmp_path):
    tasks = tmp_path / "tasks.jsonl"
    write(tasks, [PAIR])
    job = Job(ToyWorld(), tasks, tmp_path / "v.jsonl", ReportOptions())
    mumbling = Server(reply="I cannot say.", logprobs=False)
    with pytest.raises(RecordError, match=r"no reply names an answer; the first: .*I cannot say"):
        AiFeedback([judge(mumbling, ask_logprobs=False)])(job)
    (report,) = json.loads((tmp_path / "v.jsonl.judges.json").read_text()).values()
    assert report["unreadable"] == 1
    assert "I cannot say" in report["unreadable/example"]
    assert not (tmp_path / "v.jsonl").exists()
    AiFeedback([judge(Server())])(job)
    assert [len(r.votes) for r in read(tmp_path / "v.jsonl")] == [1]


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: b: c", "c.yaml:1: is no YAML"), ("- a", "c.yaml: is no mapping"), ("a: 'x", "c.yaml:1: is no YAML")],
)
def test_a_broken_constitution_is_named_with_its_line(tmp_path, text, said):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(RecordError, match=said):
        principles_from(str(tmp_path / "c.yaml"))


def test_a_local_model_judges(shared):
    local = LocalJudge(str(shared / "models" / "stories260k"), max_length=256)
    p = local.prefer("q", "a", "b")
    assert 0 < p < 1
    assert local.name == "stories260k"


def test_threads_share_one_load_of_a_local_judge(tmp_path, monkeypatch):
    import transformers
    from transformers import AutoModelForCausalLM, LlamaConfig

    from rlhf.models.pretrained import Tiny

    tokenizer = Tiny().tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loads, real = [], transformers.AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        "rlhf.models.pretrained.AutoModelForCausalLM.from_pretrained",
        lambda *a, **k: (loads.append(1), time.sleep(0.05), real(*a, **k))[2],
    )
    local = LocalJudge(str(tmp_path), max_length=256)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: local.prefer("q", "a", "b"), range(8)))
    assert len(loads) == 1
    assert len(set(found)) == 1
