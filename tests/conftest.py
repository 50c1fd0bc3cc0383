"""Shared set-up: one torch thread (more are slower on busy machines), and small models that need no download."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # a pool of compilers costs more than these compile

import pytest
import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)
os.environ["RLHF_PRECISION"] = "32-true"  # whatever this machine computes fast
settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
CHROMIUM = "/usr/bin/chromium"


def pytest_collection_modifyitems(items):
    """What trains comes first, so that no process is left with a long file at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def exports_are_read_here():
    """`plain_check.py` reads an exported model in this process; one of its own costs more than the training did.

    Tests marked `fresh_process` keep that process. Yields what such a test sets to True.
    """
    start, kept = subprocess.run, {"fresh": False}

    def run(command, *arguments, **options):
        here = not kept["fresh"] and len(command) > 1 and Path(command[1]).name == "plain_check.py"
        return _plain_check(command) if here else start(command, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", run)
        yield kept


@pytest.fixture(autouse=True)
def _no_overview(request, monkeypatch):
    """A figure per training costs a second; tests marked `overview` draw it."""
    training = sys.modules.get("rlhf.reward.training")  # not loaded for its sake
    if training is not None and request.node.get_closest_marker("overview") is None:
        monkeypatch.setattr(training, "draw_overview", lambda *_: None)


def _plain_check(command):
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), torch.random.fork_rng():
            runpy.run_path(command[1])["main"](Path(command[2]))
    except (Exception, SystemExit) as error:
        return subprocess.CompletedProcess(command, 1, said.getvalue(), str(error))
    return subprocess.CompletedProcess(command, 0, said.getvalue(), "")


@pytest.fixture(autouse=True)
def _fresh_process(request, exports_are_read_here):
    exports_are_read_here["fresh"] = request.node.get_closest_marker("fresh_process") is not None
    yield
    exports_are_read_here["fresh"] = False


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data and models that lie beside a developer's checkout; tests that use them skip elsewhere."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared")
    return SHARED


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """`exported(seed, members=1)` is the exported folder of a random Llama with a byte tokenizer."""
    from functools import cache
    from unittest.mock import patch

    import numpy as np

    from rlhf.data.render import Renderer
    from rlhf.evaluation.metrics.calibration import Calibration
    from rlhf.evaluation.metrics.ood import fit_reference, with_typical
    from rlhf.models.backbone import Backbone
    from rlhf.models.heads import EnsembleHead, LinearHead
    from rlhf.models.pretrained import Tiny
    from rlhf.models.reward_model import RewardModel
    from rlhf.reward.export import export

    @cache
    def build(seed=0, members=1):
        model_source = Tiny(width=32, depth=2, seed=seed)
        tokenizer = model_source.tokenizer()
        head = LinearHead(32, seed=seed) if members == 1 else EnsembleHead(32, members=members, seed=seed)
        rng = np.random.default_rng(seed)
        states = rng.normal(size=(200, 32))
        pairs = np.arange(0, 200, 2), np.arange(1, 200, 2)
        reference = with_typical(fit_reference(states, rng.normal(size=200), *pairs, rng.normal(size=32)), states + 0.1)
        folder = tmp_path_factory.mktemp(f"exported-{seed}-{members}")
        calibration = Calibration(0.7, 0.2 + seed, 1.3, 100, 200, "hash")
        model = RewardModel(Backbone(model_source.classifier(tokenizer)), head)
        with patch("rlhf.reward.export.check"):  # a process per folder; tested where exporting is
            export(model, Renderer(tokenizer, max_length=512), folder, calibration, reference)
        return folder

    return build


@pytest.fixture(scope="session")
def policy(tmp_path_factory):
    """The folder of a random Llama as a causal model, with a byte tokenizer and a chat template."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    from rlhf.data.render import PLAIN_CAUSAL
    from rlhf.models.pretrained import Tiny

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("policy")
    tokenizer = Tiny().tokenizer()
    tokenizer.chat_template = PLAIN_CAUSAL
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


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


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """`sweep("loss=pairwise,ranking", ...)` runs train.py -m in this process and returns the sweep's folder."""
    from hydra.core.global_hydra import GlobalHydra

    import train as script

    def run(*overrides: str) -> Path:
        GlobalHydra.instance().clear()
        own = [f"hydra.sweep.dir={tmp_path}/sweep", f"runs={tmp_path}"]
        monkeypatch.setattr("sys.argv", ["train.py", "-m", *own, *overrides])
        monkeypatch.chdir(ROOT)
        script.main()
        return tmp_path / "sweep"

    return run


@pytest.fixture(scope="module")
def chromium():
    """Debian's Chromium without a screen; tests that use it skip where it is not installed."""
    if not os.path.exists(CHROMIUM):
        pytest.skip(f"needs {CHROMIUM}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
