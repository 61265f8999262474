"""Small networks, data and terms that several tests share."""

import keras
import numpy as np
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


# What compiles in the least time: XLA takes longer than these trainings save, and eager JAX compiles each operation.
JIT = keras.backend.backend() == "jax"


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


def small_data(samples=24, classes=3, seed=0):
    """Whole batches of 8 by default: each other size is compiled for itself."""
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
