"""The pictures of the README: `python docs/images/make.py`, a few minutes on a CPU; needs Chromium and the `dev` extra.

report.png              the report of the default training on the toy world
annotate.png            the annotation page, on the tasks beside this file
overoptimisation.png    `experiment=best_of_n`: gold against how hard the reward is optimised
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
WIDTH = 1200
LARGEST = 300_000
"""Bytes of a picture."""


def main() -> None:
    """Make the pictures named on the command line, or all three."""
    makers = {"report": report, "annotate": annotate, "overoptimisation": overoptimisation}
    for name in sys.argv[1:] or makers:
        with tempfile.TemporaryDirectory() as folder:
            makers[name](Path(folder))
        size = (HERE / f"{name}.png").stat().st_size
        if size > LARGEST:
            sys.exit(f"{name}.png: {size:,} bytes, at most {LARGEST:,}")
        print(f"{name}.png: {size:,} bytes")


def report(folder: Path) -> None:
    """The report of a model that the default task trains."""
    command("train.py", "logger=csv", f"hydra.run.dir={folder}/reward-model")
    command("evaluate.py", f"run={folder}/reward-model", "logger=csv", f"hydra.run.dir={folder}/report")
    photograph((folder / "report" / "report.html").as_uri(), HERE / "report.png", height=1020)


def annotate(folder: Path) -> None:
    """The page that works offline: the same desk as on the server."""
    page = folder / "page.html"
    asked = ["annotator.strengths=[slightly better,much better]", "annotator.seed=1"]
    command("annotate.py", "annotator=page", f"tasks={HERE}/tasks.jsonl", f"out={page}", *asked,
            f"hydra.run.dir={folder}/annotate")  # fmt: skip
    photograph(page.as_uri(), HERE / "annotate.png", height=900)


def overoptimisation(folder: Path) -> None:
    """The figure of the study."""
    command("train.py", "experiment=best_of_n", "logger=csv", f"hydra.run.dir={folder}/study")
    shutil.copy(folder / "study" / "best_of_n.png", HERE / "overoptimisation.png")


def command(*words: str) -> None:
    """Run one of our commands as a reader would."""
    print("python", *words, flush=True)
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


def photograph(address: str, picture: Path, *, height: int) -> None:
    """What a desktop shows of a page, in light mode."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme="light")
        page.goto(address)
        page.wait_for_timeout(500)
        page.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main()
