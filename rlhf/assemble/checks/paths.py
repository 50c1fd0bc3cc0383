"""Models, runs and data that a configuration names are looked for before torch is imported, which takes seconds."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from rlhf.data.source import check_files
from rlhf.models.names import missing_folder
from rlhf.records import Comparison, RecordError

BENCHMARK = "rlhf.evaluation.benchmarks.BenchmarkSection"


def listed(entries: Any) -> list[Any]:
    """One entry of a key, or several, as a list; null is none."""
    if entries is None:
        return []
    return list(entries) if isinstance(entries, ListConfig | list) else [entries]


def check_model(cfg: DictConfig) -> None:
    """A model of one's own is named, there, and a model.

    Raises:
        RecordError: `model.path` is not given or holds no model.
        FileNotFoundError: `model.path` is written as a folder, and there is none.
    """
    if "path" in cfg.model.keys():  # noqa: SIM118  # `in` does not see ???
        _check_path(cfg.model, "model.path")


def check_augment(cfg: DictConfig) -> None:
    """The models that say prompts in other words are named, there, and models.

    Raises:
        RecordError: a path is not given or holds no model.
        FileNotFoundError: a path is written as a folder, and there is none.
    """
    for i, rewrite in enumerate(listed(OmegaConf.select(cfg, "augment.prompts"))):
        policy = rewrite.get("policy") if isinstance(rewrite, DictConfig) else None
        if isinstance(policy, DictConfig) and "path" in policy.keys():  # noqa: SIM118
            _check_path(policy, f"augment.prompts.{i}.policy.path")


def _check_path(named: DictConfig, key: str) -> None:
    if OmegaConf.is_missing(named, "path") or named.path is None:
        raise RecordError(
            "is not given", key=key, remedy=f"{key}=<folder of a Hugging Face model, or its name on the hub>"
        )
    if wrong := missing_folder(str(named.path), key):
        raise FileNotFoundError(wrong)
    folder = Path(str(named.path))
    if folder.is_dir() and not (folder / "config.json").is_file():
        inner = (folder / "model" / "config.json").is_file()
        raise RecordError(
            f"{folder} holds no model: no config.json in it",
            key=key,
            remedy=f"{key}={folder}/model" if inner else "the exported folder: <run>/model",
        )


def check_folders(folders: Sequence[str], key: str, leaves: str, what: str) -> None:
    """Every folder is there and holds `leaves`, itself or in `model/`.

    Raises:
        RecordError: it does not, with what stands where it should.
    """
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise RecordError(f"there is no folder {folder}", key=key, remedy=f"the folder of {what}")
        if not any((place / leaves).is_file() for place in (folder, folder / "model")):
            raise RecordError(
                f"{folder} holds no model of {what}: no {leaves} here or in model/",
                key=key,
                remedy=f"the folder of {what} that has ended",
            )


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
        raise RecordError("no such file", place=str(texts), key="data.responses_path", remedy="check the path")


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
