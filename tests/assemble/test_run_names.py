"""What a run's folder is called, and that W&B's logger says nothing that a user cannot act on."""

import subprocess
import sys

import hydra
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra.core.hydra_config import HydraConfig

from rlhf.assemble import CONF


@pytest.mark.parametrize(
    ("overrides", "ends"),
    [
        ([], "-soft_label-toy"),
        (["loss=ranking", "model=toy"], "-ranking-toy"),
        (["experiment=temperature"], "-study-temperature"),
        (["experiment=best_of_n"], "-study-best_of_n"),
        (["experiment=label_noise"], "-study-label_noise"),
        (["task=study"], "-study"),
    ],
)
def test_a_run_is_named_by_what_it_trains_or_by_its_study(overrides, ends, monkeypatch):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("train", overrides=overrides, return_hydra_config=True)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    HydraConfig.instance().set_config(cfg)
    _, _, time_and_name = cfg.hydra.run.dir.rpartition("/")
    assert time_and_name[len("00-00-00-000000") :] == ends


@pytest.mark.slow
def test_a_default_evaluation_prints_no_warning_of_wandb(root, tmp_path):
    rng, n = np.random.default_rng(0), 20
    table = {"prompt_id": [f"p{i}" for i in range(n)], "win_prob": rng.integers(0, 2, n).astype(float)}
    table |= {name: rng.normal(size=n) for name in ("reward_a", "reward_b")}
    table |= {name: rng.integers(1, 99, n) for name in ("chars_a", "chars_b")}
    pq.write_table(pa.table(table), tmp_path / "scores.parquet")
    done = subprocess.run(
        [sys.executable, "evaluate.py", f"scores={tmp_path}/scores.parquet", "bootstrap=10", f"runs={tmp_path}",
         f"hydra.run.dir={tmp_path}/report"], cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert list((tmp_path / "report" / "wandb").glob("offline-run-*"))
    assert "wandb" not in done.stderr
