"""Sets of the literature with many annotators or a gold label: LLMBar, PandaLM, QA-Feedback, RankME, UKPConvArg1."""

from collections.abc import Iterator, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from rlhf.data.file_formats import Rows
from rlhf.data.importers.raw import (
    Row,
    consecutive,
    entries,
    hard_pair,
    listed,
    need,
    number,
    part,
    per_row,
    text,
    winner,
)
from rlhf.data.source import Source, each
from rlhf.records import Comparison, OnBad, RecordError, lines, parse, prompt_hash

CRITERIA = ("informativeness", "naturalness", "quality")  # what RankME's texts are rated on
SCALE = (1.0, 6.0)
"""Lowest and highest rating of RankME; hand it to `rlhf.records.write` as `likert` when writing these records."""


@per_row
def llmbar(row: Row, *, gold: bool = False) -> Comparison:
    """LLMBar (Zeng et al. 2024) with AI judges: one AI vote per judge and prompt style (annotator `judge/style`).

    The choice is the verdict when both orders agree and a tie when they do not: a verdict that follows the
    position says nothing about the answers. Both verdicts stay in the vote's meta (`given`, `swapped`). A
    judge with an unreadable verdict (null) in either order has no vote. `meta.gold` is the set's own label.

    Args:
        row: one pair.
        gold: one vote by the annotator `gold`, the set's own label, instead of the AI judges' verdicts.
    """
    label = winner(row.get("gold"), "a", "b", "gold")
    raw = {
        "prompt_id": f"llmbar-{row.get('pair_id')}",
        "prompt": row.get("prompt"),
        "domain": "instruction_following",
        "completions": [{"id": side, "text": row.get(side)} for side in "ab"],
        "votes": [{"annotator": "gold", "pair": ["a", "b"], "choice": label}] if gold else _ai_votes(row),
        "meta": {"gold": label},
    }
    return parse(raw)


def _ai_votes(row: Row) -> list[dict[str, Any]]:
    votes = []
    for judge, style, given, swapped in entries(row, "ai_labels", "judge style given swapped"):
        if given is not None and swapped is not None:
            verdicts = {winner(label, "a", "b", "ai_labels") for label in (given, swapped)}
            choice = given if len(verdicts) == 1 else "tie"
            meta = {"given": given, "swapped": swapped}
            vote = {"annotator": f"{judge}/{style}", "kind": "ai", "pair": ["a", "b"], "choice": choice}
            votes.append(vote | {"meta": meta})
    return votes


def llmbar_pairs(rows: Rows, on_bad: OnBad) -> Iterator[Comparison]:
    """LLMBar as published: `input`, `output_1`, `output_2`, `label` (1 or 2: the better one).

    The domain is the subset: the folder of each `dataset.json` (Natural, Neighbor, GPTInst, GPTOut, Manual), or the
    split of the hub set.
    """
    for place, row in rows:
        yield from each(iter([(place, row)]), on_bad, partial(_labelled, subset=part(place, folder=True)))


def _labelled(row: Row, subset: str) -> list[Comparison]:
    label = number(need(row, "label"), "label")
    if label not in (1.0, 2.0):
        raise RecordError(f"is {row['label']!r}", key="label", remedy="1 or 2, the better output")
    outputs = [text(row, "output_1"), text(row, "output_2")]
    better, worse = outputs if label == 1 else outputs[::-1]
    return [hard_pair(text(row, "input"), better, worse, domain=subset)]


@per_row
def pandalm(row: Row) -> Comparison:
    """PandaLM's test set: two models' answers to an instruction, each pair with votes of the same three annotators.

    The prompt is the instruction and, after an empty line, its input when there is one. The set has no prompt ids,
    so pairs with the same prompt get the same `prompt_hash` as theirs.
    """
    parts = [row.get("prompt"), row.get("input") or ""]
    if not all(isinstance(part, str) for part in parts):
        raise RecordError("must be strings", key="prompt, input")
    prompt = "\n\n".join(part for part in parts if part)
    models = str(row.get("models", "")).split("_")
    if len(models) != 2:
        raise RecordError(f"is {row.get('models')!r}", key="models", remedy="the two models as <a>_<b>")
    raw = {
        "prompt_id": prompt_hash(prompt),
        "prompt": prompt,
        "domain": "instruction_following",
        "completions": [
            {"id": side, "text": row.get(side), "source": {"model": model}}
            for side, model in zip("ab", models, strict=True)
        ],
        "votes": [
            {"annotator": who, "pair": ["a", "b"], "choice": winner(label, "a", "b", "annotations")}
            for who, label in entries(row, "annotations", "annotator label")
        ],
        "meta": {"pair_id": row.get("pair_id")},
    }
    return parse(raw)


@per_row
def qa_feedback(row: Row, *, shuffle_seed: int | None = 0) -> Comparison:
    """QA-Feedback (Wu et al. 2023): four answers to a question, `r0` to `r3`; all six pairs voted on, ties allowed.

    The first answer comes from the main model and wins 60 % of its comparisons, so completions are put in
    another order, drawn per question: whatever prefers the first of equals would look better than it is. The
    source does not say who voted: the annotator is `unnamed`.

    Args:
        row: one question.
        shuffle_seed: seed of the order of completions; None keeps the source's order.
    """
    responses, comparisons = listed(row, "responses"), listed(row, "comparisons")
    ids = [f"r{n}" for n in range(len(responses))]
    order = ids
    if shuffle_seed is not None:
        name = f"{shuffle_seed}:{row.get('prompt_id')}"
        order = sorted(ids, key=lambda i: sha256(f"{name}:{i}".encode()).digest())
    raw = {
        "prompt_id": row.get("prompt_id"),
        "prompt": row.get("prompt"),
        "domain": "question_answering",
        "completions": [{"id": i, "text": responses[ids.index(i)]} for i in order],
        "votes": [_compared(comparison, ids, order) for comparison in comparisons],
    }
    return parse(raw)


def _compared(comparison: Any, ids: list[str], order: list[str]) -> dict[str, Any]:
    try:
        a, b = ids[comparison["a"]], ids[comparison["b"]]
        choice = winner(comparison["label"], a, b, "comparisons")
    except (KeyError, IndexError, TypeError) as error:
        remedy = f"places 0..{len(ids) - 1} of two answers and a label"
        raise RecordError(f"is {comparison!r}", key="comparisons", remedy=remedy) from error
    return {"annotator": "unnamed", "pair": sorted((a, b), key=order.index), "choice": choice}


def rankme(rows: Rows, on_bad: OnBad) -> Iterator[Comparison]:
    """RankME (Novikova et al. 2018): texts of several systems for one meaning, rated 1..6 on three criteria.

    One record per prompt; completion ids are the systems' names. A Likert vote holds the ratings one annotator gave
    to all the texts of the prompt under one criterion. The rows of a prompt may lie anywhere in the file, so all are
    read before the first record comes out.
    """
    prompts = consecutive(rows, on_bad, _keyed_rating, anywhere=True)
    yield from each(prompts, on_bad, lambda row: [_rated(row["rows"])])


def _keyed_rating(row: Row) -> tuple[str, Row]:
    for key in ("prompt_id", "prompt", "system", "response"):
        text(row, key)
    if not all(isinstance(rating, Mapping) and "annotator" in rating for rating in listed(row, "ratings")):
        raise RecordError("must be ratings", key="ratings", remedy=f"{{annotator, {', '.join(CRITERIA)}}}")
    return row["prompt_id"], row


def _rated(rows: list[Row]) -> Comparison:
    """The record of one prompt from the rows of its systems."""
    ratings: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if row["prompt"] != rows[0]["prompt"]:
            raise RecordError(f"{row['prompt_id']!r} names two different prompts", key="prompt_id")
        for rating in row["ratings"]:
            for criterion in CRITERIA:
                if criterion in rating:
                    vote = ratings.setdefault((rating["annotator"], criterion), {})
                    vote[row["system"]] = rating[criterion]
    raw = {
        "prompt_id": rows[0]["prompt_id"],
        "prompt": rows[0]["prompt"],
        "domain": "data_to_text",
        "completions": [
            {"id": row["system"], "text": row["response"], "source": {"model": row["system"]}} for row in rows
        ],
        "votes": [
            {"annotator": annotator, "criterion": criterion, "likert": likert}
            for (annotator, criterion), likert in ratings.items()
        ],
    }
    return parse(raw, SCALE)


def ukpconvarg_source(
    path: str | list[str] | None = None, responses_path: str | None = None, on_error: str = "raise",
    limit: int | None = None,
) -> Source:  # fmt: skip
    """The data source of UKPConvArg1, which lies in two files; what `data=ukpconvarg` builds.

    Args:
        path: the pairs.
        responses_path: the texts of the arguments.
        on_error, limit: as for every `Source`.

    Raises:
        RecordError: no path; on reading, a bad row under `on_error=raise`, or no texts.
    """
    importer = partial(ukpconvarg, responses_path=responses_path)
    return Source(importer, path=path, on_error=on_error, limit=limit)


def ukpconvarg(rows: Rows, on_bad: OnBad, *, responses_path: str | None = None) -> Iterator[Comparison]:
    """UKPConvArg1: which of two arguments on a side of a debate is more convincing (Habernal & Gurevych 2016).

    One record per pair, with five crowd votes each; many share a prompt, and completion ids are argument ids.
    `seconds` is the time for a whole task of several pairs: an upper bound on the time for one. `meta.gold` is
    the source's own estimate (an argument id, "tie" or None), not an expert's; `meta.in_strict` marks the pairs
    of the cleaned subset; `pagerank_score` in a completion's meta is LOWER for a more convincing argument.

    Raises:
        RecordError: `responses_path` is missing. A pair with an unknown argument goes to `on_bad`.
    """
    texts = _arguments(responses_path)
    yield from each(rows, on_bad, lambda row: [_argued(row, texts)])


def _arguments(path: str | None) -> dict[tuple[str, str], Row]:
    """(prompt_id, argument id) -> the row of the argument."""
    remedy = "data.responses_path=<file with the texts of the arguments>"
    if path is None:
        raise RecordError("the pairs name arguments by id only", key="data.responses_path", remedy=remedy)
    if not Path(path).is_file():
        raise RecordError(f"no such file: {path}", key="data.responses_path", remedy=remedy)
    texts: dict[tuple[str, str], Row] = {}
    for place, row in lines(path):
        try:
            keys = ("prompt_id", "response_id", "prompt", "text")
            prompt_id, response_id, _, _ = (text(row, key) for key in keys)
        except RecordError as error:
            raise error.at(place) from error
        texts[prompt_id, response_id] = row
    return texts


def _argued(row: Row, texts: Mapping[tuple[str, str], Row]) -> Comparison:
    prompt_id, a, b = (str(row.get(key)) for key in ("prompt_id", "a", "b"))
    for key, name in (("a", a), ("b", b)):
        if (prompt_id, name) not in texts:
            problem = f"no argument {name!r} under prompt {prompt_id!r}"
            raise RecordError(problem, key=key, remedy="data.responses_path must hold the texts of the same debates")
    both = [texts[prompt_id, a], texts[prompt_id, b]]
    gold = row.get("gold")
    raw = {
        "prompt_id": prompt_id,
        "prompt": both[0]["prompt"],
        "domain": row.get("debate"),
        "completions": [
            {"id": t["response_id"], "text": t["text"], "meta": {"pagerank_score": t.get("pagerank_score")}}
            for t in both
        ],
        "votes": [
            {"annotator": who, "seconds": seconds, "pair": [a, b], "choice": winner(label, a, b, "annotations")}
            for who, label, seconds in entries(row, "annotations", "annotator label seconds")
        ],
        "meta": {
            "pair_id": row.get("pair_id"),
            "gold": None if gold is None else winner(gold, a, b, "gold"),
            "in_strict": row.get("in_strict"),
        },
    }
    return parse(raw)
