"""`task=active`: configuration to objects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from rlhf.assemble.resume import folder_to_go_on_in
from rlhf.assemble.run import reward_run, run_folder, trainer_of
from rlhf.assemble.suggestions import CONF
from rlhf.record_types import RecordError

if TYPE_CHECKING:
    from rlhf.reward.training import RewardRun
    from rlhf.select.loop import ActiveRun
    from rlhf.select.world import World


def active_run(cfg: DictConfig) -> ActiveRun:
    """What `task=active` needs. Raises ValueError for a name in `task.compare_with` that is no selector."""
    from rlhf.select.loop import ActiveRun

    folder = folder_to_go_on_in(cfg, run_folder())
    voter = hydra.utils.instantiate(cfg.voter, _convert_="all")
    only_judged = cfg.task.only_judged
    if only_judged is None:
        only_judged = voter.holds_back
    return ActiveRun(
        folder=folder,
        trainer=trainer_of(cfg, folder, None, steps=0),
        world=_worlds(cfg, only_judged),
        selectors=_selectors(cfg),
        seeds=range(cfg.seed, cfg.seed + cfg.task.seeds),
        learner=_learner(cfg),
        voter=voter,
        aggregation=hydra.utils.instantiate(cfg.aggregation, _convert_="all"),
        plan=hydra.utils.instantiate(cfg.task.plan),
    )


def bought_run(cfg: DictConfig, *, folder: Path, source: Any) -> RewardRun:
    """A training run of the task `reward` in `folder` on records that say themselves in which split they are."""
    own = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    own.split = OmegaConf.load(CONF / "split" / "official.yaml")
    own.logger = OmegaConf.load(CONF / "logger" / "csv.yaml")
    own.aggregation = own.judged_by
    run: RewardRun = reward_run(own, folder=folder, source=source)  # type: ignore[arg-type]
    return run


def _learner(cfg: DictConfig) -> Any:
    """The learner; one that trains whole models is given the configuration to build their runs from."""
    learner = hydra.utils.instantiate(cfg.learner, _convert_="all")
    return replace(learner, build=partial(learner.build, cfg)) if "build" in cfg.learner else learner


def _selectors(cfg: DictConfig) -> dict[str, Any]:
    """The selector in question under its option's name, then those it is compared with, as their files have them."""
    name = HydraConfig.get().runtime.choices["selector"]
    found = {str(name): hydra.utils.instantiate(cfg.selector, _convert_="all")}
    for other in cfg.task.compare_with:
        path = CONF / "selector" / f"{other}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
            raise RecordError(f"task.compare_with names {other!r}: one of {known}")
        if other not in found:
            found[other] = hydra.utils.instantiate(OmegaConf.load(path), _convert_="all")
    return found


def _worlds(cfg: DictConfig, only_judged: bool) -> Callable[[int], World]:
    def world(seed: int) -> World:
        from rlhf.records import read
        from rlhf.select.world import build_world, skewed, with_policy

        moved = {"seed": cfg.split.seed + seed} if cfg.task.resplit and "seed" in cfg.split else {}
        built = build_world(
            hydra.utils.instantiate(cfg.data),
            hydra.utils.instantiate(cfg.split, **moved),
            hydra.utils.instantiate(cfg.features, _convert_="all"),
            hydra.utils.instantiate(cfg.judged_by, _convert_="all"),
            only_judged=only_judged,
        )
        if cfg.task.skew is not None:
            built = skewed(built, cfg.task.skew, seed)
        return built if cfg.task.policy is None else with_policy(built, read(Path(cfg.task.policy)))

    return world
