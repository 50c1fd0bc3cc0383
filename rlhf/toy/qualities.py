"""Features of the toy world's answers in which its gold reward is linear."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rlhf.annotate.annotator import LENGTH_SCALE
from rlhf.select.pool_builder import Answer
from rlhf.stats.arrays import Floats


@dataclass
class ToyQualities:
    """What the toy world's answers are made of, alone and per domain: features in which its gold reward is linear.

    A head on them can be right, as it cannot on words: where selectors do not even help here, they are broken.
    """

    _domains: list[str] = field(default_factory=list, init=False, repr=False)

    def __call__(self, answers: Sequence[Answer]) -> Floats:
        """Features [N, (1 + domains) · (qualities + 1)]; length is the last quality, which annotators like.

        Raises:
            ValueError: answers without `meta.qualities`.
        """
        if not all("qualities" in a.meta for a in answers):
            raise ValueError("features=qualities reads meta.qualities, which only data=toy has: use features=words")
        domains = self._domains = self._domains or sorted({str(a.domain) for a in answers})
        own = np.array([[*a.meta["qualities"].values(), len(a.text) / LENGTH_SCALE] for a in answers])
        known = [i for i, a in enumerate(answers) if str(a.domain) in domains]
        block = [1 + domains.index(str(answers[i].domain)) for i in known]
        out = np.zeros((len(answers), 1 + len(domains), own.shape[1]), np.float32)
        out[:, 0] = own
        out[known, block] = own[known]
        return out.reshape(len(answers), -1)
