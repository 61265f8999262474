"""Blocks of columns stand for all pairs, parts are taken with their gradients, and cosines are always finite."""

import itertools

import numpy as np
import pytest
from helpers import gradient, off_diagonal, tensor
from keras import ops

from keras_collab.terms.intermediate_consistency import relational_divergence
from keras_collab.terms.kernel_similarity import kernel_similarity
from keras_collab.terms.pairs import Blocks, cosines, mean_over_all_pairs, mean_over_pairs, pick, window
from keras_collab.terms.relations import log_relations
from keras_collab.terms.representation_similarity import representation_similarity, squared_correlations

RNG = np.random.default_rng(5)


@pytest.mark.parametrize(("size", "limit"), [(8, 4), (9, 4), (5, 5), (7, 2)])
def test_mean_over_all_draws_of_blocks_is_the_mean_over_all_pairs(size, limit):
    """The value and its gradient, which is taken towards the rows alone and doubled."""
    columns = RNG.normal(size=(6, size)).astype("float32")
    blocks = Blocks(size, limit)
    assert blocks.length <= limit

    def estimate(given, first, second):
        values = ops.square(cosines(blocks.take(given, first), ops.stop_gradient(blocks.take(given, second))))
        return mean_over_pairs(values, blocks.items(first), blocks.items(second), blocks.pair_weight)

    draws = list(itertools.product(range(blocks.count), repeat=2))
    unit = columns / np.linalg.norm(columns, axis=0)
    mean = np.mean([float(estimate(tensor(columns), *draw)) for draw in draws])
    assert mean == pytest.approx(np.mean(off_diagonal(unit.T @ unit) ** 2), rel=1e-5)
    gradients = [gradient(lambda given, draw=draw: estimate(given, *draw), columns) for draw in draws]
    expected = gradient(lambda given: mean_over_all_pairs(ops.square(cosines(given, given))), columns)
    np.testing.assert_allclose(2 * np.mean(gradients, axis=0), expected, rtol=1e-4, atol=1e-6)


def test_pick_is_indexing_with_its_gradient():
    x = RNG.normal(size=(2, 3, 4)).astype("float32")
    weight = RNG.normal(size=(2, 4)).astype("float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(pick(tensor(x), 1, 2)), x[:, 2])
    expected = np.zeros_like(x)
    expected[:, 2] = weight
    np.testing.assert_array_equal(gradient(lambda v: ops.sum(pick(v, 1, 2) * tensor(weight)), x), expected)


def test_window_is_slicing_with_its_gradient():
    x = RNG.normal(size=(2, 7, 3)).astype("float32")
    weight = RNG.normal(size=(2, 4, 3)).astype("float32")
    for start in range(4):
        np.testing.assert_array_equal(ops.convert_to_numpy(window(tensor(x), 1, start, 4)), x[:, start : start + 4])
        expected = np.zeros_like(x)
        expected[:, start : start + 4] = weight
        found = gradient(lambda v, start=start: ops.sum(window(v, 1, start, 4) * tensor(weight)), x)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("value", [0.0, 1e4])
def test_constant_batches_and_a_batch_of_one_are_finite(value):
    for batch in (1, 4):
        features = tensor(np.full((batch, 6), value))
        for function in (
            lambda u, deep=features: relational_divergence(u, log_relations(deep, 0.1), 0.1),
            representation_similarity,
            lambda u: ops.sum(squared_correlations(u, u)),
            kernel_similarity,
        ):
            assert np.isfinite(float(function(features)))
            assert np.isfinite(gradient(function, features)).all()
