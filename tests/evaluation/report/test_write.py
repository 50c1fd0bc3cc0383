"""Sections to files, without a model."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf
from result_sets import results_of
from scored_sets import simulate

from rlhf.assemble import CONF
from rlhf.evaluation.metrics.metrics import evaluate
from rlhf.evaluation.report.section import Evaluation, Figure, Section, Table, flat
from rlhf.evaluation.report.sections.ood import energy
from rlhf.evaluation.report.write import write_report
from rlhf.toy.world import ToyWorld


def evaluation(scored, **options) -> Evaluation:
    metrics = evaluate(scored, temperature=2.0, bootstrap=50)
    return Evaluation("model", results_of(scored, **options), 2.0, metrics, samples=50)


def sections(of: Evaluation) -> list[Section]:
    named = OmegaConf.load(CONF / "evaluate.yaml").sections
    made = [get_object(section._target_)(of) for section in named.values()]
    return [section for section in made if section is not None]


def test_texts_are_shown_as_texts_whatever_they_hold(tmp_path):
    scored = simulate(20, 2, np.random.default_rng(0), scale=-1.0)
    record = next(ToyWorld(size=1).records())
    evil = replace(record, prompt="<script>alert(1)</script>", completions=record.completions[:2])
    one = replace(evaluation(scored), look_up=lambda numbers: dict.fromkeys(numbers, evil))
    write_report(tmp_path, one, sections(one), "a & b")
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "a &amp; b" in page


def test_a_set_of_one_prompt_and_one_pair_still_gives_a_report(tmp_path):
    from scored_sets import pair

    from rlhf.evaluation.metrics.scored import Scored

    one = evaluation(Scored.from_groups([pair(1.0, 0.0, 1, 0, 0)]))
    report = write_report(tmp_path, one, sections(one), "one pair")
    assert report.metrics["pair_accuracy"] == 1.0
    assert "pair_accuracy/ci_low" not in report.metrics
    assert "there are no intervals" in (tmp_path / "report.html").read_text()
    json.loads((tmp_path / "report.json").read_text(), parse_constant=lambda name: pytest.fail(name))


def test_few_prompts_are_said(tmp_path):
    few = evaluation(simulate(5, 2, np.random.default_rng(0)))
    write_report(tmp_path, few, sections(few), "few")
    assert "Only 5 prompts" in (tmp_path / "report.html").read_text()


def test_a_key_or_a_figure_that_comes_twice_is_refused_and_so_is_a_number_that_is_none(tmp_path):
    with pytest.raises(ValueError, match=r"'two' repeats the keys \['a'\]"):
        flat([Section("one", metrics={"a": 1}), Section("two", metrics={"a": 2})])
    one = evaluation(simulate(8, 2, np.random.default_rng(0)))
    figure = Figure("f", "", lambda canvas: None)
    with pytest.raises(ValueError, match="share a name"):
        write_report(tmp_path, one, [Section("a", figures=[figure, figure])], "")
    with pytest.raises(ValueError, match="finite"):
        write_report(tmp_path, one, [Section("a", metrics={"x": np.nan})], "")
    with pytest.raises(ValueError, match="does not fit the columns"):
        Table("t", ("a", "b"), [(1,)])


def test_the_energy_of_one_answer_is_its_reward_and_copies_of_an_answer_change_nothing():
    from scored_sets import group

    from rlhf.evaluation.metrics.scored import Scored

    rows = [group([3.0, 3.0, 3.0], 0.5), group([1.0, 2.0], 0.5, prompt="q")]
    found = energy(Scored.from_groups(rows), 2.0)
    np.testing.assert_allclose(found[:3], -1.5)
    np.testing.assert_allclose(found[3:], -np.log((np.exp(0.5) + np.exp(1.0)) / 2))


def test_a_column_with_one_long_text_is_set_as_text_throughout(tmp_path):
    one = evaluation(simulate(20, 2, np.random.default_rng(0), scale=-1.0))
    table = Table("t", ("words", "number"), [("short", 1.0), ("long " * 30, 2.0)])
    write_report(tmp_path, one, [Section("a", tables=[table])], "")
    page = (tmp_path / "report.html").read_text()
    assert page.count('<td class="text" data-label="words">') == 2
    assert '<th scope="col" class="text">words</th>' in page
    assert page.count('<td data-label="number">') == 2


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    scored = simulate(60, 3, np.random.default_rng(0))
    one = evaluation(scored)
    long = replace(one, shifts={"long": one.results}, probes={"filler": one.results})
    write_report(folder, long, sections(long), "toy data")
    return folder / "report.html"


def test_a_first_reading_is_short_and_everything_else_unfolds(full):
    page = re.sub(r"<style>.*?</style>", "", full.read_text(), flags=re.S)
    first = re.sub(r"<[^>]+>", " ", re.sub(r"<details>.*?</details>", "", page, flags=re.S))
    assert 300 < len(first.split()) <= 1200
    assert page.count("<details>") >= 8
    assert "<table" not in re.sub(r"<details>.*?</details>", "", page, flags=re.S)


def test_the_page_links_to_its_own_files_only_and_all_are_there(full):
    page = full.read_text()
    links = set(re.findall(r'(?:href|src)="([^"]+)"', page))
    files = {link for link in links if not link.startswith(("#", "data:"))}
    assert {"report.json", "examples.parquet", "figures/", "figures/accuracy.png"} <= files
    assert all((full.parent / file).exists() for file in files)
    places = {link[1:] for link in links if link.startswith("#")}
    assert places <= set(re.findall(r'id="([^"]+)"', page))


@pytest.mark.slow
@pytest.mark.parametrize("width", [375, 1280])
def test_the_index_stays_in_sight_and_nothing_is_wider_than_the_screen(chromium, full, width):
    with chromium.new_context(viewport={"width": width, "height": 800}, color_scheme="dark") as context:
        page = context.new_page()
        page.goto(full.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate("scrollTo({top: 1e6, behavior: 'instant'})")
        index = page.get_by_role("navigation").bounding_box()
        assert -1 <= index["y"] < 100
        dark, ink = (page.evaluate(f"getComputedStyle(document.body).{name}") for name in ("backgroundColor", "color"))
        assert (dark, ink) == ("rgb(20, 23, 28)", "rgb(230, 233, 239)")
        page.get_by_role("link", name="Calibration").click()
        page.wait_for_function("Math.abs(document.querySelector('#s3').getBoundingClientRect().y) < 120")


@pytest.mark.slow
def test_what_is_folded_is_printed(chromium, full):
    with chromium.new_context(viewport={"width": 800, "height": 1000}) as context:
        page = context.new_page()
        page.goto(full.as_uri())
        table = page.locator("table").first
        assert not table.is_visible()
        page.emulate_media(media="print")
        assert table.bounding_box()["height"] > 20
