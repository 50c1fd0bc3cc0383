"""Configuration to objects: the only file that knows hydra and omegaconf.

Everything heavy is imported inside functions, so that a mistyped override answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

    from rlhf.data.datamodule import PreferenceData
    from rlhf.data.render import Renderer
    from rlhf.reward.module import RewardModule
    from rlhf.reward.training import RewardRun

CONF = Path(__file__).parent.parent / "conf"


def train(cfg: DictConfig) -> float:
    """`train.py`: build what the configuration names, hand it to the task, return the monitored metric."""
    import pytorch_lightning as pl
    import torch

    _quiet()
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    run = _reward_run(cfg)
    try:
        metrics: dict[str, float] = hydra.utils.instantiate(cfg.task)(run)
    finally:
        for logger in run.trainer.loggers:
            logger.finalize("success")
        _finish_wandb()
    if run.trainer.is_global_zero:
        print(f"run: {run.folder}", flush=True)
    if metrics.get("doctor/failed"):
        sys.exit(1)
    return metrics.get(cfg.monitor, float("nan"))


def _reward_run(cfg: DictConfig) -> RewardRun:
    from rlhf.reward.training import RewardRun

    folder = Path(HydraConfig.get().runtime.output_dir)
    checkpoint = _checkpoint(cfg, folder)
    maker = hydra.utils.instantiate(cfg.model)
    tokenizer = maker.tokenizer()
    data = _data(cfg, _renderer(cfg, tokenizer, maker))
    data.prepare_data()
    module = _module(cfg, maker, tokenizer)
    layout = hydra.utils.instantiate(cfg.layout)
    data.layout = layout(module.model.backbone, pad_id=tokenizer.pad_token_id, max_length=cfg.max_length)
    return RewardRun(
        folder=folder,
        data=data,
        module=module,
        trainer=_trainer(cfg, folder, checkpoint),
        monitor=cfg.monitor,
        checkpoint=checkpoint,
        bootstrap=cfg.bootstrap,
        seed=cfg.seed,
    )


def _renderer(cfg: DictConfig, tokenizer: Any, maker: Any) -> Renderer:
    from rlhf.data.render import Renderer
    from rlhf.reward.pretrained import positions

    known = positions(maker, tokenizer)
    if known is not None and cfg.max_length > known:
        raise ValueError(
            f"max_length={cfg.max_length}, but the model knows {known} positions: max_length={known}"
        )
    return Renderer(tokenizer, max_length=cfg.max_length, min_prompt=cfg.min_prompt)


def _data(cfg: DictConfig, renderer: Renderer) -> PreferenceData:
    from rlhf.data.datamodule import PreferenceData

    return PreferenceData(
        source=hydra.utils.instantiate(cfg.data),
        aggregation=hydra.utils.instantiate(cfg.aggregation),
        splitter=hydra.utils.instantiate(cfg.split),
        renderer=renderer,
        batch_size=cfg.batch_size,
        eval_batch_size=cfg.eval_batch_size,
        seed=cfg.seed,
        batch_tokens=cfg.batch_tokens,
        cache=Path(cfg.cache),
        workers=cfg.workers,
    )


def _module(cfg: DictConfig, maker: Any, tokenizer: Any) -> RewardModule:
    import torch

    from rlhf.reward.backbone import Backbone
    from rlhf.reward.model import RewardModel
    from rlhf.reward.module import RewardModule

    backbone = hydra.utils.instantiate(cfg.adapter.build)(Backbone(maker.carrier(tokenizer)))
    head = hydra.utils.instantiate(cfg.head, _convert_="all")(backbone.hidden_size)
    if cfg.compile:
        torch._dynamo.config.allow_unspec_int_on_nn_module = True
        backbone.compile()
    return RewardModule(
        RewardModel(backbone, head),
        loss=hydra.utils.instantiate(cfg.loss),
        optimizer=hydra.utils.instantiate(cfg.optimizer.build, _convert_="all"),
        schedule=hydra.utils.instantiate(cfg.scheduler),
        weight_decay=cfg.optimizer.weight_decay,
        centring_weight=cfg.centring,
    )


def _trainer(cfg: DictConfig, folder: Path, checkpoint: Path | None) -> Any:
    from pytorch_lightning.callbacks import EarlyStopping, LearningRateMonitor, TQDMProgressBar
    from pytorch_lightning.loggers import CSVLogger

    from rlhf.reward.checkpoint import KeepBest, KeepLast

    checkpoints = folder / "checkpoints"
    callbacks = [
        EarlyStopping(cfg.monitor, mode=cfg.monitor_mode, patience=cfg.patience),
        KeepBest(checkpoints, cfg.monitor, cfg.monitor_mode),
        KeepLast(checkpoints, cfg.save_every),
        LearningRateMonitor("step"),
    ]
    if cfg.trainer.enable_progress_bar:
        callbacks.append(TQDMProgressBar(refresh_rate=10))
    loggers = [CSVLogger(folder, name="", version="csv")]
    more: Logger | None = hydra.utils.instantiate(cfg.logger)(cfg=cfg, folder=folder, checkpoint=checkpoint)
    return hydra.utils.instantiate(
        cfg.trainer,
        default_root_dir=str(folder),
        max_epochs=cfg.epochs,
        val_check_interval=cfg.validate_every,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        enable_model_summary=False,
        callbacks=callbacks,
        logger=[*loggers, more] if more else loggers,
    )


def wandb_logger(
    *, cfg: DictConfig, folder: Path, checkpoint: Path | None, project: str, entity: str | None,
    offline: bool, tags: Sequence[str],
) -> Logger:  # fmt: skip
    """One W&B run per job; the jobs of a sweep share a group; a resumed job goes on in its own run."""
    import wandb
    from pytorch_lightning.loggers import WandbLogger

    from rlhf.reward.checkpoint import stored_wandb_id

    hydra_cfg = HydraConfig.get()
    sweep = hydra_cfg.mode == RunMode.MULTIRUN
    logger = WandbLogger(
        project=project,
        entity=entity,
        offline=offline,
        tags=list(tags),
        save_dir=str(folder),
        name=f"{hydra_cfg.job.num}:{folder.parent.name}" if sweep else folder.name,
        group=Path(hydra_cfg.sweep.dir).name if sweep else None,
        id=stored_wandb_id(checkpoint) or wandb.sdk.lib.runid.generate_id(),
        resume="allow",
        settings=wandb.Settings(silent=True),
    )
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    logger.log_hyperparams({**config, "overrides": list(hydra_cfg.overrides.task)})
    return logger


def no_logger(**_: object) -> None:
    """For `logger=csv`: nothing beside the CSV log."""


def _finish_wandb() -> None:
    """End this job's W&B run, so that the next job of a sweep gets its own."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()


def _checkpoint(cfg: DictConfig, folder: Path) -> Path | None:
    """The checkpoint to go on from, or None. Raises FileNotFoundError when there is none where `ckpt` says."""
    if cfg.ckpt is None:
        return None
    if cfg.ckpt != "last":
        given = Path(cfg.ckpt)
        path = given / "checkpoints" / "last.ckpt" if given.is_dir() else given
        if not path.is_file():
            raise FileNotFoundError(f"ckpt={cfg.ckpt}: no such checkpoint, nor a run folder with one")
        return path
    own = folder / "checkpoints" / "last.ckpt"
    if own.is_file():
        return own
    wanted = _comparable(cfg)
    found = sorted(
        Path(cfg.runs).glob("**/checkpoints/last.ckpt"), key=lambda p: p.stat().st_mtime, reverse=True
    )
    for path in found:
        config = path.parent.parent / ".hydra" / "config.yaml"
        if config.is_file() and _comparable(OmegaConf.load(config)) == wanted:  # type: ignore[arg-type]
            return path
    raise FileNotFoundError(f"ckpt=last: no run under {cfg.runs}/ with this configuration has a last.ckpt")


def _comparable(cfg: DictConfig) -> dict[str, Any]:
    """The settings that make two runs the same training, as plain values."""
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    return {
        k: v
        for k, v in plain.items()
        if k not in ("ckpt", "logger", "runs", "cache", "save_every", "threads")
    }


def _quiet() -> None:
    """Leave warnings that a user can act on; drop chatter about what this project does on purpose."""
    import logging
    import warnings

    from transformers.utils import logging as hf

    hf.set_verbosity_error()
    hf.disable_progress_bar()
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*The `srun` command is available.*")
    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # inside pytorch-lightning 2.6
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")


class Comparison(Callback):
    """Hydra callback: at the end of a sweep, one table over its jobs."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Write comparison.csv and comparison.md at the sweep's root."""
        from rlhf.judge.comparison import write_comparison

        for path in write_comparison(Path(config.hydra.sweep.dir)):
            print(f"comparison: {path}", flush=True)


@contextmanager
def suggestions(config_name: str) -> Iterator[None]:
    """When the command line names what does not exist, say what was probably meant."""
    try:
        yield
    except SystemExit as end:
        if end.code:
            for line in _suggest(config_name, sys.argv[1:]):
                print(line, file=sys.stderr)
        raise


def _suggest(config_name: str, arguments: Sequence[str]) -> Iterator[str]:
    overrides = [a for a in arguments if "=" in a and not a.startswith("-")]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        known = _keys(OmegaConf.to_container(hydra.compose(config_name), resolve=False))
        known += [p.name for p in CONF.iterdir() if p.is_dir()]
        groups = [o for o in overrides if (CONF / o.partition("=")[0]).is_dir() and "," not in o]
        sound = groups if _composes(config_name, groups) else []
        for override in overrides:
            if "," not in override and not _composes(config_name, [*sound, override]):
                key, _, value = override.lstrip("+~").partition("=")
                options = [p.stem for p in (CONF / key).glob("*.yaml")]
                close = get_close_matches(value if options else key, options or known, n=1)
                if close:
                    meant = f"{key}={close[0]}" if options else f"{close[0]}={value}"
                    yield f"\n{override}: did you mean {meant} ?"


def _composes(config_name: str, overrides: Sequence[str]) -> bool:
    try:
        hydra.compose(config_name, overrides=list(overrides))
    except HydraException:
        return False
    return True


def _keys(plain: Any, prefix: str = "") -> list[str]:
    found = [f"{prefix}{key}" for key in plain]
    for key, value in plain.items():
        found += _keys(value, f"{prefix}{key}.") if isinstance(value, dict) else []
    return found
