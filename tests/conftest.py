"""Shared set-up: one torch thread (more are slower on busy machines), and small models that need no download."""

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data and models that lie beside a developer's checkout; tests that use them skip elsewhere."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared")
    return SHARED


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """`train("loss=ranking", ...)` runs train.py in this process on a small toy set and returns the run's folder."""
    from hydra.core.global_hydra import GlobalHydra

    import train as script

    def run(*overrides: str, folder: Path | None = None) -> Path:
        GlobalHydra.instance().clear()
        out = folder or tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        small = [
            f"runs={tmp_path}/runs", f"hydra.run.dir={out}", "logger=csv", "trainer.enable_progress_bar=false",
            "data.size=200", "epochs=1", "bootstrap=20", "model.width=32", "model.depth=1", "max_length=256",
        ]  # fmt: skip
        chosen = {o.split("=")[0] for o in overrides}
        kept = [s for s in small if s.split("=")[0] not in chosen]
        if any(o.startswith("data=") for o in overrides):
            kept.remove("data.size=200")
        if any(o.startswith("model=") for o in overrides):
            kept = [k for k in kept if not k.startswith("model.")]
        monkeypatch.setattr("sys.argv", ["train.py", *kept, *overrides])
        monkeypatch.chdir(ROOT)
        script.main()
        return out

    return run
