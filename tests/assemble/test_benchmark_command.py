"""Benchmarks, implicit rewards and judges through `evaluate.py`: one command, one report."""

import json
from pathlib import Path

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig

import evaluate as script
from rlhf.evaluation.benchmarks import BenchmarkSection
from rlhf.models.pretrained import Tiny

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "evaluation" / "benchmarks" / "golden"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a random reward model, a random policy, and what the policy moved away from."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = Tiny().tokenizer()
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    for seed, name in enumerate(("reward", "policy", "reference")):
        torch.manual_seed(seed)
        config = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, **size, **ids)
        kind = AutoModelForSequenceClassification if name == "reward" else AutoModelForCausalLM
        kind.from_config(config).save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root


@pytest.mark.parametrize("name", ["rewardbench", "rewardbench2", "rm_bench", "llmbar"])
def test_every_benchmark_becomes_a_section(name):
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = hydra.compose("evaluate", overrides=["run=x", f"benchmark={name}"])
    sections = hydra.utils.instantiate(cfg.sections, _convert_="all")
    assert list(sections)[-1] == name
    assert isinstance(sections[name], BenchmarkSection)
    assert sections[name].name == name


def test_several_benchmarks_at_once():
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = hydra.compose("evaluate", overrides=["run=x", "benchmark=[llmbar,rm_bench]"])
    assert {"llmbar", "rm_bench", "best_of_n"} <= set(cfg.sections)


@pytest.mark.slow
def test_a_reward_model_an_implicit_reward_and_a_judge_stand_in_one_report(models, tmp_path, monkeypatch, capsys):
    GlobalHydra.instance().clear()
    implicit = (
        "{_target_:rlhf.optimise.direct.implicit_reward.load_implicit,"
        f"policy:{models}/policy,reference:{models}/reference,name:dpo,max_length:128}}"
    )
    judge = (
        "{_target_:rlhf.evaluation.llm_judge_source.JudgeSource,name:judge,"
        f"judge:{{_target_:rlhf.annotate.judges.LocalJudge,path:{models}/policy}}}}"
    )
    monkeypatch.setattr(
        "sys.argv",
        [
            "evaluate.py",
            f"run={models}/reward",
            f"against=[{implicit},{judge}]",
            "benchmark=llmbar",
            "logger=csv",
            "data=llmbar_pairs",
            f"data.path={GOLDEN}/LLMBar",
            f"hydra.run.dir={tmp_path}",
            "bootstrap=20",
            "perturbed_records=2",
        ],
    )
    monkeypatch.chdir(ROOT)
    script.main()
    assert capsys.readouterr().out.rstrip().endswith(f"report: {tmp_path}")
    report = json.loads((tmp_path / "report.json").read_text())
    for model in ("", "others/dpo/", "others/judge/", "baseline/length/"):
        assert 0 <= report[f"{model}llmbar/score"] <= 1
    assert report["llmbar/n"] == report["n_pairs"] == 8
    assert {"model/dpo/pair_accuracy", "model/dpo/nll", "model/judge/nll", "model/reward/nll"} <= set(report)
    assert "best_of_n/2/dpo" in report
    text = (tmp_path / "report.html").read_text()
    assert "Best of n" in text
    assert "the longer answer" in text
