"""An LLM judge that compares answers, as something that scores records for a report."""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import combinations

import numpy as np
from scipy.special import logit

from rlhf.annotate.judges import OVERALL, Judge, Unreadable
from rlhf.evaluation.metrics.calibration import Calibration
from rlhf.evaluation.score_source import Scores
from rlhf.records import Comparison, Prompt
from rlhf.stats.arrays import Floats


class JudgeSource:
    """Rewards whose differences are an LLM judge's log-odds, each pair asked in both orders.

    With p_ij = P(i better than j), averaged over the two orders: r_i = mean over j of logit(p_ij), which solves
    r_i - r_j = logit(p_ij) in least squares, and exactly for two answers. A verdict without a probability (0 or 1)
    becomes `floor` or 1 - `floor`; so log-odds stay finite, and a verdict that follows the position is a tie.
    A pair that comes again is looked up, unless the judge's replies are drawn at a temperature.

    Args:
        judge: whom to ask; K (K - 1) questions for K answers.
        name: heads its rows and columns; the judge's own name and `(judge)` by default.
        principle: what "better" means.
        floor: the least probability a judge is taken to mean, 0 < floor < 0.5.

    Raises:
        ValueError: `floor` out of range.
    """

    calibration: Calibration | None = None

    def __init__(self, judge: Judge, *, name: str | None = None, principle: str = OVERALL, floor: float = 0.02) -> None:
        if not 0 < floor < 0.5:
            raise ValueError(f"floor={floor:g}: a probability, 0 < floor < 0.5, e.g. 0.02")
        self.judge, self.principle, self.floor = judge, principle, floor
        self.name = name or f"{judge.name} (judge)"
        self.asked = self.unreadable = self.turned = 0
        self._known: dict[bytes, float] | None = None if getattr(judge, "temperature", 0.0) else {}

    def score(self, records: Sequence[Comparison]) -> list[Scores]:
        """Rewards of every record's completions."""
        return [Scores.plain(self._rewards(r.prompt, [c.text for c in r.completions]).tolist()) for r in records]

    def usage(self) -> dict[str, float]:
        """Pairs asked, unreadable replies, pairs whose verdict changed sides with the order, and the judge's own."""
        counts = {"pairs": self.asked, "unreadable": self.unreadable, "turned_by_order": self.turned}
        return {**{k: float(v) for k, v in counts.items()}, **self.judge.usage()}

    def _rewards(self, prompt: Prompt, texts: Sequence[str]) -> Floats:
        odds = np.zeros((len(texts), len(texts)))
        for i, j in combinations(range(len(texts)), 2):
            odds[i, j] = logit(np.clip(self._looked_up(prompt, texts[i], texts[j]), self.floor, 1 - self.floor))
            odds[j, i] = -odds[i, j]
        return np.asarray(odds.mean(1))

    def _looked_up(self, prompt: Prompt, a: str, b: str) -> float:
        """P(a better than b), as it was said before; what is kept of a pair is a hash and a number."""
        if self._known is None:
            return self._better(prompt, a, b)
        if a > b:
            return 1 - self._looked_up(prompt, b, a)
        key = blake2b(repr((prompt, a, b)).encode("utf-8", "replace"), digest_size=16).digest()
        if key not in self._known:
            self._known[key] = self._better(prompt, a, b)
        return self._known[key]

    def _better(self, prompt: Prompt, a: str, b: str) -> float:
        """P(a better than b), the mean of both orders; an unreadable reply leaves the other one, two leave a tie."""
        self.asked += 1
        said = [self._ask(prompt, a, b), self._ask(prompt, b, a)]
        forward, backward = said[0], None if said[1] is None else 1 - said[1]
        if forward is not None and backward is not None:
            self.turned += (forward - 0.5) * (backward - 0.5) < 0
        found = [p for p in (forward, backward) if p is not None]
        return float(np.mean(found)) if found else 0.5

    def _ask(self, prompt: Prompt, first: str, second: str) -> float | None:
        try:
            return self.judge.prefer(prompt, first, second, self.principle)
        except Unreadable:
            self.unreadable += 1
            return None
