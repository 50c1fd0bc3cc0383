"""Checks of a data set and of its rendering, as the doctor reports them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
from scipy.stats import binomtest

from rlhf.data.datamodule import PreferenceData
from rlhf.data.look import ONE_SIDED
from rlhf.data.render import Renderer
from rlhf.records import Comparison, prompt_text
from rlhf.stats.arrays import Ints

FEW = 10  # pairs below which no share is sure enough to tell of
SAMPLE = 200  # records that the checks of rendering look at


@dataclass(frozen=True)
class Check:
    """Verdict of one check: what was measured, and what to do when it is not `ok`.

    A `note` says what was found and already put right; a `warn` is to be looked at.
    """

    name: str
    verdict: Literal["ok", "note", "warn", "FAIL"]
    measured: str
    remedy: str = ""

    @property
    def failed(self) -> bool:
        """A failure, not a warning."""
        return self.verdict == "FAIL"


def verdict(name: str, bad: bool, measured: str, remedy: str, *, warn: bool = False) -> Check:
    """`ok`, or a failure (a warning under `warn`) with its remedy."""
    return Check(name, ("warn" if warn else "FAIL") if bad else "ok", measured, remedy)


def data_checks(data: PreferenceData) -> list[Check]:
    """What the data report says: losses to length, identical pairs, ties, duplicates, leaks, balance."""
    report = data.report
    total = _sum(report["rows"])
    records, completions = (max(1, total["records"]), max(1, total["completions"] + total["completions_too_long"]))
    leaks = report["splits"]["prompts_in_several_splits"]
    read = sum(split["records"] for split in report["splits"]["splits"].values())
    won = _won(data)
    longer = "raise max_length, or accept the loss: data_report.json counts it"
    return [
        verdict("skipped rows", report["skipped"]["count"] > 0, f"{report['skipped']['count']}",
                f"see data_report.json: {(report['skipped']['first'] or [''])[0]}", warn=True),
        verdict("answers too long", total["completions_too_long"] / completions > 0.05,
                f"{total['completions_too_long']} of {completions} dropped, max_length={report['max_length']}", longer),
        verdict("prompts trimmed", total["prompts_trimmed"] / records > 0.05,
                f"{total['prompts_trimmed']} of {records}", longer, warn=True),
        verdict("identical pairs", total["pairs_identical"] > 0.01 * max(1, total["pairs_compared"]),
                f"{total['pairs_identical']} of {total['pairs_compared']} pairs are the same tokens on both sides",
                "they teach nothing and are masked; look for an importer mapping both sides to one text"),
        verdict("records without votes", total["dropped/no_votes"] > 0, f"{total['dropped/no_votes']} of {records}",
                "collect votes for them (annotate.py), or check criterion=...", warn=True),
        verdict("duplicate records", total["duplicate_records"] > 0.01 * read,
                f"{total['duplicate_records']} of {read}", "remove them: they count twice", warn=True),
        verdict("ties", total["pairs_tied"] > 0.5 * max(1, total["pairs_compared"]),
                f"{total['pairs_tied']} of {total['pairs_compared']} pairs",
                "loss=rao_kupper or loss=davidson learn from ties", warn=True),
        verdict("prompt leak", leaks > 0, f"{leaks} prompts in more than one split",
                "use split=hash, or split=near_duplicate"),
        _side_balance(won),
        _length_balance(won),
    ]  # fmt: skip


def _sum(rows: dict[str, dict[str, int]]) -> dict[str, int]:
    names = next(iter(rows.values()))
    return {name: sum(split[name] for split in rows.values()) for name in names}


def _won(data: PreferenceData) -> Ints:
    """Decided pairs of the first training rows [P, 2]: did the first win, and how much longer was the winner."""
    rows = data.rows["train"][list(range(min(1000, len(data.rows["train"]))))]
    found = []
    for length, win_prob, observed in zip(rows["length"], rows["win_prob"], rows["observed"], strict=True):
        k = len(length)
        for i, j in np.argwhere(np.triu(np.reshape(observed, (k, k)), 1)):
            p = win_prob[i * k + j]
            if p != 0.5:
                found.append((p > 0.5, (length[i] - length[j]) * (1 if p > 0.5 else -1)))
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _side_balance(won: Ints) -> Check:
    """How often the first of two completions wins: 1.0 means the file gives the answer away by position."""
    share = float(won[:, 0].mean()) if len(won) else 0.5
    harmless = "harmless to a reward model, which never sees the order; shuffle before showing to annotators"
    return verdict("first side wins", not 0.2 < share < 0.8, f"{share:.3f} of the decided pairs", harmless, warn=True)


def _length_balance(won: Ints) -> Check:
    """How often the longer answer wins: people prefer longer answers, so a share surely below a half looks swapped."""
    unequal = won[won[:, 1] != 0, 1]
    if not len(unequal):
        return verdict("longer answer wins", False, "no decided pair of different length", "")
    longer = binomtest(int((unequal > 0).sum()), len(unequal))
    interval = longer.proportion_ci(method="wilson")
    swapped = interval.high < 0.5
    measured = f"{longer.statistic:.3f} [{interval.low:.3f}, {interval.high:.3f}] of the decided pairs"
    remedy = "a model will learn length and little else: collect pairs in which the shorter answer is better too"
    if swapped:
        back = "data.columns.chosen=rejected data.columns.rejected=chosen"
        remedy = (
            f"are chosen and rejected swapped? {back} swaps them back; if short answers were asked for, all is well"
        )
    few = len(unequal) < FEW
    return verdict(
        "longer answer wins", not few and (swapped or longer.statistic >= ONE_SIDED), measured, remedy, warn=True
    )


def rendering_checks(data: PreferenceData) -> list[Check]:
    """What becomes of the text: begin and end tokens, joints, dates, special tokens inside the data."""
    renderer, tokenizer = data.renderer, data.renderer.tokenizer
    records = list(islice(data.source.records(), SAMPLE))
    rows = [(r, renderer.encode(r.prompt, [c.text for c in r.completions])) for r in records]
    ids = [e.prompt + response for _, e in rows for response in e.responses]
    trained = max(1, len(ids))
    begun_twice, not_begun = _begin_tokens(renderer, ids)
    special_ids = {tokenizer.convert_tokens_to_ids(t) for t in renderer.special}
    endings = [response[-2:] for _, e in rows for response in e.responses]
    unfinished = sum(end[-1] not in special_ids for end in endings)
    ended_twice = sum(len(end) == 2 and end[0] == end[1] in special_ids for end in endings)
    merged = sum(e.merged for _, e in rows)
    typed = sum(_has_special(r, renderer.special) for r in records)
    dated = "strftime_now" in renderer.template and "date_string" not in renderer.template
    return [
        verdict("one begin token", begun_twice + not_begun > 0,
                f"{begun_twice} of {trained} rows begin with two, {not_begun} with none",
                "the chat template must print the begin token once, and nothing else add it", warn=not begun_twice),
        verdict("one end token", unfinished + ended_twice > 0,
                f"{unfinished} of {trained} rows end without one, {ended_twice} with the same one twice",
                "the chat template must close the assistant's turn once; take end tokens out of the data's answers"),
        verdict("joint of prompt and answer", merged > 0, f"{merged} of {trained} rows merge tokens across it",
                "harmless to scores; the answer's first token differs from tokenising it alone", warn=True),
        verdict("template", dated, f"hash {renderer.template_hash}" + (", prints today's date" if dated else ""),
                "scores would change from day to day: write a fixed date into the template"),
        verdict("special tokens in texts", typed > 0, f"{typed} of {len(records)} records contain one",
                "a user can type them: scores are read by position and stay right, but consider escaping", warn=True),
    ]  # fmt: skip


def _begin_tokens(renderer: Renderer, ids: Sequence[list[int]]) -> tuple[int, int]:
    """Rows that begin with two begin tokens, and rows with none although template or tokenizer put one.

    Later ones do not count: some templates print one per turn, and users type them.
    """
    tokenizer = renderer.tokenizer
    begin = {tokenizer.bos_token_id, tokenizer.cls_token_id} - {None}
    usual = bool(renderer.opening) or begin.issuperset(tokenizer("x")["input_ids"][:1])
    twice = sum(begin.issuperset(row[:2]) for row in ids)
    return twice, sum(usual and row[0] not in begin for row in ids)


def _has_special(record: Comparison, special: set[Any]) -> bool:
    texts = [prompt_text(record.prompt), *(c.text for c in record.completions)]
    return any(token in text for token in special for text in texts)
