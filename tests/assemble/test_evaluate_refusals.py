"""What `evaluate.py` refuses before work, and what it warns of."""

from types import SimpleNamespace

import pytest
from hydra import compose, initialize_config_dir

import rlhf.evaluation.red_team
import rlhf.records
from rlhf.assemble import CONF
from rlhf.assemble.evaluate import _red_team, evaluate
from rlhf.records import RecordError


def composed(command, *overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(command, overrides=list(overrides))


def test_an_empty_list_of_runs_is_refused():
    with pytest.raises(RecordError, match="run=<folder"):
        evaluate(composed("evaluate", "run=[]"))


@pytest.mark.parametrize(("part", "said"), [("test", True), ("train", False), ("all", False)])
def test_tasks_made_of_the_test_part_come_with_a_caution(part, said, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(rlhf.evaluation.red_team, "red_team", lambda *a, **k: iter(()))
    task = SimpleNamespace(part=part, probes={}, data=SimpleNamespace(records=lambda: iter(())))
    cfg = SimpleNamespace(red_team=str(tmp_path / "tasks.jsonl"), red_team_size=1, seed=0)
    _red_team(cfg, task, SimpleNamespace(evaluation=None))
    assert ("caution: these tasks are made of the test part" in capsys.readouterr().out) is said


@pytest.mark.parametrize("off", ["sections.accuracy=null", "sections=null"])
def test_a_report_without_its_accuracy_is_refused(off):
    with pytest.raises(RecordError, match=r"sections\.accuracy"):
        evaluate(composed("evaluate", "run=x", off))
