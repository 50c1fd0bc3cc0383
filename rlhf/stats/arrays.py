"""Names of the array types that the package shares."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
"""Real numbers, single or double precision."""
Ints = NDArray[np.int64]
"""Whole numbers: positions, codes, counts."""
Bools = NDArray[np.bool_]
"""Masks."""
Rng = np.random.Generator
"""Where random draws come from."""
