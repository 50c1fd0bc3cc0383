"""benchmarks/select_pool.py: what was measured at other sizes is kept, unless it was measured with other settings."""

import json

import pytest
import select_pool


@pytest.mark.parametrize(("budget", "sizes"), [(5, ["600", "900"]), (6, ["600"])])
@pytest.mark.slow
def test_other_sizes_stay_if_the_settings_are_the_same(tmp_path, monkeypatch, budget, sizes):
    monkeypatch.setattr(select_pool, "RESULTS", tmp_path)
    monkeypatch.setattr(select_pool, "WAYS", {"random": select_pool.at_random})
    monkeypatch.setattr(select_pool, "_in_a_process", lambda way, size, options: {"failed": f"{way} {size}"})
    for size, of in ((900, 5), (600, budget)):
        command = f"select_pool.py --sizes {size} --width 4 --budget {of} --threads 1"
        monkeypatch.setattr("sys.argv", command.split())
        select_pool.main()
    found = json.loads((tmp_path / "select_pool.json").read_text())
    assert found["settings"] == {"width": 4, "budget": budget, "threads": 1}
    assert found["ways"] == {"random": {size: {"failed": f"random {size}"} for size in sizes}}
    assert list(found["ways"]["random"]) == sizes
    assert (tmp_path / "select_pool.png").stat().st_size > 5_000


def test_the_figure_draws_every_way_that_was_measured(tmp_path):
    cells = {"1000000": {"cpu_seconds": 4.0}, "10000": {"cpu_seconds": 0.1}, "100000": {"failed": "killed"}}
    assert select_pool.points(cells) == ([10_000, 1_000_000], [0.1, 4.0])
    drawn = [name for names in select_pool.PANELS.values() for name in names]
    assert sorted(drawn) == sorted(select_pool.WAYS)
    assert set(select_pool.RIVALS) <= set(drawn)
