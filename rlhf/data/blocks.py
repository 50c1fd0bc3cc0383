"""Groups of completions that are too large for one step, as blocks.

Completions that no vote connects share nothing but the prompt: they are separated first. What is still too large is cut

    at random, anew each epoch    where most pairs were judged: every pair falls into one block with the same
                                  probability P = Σ s (s - 1) / (K (K - 1)), s = sizes of the blocks, and then counts
                                  1/P, so that the expected gradient is that of all pairs
    once, between pairs           where few were (stars, chains, trees): every judged pair lies in exactly one block
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import connected_components

from rlhf.stats.arrays import Bools, Ints


@dataclass(frozen=True)
class GroupLimits:
    """The largest group of a step.

    completions  at most
    tokens       of the prompt once and its completions, at most; None = no such limit
    """

    completions: int
    tokens: int | None = None

    def __post_init__(self) -> None:
        if self.completions < 2:
            raise ValueError(f"max_group={self.completions}: a comparison has two completions")

    def fits(self, prompt: int, responses: Sequence[int]) -> bool:
        """Is this group small enough? Lengths are in tokens."""
        within = self.tokens is None or prompt + sum(responses) <= self.tokens
        return len(responses) <= 2 or (len(responses) <= self.completions and within)

    def blocks(self, prompt: int, responses: Sequence[int]) -> int:
        """The smallest number of equal blocks that all fit, however the completions fall into them."""
        longest = sorted(responses, reverse=True)
        count = -(-len(longest) // self.completions)
        while not self.fits(prompt, longest[: -(-len(longest) // count)]):
            count += 1
        return count

    def longest(self, prompt: int, responses: Sequence[int], blocks: int) -> int:
        """Most tokens that one of so many blocks can have."""
        return prompt + int(sum(sorted(responses, reverse=True)[: -(-len(responses) // blocks)]))


@dataclass(frozen=True)
class Part:
    """Some completions of a group, and which pairs of them count; None = all that are observed."""

    places: list[int]
    pairs: Bools | None = None


def separated(related: Bools, prompt: int, responses: Sequence[int], limits: GroupLimits) -> list[Part]:
    """A group as parts that lose no judged pair: whole where it fits.

    Args:
        related: [K, K] pairs that a vote compares, or that were ranked or rated together; symmetric. On the diagonal:
            this completion says something alone.
        prompt, responses: lengths in tokens.
        limits: of a part. A part that does not fit is dense: it is for `drawn`.
    """
    if limits.fits(prompt, responses):
        return [Part(list(range(len(responses))))]
    _, names = connected_components(related, directed=False)
    parts: list[Part] = []
    together: list[int] = []
    for name in np.unique(names[related.any(1)]):
        places = np.flatnonzero(names == name).tolist()
        if not limits.fits(prompt, [responses[p] for p in places]):
            parts += _cut_once(related, places, prompt, responses, limits)
            continue
        if together and not limits.fits(prompt, [responses[p] for p in [*together, *places]]):
            parts.append(Part(sorted(together)))
            together = []
        together += places
    return [*parts, Part(sorted(together))] if together else parts


def _cut_once(
    related: Bools, places: list[int], prompt: int, responses: Sequence[int], limits: GroupLimits
) -> list[Part]:
    """Blocks of pairs, by breadth: a star's leaves beside their centre. A dense component stays whole."""
    inner = related[np.ix_(places, places)]
    k = len(places)
    blocks = limits.blocks(prompt, [responses[p] for p in places])
    if 2 * np.triu(inner, 1).sum() / (k * (k - 1)) >= 1 / max(1, k / blocks - 1):
        return [Part(places)]
    parts: list[Part] = []
    block: list[int] = []
    pairs = np.zeros_like(related)
    for i, j in _edges(inner):
        a, b = places[i], places[j]
        more = [p for p in (a, b) if p not in block]
        if block and not limits.fits(prompt, [responses[p] for p in [*block, *more]]):
            parts.append(Part(sorted(block), pairs))
            block, pairs, more = [], np.zeros_like(related), [a, b]
        block += more
        pairs[a, b] = pairs[b, a] = True
    return [*parts, Part(sorted(block), pairs)]


def _edges(related: Bools) -> list[tuple[int, int]]:
    """Pairs such that neighbours in the list share a completion where they can: all of the busiest one first."""
    degree = related.sum(1)
    left = np.triu(related, 1) | np.triu(related, 1).T
    edges = []
    for i in np.argsort(-degree, kind="stable").tolist():
        edges += [(i, int(j)) for j in np.flatnonzero(left[i])]
        left[i] = left[:, i] = False
    return edges


def sizes(k: int, blocks: int) -> Ints:
    """Sizes of `blocks` blocks of k completions, as equal as can be."""
    return k // blocks + (np.arange(blocks) < k % blocks).astype(np.int64)


def chance(k: int, blocks: int) -> float:
    """P that two of k completions fall into the same block."""
    s = sizes(k, blocks)
    return float((s * (s - 1)).sum() / (k * (k - 1)))


def drawn(k: int, blocks: int, block: int, seed: Sequence[int]) -> list[int]:
    """The completions of one block; equal seeds give blocks of one permutation, which do not overlap."""
    order = np.random.default_rng(seed).permutation(k)
    ends = np.cumsum(sizes(k, blocks))
    found: list[int] = np.sort(order[ends[block] - sizes(k, blocks)[block] : ends[block]]).tolist()
    return found
