"""How much a group of comparisons counts in the training loss, which is a mean over these units.

With D_ij = r_i - r_j and w_ij the weight of a pair (1 where one record judged it):

    pairs    every judged pair counts once:  L = Σ_groups Σ_ij w_ij l(D_ij) / Σ_groups Σ_ij w_ij
    prompts  every prompt counts once:       L = mean over prompts of  Σ_ij w_ij l(D_ij) / Σ_ij w_ij

`ranking`, Plackett-Luce, best of K and regression always count prompts: their mean is over what they sum over.
"""

from collections.abc import Callable
from typing import Any

Weighing = Callable[[Any, Any], Any]
"""`(pairs [B], prompt_pairs [B]) -> units [B]`: weights of the pairs of a group, and of its whole prompt, summed."""


def pairs(pairs: Any, prompt_pairs: Any) -> Any:
    """As many units as judged pairs."""
    return pairs


def prompts(pairs: Any, prompt_pairs: Any) -> Any:
    """One unit per prompt: the share of its pairs that the group holds; 1 where no pair was judged."""
    none = prompt_pairs <= 0
    return (pairs + none) / (prompt_pairs + none)
