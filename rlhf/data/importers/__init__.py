"""Importers: somebody's native format in, `rlhf.records.Comparison` out; one per option of conf/data.

An importer is a function `(rows, on_bad, *, options) -> iterator of Comparison`. It maps one row or a few, raises
RecordError with key and remedy, and keeps every vote.
"""

from rlhf.data.importers.arena import arena
from rlhf.data.importers.graded import graded, helpsteer3
from rlhf.data.importers.pairs import hh_rlhf, llamafactory, openrlhf, pairs, shp, summarize_from_feedback
from rlhf.data.importers.rankings import nemo_ranks, oasst, rewardbench, rm_bench
from rlhf.data.importers.ratings import helpsteer, ultrafeedback
from rlhf.data.importers.record import jsonl, prompts
from rlhf.data.importers.research import (
    llmbar,
    llmbar_pairs,
    pandalm,
    qa_feedback,
    rankme,
    ukpconvarg,
    ukpconvarg_source,
)

__all__ = [
    "arena", "graded", "helpsteer", "helpsteer3", "hh_rlhf", "jsonl", "llamafactory", "llmbar", "llmbar_pairs",
    "nemo_ranks", "oasst", "openrlhf", "pairs", "pandalm", "prompts", "qa_feedback", "rankme", "rewardbench",
    "rm_bench", "shp", "summarize_from_feedback", "ukpconvarg", "ukpconvarg_source", "ultrafeedback",
]  # fmt: skip
