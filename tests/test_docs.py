"""The site builds without a warning, every page is found, and pages for readers keep their sentences short."""

import re
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from loss_targets import random_target
from pools import pool_of, state_of

from rlhf.assemble import CONF
from rlhf.select import query

READERS_PAGES = ("index.md", "start/*.md", "how-to/*.md")
WORDS, FEW = 25, 2  # words a sentence may have; longer ones a page may have
ROW = 260


def pages(root):
    return [path for pattern in READERS_PAGES for path in sorted((root / "docs").glob(pattern))]


def sentences(text):
    """Sentences of the prose: without code, tables, pictures and the addresses of links."""
    text = re.sub(r"```.*?```", "\n\n", text, flags=re.S)
    text = re.sub(r"!\[[^]]*\]\([^)]*\)", "", text)
    text = re.sub(r"\]\([^)]*\)|\]\[[^]]*\]", "]", text)
    text = re.sub(r"^(\||#).*$", "", text, flags=re.M)
    blocks = re.split(r"\n\s*\n|\n- ", text)
    return [s for block in blocks for s in re.split(r"(?<=[.?!:])\s+", " ".join(block.split())) if s]


def test_a_sentence_is_counted_without_code_tables_and_addresses():
    text = "# Title\n\nOne [two](a/b.md) three. Four\nfive.\n\n```\nno\n```\n| no | no |\n\n- six"
    assert sentences(text) == ["One [two] three.", "Four five.", "- six"]


def test_sentences_are_short(root):
    found = {p.name: [s for s in sentences(p.read_text()) if len(s.split()) > WORDS] for p in pages(root)}
    assert len(found) >= 7
    assert not {page: long for page, long in found.items() if len(long) > FEW}


def test_rows_of_tables_fit(root):
    rows = {p.name: max(map(len, re.findall(r"^\|.*$", p.read_text(), re.M)), default=0) for p in pages(root)}
    assert max(rows.values()) <= ROW


def test_the_glossary_has_thirty_words_in_order(root):
    words = re.findall(r"^\| ([^|]+) \|", (root / "docs" / "start" / "glossary.md").read_text(), re.M)[2:]
    assert len(words) == 30
    assert words == sorted(words, key=str.lower)


def built(group, root, monkeypatch, *overrides):
    """What the overrides build when the code of the page `own_<group>.md` is the module `mine`."""
    code = re.search(r"```python\n(.*?)```", (root / "docs" / "how-to" / f"own_{group}.md").read_text(), re.S)[1]
    mine = types.ModuleType("mine")
    exec(code, mine.__dict__)
    monkeypatch.setitem(sys.modules, "mine", mine)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose("train", overrides=list(overrides))[group])


def test_the_selector_of_the_page_meets_its_budget(root, monkeypatch):
    overrides = ["task=active", "selector=random", "selector._target_=mine.undecided"]
    selector = built("selector", root, monkeypatch, *overrides)
    pool = pool_of(np.random.default_rng(5))
    state = state_of(pool, np.random.default_rng(5))
    found = query(pool, state, 7, np.random.default_rng(3), selector=selector)
    assert len(set(found.indices)) == 7
    assert (np.diff(found.utilities) <= 0).all()


def test_the_loss_of_the_page_gives_what_the_page_says(root, monkeypatch):
    loss = built("loss", root, monkeypatch, "loss._target_=mine.hinge", "+loss.width=2")
    reward = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    value = loss(reward, random_target())
    assert value.shape == (4,)
    assert value[1] == 0  # nobody voted
    assert (value[[0, 2, 3]] > 0).all()
    assert torch.allclose(loss(reward + 3, random_target()), value)  # only differences count


def test_every_page_is_in_the_navigation(root):
    named = set(re.findall(r"[\w/-]+\.md", (root / "mkdocs.yml").read_text()))
    there = {str(p.relative_to(root / "docs")) for p in (root / "docs").glob("**/*.md")}
    assert {page for page in there if not page.startswith("decisions/")} == named


@pytest.mark.slow
def test_the_site_builds_without_a_warning(root, tmp_path):
    pytest.importorskip("mkdocs")
    assert yaml.safe_load((root / "mkdocs.yml").read_text())["strict"]
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")]
    build = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)
    assert build.returncode == 0, build.stderr
    assert "rlhf.reward.losses.pairwise" in (tmp_path / "site" / "reference" / "python.html").read_text()
    assert "https://fonts" not in (tmp_path / "site" / "index.html").read_text()
