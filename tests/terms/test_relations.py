"""Positions that do not count are left out, of means over positions and of correlations."""

import numpy as np
from helpers import tensor
from keras import ops

from keras_collab.terms.relations import pool
from keras_collab.terms.representation_similarity import squared_correlations

RNG = np.random.default_rng(5)


def test_positions_that_do_not_count_change_nothing():
    tap = RNG.normal(size=(4, 5, 3)).astype("float32")
    mask = np.arange(5) < np.array([5, 3, 2, 4])[:, None]
    other = np.where(mask[..., None], tap, 1e3).astype("float32")
    pooled = ops.convert_to_numpy(pool(tensor(tap), mask))
    np.testing.assert_allclose(pooled, [row[keep].mean(0) for row, keep in zip(tap, mask, strict=True)], rtol=1e-5)
    np.testing.assert_array_equal(pooled, ops.convert_to_numpy(pool(tensor(other), mask)))
    counts = tensor(mask.reshape(-1, 1))
    kept = tensor(tap[mask])
    for values in (tap, other):
        flat = tensor(values.reshape(-1, 3))
        np.testing.assert_allclose(
            ops.convert_to_numpy(squared_correlations(flat, flat, counts)),
            ops.convert_to_numpy(squared_correlations(kept, kept)),
            atol=1e-5,
        )
