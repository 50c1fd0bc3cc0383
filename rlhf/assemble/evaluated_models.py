"""The models that `evaluate.py` names: runs, Hugging Face models, and any other source of scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from rlhf.records import RecordError

if TYPE_CHECKING:
    from rlhf.data.part import SplitRecords
    from rlhf.evaluation.score_source import ScoreSource

FITTED_ON = 2000
"""Records that a foreign model's statistics are fitted on, at most."""


def check_names(entries: Sequence[Any], key: str) -> None:
    """Folders that are not there are said before anything is read. Raises RecordError."""
    from rlhf.models.names import missing_folder

    for entry in entries:
        if isinstance(entry, str) and (wrong := missing_folder(entry, key)):
            raise RecordError(wrong)


def own_config(entry: Any) -> DictConfig | None:
    """The configuration a run was trained with; None for anything else."""
    folder = Path(entry) if isinstance(entry, str) else Path()
    for place in (folder, folder.parent):
        path = place / ".hydra" / "config.yaml"
        if (
            isinstance(entry, str)
            and path.is_file()
            and (folder / "rlhf.json").is_file() == (place != folder)
        ):
            loaded = OmegaConf.load(path)
            return loaded if isinstance(loaded, DictConfig) else None
    return None


def check_split(entries: Sequence[Any]) -> None:
    """A run that was trained on another split may have learned from the prompts that are evaluated. Raises
    RecordError.
    """
    known = [(entry, own) for entry in entries if (own := own_config(entry)) is not None]
    for entry, own in known[1:]:
        for group in ("data", "split"):
            mine, first = (OmegaConf.to_container(c[group], resolve=True) for c in (own, known[0][1]))
            if mine != first:
                raise RecordError(
                    f"{entry} was trained with another {group} than {known[0][0]} and may have seen the prompts that "
                    "are evaluated: name data= that none of them was trained on"
                )


def learned(entries: Sequence[Any], prompts: Collection[str]) -> dict[str, int]:
    """How many prompts (`prompt_hash`) runs were trained on or chosen by: they read their data once more.

    Returns:
        `prompts_trained` and `prompts_validated`, over all runs together; nothing where no run brings its
        configuration, or where the data of one cannot be read any more.
    """
    from rlhf.data.part import PARTS, SplitRecords
    from rlhf.records import prompt_hash

    known = [own for entry in entries if (own := own_config(entry)) is not None]
    if not known:
        return {}
    found: dict[str, set[str]] = {name: set() for name in PARTS}
    try:
        for own in known:
            source, splitter = hydra.utils.instantiate(own.data), hydra.utils.instantiate(own.split)
            SplitRecords(source, splitter, "train")  # fits a splitter that needs it
            for record in source.records():
                if (key := prompt_hash(record.prompt)) in prompts:
                    found[splitter.split_of(record)].add(key)
    except (RecordError, OSError):
        return {}
    return {"prompts_trained": len(found["train"]), "prompts_validated": len(found["val"] - found["train"])}


def source_of(cfg: DictConfig, entry: Any, device: Any) -> ScoreSource:
    """A run's folder, a Hugging Face model, or the configuration of any other source."""
    if isinstance(entry, DictConfig):
        made: ScoreSource = hydra.utils.instantiate(entry, _convert_="all")
        return made
    import rlhf
    from rlhf.reward.scoring.score_source import RunSource, load_classifier

    path = Path(entry)
    name = path.parent.name if path.name == "model" else path.name
    if any((p / "rlhf.json").is_file() for p in (path, path / "model")):
        return RunSource(name, rlhf.load(entry, device=str(device), batch_tokens=cfg.batch_tokens))
    if (path / ".hydra").is_dir():
        raise RecordError(f"{entry} is a run without an exported model/: it did not come to its end")
    scorer, bias = load_classifier(
        entry, max_length=cfg.max_length, device=str(device), batch_tokens=cfg.batch_tokens
    )
    return RunSource(name, scorer, calibrated=False, bias=bias)


def name_apart(entries: Sequence[Any], sources: Sequence[ScoreSource]) -> None:
    """Different models whose folders have one name get a number: a report has one row per name."""
    taken: dict[str, str] = {}
    for entry, source in zip(map(str, entries), sources, strict=True):
        name, number = source.name, 1
        while taken.get(source.name, entry) != entry:
            number += 1
            source.name = f"{name} {number}"
        taken[source.name] = entry


def members_of(source: ScoreSource) -> tuple[str, ...]:
    """The names of the heads of one model, or its own."""
    from rlhf.reward.scoring.score_source import RunSource

    rows = source.scorer.model.head.weight.shape[0] if isinstance(source, RunSource) else 1
    return tuple(f"member {i}" for i in range(rows)) if rows > 1 else (source.name,)


def learn(source: ScoreSource, parts: Mapping[str, SplitRecords]) -> None:
    """Statistics of training states for a model that came without."""
    from rlhf.reward.scoring.score_source import RunSource

    if isinstance(source, RunSource) and source.reference is None:
        train, val = (list(islice(parts[name].records(), FITTED_ON)) for name in ("train", "val"))
        if train:
            source.fit_reference(train, val)
