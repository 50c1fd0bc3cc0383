"""The wheel alone, in an empty folder: commands, configuration, a run, a report, and the user's own options."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
LOSS = (
    "from rlhf.reward.losses import soft_label\n\n\ndef own(reward, target):\n    return soft_label(reward, target)\n"
)


@pytest.fixture(scope="module")
def installed(root, tmp_path_factory):
    """Where the wheel is installed, without what it depends on, which is here already."""
    wheel, site = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheel), str(root)], check=True)
    (file,) = wheel.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(file)], check=True)
    return site


def test_one_command_after_another_leads_from_nothing_to_a_report(installed, tmp_path):
    (tmp_path / "conf" / "loss").mkdir(parents=True)
    (tmp_path / "conf" / "loss" / "mine.yaml").write_text("_target_: mine.own\n_partial_: true\n")
    (tmp_path / "mine.py").write_text(LOSS)
    environment = os.environ | {"PYTHONPATH": f"{installed}:{tmp_path}"}

    def run(command, *overrides):
        script = [sys.executable, str(installed / "bin" / command), *overrides]
        done = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.splitlines()

    said = run("rlhf-train", "loss=mine", "data.size=80", "epochs=1", "model.width=8", "model.depth=1", "model.heads=2",
               "bootstrap=10", "split=balanced", "trainer.enable_progress_bar=false")  # fmt: skip
    folder = Path(said[-1].removeprefix("run: "))
    assert any(line.startswith("next: rlhf-evaluate") for line in said)
    report = run("rlhf-evaluate", f"run={folder}", "bootstrap=10")
    assert (Path(report[-1].removeprefix("report: ")) / "report.html").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"conf", "mine.py", "runs"}


def test_the_distributions_name_is_not_that_of_a_strangers_package(root, installed):
    name = tomllib.loads((root / "pyproject.toml").read_text())["project"]["name"]
    assert name != "rlhf"
    assert list(installed.glob(f"{name.replace('-', '_')}-*.dist-info"))
    pages = [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("conf/**/*.yaml"), *root.glob("rlhf/**/*.py")]
    assert not [p for p in pages if "pip install rlhf" in p.read_text() or "pip install 'rlhf" in p.read_text()]
