"""`evaluate.py`: runs and data to a report. The models may be runs, Hugging Face models, or other sources of scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from rlhf.assemble.aliases import stored_config, translated
from rlhf.assemble.checks.paths import check_benchmarks, check_criterion, check_data, listed
from rlhf.assemble.checks.renamed import refuse_old_names
from rlhf.assemble.loggers import finish_wandb, quiet
from rlhf.assemble.schema.bounds import check_ranges
from rlhf.assemble.schema.commands import Evaluate
from rlhf.data.splits import PARTS, SplitRecords
from rlhf.records import RecordError, prompt_hash

if TYPE_CHECKING:
    from rlhf.data.source import RecordStream
    from rlhf.evaluation.report.write import Report
    from rlhf.evaluation.run import EvaluationRun
    from rlhf.evaluation.score_source import ScoreSource
    from rlhf.labels.label import Aggregation


FITTED_ON = 2000
"""Records that the statistics of a foreign model are fitted on, at most."""
PAIRED_ONLY = "answers in no labelled pair are not in the file: length, rewards and best of n are without them"
"""What a file of scores cannot hold, on the page of its report."""
TEST_TASKS = (
    "caution: these tasks are made of the test part; training on their votes makes it no held-out test: "
    "red_team= with part=train, or with other data, gives tasks to train on"
)
"""Said where a red-team set is made of the prompts that models are evaluated on."""


def evaluate(cfg: DictConfig) -> None:
    """Score the data, write the report, print the main numbers and where the report is.

    Raises:
        RecordError: no run, no data for a model that has none of its own, or numbers out of their range; the
            message says what to give.
    """
    refuse_old_names(cfg, "evaluate")
    cfg = translated(cfg)
    check_ranges(cfg, Evaluate)
    if cfg.part not in (None, *PARTS):
        raise RecordError(f"part={cfg.part}: one of {', '.join(PARTS)}")
    check_red_team(cfg)
    if (cfg.sections or {}).get("accuracy") is None:
        raise RecordError(
            "the numbers that report.json must hold are of this section",
            key="sections.accuracy",
            remedy="leave it in; every other section can be null",
        )
    if cfg.scores is not None:
        _finish(cfg, _again(cfg))
        return
    if OmegaConf.is_missing(cfg, "run") or not listed(cfg.run):
        raise RecordError("run=<folder of a run, or name or folder of a Hugging Face reward model>, or run=[a,b,c]")
    check_names(listed(cfg.run), "run")
    check_names(listed(cfg.against), "against")
    check_data(cfg.get("data"))
    check_benchmarks(cfg)
    quiet()
    import torch
    from lightning_fabric import Fabric

    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    strategy = "auto" if cfg.devices == 1 else "ddp"
    fabric = Fabric(accelerator=cfg.accelerator, devices=cfg.devices, strategy=strategy)
    fabric.launch()
    task = evaluation_run(cfg, fabric)
    report = task()
    fabric.barrier()
    if report is not None:
        _red_team(cfg, task, report)
        _finish(cfg, report)


def check_red_team(cfg: DictConfig) -> None:
    """red_team= is said to be impossible before anything is read.

    Raises:
        RecordError: it is asked of scores without texts, or names a folder, or a file in a folder that is missing.
    """
    if cfg.red_team is None:
        return
    out = Path(cfg.red_team)
    if cfg.scores is not None:
        wrong = "scores=<file> holds no texts that annotators could be asked about"
        remedy = "evaluate the model itself, run=<folder>, or leave out red_team="
    elif out.is_dir():
        wrong, remedy = f"{out} is a folder", f"name a file: red_team={out}/tasks.jsonl"
    elif not out.parent.is_dir():
        wrong, remedy = f"{out} cannot be written: no folder {out.parent}", f"mkdir -p {out.parent}"
    else:
        return
    raise RecordError(wrong, key="red_team", remedy=remedy)


def _red_team(cfg: DictConfig, task: EvaluationRun, report: Report) -> None:
    """With red_team=<file>: tasks for annotators where the model fails or is likely to, and hard prompts."""
    if cfg.red_team is None:
        return
    from rlhf.evaluation.red_team import hard_prompts, red_team
    from rlhf.records import write

    out = Path(cfg.red_team)
    prompts = out.with_name(f"{out.stem}.prompts.jsonl")
    count = write(out, red_team(report.evaluation, task.probes, each=cfg.red_team_size))
    records = list(islice(task.data.records(), FITTED_ON))
    write(prompts, hard_prompts(records, each=cfg.red_team_size, seed=cfg.seed))
    print(f"{count} tasks for annotators: {out}; prompts to be answered first: {prompts}")
    if task.part == "test":
        print(TEST_TASKS)


def _again(cfg: DictConfig) -> Report:
    """A report of scores that are there already: no model, no texts, no torch."""
    if not OmegaConf.is_missing(cfg, "run") or cfg.get("data") is not None or cfg.against:
        raise RecordError("scores=<file> is evaluated as it is: leave out run=, against= and data=")
    from rlhf.evaluation.report.examples import read_examples
    from rlhf.evaluation.report.write import write_report

    evaluation = read_examples(cfg.scores, samples=cfg.bootstrap, seed=cfg.seed)
    found = [section for make in present(cfg.sections).values() if (section := make(evaluation)) is not None]
    folder = Path(HydraConfig.get().runtime.output_dir)
    about = f"{Path(cfg.scores).name}, part: {evaluation.part}; {PAIRED_ONLY}"
    return write_report(folder, evaluation, found, about)


def _finish(cfg: DictConfig, report: Report) -> None:
    """Log it as a W&B run where `logger=wandb`, print the main numbers and where it is."""
    from rlhf.evaluation.metrics.baselines import baseline_table

    logger = hydra.utils.instantiate(cfg.logger)(cfg=cfg, folder=report.folder, checkpoint=None)
    if logger is not None:
        from rlhf.evaluation.report.write import log_to_wandb

        log_to_wandb(logger.experiment, report)
        finish_wandb()

    print("\n" + baseline_table(report.metrics))
    print(f"report: {report.folder}", flush=True)


@dataclass(frozen=True)
class _Data:
    """The evaluated data in its parts, and the training part of the run itself where there is one."""

    parts: Mapping[str, SplitRecords]
    part: str
    about: str
    aggregation: Aggregation
    trained_on: SplitRecords | None


def evaluation_run(cfg: DictConfig, fabric: Any) -> EvaluationRun:
    """The task, built from the configuration."""
    from rlhf.evaluation.run import EvaluationRun
    from rlhf.evaluation.score_pass import Pass
    from rlhf.evaluation.score_source import Ensemble

    runs = listed(cfg.run)
    if cfg.get("data") is None:
        check_split([*runs, *listed(cfg.against)])
    data = _data(cfg, own_config(runs[0]))  # before any model: what is wrong here is said at once
    if cfg.get("data") is not None:
        check_criterion(data.parts[data.part].records(), cfg.eval_aggregation.get("criterion"))
    sources = [source_of(cfg, entry, fabric.device) for entry in runs]
    single = len(sources) == 1
    if data.part == "test":
        for source in sources:
            learn(source, data.parts)
    others = [source_of(cfg, entry, fabric.device) for entry in listed(cfg.against)]
    name_apart([*runs, *listed(cfg.against)], [*sources, *others])
    beside: list[ScoreSource] = []
    if cfg.bag_of_words and data.trained_on is not None:  # the baseline, trained on what the run was trained on
        from rlhf.evaluation.bag_of_words import BagOfWords

        beside.append(BagOfWords(data.trained_on.records(), data.aggregation))
    made = {group: present(cfg[group]) for group in ("shifts", "shifted", "probes", "sections")}
    scoring = Pass(
        sources[0] if single else Ensemble(sources, "ensemble"),
        data.aggregation,
        [*others, *beside],
        perturbed_records=cfg.perturbed_records,
        block=cfg.block,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
    )
    return EvaluationRun(
        folder=Path(HydraConfig.get().runtime.output_dir),
        scoring=scoring,
        data=data.parts[data.part],
        member_names=members_of(sources[0]) if single else tuple(s.name for s in sources),
        sections=made["sections"],
        validation=data.parts["val"] if data.part == "test" else None,
        about=f"{data.about}; models: {', '.join(s.name for s in (*sources, *others))}",
        part=data.part,
        shifts=made["shifts"],
        shifted={**_held_apart(data), **made["shifted"]},
        probes=made["probes"],
        learned=partial(learned, [*runs, *listed(cfg.against)]),
        samples=cfg.bootstrap,
        seed=cfg.seed,
        wait=fabric.barrier,
    )


def present(group: DictConfig | None) -> dict[str, Any]:
    """What a group names, built; null leaves out one entry, or all of them."""
    made = hydra.utils.instantiate(group, _convert_="all") or {}
    return {name: entry for name, entry in made.items() if entry is not None}


def split_records(config: DictConfig, part: str) -> SplitRecords:
    """One part of the data that a configuration names; a splitter that needs it is fitted."""
    source, splitter = hydra.utils.instantiate(config.data), hydra.utils.instantiate(config.split)
    return SplitRecords(source, splitter, part)


def _data(cfg: DictConfig, own: DictConfig | None) -> _Data:
    """The data that is named, else the run's own: `data=` uses all of it, a run's own its test part."""
    given = cfg.get("data") is not None
    if not given and own is None:
        raise RecordError(
            f"run={listed(cfg.run)[0]} is no run here, and other models bring no data of their own: "
            "data=<importer> data.path=<file>"
        )
    config: Any = cfg if given else own
    part = cfg.part or ("all" if given else "test")
    evaluated = split_records(config, part)
    further = PARTS if part == "test" else ("all",)
    parts = {name: SplitRecords(evaluated.source, evaluated.splitter, name) for name in further if name != part}
    trained_on = parts.get("train")
    if given and own is not None:
        trained_on = split_records(own, "train")
    labels = cfg if given else config.batches
    aggregation = hydra.utils.instantiate(labels.eval_aggregation, _convert_="all")
    name = str(config.data.get("path") or config.data.get("hub") or config.data._target_.rpartition(".")[2])
    return _Data({part: evaluated, **parts}, part, f"{Path(name).name}, part: {part}", aggregation, trained_on)


def _held_apart(data: _Data) -> dict[str, RecordStream]:
    """Shifted sets that the data brings itself (the toy world does), cut to the prompts of the evaluated part."""
    evaluated = data.parts[data.part]
    sets: dict[str, RecordStream] = getattr(evaluated.source, "shifts", dict)()
    if evaluated.splitter.needs_fit:  # it knows only the prompts it has read
        return sets
    return {name: SplitRecords(source, evaluated.splitter, data.part) for name, source in sets.items()}


def check_names(entries: Sequence[Any], key: str) -> None:
    """Folders that are not there are said before anything is read. Raises RecordError."""
    from rlhf.models.names import missing_folder

    for entry in entries:
        if isinstance(entry, str) and (wrong := missing_folder(entry, key)):
            raise RecordError(wrong)


def own_config(entry: Any) -> DictConfig | None:
    """The configuration a run was trained with; None for anything else."""
    if not isinstance(entry, str):
        return None
    folder = Path(entry)
    for place in (folder, folder.parent):
        path = place / ".hydra" / "config.yaml"
        if path.is_file() and (folder / "rlhf.json").is_file() == (place != folder):
            loaded = stored_config(path)
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
    known = [own for entry in entries if (own := own_config(entry)) is not None]
    if not known:
        return {}
    found: dict[str, set[str]] = {name: set() for name in PARTS}
    try:
        for own in known:
            data = split_records(own, "train")
            for record in data.source.records():
                if (key := prompt_hash(record.prompt)) in prompts:
                    found[data.splitter.split_of(record)].add(key)
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
    scorer, bias = load_classifier(entry, max_length=cfg.max_length, device=str(device), batch_tokens=cfg.batch_tokens)
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
