"""What the README says can be typed, can be typed."""

import re
import shlex
from pathlib import Path

import hydra
import pytest

import rlhf
from rlhf.assemble import CONF

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
MAP = (ROOT / "CONTRIBUTING.md").read_text().split("## The map")[1].split("```")[1]
PAGES = "".join(
    path.read_text()
    for folder in (".", "start", "how-to", "methods", "reference", "results")
    for path in sorted((ROOT / "docs" / folder).glob("*.md"))
    if path.name != "log.md"
)
COMMAND = r"python (?:-m rlhf\.)?(train|sample|annotate|evaluate|serve)(?:\.py)? ([^`\n#]*)"
OPTION = {"data=<importer>": "data=jsonl", "loss=<name>": "loss=ranking"}  # a name of the reader's choice, for example
TEXT = re.sub(r"\\\n\s*", "", README + PAGES)  # a command may go on in the next line
for placeholder, example in OPTION.items():
    TEXT = TEXT.replace(placeholder, example)
COMMANDS = re.findall(COMMAND, re.sub(r"<([^<>\n]+)>", lambda place: place[1].replace(" ", "_"), TEXT))
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


@pytest.mark.parametrize(("script", "command"), [c for c in COMMANDS if "..." not in c[1]])
def test_every_command_composes(script, command):
    overrides = [o for o in shlex.split(command) if o != "-m"]
    for alternatives in overrides:
        _key, _, value = alternatives.partition("=")
        assert value, f"{alternatives} is not key=value"
    first = [o if o.partition("=")[2].startswith(("[", "{")) else o.split(",")[0] for o in overrides]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        hydra.compose(script, overrides=first)


def test_the_readme_is_one_page():
    assert README.count("\n") <= 150


def test_there_are_commands_to_check():
    assert len(COMMANDS) >= 8


def test_every_make_target_named_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    named = set(re.findall(r"\bmake ([a-z]+)", README))
    assert {"train", "test", "check", "bench"} <= named <= targets


@pytest.mark.parametrize("path", sorted((ROOT / "conf" / "experiment").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_experiment_is_named_with_its_command(path):
    assert re.search(rf"python train\.py [^`\n]*experiment={path.stem}\b", README + PAGES)


def test_every_data_option_is_named():
    options = {p.stem for p in (ROOT / "conf" / "data").glob("*.yaml")}
    missing = {o for o in options if f"`{o}`" not in PAGES and f"data={o}" not in PAGES}
    assert missing <= {"toy"}


def test_every_file_on_the_map_exists():
    room = ROOT
    for line in MAP.splitlines():
        folder = re.match(r"(  )?([a-z]+)/ ", line)
        if folder:
            room = ROOT / ("rlhf" if folder[1] else "") / folder[2]
        for name in re.findall(r"[a-z_]+(?:\.py\b|/(?=[ ,;)]|$))", line[folder.end() :] if folder else line):
            assert list(room.glob(f"**/{name.rstrip('/')}")) or (ROOT / name).exists(), f"{room.name}: {name}"


def test_the_map_has_every_package():
    rooms = [p.name for p in (ROOT / "rlhf").iterdir() if (p / "__init__.py").is_file()]
    assert sorted(re.findall(r"^  ([a-z]+)/", MAP, re.M)) == sorted(rooms)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_the_python_example_uses_names_that_exist():
    from rlhf.reward.scoring.scorer import Scorer

    assert callable(rlhf.load)
    for method in re.findall(r"scorer\.([a-z]+)\(", README):
        assert callable(getattr(Scorer, method))
