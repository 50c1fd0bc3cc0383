"""benchmarks/rl_overoptimisation.py: stored results are not written over by a smaller run, every world is kept."""

import json

import numpy as np
import pytest
import rl_overoptimisation as benchmark


def small(monkeypatch, folder, command):
    monkeypatch.setattr(benchmark, "RESULTS", folder / "results")
    monkeypatch.setattr(benchmark, "AGGREGATES", {"mean": benchmark.mean})
    monkeypatch.setattr(benchmark, "NS", 2 ** np.arange(3))
    monkeypatch.setattr(benchmark, "BETAS", (0.0, 1.0))
    monkeypatch.setattr(benchmark, "draw", lambda path: path.write_text("drawn"))
    curve = benchmark.rl_curve
    monkeypatch.setattr(benchmark, "rl_curve", lambda *a, steps, **more: curve(*a, steps=8, **more))
    monkeypatch.setattr("sys.argv", ["rl_overoptimisation.py", *command])
    benchmark.main()


def test_another_number_of_worlds_goes_into_a_file_of_its_own(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        small(monkeypatch, tmp_path, ["--seeds", "2"])
    assert "--out <file>.json" in capsys.readouterr().err
    small(monkeypatch, tmp_path, ["--seeds", "2", "--out", str(tmp_path / "own" / "quick.json")])
    assert not (tmp_path / "results").exists()
    assert (tmp_path / "own" / "quick.png").is_file()
    found = json.loads((tmp_path / "own" / "quick.json").read_text())
    assert list(found["worlds"]) == ["0", "1"]
    for beta, own in found["worlds"].items():
        assert {"start_gold", "peak_gold", "end_gold", "end_kl"} == set(own)
        for name, values in own.items():
            assert len(values) == 2
            assert found["beta"][beta][name][0] == pytest.approx(np.mean(values))
        assert all(p >= max(a, b) for a, p, b in zip(own["start_gold"], own["peak_gold"], own["end_gold"], strict=True))
