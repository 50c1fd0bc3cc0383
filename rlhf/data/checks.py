"""Checks of a data set and of its rendering, as the doctor reports them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np

from rlhf.data.datamodule import PreferenceData
from rlhf.records import Comparison, prompt_text

SAMPLE = 200
"""Records that the checks of rendering look at."""


@dataclass(frozen=True)
class Check:
    """Verdict of one check: what was measured, and what to do when it is not `ok`."""

    name: str
    verdict: Literal["ok", "warn", "FAIL"]
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
    records, completions = (
        max(1, total["records"]),
        max(1, total["completions"] + total["completions_too_long"]),
    )
    leaks = report["splits"]["prompts_in_several_splits"]
    longer = "raise max_length, or accept the loss: data_report.json counts it"
    return [
        verdict("skipped rows", report["skipped"]["count"] > 0, f"{report['skipped']['count']}",
                f"see data_report.json: {(report['skipped']['first'] or [''])[0]}", warn=True),
        verdict("answers too long", total["completions_too_long"] / completions > 0.05,
                f"{total['completions_too_long']} of {completions} dropped, max_length={report['max_length']}", longer),
        verdict("prompts trimmed", total["prompts_trimmed"] / records > 0.05,
                f"{total['prompts_trimmed']} of {records}", longer, warn=True),
        verdict("identical pairs", total["pairs_identical"] > 0.01 * max(1, total["pairs_judged"]),
                f"{total['pairs_identical']} of {total['pairs_judged']} pairs are the same tokens on both sides",
                "they teach nothing and are masked; look for an importer mapping both sides to one text"),
        verdict("records without votes", total["dropped/no_votes"] > 0, f"{total['dropped/no_votes']} of {records}",
                "collect votes for them (annotate.py), or check criterion=...", warn=True),
        verdict("duplicate records", total["duplicate_records"] > 0.01 * records,
                f"{total['duplicate_records']} of {records}", "remove them: they count twice", warn=True),
        verdict("ties", total["pairs_tied"] > 0.5 * max(1, total["pairs_judged"]),
                f"{total['pairs_tied']} of {total['pairs_judged']} pairs",
                "loss=rao_kupper or loss=davidson learn from ties", warn=True),
        verdict("prompt leak", leaks > 0, f"{leaks} prompts in more than one split",
                "use split=hash, or split=near_duplicate"),
        _side_balance(data),
    ]  # fmt: skip


def _sum(rows: dict[str, dict[str, int]]) -> dict[str, int]:
    names = next(iter(rows.values()))
    return {name: sum(split[name] for split in rows.values()) for name in names}


def _side_balance(data: PreferenceData) -> Check:
    """How often the first of two completions wins: 1.0 means the file gives the answer away by position."""
    rows = data.rows["train"][list(range(min(1000, len(data.rows["train"]))))]
    wins = []
    for k, win_prob, observed in zip(
        map(len, rows["length"]), rows["win_prob"], rows["observed"], strict=True
    ):
        upper = np.triu(np.reshape(observed, (k, k)), 1)
        decided = np.reshape(win_prob, (k, k))[upper]
        wins += [float(w > 0.5) for w in decided if w != 0.5]
    share = float(np.mean(wins)) if wins else 0.5
    harmless = "harmless to a reward model, which never sees the order; shuffle before showing to judges"
    return verdict(
        "first side wins", not 0.2 < share < 0.8, f"{share:.3f} of the decided pairs", harmless, warn=True
    )


def rendering_checks(data: PreferenceData) -> list[Check]:
    """What becomes of the text: padding and end tokens, joints, dates, special tokens inside the data."""
    renderer, tokenizer = data.renderer, data.renderer.tokenizer
    records = list(islice(data.source.records(), SAMPLE))
    rows = [(r, renderer.encode(r.prompt, [c.text for c in r.completions])) for r in records]
    ids = [e.prompt + response for _, e in rows for response in e.responses]
    trained = max(1, len(ids))
    openings = sum(row.count(tokenizer.bos_token_id) != 1 for row in ids) if renderer.opening else 0
    special_ids = {tokenizer.convert_tokens_to_ids(t) for t in renderer.special}
    unfinished = sum(row[-1] not in special_ids for row in ids)
    merged = sum(e.merged for _, e in rows)
    typed = sum(_has_special(r, renderer.special) for r in records)
    dated = "strftime_now" in renderer.template and "date_string" not in renderer.template
    encoder = tokenizer.bos_token_id is None
    return [
        verdict("padding token", tokenizer.pad_token_id in (None, tokenizer.eos_token_id),
                f"pad={tokenizer.pad_token!r}, end={renderer.end!r}",
                "give the tokenizer a padding token of its own: a finished answer is cut before its end"),
        verdict("one begin token", openings > 0 and not encoder, f"{openings} of {trained} rows have none or several",
                "the template and the tokenizer both add it; remove it from one"),
        verdict("ends in an end token", unfinished > 0, f"{unfinished} of {trained} rows do not",
                "the chat template must close the assistant's turn"),
        verdict("joint of prompt and answer", merged > 0, f"{merged} of {trained} rows merge tokens across it",
                "harmless to scores; the answer's first token differs from tokenising it alone", warn=True),
        verdict("template", dated, f"hash {renderer.template_hash}" + (", prints today's date" if dated else ""),
                "scores would change from day to day: write a fixed date into the template"),
        verdict("special tokens in texts", typed > 0, f"{typed} of {len(records)} records contain one",
                "a user can type them: scores are read by position and stay right, but consider escaping", warn=True),
    ]  # fmt: skip


def _has_special(record: Comparison, special: set[Any]) -> bool:
    texts = [prompt_text(record.prompt), *(c.text for c in record.completions)]
    return any(token in text for token in special for text in texts)
