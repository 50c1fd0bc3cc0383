"""Data that a configuration names is looked for before torch is imported, which takes seconds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from rlhf.assemble.checks.paths import listed
from rlhf.data.source import check_files
from rlhf.records import Comparison, RecordError

BENCHMARK = "rlhf.evaluation.benchmarks.BenchmarkSection"


def check_data(data: DictConfig | None) -> None:
    """The files of a data group are given and there; other groups (the toy world, one's own) pass.

    Raises:
        RecordError: neither `path` nor `hub`, or a file that is not there.
    """
    if data is None or "path" not in data.keys():  # noqa: SIM118  # `in` does not see ???
        return
    path = None if OmegaConf.is_missing(data, "path") else data.path
    if path is None:
        if not data.get("hub"):
            also = " or data.hub=<name>" if "hub" in data else ""
            raise RecordError("no data given", key="data.path", remedy=f"data.path=<file>{also}")
        return
    check_files([str(each) for each in listed(path)])
    texts = data.get("responses_path")
    if texts is not None and not Path(str(texts)).is_file():
        raise RecordError(
            "no such file", place=str(texts), key="data.responses_path", remedy="check the path"
        )


def check_benchmarks(cfg: DictConfig) -> None:
    """A benchmark is computed from its own files: they are the evaluated data, or its `source`.

    Raises:
        RecordError: neither is given.
    """
    for name, section in (cfg.get("sections") or {}).items():
        own = section is None or section.get("_target_") != BENCHMARK or section.get("source") is not None
        if not own and cfg.get("data") is None:
            raise RecordError(
                f"benchmark={name} is computed from its own files, not from a run's data", key="data",
                remedy=f"data=<importer> data.path=<files>; conf/benchmark/{name}.yaml says which importer",
            )  # fmt: skip


def check_criterion(records: Iterable[Comparison], criterion: str | None) -> None:
    """Some vote is on the criterion that was asked for; records without any vote pass, and are told of later.

    Raises:
        RecordError: no vote is, though there are others.
    """
    if criterion is None:
        return
    there: set[str] = set()
    for record in records:
        there |= {vote.criterion for vote in record.votes if not vote.gold}
        if criterion in there:
            return
    if there:
        raise RecordError(
            f"no vote of the evaluated records is on {criterion}", key="criterion",
            remedy=f"criterion= one of {', '.join(sorted(there))}; or leave it out",
        )  # fmt: skip
