"""`evaluate.py` from the command line to the files of the report."""

import io
import json
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import hydra
import numpy as np
import pyarrow.parquet as pq
import pytest
from jsonschema import Draft202012Validator
from omegaconf import OmegaConf

import rlhf
from rlhf.assemble import CONF
from rlhf.assemble.evaluate import name_apart, present
from rlhf.records import prompt_hash, write
from rlhf.toy.world import ToyWorld

pytestmark = pytest.mark.slow
QUICK = ["logger=csv", "bootstrap=100", "perturbed_records=40"]
SMALL = ["data.size=300", "epochs=1", "bootstrap=100", "model.width=32", "model.depth=1", "max_length=256",
         "logger=csv", "trainer.enable_progress_bar=false", "split.test=0.2"]  # fmt: skip


def call(root, script, *arguments) -> str:
    """The script's main in this process (importing torch anew takes longer than the report); what it prints."""
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        patch.setattr(sys, "argv", [f"{script}.py", *arguments])
        patch.chdir(root)
        try:
            import_module(script).main()
        except SystemExit:
            return "failed: " + said.getvalue()
    return said.getvalue()


@pytest.fixture(scope="module")
def runs(root, tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        call(root, "train", f"runs={folder}", f"hydra.run.dir={folder}/s{seed}", f"seed={seed}", "split.seed=0", *SMALL)
    return [folder / "s0", folder / "s1"]


@pytest.fixture(scope="module")
def ensemble(root, runs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "r"
    said = call(root, "evaluate", f"run=[{runs[0]},{runs[1]}]", f"hydra.run.dir={folder}", *QUICK)
    assert said.splitlines()[-1] == f"report: {folder}"
    return folder


def numbers(folder: Path) -> dict[str, float]:
    return json.loads((folder / "report.json").read_text())


def test_the_numbers_fit_the_schema_and_the_contract(root, ensemble):
    found = numbers(ensemble)
    schema = json.loads((root / "rlhf" / "evaluation" / "report" / "templates" / "report.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    assert not [e.message for e in Draft202012Validator(schema).iter_errors(found)]
    for key in ("pair_accuracy/ci_low", "pair_accuracy/ci_high", "pair_accuracy/longer_won",
                "pair_accuracy/shorter_won", "baseline/bag_of_words", "ceiling/annotators", "spearman", "kendall",
                "top1", "ndcg", "length/spearman", "members/error_correlation", "compare/s0/s1/p",
                "selective/margin/aurc", "probe/flattery/effect", "model/s0/ece/ci_high"):  # fmt: skip
        assert key in found, key
    for shift in ("held_out", "truncated", "shuffled", "other_sampler", "long"):
        for detector in ("mahalanobis", "laplace", "ensemble", "energy", "length"):
            assert 0 <= found[f"ood/{shift}/{detector}/auroc"] <= 1
        assert 0 <= found[f"ood/{shift}/ece"] <= 1
    assert found["probe/swapped/largest"] < 1e-4
    assert list(found) == sorted(found)
    broken = found | {"pair_accuracy": 1.5, "n_pairs": 0}
    assert len(list(Draft202012Validator(schema).iter_errors(broken))) == 2


def test_the_page_needs_nothing_from_elsewhere_and_shows_every_figure(ensemble):
    page = (ensemble / "report.html").read_text()
    outside = [u for u in re.findall(r'(?:src|href)="([^"]*)"', page) if not u.startswith(("data:", "#"))]
    assert all((ensemble / path).exists() for path in outside), "only files beside the page"
    assert not any(":" in path or path.startswith("/") for path in outside)
    assert "<script" not in page
    assert "@import" not in page
    figures = list((ensemble / "figures").glob("*.png"))
    assert len(figures) == page.count("<img ") >= 10
    assert all('alt="' in tag for tag in re.findall(r"<img [^>]*>", page))


def test_examples_reproduce_the_accuracy(ensemble):
    table, found = pq.read_table(ensemble / "examples.parquet"), numbers(ensemble)
    assert table.num_rows == found["n_pairs"]
    margin, share = (np.asarray(table[name]) for name in ("margin", "win_prob"))
    decided = np.abs(share - 0.5) > 1e-6
    right = np.where(margin == 0, 0.5, (margin > 0) == (share > 0.5))[decided]
    assert right.mean() == pytest.approx(found["pair_accuracy"])
    p = 1 / (1 + np.exp(-margin / found["temperature"]))
    np.testing.assert_allclose(np.asarray(table["p_calibrated"]), p, atol=1e-9)
    for name in ("prompt_hash", "domain", "annotators", "members_a", "ens_std", "mahalanobis_a", "tokens_b", "part"):
        assert table[name].null_count == 0, name


def test_a_run_evaluated_on_its_own_test_gives_the_numbers_of_its_training(root, runs, tmp_path):
    call(root, "evaluate", f"run={runs[0]}", f"hydra.run.dir={tmp_path}/r", *QUICK)
    found, trained = numbers(tmp_path / "r"), json.loads((runs[0] / "metrics.json").read_text())
    for key in ("pair_accuracy", "nll", "brier", "ece", "baseline/length", "spearman", "n_pairs", "n_prompts"):
        assert found[key] == pytest.approx(trained[f"test/{key}"], abs=1e-5), key


def test_two_processes_give_the_bytes_of_one(root, runs, tmp_path):
    """65 records, blocks of 64: one process gets 64, the other the last one."""
    data = tmp_path / "65.jsonl"
    write(data, ToyWorld(size=65, seed=5).records())
    common = [f"run={runs[0]}", "data=jsonl", f"data.path={data}", "block=64", "perturbed_records=10", *QUICK[:2]]
    call(root, "evaluate", *common, f"hydra.run.dir={tmp_path}/one")
    both = [sys.executable, "evaluate.py", *common, "devices=2", f"hydra.run.dir={tmp_path}/two"]
    done = subprocess.run(both, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("report: ") == 1
    for name in ("report.json", "report.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert "65 records were read" in (tmp_path / "two" / "report.html").read_text()


def test_a_plain_hugging_face_folder_gets_the_accuracy_of_the_run_it_is_and_detectors_of_its_own(root, runs, tmp_path):
    plain = tmp_path / "plain"
    kept = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    plain.mkdir()
    for name in kept:
        shutil.copy(runs[0] / "model" / name, plain)
    out = tmp_path / "r"
    arguments = ["data=toy", "data.size=300", "split.test=0.2", "part=test", "max_length=256", f"against=[{runs[1]}]"]
    call(root, "evaluate", f"run={plain}", *arguments, f"hydra.run.dir={out}", *QUICK)
    found, trained = numbers(out), json.loads((runs[0] / "metrics.json").read_text())
    assert found["pair_accuracy"] == pytest.approx(trained["test/pair_accuracy"], abs=1e-5)
    assert found["nll"] < trained["test/nll_uncalibrated"] + 0.05  # its temperature was fitted on validation
    assert "ood/held_out/mahalanobis/auroc" in found
    assert "compare/plain/s1/p" in found


def test_the_bag_of_words_reads_the_training_part_and_nothing_else(root, runs, tmp_path, monkeypatch):
    from rlhf.evaluation import bag_of_words

    read = []
    real = bag_of_words.BagOfWords.__init__

    def spy(self, records, aggregation):
        read.extend(records)
        real(self, read, aggregation)

    monkeypatch.setattr(bag_of_words.BagOfWords, "__init__", spy)
    call(root, "evaluate", f"run={runs[0]}", f"hydra.run.dir={tmp_path}/r", *QUICK)
    evaluated = set(pq.read_table(tmp_path / "r" / "examples.parquet")["prompt_hash"].to_pylist())
    seen = {prompt_hash(r.prompt) for r in read}
    split = hydra.utils.instantiate(OmegaConf.load(runs[0] / ".hydra" / "config.yaml").split)
    assert {split.split_of(r) for r in read} == {"train"}
    assert len(seen) > 100
    assert not seen & evaluated


def test_scores_that_are_there_give_the_same_numbers_without_torch(root, ensemble, tmp_path):
    quiet = ["bootstrap=100", "logger=csv", f"hydra.run.dir={tmp_path}/again"]
    words = repr(["evaluate.py", f"scores={ensemble}/examples.parquet", *quiet])
    code = f"import sys; sys.argv = {words}; import evaluate; evaluate.main(); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == f"report: {tmp_path}/again"
    assert "answers in no labelled pair are not in the file" in (tmp_path / "again" / "report.html").read_text()
    again, before = numbers(tmp_path / "again"), numbers(ensemble)
    wider = (
        "best_of_n/",
        "length/",
        "reward/",
        "n_length_",
    )  # answers in no labelled pair count there, and are not in it
    known = {key: value for key, value in again.items() if not key.startswith(wider)}
    assert {key: before[key] for key in known} == pytest.approx(known, rel=1e-9)
    for key in ("members/error_correlation", "selective/mahalanobis/aurc", "compare/s0/s1/p", "spearman/ci_low"):
        assert key in known
    said = call(root, "evaluate", f"scores={ensemble}/examples.parquet", f"run={ensemble}")
    assert "leave out run=" in said


def test_the_loaded_model_gives_the_ood_score_of_an_answer(runs):
    scorer = rlhf.load(runs[0])
    record = next(ToyWorld(size=1).records())
    usual = scorer.ood_score(str(record.prompt), [c.text for c in record.completions])
    odd = scorer.ood_score(str(record.prompt), ["ÿþ¤¤¤¤ 0x00 0x00 0x00 ¤¤¤¤"])
    assert all(0 <= u <= 1 for u in usual)
    assert odd[0] > np.mean(usual)
    with pytest.raises(ValueError, match="laplace, mahalanobis"):
        scorer.ood_score("p", ["a"], "entropy")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "run=<folder"),
        (["run=/nowhere/at/all", "data=toy"], "no such folder"),
        (["run=nowhere/model"], "data=<importer>"),
        (["run=x", "part=tset", "data=toy"], "part=tset: one of"),
        (["run=rlhf/nope", "data=toy"], "run=rlhf/nope: no such folder: rlhf has no nope"),
        (["scores=x.parquet", "red_team=x.jsonl"], "key 'red_team': scores=<file> holds no texts"),
        (["run=some-org/model", "data=toy", "red_team=/nope/x.jsonl"], "(mkdir -p /nope)"),
        (["run=some-org/model", "data=toy", "red_team=tests"], "name a file: red_team=tests/tasks.jsonl"),
        (["run=./tets", "data=toy"], "this folder has no tets, did you mean tests?"),
        (["run=nope/", "data=toy"], "run=nope/: no such folder"),
        (["run=rlhf", "against=[runs/a/b]", "data=toy"], "against=runs/a/b: no such folder"),
        (["run=some-org/reward-model"], "run=some-org/reward-model is no run here"),
        (["run=some-org/reward-model", "data=toy", "data.size=20"], "no such folder here, and no model of that name"),
        (["run=some-org/model", "data=toy", "data.size=20", "criterion=nope"], "is on nope (criterion= one of overall"),
        (["run=rlhf", "data=jsonl", "data.path=/nope.jsonl"], "/nope.jsonl: no such file"),
        (["run=rlhf", "data=pandalm"], "key 'data.path': no data given (data.path=<file>)"),
        (["run=rlhf", "benchmark=rewardbench"], "benchmark=rewardbench is computed from its own files"),
        (["run=rlhf", "data=toy", "data.size=20"], "run=rlhf is neither a run nor a Hugging Face model"),
    ],
)
def test_what_is_missing_is_said(root, arguments, message):
    said = call(root, "evaluate", *arguments)
    assert said.startswith("failed")
    assert message in said


def test_null_leaves_out_an_entry_or_a_whole_group():
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("evaluate", overrides=["run=x", "shifts=null", "probes.filler=null", "sections.bias=null"])
    assert present(cfg.shifts) == present(cfg.shifted) == {}
    assert set(present(cfg.probes)) == set(cfg.probes) - {"filler"}
    assert list(present(cfg.sections)) == [name for name in cfg.sections if name != "bias"]


def test_different_models_of_one_name_get_numbers_and_equal_ones_keep_theirs():
    sources = [
        SimpleNamespace(name="a"),
        SimpleNamespace(name="a"),
        SimpleNamespace(name="a"),
        SimpleNamespace(name="b"),
    ]
    name_apart(["x/a", "y/a", "x/a", "b"], sources)
    assert [s.name for s in sources] == ["a", "a 2", "a", "b"]


def test_runs_of_another_split_are_not_evaluated_on_prompts_they_may_have_seen(root, runs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    config = other / ".hydra" / "config.yaml"
    own = OmegaConf.load(config)
    own.split.seed = 7
    OmegaConf.save(own, config)
    assert "another split" in call(root, "evaluate", f"run=[{runs[0]},{other}]", *QUICK)
    assert "another split" in call(root, "evaluate", f"run={runs[0]}", f"against=[{other}]", *QUICK)


def test_a_report_says_how_many_prompts_the_model_was_trained_on(root, runs, tmp_path):
    write(tmp_path / "again.jsonl", ToyWorld(size=300, items=6, off_topic=5).records())
    again = ["data=jsonl", f"data.path={tmp_path}/again.jsonl", f"hydra.run.dir={tmp_path}/r"]
    said = call(root, "evaluate", f"run={runs[0]}", *again, "shifts=null", "probes=null", *QUICK)
    found, own = numbers(tmp_path / "r"), json.loads((runs[0] / "data_report.json").read_text())
    for key, part in (("n_prompts_trained", "train"), ("n_prompts_validated", "val")):
        prompts = own["splits"]["splits"][part]["prompts"]
        assert prompts - 5 <= found[key] <= prompts  # answers of some prompts are too long to be scored
    assert "no held-out result" in said
    assert "This is no held-out result" in (tmp_path / "r" / "report.html").read_text()


def test_a_run_was_not_trained_on_its_own_test_part(ensemble):
    found = numbers(ensemble)
    assert (found["n_prompts_trained"], found["n_prompts_validated"]) == (0, 0)
    assert "held-out result" not in (ensemble / "report.html").read_text()


def test_a_language_model_is_not_taken_for_a_reward_model(tmp_path):
    from transformers import AutoModelForCausalLM, LlamaConfig

    from rlhf.models.pretrained import Tiny
    from rlhf.reward.scoring.score_source import load_classifier

    tokenizer = Tiny().tokenizer()
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is not a reward model"):
        load_classifier(tmp_path, max_length=64)


def test_data_that_is_not_there_is_said_before_torch_is_imported(tmp_path):
    program = (
        "import sys\n"
        "from omegaconf import OmegaConf\n"
        "from rlhf.assemble.checks.paths import check_benchmarks, check_data\n"
        "from rlhf.records import RecordError\n"
        "def said(check, made):\n"
        "    try:\n"
        "        check(OmegaConf.create(made))\n"
        "    except RecordError as error:\n"
        "        print(error)\n"
        "here = sys.argv[1]\n"
        "said(check_data, {'path': [here, '/nope.jsonl']})\n"
        "said(check_data, {'path': None})\n"
        "said(check_data, {'path': None, 'hub': 'org/set'})\n"
        "said(check_data, {'path': here, 'responses_path': '/nope.texts'})\n"
        "said(check_data, {'path': here, 'responses_path': here})\n"
        "benchmark = {'_target_': 'rlhf.evaluation.benchmarks.BenchmarkSection', 'source': None}\n"
        "said(check_benchmarks, {'data': None, 'sections': {'llmbar': benchmark, 'bias': None}})\n"
        "said(check_benchmarks, {'data': {'path': here}, 'sections': {'llmbar': benchmark}})\n"
        "said(check_benchmarks, {'data': None, 'sections': {'llmbar': {**benchmark, 'source': {'path': here}}}})\n"
        "assert 'torch' not in sys.modules\n"
    )
    here = tmp_path / "a.jsonl"
    here.write_text("{}\n")
    done = subprocess.run([sys.executable, "-c", program, str(here)], capture_output=True, text=True, cwd=CONF.parent)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        "/nope.jsonl: no such file",
        "key 'data.path': no data given",
        "/nope.texts: key 'data.responses_path': no such file",
        "key 'data': benchmark=llmbar is computed from its own files, not from a run's data",
    ]
