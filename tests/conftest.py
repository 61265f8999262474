"""Small networks and data for all tests."""

import os
import tempfile

# Compiling, not computing, takes the time of these tests: XLA's optimizations cost more than they save.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# What one test has compiled, the others and the programs that they start find there.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.TemporaryDirectory(prefix="compiled-")  # Removed when this process ends.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# The tests run in one process a core; torch with several threads in each is several times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import keras
import numpy as np
import pytest
from keras import layers

import keras_collab

# One line more here gives a term every test of the contract.
TERMS = {
    "output": lambda **kwargs: keras_collab.OutputConsistency(**kwargs),
    "intermediate": lambda **kwargs: keras_collab.IntermediateConsistency(**kwargs),
    "intermediate_deepest": lambda **kwargs: keras_collab.IntermediateConsistency(target="deepest", **kwargs),
    "representation": lambda **kwargs: keras_collab.RepresentationSimilarity(max_channels=4, **kwargs),
    "kernel": lambda **kwargs: keras_collab.KernelSimilarity(max_filters=4, **kwargs),
}


@pytest.fixture(params=TERMS)
def make_term(request):
    """Each term, in each of its forms, as a function of its weight."""
    return TERMS[request.param]


@pytest.fixture(autouse=True)
def fresh_session():
    keras.utils.clear_session(free_memory=False)  # Collecting garbage takes seconds.
    keras.utils.set_random_seed(7)


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


def twin(network):
    """A network of its own with the same weights."""
    copy = keras.models.clone_model(network)
    copy.set_weights(network.get_weights())
    return copy


def small_data(samples=22, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, samples)
    x = rng.normal(size=(samples, 8, 8, 3)) + y[:, None, None, None]
    return x.astype("float32"), y.astype("int32")


def zero_weights(output=None):
    """All four terms with weight 0."""
    return [
        keras_collab.OutputConsistency(0.0, output=output),
        keras_collab.IntermediateConsistency(0.0, output=output),
        keras_collab.RepresentationSimilarity(0.0),
        keras_collab.KernelSimilarity(0.0),
    ]
