"""Networks, data, terms, short trainings, gradients and formulas that several tests share."""

import keras
import numpy as np
from keras import layers, ops

import keras_collab

# Terms.

# One line more here gives a term every test of the contract.
TERMS = {
    "output": lambda **kwargs: keras_collab.OutputConsistency(**kwargs),
    "intermediate": lambda **kwargs: keras_collab.IntermediateConsistency(**kwargs),
    "intermediate_deepest": lambda **kwargs: keras_collab.IntermediateConsistency(target="deepest", **kwargs),
    "representation": lambda **kwargs: keras_collab.RepresentationSimilarity(max_channels=4, **kwargs),
    "kernel": lambda **kwargs: keras_collab.KernelSimilarity(max_filters=4, **kwargs),
}


def zero_weights(output=None):
    """All four terms with weight 0."""
    return [
        keras_collab.OutputConsistency(0.0, output=output),
        keras_collab.IntermediateConsistency(0.0, output=output),
        keras_collab.RepresentationSimilarity(0.0),
        keras_collab.KernelSimilarity(0.0),
    ]


# Networks.


def small_network(*, regularizer=None, dropout=0.0, activation="softmax", classes=3, dtype=None, name="small"):
    """Three convolutions at three resolutions, with batch normalization, and a Dense head."""
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for index, filters in enumerate((6, 8, 10)):
        x = layers.Conv2D(filters, 3, padding="same", kernel_regularizer=regularizer, dtype=dtype, name=f"conv{index}")(
            x
        )
        x = layers.BatchNormalization(dtype=dtype, name=f"bn{index}")(x)
        x = layers.ReLU(dtype=dtype, name=f"relu{index}")(x)
        x = layers.MaxPooling2D(dtype=dtype, name=f"pool{index}")(x)
    x = layers.Flatten(dtype=dtype, name="flatten")(x)
    if dropout:
        x = layers.Dropout(dropout, seed=3, dtype=dtype, name="dropout")(x)
    outputs = layers.Dense(classes, activation=activation, dtype="float32", name="head")(x)
    return keras.Model(inputs, outputs, name=name)


def tiny_network(activation="relu"):
    """As small as a network that can carry the default terms may be, for tests that train several."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, strides=2, activation=activation),
            layers.Conv2D(4, 3, activation=activation),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax"),
        ]
    )


def branch(name):
    """Two networks made by this share every layer name."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.ReLU(name="relu")(layers.Conv2D(4, 3, padding="same", name="conv")(inputs))
    x = layers.Conv2D(6, 3, padding="same", name="deep_conv")(layers.MaxPooling2D(name="pool")(x))
    return keras.Model(inputs, layers.ReLU(name="deep_relu")(x), name=name)


def softmax_head(x, name="head"):
    return layers.Dense(3, activation="softmax", name=name)(x)


def twin(network):
    """A network of its own with the same weights."""
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    return copy


def tap_paths(network, layers="auto"):
    return [tap.path for tap in keras_collab.NetworkReader(network).taps(layers)]


def kernel_paths(network, layers="auto"):
    return [kernel.path for kernel in keras_collab.NetworkReader(network).kernels(layers)]


# Data.

SAMPLES = 6
LABELS = np.array([0, 1, 2, 0, 1, 2])


def small_data(samples=24, classes=3, seed=0):
    """Whole batches of 8 by default: each other size is compiled for itself."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, samples)
    x = rng.normal(size=(samples, 8, 8, 3)) + y[:, None, None, None]
    return x.astype("float32"), y.astype("int32")


def normal(*shape, seed=0):
    """Six samples of this shape, normally distributed."""
    return np.random.default_rng(seed).normal(size=(SAMPLES, *shape)).astype("float32")


def padded_tokens():
    """Six sequences of eight numbers below 9, which end in padding of zeros."""
    x = np.random.default_rng(0).integers(1, 9, size=(SAMPLES, 8))
    return np.where(np.arange(8) < np.array([8, 6, 4, 3, 5, 7])[:, None], x, 0).astype("int32")


# Short trainings.

# What compiles in the least time: XLA takes longer than these trainings save, and eager JAX compiles each operation.
JIT = keras.backend.backend() == "jax"
FEW_STEPS = {"run_eagerly": not JIT, "jit_compile": JIT}


class Unsaved(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate without `get_config`."""

    def __call__(self, step):
        return 0.1


def compile_model(model, loss="sparse_categorical_crossentropy", optimizer=None, **kwargs):
    """Compiles a model, by default with momentum and accuracy, and returns it."""
    kwargs.setdefault("metrics", ["accuracy"])
    model.compile(optimizer or keras.optimizers.SGD(0.05, momentum=0.9), loss, **kwargs)
    return model


def train(model, x):
    """Trains for two epochs of two steps; returns the history."""
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", **FEW_STEPS)
    return model.fit(x, LABELS, batch_size=SAMPLES // 2, epochs=2, shuffle=False, verbose=0).history


def assert_trains_as_plain(make):
    """With weights of 0 a wrapped network has the losses and weights of plain training.

    `make` returns a classifier of three classes and inputs for it, each time with the same seeds of dropout.
    """
    (plain, x), (network, _) = make(), make()
    network.set_weights(plain.get_weights())
    start = network.get_weights()
    expected = train(plain, x)
    terms = zero_weights()
    if not keras_collab.NetworkReader(network).kernels(at_least=0):
        terms = [term for term in terms if not isinstance(term, keras_collab.KernelSimilarity)]
    history = train(keras_collab.wrap(network, terms), x)
    np.testing.assert_allclose(history["task_loss"], expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)
    assert any(not np.array_equal(old, new) for old, new in zip(start, network.get_weights(), strict=True))
    for weight, one, other in zip(plain.weights, plain.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6, err_msg=weight.path)


def compare_tiny(**changes):
    """`compare` with one seed of two short trainings, and with these arguments changed."""
    data = small_data(40)
    arguments = {
        "build_network": tiny_network,
        "train": data,
        "validation": data,
        "compile": lambda model: compile_model(model, optimizer="adam", **FEW_STEPS),
        "epochs": 2,
        "batch_size": 8,
        "seeds": 1,
        "verbose": False,
    }
    return keras_collab.compare(**{**arguments, **changes})


# Gradients by the backend and by differences.


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


# The formulas of the terms in NumPy.


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
