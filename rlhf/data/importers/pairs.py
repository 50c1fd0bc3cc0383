"""Pairs, one vote per row: TRL, OpenRLHF, HH-RLHF, SHP, LLaMA-Factory (hard pairs), summarize-from-feedback."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from rlhf.data.file_formats import Rows
from rlhf.data.importers import raw
from rlhf.data.importers.raw import Row
from rlhf.data.source import each
from rlhf.records import Comparison, OnBad, RecordError

ANSWER = re.compile(r"\n\nAssistant: ?")
TURN = re.compile(r"\n\n(Human|Assistant): ?")
Turns = list[tuple[str, str]]
"""(role, what was said)."""


@raw.per_row
def pairs(
    row: Row, *, prompt_key: str | None = "prompt", chosen_key: str = "chosen", rejected_key: str = "rejected",
    margin_key: str = "margin",
) -> Comparison:  # fmt: skip
    """TRL's preference format `{prompt?, chosen, rejected, margin?}`; strings or lists of messages.

    Without a prompt, it is what chosen and rejected have in common at their beginning: whole messages, or text up to
    where the last common Assistant turn of a transcript begins, else up to the last blank or line break before they
    part. Chats may repeat the prompt or go on from it; chats that begin otherwise are refused. A negative margin
    swaps the two; one that is NaN or infinite is refused.

    Args:
        row: one pair.
        prompt_key: column of the prompt; None always takes what both begin with.
        chosen_key: column of the better answer.
        rejected_key: column of the worse answer.
        margin_key: column of the preference's strength; optional.
    """
    chosen, rejected = raw.need(row, chosen_key), raw.need(row, rejected_key)
    prompt = None if prompt_key is None else row.get(prompt_key)
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise RecordError("one is text, the other messages", key=f"{chosen_key}, {rejected_key}")
    stated = raw.strength(row.get(margin_key), margin_key)
    prompt_id = None if row.get("prompt_id") is None else str(row["prompt_id"])
    more: dict[str, Any] = {"margin": max(stated, 0.0), "domain": row.get("domain"), "prompt_id": prompt_id}
    if stated < 0:
        chosen, rejected, more["margin"] = rejected, chosen, -stated
    if isinstance(chosen, str):
        return _texts(prompt, chosen, rejected, prompt_key or "prompt", more)
    chats = raw.messages(chosen, chosen_key), raw.messages(rejected, rejected_key)
    return _chats(prompt, *chats, prompt_key or "prompt", more)


def _texts(prompt: Any, chosen: str, rejected: str, key: str, more: dict[str, Any]) -> Comparison:
    if prompt is None:
        prompt = _common_text(chosen, rejected)
        if not prompt.strip():
            raise RecordError("there is no prompt", key=key, remedy=f"give a '{key}', or texts that both begin with it")
        chosen, rejected = chosen[len(prompt) :], rejected[len(prompt) :]
    elif not isinstance(prompt, str):
        prompt = raw.messages(prompt, key)
    return raw.hard_pair(prompt, chosen, rejected, **more)


def _common_text(a: str, b: str) -> str:
    """What both begin with, cut back to the last answer's beginning or to white space: no word is split."""
    shared = a[: next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))]
    if answers := [turn.end() for turn in ANSWER.finditer(shared)]:
        return shared[: answers[-1]]
    return shared[: max(shared.rfind(" "), shared.rfind("\n")) + 1]


def _chats(
    prompt: Any, chosen: list[dict[str, str]], rejected: list[dict[str, str]], key: str, more: dict[str, Any]
) -> Comparison:
    if chosen[:-1] != rejected[:-1]:
        raise RecordError("the chats part before their last message", key="chosen, rejected",
                          remedy="only the last message may differ; join later turns into it")  # fmt: skip
    before = chosen[:-1]
    if prompt:
        stated = raw.messages([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt, key)
        before = _joined(stated, before, key)
    if not before:
        raise RecordError("there is no prompt", key=key, remedy="give a prompt, or chats that begin with one")
    return raw.hard_pair(before, chosen[-1]["content"], rejected[-1]["content"], **more)


def _joined(stated: list[dict[str, str]], before: list[dict[str, str]], key: str) -> list[dict[str, str]]:
    """The whole prompt, from the one stated and the messages before the answer, which may hold it too."""
    if not before or stated[-len(before) :] == before:
        return stated
    if stated in (before[: len(stated)], before[-len(stated) :]):
        return before
    if before[0]["role"] in ("user", "system"):
        remedy = "the chats must repeat it or go on from it; data.importer.prompt_key=null takes theirs"
        raise RecordError("chosen and rejected begin with another prompt", key=key, remedy=remedy)
    return stated + before


@raw.per_row
def hh_rlhf(row: Row) -> Comparison:
    r"""Anthropic's transcripts: `chosen` and `rejected` as "\n\nHuman: ...\n\nAssistant: ...".

    The prompt is the turns both have in common; the answers are what follows. Where the transcripts part before the
    last turn, the later turns stay in the answer's text with their speakers.
    """
    prompt, *answers = parted(_turns(raw.text(row, "chosen"), "chosen"), _turns(raw.text(row, "rejected"), "rejected"))
    return raw.hard_pair(prompt, *answers)


def parted(a: Turns, b: Turns, key: str = "chosen, rejected") -> tuple[list[dict[str, str]], str, str]:
    """Two chats as the prompt, which is what both begin with up to a user's turn, and the two answers.

    Later turns stay in the answer's text with their speakers. Raises RecordError where nothing is in common.
    """
    shared = 0
    while shared < min(len(a), len(b)) - 1 and a[shared] == b[shared]:
        shared += 1
    while shared and a[shared - 1][0] != "user":
        shared -= 1
    if not shared or a[shared][0] != "assistant" or b[shared][0] != "assistant":
        raise RecordError("the transcripts have no prompt in common", key=key)
    prompt = [{"role": role, "content": content} for role, content in a[:shared]]
    return prompt, _rest(a[shared:]), _rest(b[shared:])


def _turns(transcript: str, key: str) -> Turns:
    parts = TURN.split(transcript)
    if len(parts) < 5 or parts[0].strip():
        raise RecordError("is not a transcript", key=key, remedy=r'"\n\nHuman: ...\n\nAssistant: ..."')
    roles = {"Human": "user", "Assistant": "assistant"}
    return [(roles[who], said.strip()) for who, said in zip(parts[1::2], parts[2::2], strict=True)]


def _rest(turns: Turns) -> str:
    names = {"user": "Human", "assistant": "Assistant"}
    return "\n\n".join([turns[0][1], *(f"{names.get(role, role)}: {said}" for role, said in turns[1:])])


@raw.per_row
def shp(row: Row) -> Comparison:
    """Stanford Human Preferences: `history`, `human_ref_A`, `human_ref_B`, `labels` (1 = A preferred)."""
    label = raw.zero_or_one(row, "labels", "1 where A is preferred, 0 where B is")
    a, b = raw.text(row, "human_ref_A"), raw.text(row, "human_ref_B")
    meta = {k: row[k] for k in ("score_A", "score_B", "score_ratio") if k in row}
    more: dict[str, Any] = {"domain": row.get("domain"), "prompt_id": row.get("post_id"), "meta": meta}
    return raw.hard_pair(raw.text(row, "history"), *((a, b) if label == 1 else (b, a)), **more)


@raw.per_row
def llamafactory(row: Row) -> Comparison:
    """LLaMA-Factory with `ranking: true`: alpaca (instruction, input, chosen, rejected) or sharegpt (conversations)."""
    return _sharegpt(row) if "conversations" in row else _alpaca(row)


def _alpaca(row: Row) -> Comparison:
    asked = "\n".join(p for p in (raw.text(row, "instruction"), raw.optional_text(row, "input")) if p)
    turns = _system(row)
    for exchange in raw.listed(row, "history") if row.get("history") else []:
        if not isinstance(exchange, list | tuple) or len(exchange) != 2:
            raise RecordError(f"holds {exchange!r}", key="history", remedy="a list of [question, answer]")
        question, answer = exchange
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    prompt = [*turns, {"role": "user", "content": asked}] if turns else asked
    return raw.hard_pair(prompt, raw.text(row, "chosen"), raw.text(row, "rejected"))


def _system(row: Row) -> list[dict[str, str]]:
    said = raw.optional_text(row, "system")
    return [{"role": "system", "content": said}] if said else []


def _sharegpt(row: Row) -> Comparison:
    prompt = _system(row) + [_sharegpt_turn(m, "conversations") for m in raw.listed(row, "conversations")]
    answers = [_sharegpt_turn(raw.need(row, key), key)["content"] for key in ("chosen", "rejected")]
    return raw.hard_pair(prompt, answers[0], answers[1])


def _sharegpt_turn(m: Any, key: str) -> dict[str, str]:
    roles = {"human": "user", "gpt": "assistant", "system": "system", "user": "user", "assistant": "assistant"}
    fits = isinstance(m, dict) and all(isinstance(m.get(k), str) for k in ("from", "value"))
    if not fits or m["from"] not in roles:
        raise RecordError("must be {from: human | gpt | system, value}", key=key)
    return {"role": roles[m["from"]], "content": m["value"]}


openrlhf = partial(pairs, prompt_key="prompt")
"""OpenRLHF's defaults; pass `chosen_key` and `rejected_key` as its flags of the same names."""


def summarize_from_feedback(rows: Rows, on_bad: OnBad) -> Iterator[Comparison]:
    """`info`, `summaries` (two), `choice` (0 or 1), `worker`: consecutive rows on the same post and the same two
    summaries are one record with a vote each; a bad row costs its own vote only.
    """
    rows_of_pairs = raw.consecutive(rows, on_bad, _keyed_vote)
    yield from each(rows_of_pairs, on_bad, lambda row: [_voted(row["rows"])])


def _keyed_vote(row: Row) -> tuple[Any, tuple[dict[str, Any], dict[str, Any]]]:
    """One row as (what it is about, (the record's fields, the vote))."""
    info, summaries = raw.mapping(raw.need(row, "info"), "info"), raw.objects(row, "summaries")
    if len(summaries) != 2:
        raise RecordError(f"has {len(summaries)} summaries", key="summaries", remedy="two")
    body = raw.optional_text(info, "post") or raw.optional_text(info, "article")
    if not body:
        raise RecordError("has neither post nor article", key="info")
    prompt = "\n\n".join(p for p in (raw.optional_text(info, "title"), body) if p)
    texts = [raw.text(s, "text") for s in summaries]
    sources = [{"model": s["policy"]} if s.get("policy") else {} for s in summaries]
    fields = {
        "prompt": prompt,
        "answers": raw.completions(texts, sources),
        "prompt_id": info.get("id"),
        "domain": info.get("subreddit") or info.get("site"),
        "meta": {"split": row["split"]} if row.get("split") else None,
    }
    return (info.get("id"), prompt, texts), (fields, _vote(row))


def _voted(votes_of_pair: list[tuple[dict[str, Any], dict[str, Any]]]) -> Comparison:
    return raw.record(**votes_of_pair[0][0], votes=[vote for _, vote in votes_of_pair])


def _vote(row: Row) -> dict[str, Any]:
    choice = raw.zero_or_one(row, "choice", "0 or 1: which summary is better")
    confidence = raw.mapping(row.get("extra"), "extra").get("confidence")
    meta = {} if confidence is None else {"meta": {"confidence": confidence}}
    who = str(row.get("worker", "label"))
    return {"annotator": who, "pair": ["c0", "c1"], "choice": f"c{choice}", **meta}
