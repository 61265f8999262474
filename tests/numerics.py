"""Gradients by the backend and by differences, and the formulas of the terms in NumPy."""

import keras
import numpy as np
from keras import ops


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
    return ops.convert_to_numpy(x.grad)


def tensor(x):
    return ops.convert_to_tensor(x, "float32")


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
    value = float(function(tensor(x)))
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
