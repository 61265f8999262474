"""The network in which tests choose layers."""

import keras
import pytest
from helpers import branch
from keras import layers


@pytest.fixture
def network():
    """A branch, then layers of its own, one of which is called twice."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = branch("left")(inputs)
    shared = layers.Conv2D(6, 3, padding="same", name="shared")
    x = shared(layers.ReLU(name="relu")(shared(x)))
    x = layers.GlobalAveragePooling2D(name="pooled")(x)
    x = layers.Dense(5, activation="relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x), name="outer")
