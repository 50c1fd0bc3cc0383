"""Rankings: OASST trees, NeMo ranks, RewardBench. One ranking vote over the answers to a prompt."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlhf.data.file_formats import Rows
from rlhf.data.importers import raw
from rlhf.data.importers.raw import Row
from rlhf.data.source import each
from rlhf.records import Comparison, OnBad, RecordError


def ranked(ranks: Sequence[float], annotator: str, kind: str = "human") -> dict[str, Any]:
    """The vote that ranks c0, c1, ... by `ranks`, 0 or 1 the best; equal ranks are tied."""
    groups: dict[float, list[str]] = defaultdict(list)
    for i, rank in enumerate(ranks):
        groups[rank].append(f"c{i}")
    return {"annotator": annotator, "kind": kind, "ranking": [groups[r] for r in sorted(groups)]}


def _rank(answer: Row) -> float:
    value = raw.number(raw.need(answer, "rank"), "rank")
    if value is None:
        raise RecordError("is empty", key="rank", remedy="a number, lower is better")
    return value


def _several(row: Row, key: str) -> list[Row]:
    """A list of two answers or more."""
    answers = raw.objects(row, key)
    if len(answers) < 2:
        raise RecordError(f"has {len(answers)} {key}", key=key, remedy="at least two")
    return answers


def oasst(rows: Rows, on_bad: OnBad, *, lang: str | None = None) -> Iterator[Comparison]:
    """OpenAssistant trees (`prompt` with nested `replies`), or groups already cut out (`messages`, `responses`).

    The hub set has one message per row instead (`message_id`, `parent_id`); neighbouring rows of one tree are put
    together again. Every message with two or more ranked assistant replies gives a record; rank 0 is the best.

    Args:
        rows: raw rows.
        on_bad: gets the errors of bad rows.
        lang: only replies in this language, e.g. `en`; None takes all.
    """
    trees = raw.consecutive(rows, on_bad, _tree_of)
    yield from each(trees, on_bad, lambda row: _records(row["rows"], lang))


def _tree_of(row: Row) -> tuple[Any, Row]:
    """A message belongs to its tree; any other row is a unit by itself."""
    return (raw.text(row, "message_tree_id") if "message_id" in row else object()), row


def _records(rows: list[Row], lang: str | None) -> list[Comparison]:
    if "message_id" in rows[0]:
        return _tree(_assembled(rows), lang)
    return _group(rows[0]) if "responses" in rows[0] else _tree(rows[0], lang)


def _assembled(rows: list[Row]) -> Row:
    """The tree of the messages `rows`. Raises RecordError when it is not whole."""
    nodes = {raw.text(r, "message_id"): {**r, "replies": []} for r in rows}
    roots = [node for node in nodes.values() if node.get("parent_id") is None]
    for node in nodes.values():
        parent = node.get("parent_id")
        if parent is not None and parent not in nodes:
            remedy = "the rows of a tree must be neighbours; or read the file of trees"
            raise RecordError(f"no message {parent!r} in this tree", key="parent_id", remedy=remedy)
        if parent is not None:
            nodes[parent]["replies"].append(node)
    if len(roots) != 1:
        raise RecordError(f"the tree has {len(roots)} messages without a parent", key="parent_id")
    return {"message_tree_id": rows[0]["message_tree_id"], "prompt": roots[0]}


def _group(row: Row) -> list[Comparison]:
    answers = _several(row, "responses")
    vote = ranked([_rank(a) for a in answers], "oasst")
    more: dict[str, Any] = {"prompt_id": row.get("prompt_id"), "meta": {"tree_id": row.get("tree_id")}}
    chat = raw.messages(raw.need(row, "messages"), "messages")
    return [raw.record(chat, raw.completions([raw.text(a, "text") for a in answers]), [vote], **more)]


def _tree(row: Row, lang: str | None) -> list[Comparison]:
    root = raw.mapping(raw.need(row, "prompt"), "prompt")
    tree = row.get("message_tree_id")
    found: list[Comparison] = []

    def visit(node: Row, before: list[dict[str, str]]) -> None:
        role = "assistant" if node.get("role") == "assistant" else "user"
        chat = [*before, {"role": role, "content": raw.text(node, "text")}]
        replies = raw.objects(node, "replies") if node.get("replies") else []
        ranked_replies = [r for r in replies if r.get("role") == "assistant" and r.get("rank") is not None]
        ranked_replies = [r for r in ranked_replies if lang is None or r.get("lang") == lang]
        if len(ranked_replies) > 1:
            vote = ranked([_rank(r) for r in ranked_replies], "oasst")
            more: dict[str, Any] = {"prompt_id": node.get("message_id"), "meta": {"tree_id": tree}}
            texts = [raw.text(r, "text") for r in ranked_replies]
            found.append(raw.record(chat, raw.completions(texts), [vote], **more))
        for reply in replies:
            visit(reply, chat)

    visit(root, [])
    return found


@raw.per_row
def nemo_ranks(row: Row) -> Comparison:
    """NeMo RL: `context` messages and `completions` of `{rank, completion: messages}`; the lowest rank is best."""
    answers = _several(row, "completions")
    chats = [raw.messages(raw.need(a, "completion"), "completion") for a in answers]
    texts = ["\n\n".join(m["content"] for m in chat) for chat in chats]
    vote = ranked([_rank(a) for a in answers], "label")
    return raw.record(raw.messages(raw.need(row, "context"), "context"), raw.completions(texts), [vote])


def rewardbench(rows: Rows, on_bad: OnBad) -> Iterator[Comparison]:
    """RewardBench (`chosen`, `rejected`) and RewardBench 2 (lists of both: every chosen beats every rejected).

    Rows without a `subset` belong to the one their file or hub split is named after, as the prior sets' do.
    """
    yield from each(_with_subset(rows), on_bad, lambda row: [_bench(row)])


@raw.per_row
def rm_bench(row: Row) -> Comparison:
    """RM-Bench: `chosen` and `rejected` in three styles each (concise, detailed, markdown), and a `domain`.

    Completions c0..c2 are the right ones, c3..c5 the wrong ones, in the styles' order.
    """
    return _bench({**row, "subset": raw.text(row, "domain")})


def _with_subset(rows: Rows) -> Rows:
    for place, row in rows:
        named = isinstance(row, Mapping) and row.get("subset") is None
        yield place, {**row, "subset": raw.part(place)} if named else row


def _bench(row: Row) -> Comparison:
    prompt, domain = raw.need(row, "prompt"), row.get("subset")
    more: dict[str, Any] = {"domain": domain, "meta": {"row_id": row["id"]} if "id" in row else None}
    if isinstance(raw.need(row, "chosen"), str):
        return raw.hard_pair(prompt, row["chosen"], raw.text(row, "rejected"), **more)
    chosen, rejected = raw.listed(row, "chosen"), raw.listed(row, "rejected")
    if not chosen or not rejected:
        raise RecordError("needs an answer on either side", key="chosen, rejected")
    ranks = [0.0] * len(chosen) + [1.0] * len(rejected)
    return raw.record(prompt, raw.completions([*chosen, *rejected]), [ranked(ranks, "label")], **more)
