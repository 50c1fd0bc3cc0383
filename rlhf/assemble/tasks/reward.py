"""`task=reward`, and what other tasks of `train.py` share with it: its data, its trainer, its folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from rlhf.assemble.loggers import keep_earlier
from rlhf.assemble.resume import checkpoint_to_go_on_from
from rlhf.assemble.schema.bounds import defaults_of
from rlhf.assemble.schema.commands import Trainer
from rlhf.records import RecordError

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

    from rlhf.data.datamodule import PreferenceData
    from rlhf.data.render import Renderer
    from rlhf.reward.module import RewardModule
    from rlhf.reward.training import RewardRun


def reward_run(
    cfg: DictConfig, *, folder: Path | None = None, source: Any = None, checkpoint: Path | None = None
) -> RewardRun:
    """What the tasks `reward` and `doctor` need.

    Args:
        cfg: of conf/train.yaml.
        folder: of the run; Hydra's own by default.
        source: records instead of those of the data group.
        checkpoint: to go on from, in a folder that is given.
    """
    import torch

    from rlhf.reward.pace import Pace
    from rlhf.reward.training import RewardRun

    own = folder or run_folder()
    checkpoint = checkpoint if folder else checkpoint_to_go_on_from(cfg, own)
    model_source = hydra.utils.instantiate(cfg.model)
    tokenizer = model_source.tokenizer()
    data = data_of(cfg, renderer_of(cfg, tokenizer, model_source), source=source)
    data.prepare_data()
    module = _module(cfg, model_source, tokenizer)
    choose = hydra.utils.instantiate(cfg.layout)
    backbone = module.model.backbone
    if cfg.trainer.accelerator != "cpu" and torch.cuda.is_available():
        backbone.cuda()  # so that the layout is tried where it will run
    layout = choose(backbone, pad_id=tokenizer.pad_token_id, max_length=cfg.max_length)
    data.layout = backbone.with_surface(layout)
    trainer = trainer_of(cfg, own, checkpoint)
    if folder is None:  # trainings inside another task are many
        trainer.callbacks.insert(0, Pace())  # before the progress bar
    return RewardRun(
        folder=own,
        data=data,
        module=module,
        trainer=trainer,
        monitor=cfg.trainer.monitor,
        checkpoint=checkpoint,
        bootstrap=cfg.bootstrap,
        seed=cfg.seed,
        states=Path(cfg.batches.cache) if cfg.adapter.get("cache_states") else None,
    )


def run_folder() -> Path:
    """Hydra's folder of this job."""
    return Path(HydraConfig.get().runtime.output_dir)


def renderer_of(cfg: DictConfig, tokenizer: Any, model_source: Any) -> Renderer:
    """Texts to tokens for the model that is trained. Raises ValueError where it knows fewer positions than asked."""
    from rlhf.data.render import Renderer
    from rlhf.models.pretrained import positions

    known = positions(model_source, tokenizer)
    if known is not None and cfg.max_length > known:
        raise RecordError(f"max_length={cfg.max_length}, but the model knows {known} positions: max_length={known}")
    return Renderer(tokenizer, max_length=cfg.max_length, min_prompt=cfg.batches.min_prompt)


def data_of(cfg: DictConfig, renderer: Renderer, *, source: Any = None, labels: Any = None) -> PreferenceData:
    """The data module; `labels` labels all splits instead of `aggregation` and `batches.eval_aggregation`.

    Such labels are about single records: those of a prompt are then not merged.
    """
    from rlhf.data.blocks import GroupLimits
    from rlhf.data.datamodule import PreferenceData
    from rlhf.data.prepare import Grouping
    from rlhf.data.weighing import prompts
    from rlhf.reward.module import weighing_of

    loss = hydra.utils.instantiate(cfg.task.get("loss") or cfg.loss)
    merge = cfg.merge and labels is None
    limits = GroupLimits(cfg.max_group, cfg.batches.batch_tokens) if merge else None

    return PreferenceData(
        source=source or hydra.utils.instantiate(cfg.data),
        aggregation=labels or hydra.utils.instantiate(cfg.aggregation, _convert_="all"),
        eval_aggregation=labels or hydra.utils.instantiate(cfg.batches.eval_aggregation, _convert_="all"),
        splitter=hydra.utils.instantiate(cfg.split),
        renderer=renderer,
        batch_size=cfg.batch_size,
        eval_batch_size=cfg.batches.eval_batch_size,
        seed=cfg.seed,
        batch_tokens=cfg.batches.batch_tokens,
        cache=Path(cfg.batches.cache),
        workers=cfg.batches.workers,
        augment=hydra.utils.instantiate(cfg.augment, _convert_="all"),
        grouping=Grouping(merge, limits),
        weighing=prompts if labels else weighing_of(loss, asked_weighing(cfg)),
    )


def asked_weighing(cfg: DictConfig) -> Any:
    """What counts once, by `batches.weighing`."""
    return hydra.utils.get_method(f"rlhf.data.weighing.{cfg.batches.weighing}")


def _module(cfg: DictConfig, model_source: Any, tokenizer: Any) -> RewardModule:
    import torch

    from rlhf.models.pretrained import backbone_of
    from rlhf.models.reward_model import RewardModel
    from rlhf.reward.module import RewardModule

    backbone = hydra.utils.instantiate(cfg.adapter.build)(backbone_of(model_source, tokenizer))
    head = hydra.utils.instantiate(cfg.head, _convert_="all")(backbone.hidden_size)
    if cfg.trainer.compile:
        torch._dynamo.config.allow_unspec_int_on_nn_module = True
        backbone.compile_layers()
    return RewardModule(
        RewardModel(backbone, head),
        loss=hydra.utils.instantiate(cfg.loss),
        optimizer=hydra.utils.instantiate(cfg.optimizer.build, _convert_="all"),
        schedule=hydra.utils.instantiate(cfg.scheduler),
        weight_decay=cfg.optimizer.weight_decay,
        centring_weight=cfg.optimizer.centring,
        weighing=asked_weighing(cfg),
    )


def trainer_of(cfg: DictConfig, folder: Path, checkpoint: Path | None, *, steps: int | None = None) -> Any:
    """The trainer: for `epochs`, keeping the best by `monitor` and stopping early, or for so many steps."""
    from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, TQDMProgressBar
    from pytorch_lightning.loggers import CSVLogger

    from rlhf.reward.checkpoint import KeepBest, KeepLast, better

    checkpoints, mode = folder / "checkpoints", better(cfg.trainer.monitor)
    stopping = [
        EarlyStopping(cfg.trainer.monitor, mode=mode, patience=cfg.trainer.patience),
        KeepBest(checkpoints, cfg.trainer.monitor, mode),
    ]
    callbacks = [
        *(stopping if steps is None else []),
        KeepLast(checkpoints, cfg.trainer.save_every),
        LearningRateMonitor("step"),
    ]
    if cfg.trainer.enable_progress_bar:
        callbacks.append(TQDMProgressBar(refresh_rate=10))
    keep_earlier(folder / "csv" / "metrics.csv")
    loggers = [CSVLogger(folder, name="", version="csv")]
    more: Logger | None = hydra.utils.instantiate(cfg.logger)(cfg=cfg, folder=folder, checkpoint=checkpoint)
    return hydra.utils.instantiate(
        cfg.trainer,
        precision=_precision(cfg, checkpoint),
        default_root_dir=str(folder),
        max_epochs=cfg.epochs if steps is None else -1,
        max_steps=-1 if steps is None else steps,
        val_check_interval=float(cfg.trainer.validate_every),  # a whole 1 would be one batch
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        callbacks=callbacks,
        logger=[*loggers, more] if more else loggers,
    )


def _precision(cfg: DictConfig, checkpoint: Path | None) -> str:
    """What is asked for; under `auto` what a resumed run had."""
    import torch

    if cfg.trainer.precision != "auto" or checkpoint is None:
        return str(cfg.trainer.precision)
    stored = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    return str(stored.get("precision", "32-true"))


def lightning_trainer(**options: Any) -> Any:
    """Lightning's trainer; the keys of the trainer group that are read above are passed over."""
    import pytorch_lightning as pl

    from rlhf.reward.precision import auto_precision

    if options.get("precision") == "auto":
        options["precision"] = auto_precision(options.get("accelerator", "auto"))
    return pl.Trainer(**{key: value for key, value in options.items() if key not in defaults_of(Trainer)})
