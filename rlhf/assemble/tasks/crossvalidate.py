"""`task=crossvalidate`: configuration to a cross-validation."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from rlhf.assemble.resume import folder_to_go_on_in
from rlhf.assemble.schema.options import CONF
from rlhf.assemble.tasks.reward import renderer_of, reward_run, run_folder, trainer_of
from rlhf.records import RecordError

if TYPE_CHECKING:
    from rlhf.reward.crossvalidation import CrossValidationRun
    from rlhf.reward.training import RewardRun


def check_folds(cfg: DictConfig) -> None:
    """Raises RecordError for another split."""
    if not cfg.split._target_.endswith(".FoldSplit"):
        remedy = "split=folds split.k=5 split.key=prompt|domain|<key of meta>"
        raise RecordError("task=crossvalidate needs folds", key="split", remedy=remedy)


def crossvalidate_run(cfg: DictConfig) -> "CrossValidationRun":
    """What `task=crossvalidate` needs."""
    from rlhf.reward.crossvalidation import CrossValidationRun

    folder = folder_to_go_on_in(cfg, run_folder(), leaves="folds")
    source, splitter = hydra.utils.instantiate(cfg.data), hydra.utils.instantiate(cfg.split)
    splitter.fit(source.records())
    model_source = hydra.utils.instantiate(cfg.model)
    known = OmegaConf.load(CONF / "evaluate.yaml").sections
    return CrossValidationRun(
        folder=folder,
        build=partial(fold_run, cfg),
        splitter=splitter,
        records=source,
        aggregation=hydra.utils.instantiate(cfg.batches.eval_aggregation, _convert_="all"),
        renderer=renderer_of(cfg, model_source.tokenizer(), model_source),
        sections={name: hydra.utils.instantiate(known[name]) for name in cfg.task.sections},
        trainer=trainer_of(cfg, folder, None, steps=0),
        samples=cfg.bootstrap,
        seed=cfg.seed,
    )


def fold_run(cfg: DictConfig, fold: int, folder: Path) -> "RewardRun":
    """The training run of a fold, from its last checkpoint where it was stopped."""
    own: Any = OmegaConf.merge(cfg, {"split": {"fold": fold}, "ckpt": None})
    last = folder / "checkpoints" / "last.ckpt"
    run = reward_run(own, folder=folder, checkpoint=last if last.is_file() else None)
    run.export, run.keep_scores = False, True
    return run
