"""`task=active`: configuration to objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from rlhf.assemble.resume import folder_to_go_on_in
from rlhf.assemble.schema.options import option, option_names
from rlhf.assemble.tasks.reward import reward_run, run_folder, trainer_of
from rlhf.records import RecordError

if TYPE_CHECKING:
    from rlhf.reward.training import RewardRun
    from rlhf.select.loop.run import ActiveRun
    from rlhf.select.pool_builder import BuiltPool


DEFAULT = "one"
"""The option of `votes` that runs are not named after."""


def active_run(cfg: DictConfig) -> ActiveRun:
    """What `task=active` needs.

    Raises:
        RecordError: `task.compare_with` or `task.compare_votes` names what is no option.
    """
    from rlhf.select.loop.run import ActiveRun

    folder = folder_to_go_on_in(cfg, run_folder())
    label_source = hydra.utils.instantiate(cfg.label_source, _convert_="all")
    only_voted = cfg.task.only_voted
    if only_voted is None:
        only_voted = label_source.holds_back
    learner = hydra.utils.instantiate(cfg.learner, _convert_="all")
    selectors, plan = _selectors(cfg), hydra.utils.instantiate(cfg.task.plan)
    plans = {
        _named(next(iter(selectors)), name): replace(plan, votes=hydra.utils.instantiate(other))
        for name, other in _options(cfg.task.compare_votes, "votes").items()
    }
    others = {name: next(iter(selectors.values())) for name in plans}
    votes = str(HydraConfig.get().runtime.choices["votes"])
    selectors = {_named(name, votes): selector for name, selector in selectors.items()}
    return ActiveRun(
        folder=folder,
        trainer=trainer_of(cfg, folder, None, steps=0),
        pool_builder=_pool_builder(cfg, only_voted),
        selectors=selectors | others,
        seeds=range(cfg.seed, cfg.seed + cfg.task.seeds),
        learner=replace(learner, build=partial(learner.build, cfg)) if "build" in cfg.learner else learner,
        label_source=label_source,
        aggregation=hydra.utils.instantiate(cfg.aggregation, _convert_="all"),
        plan=plan,
        plans=plans,
        ceiling=cfg.task.ceiling,
    )


def labelled_run(cfg: DictConfig, *, folder: Path, source: Any) -> RewardRun:
    """A training run of the task `reward` in `folder` on records that say themselves in which split they are.

    It is one of many, and only its rewards are read: no export, no intervals.
    """
    own = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    own.split = option("split", "official")
    own.logger = option("logger", "csv")
    own.aggregation = own.batches.eval_aggregation
    own.bootstrap = 0
    run: RewardRun = reward_run(own, folder=folder, source=source)  # type: ignore[arg-type]
    return replace(run, export=False)


def _selectors(cfg: DictConfig) -> dict[str, Any]:
    """The selector in question under its option's name, then those it is compared with, as their files have them."""
    name = str(HydraConfig.get().runtime.choices["selector"])
    others = {other: own for other, own in _options(cfg.task.compare_with, "selector").items() if other != name}
    every = {name: cfg.selector} | others
    return {key: hydra.utils.instantiate(own, _convert_="all") for key, own in every.items()}


def _named(selector: str, votes: str) -> str:
    """The run's name: the selector, and the option of `votes` where it is not the default."""
    return selector if votes == DEFAULT else f"{selector}+{votes}"


def _options(names: Sequence[str], group: str) -> dict[str, Any]:
    """Name -> configuration of options of a group, as their files have them."""
    key, known = "compare_votes" if group == "votes" else "compare_with", option_names(group)
    if unknown := [name for name in names if name not in known]:
        raise RecordError(f"task.{key} names {unknown[0]!r}: one of {', '.join(known)}")
    return {name: option(group, name) for name in names}


def _pool_builder(cfg: DictConfig, only_voted: bool) -> Callable[[int], BuiltPool]:
    def build(seed: int) -> BuiltPool:
        from rlhf.records import read
        from rlhf.select.pool_builder import build_pool, skewed, with_policy

        moved = {"seed": cfg.split.seed + seed} if cfg.task.resplit and "seed" in cfg.split else {}
        built = build_pool(
            hydra.utils.instantiate(cfg.data),
            hydra.utils.instantiate(cfg.split, **moved),
            hydra.utils.instantiate(cfg.features, _convert_="all"),
            hydra.utils.instantiate(cfg.batches.eval_aggregation, _convert_="all"),
            only_voted=only_voted,
        )
        if cfg.task.skew is not None:
            built = skewed(built, cfg.task.skew, seed)
        return built if cfg.task.policy is None else with_policy(built, read(Path(cfg.task.policy)))

    return build
