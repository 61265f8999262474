"""Values and gradients of the pure functions, against the formulas in float64 NumPy."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_collab
from keras_collab.terms.intermediate_consistency import relational_divergence
from keras_collab.terms.kernel_similarity import kernel_similarity, welch_bound
from keras_collab.terms.output_consistency import consistency_divergence
from keras_collab.terms.pairs import Blocks, cosines, mean_over_all_pairs, mean_over_pairs, pick, window
from keras_collab.terms.relations import log_relations, pool
from keras_collab.terms.representation_similarity import (
    representation_similarity,
    sample_positions,
    squared_correlations,
)

RNG = np.random.default_rng(5)


def gradient(function, x):
    """The backend's own gradient of a scalar function of one array."""
    x = tensor(x)
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return ops.convert_to_numpy(tape.gradient(value, x, unconnected_gradients="zero"))
    if backend == "jax":
        import jax

        return np.asarray(jax.jit(jax.grad(function))(x))
    x = x.detach().clone().requires_grad_(True)
    value = function(x)
    if not value.requires_grad:
        return np.zeros(x.shape)
    value.backward()
    return x.grad.numpy()


def tensor(x):
    return ops.convert_to_tensor(np.asarray(x, "float32"))


def numerical_gradient(function, x, step=1e-5):
    x = np.asarray(x, "float64")
    result = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        result[index] = (function(up) - function(down)) / (2 * step)
    return result


def check(function, formula, x, value_tolerance=2e-6, gradient_tolerance=2e-4):
    """Value and gradient of a backend function equal those of a NumPy formula."""
    value = float(function(ops.convert_to_tensor(np.asarray(x, "float32"))))
    np.testing.assert_allclose(
        value, formula(np.asarray(x, "float64")), rtol=value_tolerance * 10, atol=value_tolerance
    )
    expected = numerical_gradient(formula, x)
    np.testing.assert_allclose(gradient(function, x), expected, atol=gradient_tolerance * max(1, abs(expected).max()))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p, q):
    return (p * (np.log(p) - np.log(q))).sum(-1)


def relations(u, temperature):
    u = u - u.mean(0)
    u = u / np.sqrt((u**2).sum(-1, keepdims=True))
    s = u @ u.T / temperature
    np.fill_diagonal(s, -np.inf)
    return softmax(s)


def relational(target, relations):
    """Mean divergence of the rows of one matrix from another's, where neither has a diagonal."""
    return kl(off_diagonal(target), off_diagonal(relations)) / len(target)


def off_diagonal(matrix):
    return matrix[~np.eye(len(matrix), dtype=bool)]


def correlations(x):
    return np.corrcoef(x.reshape(-1, x.shape[-1]).T)


LOGITS, PARTS = RNG.normal(size=(5, 4)), RNG.normal(size=(3, 5, 4))


def test_consistency_is_the_scaled_divergence_from_the_whole_to_its_parts():
    check(
        lambda z: ops.mean(consistency_divergence(tensor(LOGITS), z, 2.0)),
        lambda z: 4.0 * kl(softmax(LOGITS / 2), softmax(z / 2)).mean(),
        PARTS,
    )


def test_consistency_gives_the_whole_no_gradient():
    got = gradient(lambda z: ops.mean(consistency_divergence(z, tensor(PARTS), 2.0)), LOGITS)
    np.testing.assert_array_equal(got, np.zeros_like(LOGITS))


SHALLOW, DEEP = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 5))


def test_relations_of_a_shallow_layer_follow_the_deepest():
    check(
        lambda u: relational_divergence(u, log_relations(tensor(DEEP), 0.5), 0.5),
        lambda u: relational(relations(DEEP, 0.5), relations(u, 0.5)),
        SHALLOW,
        gradient_tolerance=1e-3,
    )


def test_relations_are_their_own_target_and_scale_free():
    target = log_relations(tensor(DEEP), 0.1)
    assert float(relational_divergence(tensor(7 * DEEP + 3), target, 0.1)) == pytest.approx(0, abs=1e-5)
    teach = gradient(lambda u: relational_divergence(tensor(SHALLOW), log_relations(u, 0.1), 0.1), DEEP)
    np.testing.assert_array_equal(teach, np.zeros_like(DEEP))


def test_layers_follow_the_logits_by_default():
    inputs = keras.Input((8, 8, 3))
    first = layers.ReLU()(layers.Conv2D(4, 3)(inputs))
    second = layers.ReLU()(layers.Conv2D(6, 3)(first))
    head = layers.Dense(5, activation="softmax")
    network = keras.Model(inputs, head(layers.GlobalAveragePooling2D()(second)))
    x, y = RNG.normal(size=(6, 8, 8, 3)).astype("float32"), np.arange(6) % 5
    model = keras_collab.wrap(network, [keras_collab.IntermediateConsistency()])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    measured = model.fit(x, y, epochs=1, verbose=0).history["intermediate_consistency"][0]
    pooled = [tap.mean((1, 2)) for tap in keras.Model(inputs, [first, second]).predict(x, verbose=0)]
    kernel, bias = head.get_weights()
    target = relations(pooled[-1] @ kernel + bias, 0.1)
    assert measured == pytest.approx(np.mean([relational(target, relations(u, 0.1)) for u in pooled]), rel=1e-3)


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


def test_kernel_similarity_is_the_mean_squared_cosine():
    def formula(w):
        w = w / np.linalg.norm(w, axis=0)
        return np.mean(off_diagonal(w.T @ w) ** 2)

    filters = RNG.normal(size=(7, 4))
    check(kernel_similarity, formula, filters)
    assert float(kernel_similarity(tensor(7 * filters))) == pytest.approx(formula(filters), rel=1e-5)


def test_kernel_gradient_is_orthogonal_to_the_filters():
    filters = RNG.normal(size=(7, 4))
    got = gradient(kernel_similarity, filters)
    np.testing.assert_allclose((got * filters).sum(0), np.zeros(4), atol=1e-6)
    assert abs(got).max() > 1e-3


def test_welch_bound_is_reached_by_a_tight_frame():
    angles = np.arange(5) * np.pi / 5  # Five directions evenly spread over the plane.
    frame = np.stack([np.cos(angles), np.sin(angles)])
    assert welch_bound(5, 2) == pytest.approx((5 - 2) / (2 * 4))
    assert float(kernel_similarity(tensor(frame))) == pytest.approx(0, abs=1e-6)


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


def test_window_is_slicing_with_its_gradient():
    x = RNG.normal(size=(2, 7, 3)).astype("float32")
    weight = RNG.normal(size=(2, 4, 3)).astype("float32")
    for start in range(4):
        np.testing.assert_array_equal(ops.convert_to_numpy(window(tensor(x), 1, start, 4)), x[:, start : start + 4])
        expected = np.zeros_like(x)
        expected[:, start : start + 4] = weight
        found = gradient(lambda v, start=start: ops.sum(window(v, 1, start, 4) * tensor(weight)), x)
        np.testing.assert_array_equal(found, expected)


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


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_activations_of_ten_thousand(dtype):
    tap = ops.cast(RNG.normal(size=(16, 4, 4, 6)) * 1e4, dtype)
    tap = ops.clip(tap, -3e4, 3e4)
    in_float32 = representation_similarity(ops.cast(tap, "float32"))
    assert float(representation_similarity(tap)) == pytest.approx(float(in_float32), rel=1e-6)


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
