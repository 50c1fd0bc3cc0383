"""`evaluate.py`: runs and data to a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from rlhf.assemble.loggers import finish_wandb, quiet
from rlhf.assemble.ranges import EVALUATE, check_ranges
from rlhf.data.part import PARTS
from rlhf.record_types import RecordError

if TYPE_CHECKING:
    from rlhf.annotate.label import Aggregation
    from rlhf.data.part import Part
    from rlhf.data.pool import Records
    from rlhf.judge.judging import Judging
    from rlhf.judge.report import Report
    from rlhf.judge.score_source import ScoreSource

FITTED_ON = 2000
"""Records that a foreign model's statistics are fitted on, at most."""


def evaluate(cfg: DictConfig) -> None:
    """Score the data, write the report, print the headline and where the report is.

    Raises:
        RecordError: no run, no data for a model that has none of its own, or numbers out of their range; the
            message says what to give.
    """
    check_ranges(cfg, EVALUATE)
    if cfg.part not in (None, *PARTS):
        raise RecordError(f"part={cfg.part}: one of {', '.join(PARTS)}")
    if cfg.scores is not None:
        _finish(cfg, _again(cfg))
        return
    if OmegaConf.is_missing(cfg, "run"):
        raise RecordError(
            "run=<folder of a run, or name or folder of a Hugging Face reward model>, or run=[a,b,c]"
        )
    _check_names(_listed(cfg.run), "run")
    _check_names(_listed(cfg.against), "against")
    quiet()
    import torch
    from lightning_fabric import Fabric

    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    strategy = "auto" if cfg.devices == 1 else "ddp"
    fabric = Fabric(accelerator=cfg.accelerator, devices=cfg.devices, strategy=strategy)
    fabric.launch()
    task = judging(cfg, fabric)
    report = task()
    fabric.barrier()
    if report is not None:
        _red_team(cfg, task, report)
        _finish(cfg, report)


def _red_team(cfg: DictConfig, task: Judging, report: Report) -> None:
    """With red_team=<file>: tasks for annotators where the model fails or is likely to, and hard prompts."""
    if cfg.red_team is None:
        return
    from rlhf.judge.red_team import hard_prompts, red_team
    from rlhf.records import write

    out = Path(cfg.red_team)
    prompts = out.with_name(f"{out.stem}.prompts.jsonl")
    found = red_team(report.judged, task.probes, each=cfg.red_team_size)
    count = write(out, found)
    write(
        prompts,
        hard_prompts(list(islice(task.data.records(), FITTED_ON)), each=cfg.red_team_size, seed=cfg.seed),
    )
    print(f"{count} tasks for annotators: {out}; prompts to be answered first: {prompts}")


def _again(cfg: DictConfig) -> Report:
    """A report of scores that are there already: no model, no texts, no torch."""
    if not OmegaConf.is_missing(cfg, "run") or cfg.get("data") is not None or cfg.against:
        raise RecordError("scores=<file> is judged as it is: leave out run=, against= and data=")
    from rlhf.judge.cached import cached
    from rlhf.judge.report import write_report

    judged = cached(cfg.scores, samples=cfg.bootstrap, seed=cfg.seed)
    made = hydra.utils.instantiate(cfg.sections, _convert_="all")
    found = [section for make in made.values() if (section := make(judged)) is not None]
    folder = Path(HydraConfig.get().runtime.output_dir)
    return write_report(folder, judged, found, f"{Path(cfg.scores).name}, part: {judged.part}")


def _finish(cfg: DictConfig, report: Report) -> None:
    """Log it, print the headline and where it is."""
    _log(cfg, report)
    from rlhf.judge.baselines import baseline_table

    print("\n" + baseline_table(report.metrics))
    print(f"report: {report.folder}", flush=True)


@dataclass(frozen=True)
class _Data:
    """The judged data in its parts, and the training part of the run itself where there is one."""

    parts: Mapping[str, Part]
    part: str
    about: str
    judge: Aggregation
    trained_on: Part | None


def judging(cfg: DictConfig, fabric: Any) -> Judging:
    """The task, built from the configuration."""
    from rlhf.judge.ensemble import Ensemble
    from rlhf.judge.judging import Judging

    runs = _listed(cfg.run)
    if cfg.get("data") is None:
        _one_split([*runs, *_listed(cfg.against)])
    data = _data(cfg, _own_config(runs[0]))  # before any model: what is wrong here is said at once
    sources = [_source(cfg, entry, fabric.device) for entry in runs]
    single = len(sources) == 1
    if data.part == "test":
        for source in sources:
            _learn(source, data.parts)
    others = [_source(cfg, entry, fabric.device) for entry in _listed(cfg.against)]
    _name_apart([*runs, *_listed(cfg.against)], [*sources, *others])
    made = {
        group: hydra.utils.instantiate(cfg[group], _convert_="all")
        for group in ("shifts", "shifted", "probes", "sections")
    }
    return Judging(
        folder=Path(HydraConfig.get().runtime.output_dir),
        source=sources[0] if single else Ensemble(sources, "ensemble"),
        member_names=tuple(s.name for s in sources) if not single else _members(sources[0]),
        others=[*others, *_bag_of_words(cfg, data)],
        data=data.parts[data.part],
        validation=data.parts["val"] if data.part == "test" else None,
        judge=data.judge,
        part=data.part,
        about=f"{data.about}; models: {', '.join(s.name for s in (*sources, *others))}",
        shifts=made["shifts"],
        shifted={**_held_apart(data), **made["shifted"]},
        probes=made["probes"],
        sections=made["sections"],
        changed=cfg.changed,
        block=cfg.block,
        samples=cfg.bootstrap,
        seed=cfg.seed,
        rank=fabric.global_rank,
        world=fabric.world_size,
        wait=fabric.barrier,
    )


def _listed(entries: Any) -> list[Any]:
    return list(entries) if isinstance(entries, ListConfig) else [entries]


def _check_names(entries: Sequence[Any], key: str) -> None:
    """Folders that are not there are said before anything is read. Raises ValueError."""
    from rlhf.reward.model_name import missing_folder

    for entry in entries:
        if isinstance(entry, str) and (wrong := missing_folder(entry, key)):
            raise RecordError(wrong)


def _one_split(entries: Sequence[Any]) -> None:
    """A run that was trained on another split may have learned from the prompts that are judged. Raises ValueError."""
    known = [(entry, own) for entry in entries if (own := _own_config(entry)) is not None]
    for entry, own in known[1:]:
        for group in ("data", "split"):
            mine, first = (OmegaConf.to_container(c[group], resolve=True) for c in (own, known[0][1]))
            if mine != first:
                raise RecordError(
                    f"{entry} was trained with another {group} than {known[0][0]} and may have seen the prompts that "
                    "are judged: name data= that none of them was trained on"
                )


def _own_config(entry: Any) -> DictConfig | None:
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


def _data(cfg: DictConfig, own: DictConfig | None) -> _Data:
    """The data that is named, else the run's own: `data=` uses all of it, a run's own its test part."""
    from rlhf.data.part import Part

    given = cfg.get("data") is not None
    if not given and own is None:
        raise RecordError(
            f"run={_listed(cfg.run)[0]} is no run here, and other models bring no data of their own: "
            "data=<importer> data.path=<file>"
        )
    config: Any = cfg if given else own
    source, splitter = hydra.utils.instantiate(config.data), hydra.utils.instantiate(config.split)
    part = cfg.part or ("all" if given else "test")
    parts = {part: Part(source, splitter, part)}
    parts |= {
        name: Part(source, splitter, name)
        for name in PARTS
        if name not in parts and (part == "test" or name == "all")
    }
    trained_on = parts.get("train")
    if given and own is not None:
        trained_on = Part(hydra.utils.instantiate(own.data), hydra.utils.instantiate(own.split), "train")
    judge = hydra.utils.instantiate(config.judged_by, _convert_="all")
    name = str(config.data.get("path") or config.data.get("hub") or config.data._target_.rpartition(".")[2])
    return _Data(parts, part, f"{Path(name).name}, part: {part}", judge, trained_on)


def _source(cfg: DictConfig, entry: Any, device: Any) -> ScoreSource:
    """A run's folder, a Hugging Face model, or the configuration of any other source."""
    if isinstance(entry, DictConfig):
        made: ScoreSource = hydra.utils.instantiate(entry, _convert_="all")
        return made
    import rlhf
    from rlhf.reward.run_source import RunSource, load_classifier

    path = Path(entry)
    name = path.parent.name if path.name == "model" else path.name
    if any((p / "rlhf.json").is_file() for p in (path, path / "model")):
        return RunSource(name, rlhf.load(entry, device=str(device)), batch_tokens=cfg.batch_tokens)
    if (path / ".hydra").is_dir():
        raise RecordError(f"{entry} is a run without an exported model/: it did not come to its end")
    scorer, bias = load_classifier(entry, max_length=cfg.max_length, device=str(device))
    return RunSource(name, scorer, calibrated=False, bias=bias, batch_tokens=cfg.batch_tokens)


def _name_apart(entries: Sequence[Any], sources: Sequence[ScoreSource]) -> None:
    """Different models whose folders have one name get a number: a report has one row per name."""
    taken: dict[str, str] = {}
    for entry, source in zip(map(str, entries), sources, strict=True):
        name, number = source.name, 1
        while taken.get(source.name, entry) != entry:
            number += 1
            source.name = f"{name} {number}"
        taken[source.name] = entry


def _members(source: ScoreSource) -> tuple[str, ...]:
    from rlhf.reward.run_source import RunSource

    rows = source.scorer.model.head.weight.shape[0] if isinstance(source, RunSource) else 1
    return tuple(f"member {i}" for i in range(rows)) if rows > 1 else (source.name,)


def _learn(source: ScoreSource, parts: Mapping[str, Part]) -> None:
    """Statistics of training states for a model that came without."""
    from rlhf.reward.run_source import RunSource

    if isinstance(source, RunSource) and source.reference is None:
        train, val = (list(islice(parts[name].records(), FITTED_ON)) for name in ("train", "val"))
        if train:
            source.fit_reference(train, val)


def _held_apart(data: _Data) -> dict[str, Records]:
    """Shifted sets that the data brings itself (the toy world does), cut to the prompts of the judged part."""
    from rlhf.data.part import Part

    judged = data.parts[data.part]
    sets: dict[str, Records] = getattr(judged.source, "shifts", dict)()
    if judged.splitter.needs_fit:  # it knows only the prompts it has read
        return sets
    return {name: Part(source, judged.splitter, data.part) for name, source in sets.items()}


def _bag_of_words(cfg: DictConfig, data: _Data) -> list[ScoreSource]:
    """The baseline, trained on what the run was trained on."""
    if not cfg.bag_of_words or data.trained_on is None:
        return []
    from rlhf.judge.bag_of_words import BagOfWords

    return [BagOfWords(data.trained_on.records(), data.judge)]


def _log(cfg: DictConfig, report: Report) -> None:
    """The report as a W&B run, where `logger=wandb`."""
    logger = hydra.utils.instantiate(cfg.logger)(cfg=cfg, folder=report.folder, checkpoint=None)
    if logger is not None:
        from rlhf.judge.report import log_to_wandb

        log_to_wandb(logger.experiment, report)
        finish_wandb()
