"""What a loop says as it goes."""

from rlhf.optimise.iterate.progress import Progress, heading, line
from rlhf.reward.files import log_end

ROW = {
    "gold": 1.5, "gold/low": 1.25, "gold/high": 1.75, "reward": 0.5, "kl": 2.0, "length": 80.0,
    "disagreement": 0.7, "distance": 1.1,
}  # fmt: skip


class Heard:
    """A logger that remembers."""

    def __init__(self):
        self.said, self.images = [], []

    def log_metrics(self, metrics, step):
        self.said.append((step, metrics))

    def log_image(self, key, images):
        self.images.append((key, images))


def test_a_line_has_a_cell_under_every_heading():
    head = heading(True)
    said = line("0", ROW, "step 10: kl is 2.10, more than 2")
    assert "1.50 [1.25, 1.75]" in said
    assert said.index("step 10") == head.index("warning")
    assert said[: head.index("proxy") + 5].split()[-1] == "0.50"
    own = {k: v for k, v in ROW.items() if not k.startswith("gold")}
    assert "[" not in line("0", own)
    assert line("0", own).index("-") == heading(False).index("warning")


def test_loops_that_share_loggers_keep_their_numbers_apart_and_say_them_once():
    heard, shown = Heard(), []
    progress = Progress([heard], prefix="KL/seed-0/", show=shown.append)
    progress.step(ROW | {"step": 3.0}, 53)
    progress.generation("0", ROW, 80, new=False)
    progress.generation("1", ROW, 160)
    assert shown == [heading(True), line("0", ROW), line("1", ROW)] == progress.rows
    assert [step for step, _ in heard.said] == [53, 160]
    assert heard.said[0][1]["KL/seed-0/train/kl"] == 2.0
    assert "KL/seed-0/train/step" not in heard.said[0][1]
    assert heard.said[1][1]["KL/seed-0/generation/gold/low"] == 1.25


def test_the_end_has_the_figures_where_a_logger_shows_images(tmp_path):
    class Plain(Heard):
        log_image = None

    (tmp_path / "traces.png").write_bytes(b"")
    heard, plain = Heard(), Plain()
    log_end([heard, plain], {"gold": 1.0}, tmp_path, step=7)
    assert heard.said == plain.said == [(7, {"final/gold": 1.0})]
    assert heard.images == [("traces", [str(tmp_path / "traces.png")])]
