"""Golden rows of the public formats: which side is better, and the whole record that a row becomes."""

from functools import partial

from rlhf.labels.aggregation import soft
from rlhf.records import stop


def read(importer, *rows, **options):
    return list(partial(importer, **options)(((f"file:{n}", r) for n, r in enumerate(rows, 1)), stop))


def best(record, criterion=None):
    """Texts from best to worst by the aggregated votes."""
    rank = soft(record, criterion=criterion).rank
    return [c.text for _, c in sorted(zip(rank, record.completions, strict=True), key=lambda x: x[0])]


USER = {"role": "user", "content": "Q"}
SYSTEM, MORE = {"role": "system", "content": "S"}, {"role": "user", "content": "more"}
GOOD, BAD = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}
Q = ({"role": "user", "content": "Q"},)
HH = "\n\nHuman: Q\n\nAssistant: "


GOLDEN = [
    ("pairs", {"prompt": "Q", "chosen": "good", "rejected": "bad"}, "Q"),
    ("pairs", {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, Q),
    ("pairs", {"chosen": [USER, GOOD], "rejected": [USER, BAD]}, Q),
    ("pairs", {"prompt": "Q", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, Q),
    ("pairs", {"prompt": "Q", "chosen": "bad", "rejected": "good", "margin": -1.0}, "Q"),
    ("openrlhf", {"prompt": "Q", "chosen": "good", "rejected": "bad"}, "Q"),
    ("hh_rlhf", {"chosen": HH + "good", "rejected": HH + "bad"}, Q),
    ("shp", {"history": "Q", "human_ref_A": "good", "human_ref_B": "bad", "labels": 1}, "Q"),
    ("shp", {"history": "Q", "human_ref_A": "bad", "human_ref_B": "good", "labels": 0}, "Q"),
    ("llamafactory", {"instruction": "Q", "input": "", "chosen": "good", "rejected": "bad"}, "Q"),
    (
        "llamafactory",
        {
            "conversations": [{"from": "human", "value": "Q"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        Q,
    ),
    ("rewardbench", {"prompt": "Q", "chosen": "good", "rejected": "bad", "subset": "s"}, "Q"),
    ("rewardbench", {"prompt": "Q", "chosen": ["good"], "rejected": ["bad"], "subset": "s"}, "Q"),
    ("rm_bench", {"prompt": "Q", "chosen": ["good"], "rejected": ["bad"], "domain": "chat", "id": 3}, "Q"),
    ("llmbar_pairs", {"input": "Q", "output_1": "good", "output_2": "bad", "label": 1}, "Q"),
    ("llmbar_pairs", {"input": "Q", "output_1": "bad", "output_2": "good", "label": 2}, "Q"),
    (
        "nemo_ranks",
        {"context": [USER], "completions": [{"rank": 1, "completion": [BAD]}, {"rank": 0, "completion": [GOOD]}]},
        Q,
    ),
    (
        "summarize_from_feedback",
        {"info": {"id": "t3", "post": "Q"}, "summaries": [{"text": "bad"}, {"text": "good"}], "choice": 1},
        "Q",
    ),
    (
        "oasst",
        {"messages": [USER], "responses": [{"text": "bad", "rank": 1}, {"text": "good", "rank": 0}]},
        Q,
    ),
    (
        "oasst",
        {
            "message_tree_id": "t",
            "prompt": {
                "role": "prompter", "text": "Q",
                "replies": [
                    {"role": "assistant", "text": "bad", "rank": 1},
                    {"role": "assistant", "text": "good", "rank": 0},
                ],
            },
        },
        Q,
    ),
    (
        "ultrafeedback",
        {
            "instruction": "Q",
            "completions": [
                {"response": "bad", "annotations": {"helpfulness": {"Rating": "2"}}, "overall_score": 3},
                {"response": "good", "annotations": {"helpfulness": {"Rating": "5"}}, "overall_score": 8.5},
            ],
        },
        "Q",
    ),
    ("ultrafeedback", {"chosen": [USER, GOOD], "rejected": [USER, BAD], "score_chosen": 8, "score_rejected": 3}, Q),
    ("arena", {"conversation_a": [USER, BAD], "conversation_b": [USER, GOOD], "winner": "model_b"}, Q),
    ("arena", {"conversation_a": [USER, GOOD], "conversation_b": [USER, BAD], "winner": "model_a", "model_a": "m"}, Q),
    (
        "arena",
        {"prompt": '["Q"]', "response_a": '["bad"]', "response_b": '["good"]', "winner_model_a": 0,
         "winner_model_b": 1, "winner_tie": 0},
        Q,
    ),
    ("graded", {"prompt": "Q", "response_a": "good", "response_b": "bad", "preference": -2}, "Q"),
    ("graded", {"prompt": "Q", "response_a": "bad", "response_b": "good", "preference": "B is much better"}, "Q"),
    (
        "helpsteer3",
        {"context": [USER], "response1": "good", "response2": "bad", "overall_preference": -2,
         "individual_preference": [{"score": -3}, {"score": -1}]},
        Q,
    ),
    (
        "helpsteer3",
        {"prompt": "Q", "response_1": "bad", "response_2": "good", "preference_strength": 1,
         "all_preferences_unprocessed": [{"strength": 1}, {"strength": -100}]},
        "Q",
    ),
]  # fmt: skip


VOTE = {"annotator": "label", "pair": ["c0", "c1"], "choice": "c0"}
WHOLE = {
    "pairs": (
        {"prompt": "Q", "chosen": "good", "rejected": "bad", "prompt_id": 7},
        {"prompt_id": "7", "prompt": "Q", "votes": [VOTE]},
    ),
    "shp": (
        {"post_id": "x", "domain": "d", "history": "Q", "human_ref_A": "bad", "human_ref_B": "good", "labels": "0",
         "score_ratio": 2.0},
        {"prompt_id": "x", "prompt": "Q", "domain": "d", "votes": [VOTE], "meta": {"score_ratio": 2.0}},
    ),
    "rewardbench": (
        {"prompt": "Q", "chosen": ["good"], "rejected": ["bad"], "subset": "Math", "id": 3},
        {"prompt_id": "8e35c2cd3bf6641b", "prompt": "Q", "domain": "Math", "meta": {"row_id": 3},
         "votes": [{"annotator": "label", "ranking": [["c0"], ["c1"]]}]},
    ),
    "oasst": (
        {"prompt_id": "x", "tree_id": "t", "messages": [USER],
         "responses": [{"text": "good", "rank": 0}, {"text": "bad", "rank": 0}]},
        {"prompt_id": "x", "prompt": [USER], "meta": {"tree_id": "t"},
         "votes": [{"annotator": "oasst", "ranking": [["c0", "c1"]]}]},
    ),
    "ultrafeedback": (
        {"chosen": [USER, GOOD], "rejected": [USER, BAD], "score_chosen": 8, "score_rejected": 8, "prompt_id": "x"},
        {"prompt_id": "x", "prompt": [USER],
         "votes": [{"annotator": "gpt-4", "kind": "ai", "likert": {"c0": 8, "c1": 8}}]},
    ),
    "llamafactory": (
        {"instruction": "Q", "input": "i", "chosen": "good", "rejected": "bad", "system": "S", "history": [["q", "a"]]},
        {"prompt_id": "PROMPT", "votes": [VOTE], "prompt": [
            {"role": "system", "content": "S"}, {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a"}, {"role": "user", "content": "Q\ni"}]},
    ),
    "arena": (
        {"question_id": "x", "language": "English", "judge": "j7", "model_a": "m", "model_b": "n",
         "winner": "tie (bothbad)", "conversation_a": [USER, {"role": "assistant", "content": "good"}],
         "conversation_b": [USER, {"role": "assistant", "content": [{"type": "text", "text": "bad"}]}]},
        {"prompt_id": "x", "prompt": [USER], "domain": "English",
         "completions": [{"id": "c0", "text": "good", "source": {"model": "m"}},
                         {"id": "c1", "text": "bad", "source": {"model": "n"}}],
         "votes": [{"annotator": "j7", "pair": ["c0", "c1"], "choice": "tie", "meta": {"both_bad": True}}]},
    ),
    "graded": (
        {"prompt": "Q", "response_a": "good", "response_b": "bad", "preference": "0", "annotator": "w", "domain": "d"},
        {"prompt_id": "PROMPT", "prompt": "Q", "domain": "d",
         "votes": [{"annotator": "w", "pair": ["c0", "c1"], "choice": "tie"}]},
    ),
    "helpsteer3": (
        {"prompt": "Q", "response_1": "good", "response_2": "bad", "preference_strength": -2,
         "all_preferences_unprocessed": [{"strength": -3}, {"strength": -100}, {"strength": 0}]},
        {"prompt_id": "PROMPT", "prompt": "Q", "meta": {"preference_strength": -2, "neither": 1},
         "votes": [{"annotator": "person 1", "pair": ["c0", "c1"], "choice": "c0", "margin": 3},
                   {"annotator": "person 3", "pair": ["c0", "c1"], "choice": "tie"}]},
    ),
    "helpsteer": (
        {"prompt": "Q", "response": "good", "helpfulness": 3, "verbosity": "N/A"},
        {"prompt_id": "PROMPT", "prompt": "Q", "completions": [{"id": "c0", "text": "good"}],
         "votes": [{"annotator": "helpsteer", "criterion": "helpfulness", "likert": {"c0": 3}}]},
    ),
}  # fmt: skip
