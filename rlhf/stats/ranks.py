"""Ranks by pandas, which reading Parquet loads anyway: importing scipy.stats for them costs as much as evaluating."""

from typing import Literal

import numpy as np
import pandas as pd

from rlhf.stats.arrays import Floats


def ranks_of(values: Floats, method: Literal["average", "max"] = "average") -> Floats:
    """Ranks from 1 of values [..., k], finite, within the last axis; equal values share their mean or highest rank."""
    if not values.size:
        return np.zeros(values.shape)
    rows = pd.DataFrame(values.reshape(-1, values.shape[-1]).T)  # ranked down its columns
    return np.asarray(rows.rank(method=method).to_numpy(dtype=np.float64).T.reshape(values.shape))
