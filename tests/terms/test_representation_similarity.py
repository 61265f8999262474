"""The correlations of channels, against their formula in float64 NumPy, and the positions they are taken over."""

import itertools

import keras
import numpy as np
import pytest
from helpers import (
    FEW_STEPS,
    check,
    correlations,
    normal,
    off_diagonal,
    small_data,
    small_network,
    softmax_head,
    tensor,
    train,
)
from keras import layers, ops

from keras_collab import RepresentationSimilarity, wrap
from keras_collab.terms.representation_similarity import representation_similarity, sample_positions

RNG = np.random.default_rng(5)


def test_representation_similarity_is_the_mean_squared_correlation():
    tap = RNG.normal(size=(4, 3, 3, 5)) @ RNG.normal(size=(5, 5)) + 3
    check(representation_similarity, lambda x: np.mean(off_diagonal(correlations(x)) ** 2), tap)


def test_representation_similarity_is_scale_free_and_dead_channels_are_uncorrelated():
    tap = RNG.normal(size=(8, 3, 3, 5)).astype("float32")
    value = float(representation_similarity(tensor(tap)))
    assert float(representation_similarity(tensor(7e3 * tap))) == pytest.approx(value, rel=1e-4)
    assert float(representation_similarity(tensor(1e-6 * tap))) == pytest.approx(value, rel=1e-4)
    assert float(representation_similarity(tensor(np.concatenate([tap, tap], -1)))) == pytest.approx(
        (2 * 20 * value + 2 * 5 + 2 * 20 * value) / 90, rel=1e-3
    )
    dead = tap.copy()
    dead[..., 2:] = 1e4
    assert float(representation_similarity(tensor(dead))) == pytest.approx(
        2 * correlations(tap)[0, 1] ** 2 / 20, rel=1e-2
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_activations_of_ten_thousand(dtype):
    tap = ops.cast(RNG.normal(size=(16, 4, 4, 6)) * 1e4, dtype)
    tap = ops.clip(tap, -3e4, 3e4)
    in_float32 = representation_similarity(ops.cast(tap, "float32"))
    assert float(representation_similarity(tap)) == pytest.approx(float(in_float32), rel=1e-6)


def test_positions_are_a_grid_with_the_drawn_offset():
    tap = np.arange(2 * 8 * 6 * 3, dtype="float32").reshape(2, 8, 6, 3)
    for draw, offset in ((0.0, 0), (0.99, 3)):
        got = sample_positions(ops.convert_to_tensor(tap), 4, tensor([[draw, 0.4], [0.9, 0.9]]))
        np.testing.assert_array_equal(ops.convert_to_numpy(got), tap[:, offset::4, 1::3].reshape(-1, 3))


@pytest.mark.parametrize(("size", "max_positions"), [(3, 4), (5, 4), (7, 4), (7, 9), (4, 1)])
def test_every_position_is_reached_and_no_more_than_asked_are_taken(size, max_positions):
    tap = np.arange(size * size, dtype="float32").reshape(1, size, size, 1)
    reached = set()
    for draws in itertools.product(np.linspace(0, 0.99, 4), repeat=4):
        got = sample_positions(ops.convert_to_tensor(tap), max_positions, tensor(np.reshape(draws, (2, 2))))
        assert got.shape[0] <= max_positions
        reached |= set(ops.convert_to_numpy(got)[:, 0])
    assert reached == set(range(size * size))


def test_positions_on_four_axes():
    inputs = keras.Input((3, 4, 4, 4, 1))
    x = layers.TimeDistributed(layers.Conv3D(4, 3, padding="same"), name="volumes")(inputs)
    x = layers.GRU(4)(layers.TimeDistributed(layers.GlobalAveragePooling3D())(x))
    model = wrap(keras.Model(inputs, softmax_head(x)), [RepresentationSimilarity(layers=["volumes"])])
    assert np.isfinite(train(model, normal(3, 4, 4, 4, 1))["representation_similarity"]).all()


@pytest.mark.parametrize("samples", [1, 4])
def test_a_small_last_batch_does_not_jolt(samples):
    """One step with the default weight moves the weights by about what a step of the task does."""
    x, y = small_data(samples)
    steps = []
    for terms in ([], [RepresentationSimilarity(10.0)]):
        keras.utils.set_random_seed(5)
        model = wrap(small_network(), terms)
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", **FEW_STEPS)
        before = [ops.convert_to_numpy(weight) for weight in model.trainable_weights]
        model.train_on_batch(x, y)
        after = [ops.convert_to_numpy(weight) for weight in model.trainable_weights]
        steps.append(np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(after, before, strict=True))))
    assert steps[1] < 3 * steps[0]
