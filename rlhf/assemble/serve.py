"""`python -m rlhf.serve`: a run, served."""

import logging
import signal
import socket
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from rlhf.assemble.aliases import translated
from rlhf.assemble.loggers import quiet
from rlhf.assemble.schema.bounds import check_ranges
from rlhf.assemble.schema.commands import Serve
from rlhf.assemble.schema.options import CONF
from rlhf.records import RecordError

LEVELS = ("debug", "info", "warning", "error", "critical")


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="serve")
def serve_command(cfg: DictConfig) -> None:
    """See conf/serve.yaml."""
    serve(cfg)


def serve(cfg: DictConfig) -> None:
    """Load the run and serve it until SIGINT or SIGTERM; requests that were begun are finished.

    Raises:
        SystemExit: no run, numbers out of their range, no such level of the log or device,
            an address that is taken, or a missing extra; with the remedy.
    """
    cfg = translated(cfg)
    try:
        check_ranges(cfg, Serve)
    except RecordError as error:
        raise SystemExit(str(error)) from error
    if str(cfg.log_level).lower() not in LEVELS:
        raise SystemExit(f"log_level={cfg.log_level}: one of {', '.join(LEVELS)}")
    folder = _folder(cfg)
    listener = _listener(cfg.host, cfg.port)
    try:
        import uvicorn

        from rlhf.serve.web import Service, app
    except ImportError as error:
        raise SystemExit(f"the service needs: pip install 'preference-reward-models[serve]' ({error})") from error
    import torch

    import rlhf

    quiet()
    logging.basicConfig(level=str(cfg.log_level).upper(), format="%(asctime)s %(levelname)s %(message)s", force=True)
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    scorer = rlhf.load(folder, device=usable(cfg.device), batch_tokens=cfg.batch_tokens)
    service = Service(scorer, hydra.utils.instantiate(cfg.limits))
    config = uvicorn.Config(
        app(service), log_config=None, access_log=False, timeout_graceful_shutdown=cfg.shutdown_seconds,
        log_level="warning",
    )  # fmt: skip
    host, port = listener.getsockname()[:2]
    for wanted in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again once it has finished
        signal.signal(wanted, lambda *_: None)
    print(f"serving: http://{host}:{port}", flush=True)
    uvicorn.Server(config).run(sockets=[listener])
    print("stopped", flush=True)


def _folder(cfg: DictConfig) -> Path:
    if OmegaConf.is_missing(cfg, "run"):
        raise SystemExit("run: which reward model? run=<folder of a run, or its exported model/>")
    folder = Path(cfg.run)
    if not any((place / "rlhf.json").is_file() for place in (folder, folder / "model")):
        raise SystemExit(f"run: {folder} holds no exported reward model (no rlhf.json here or in model/)")
    return folder


def _listener(host: str, port: int) -> socket.socket:
    """A bound socket, so that a taken port is reported before the model is loaded."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise SystemExit(f"host, port: {host}:{port}: {error.strerror} (port=0 takes a free one)") from error
    return listener


def usable(name: str) -> str:
    """The device's name, after a try. Raises SystemExit with the reason where it does not work."""
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SystemExit(f"device: {name!r} is not usable here: {reason} (device=cpu)") from error
    return name
