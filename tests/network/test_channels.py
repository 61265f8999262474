"""Channels on axis 1, on the last axis, and moved from one to the other."""

import keras
import pytest
from helpers import assert_trains_as_plain, normal, softmax_head
from keras import layers

from keras_collab import NetworkReader


def patches_of_channels_first():
    inputs = keras.Input((3, 8, 8))
    x = layers.Conv2D(12, 2, 2, data_format="channels_first", name="patches")(inputs)
    x = layers.Permute((2, 1), name="turn")(layers.Reshape((12, 16), name="flat")(x))
    for name in ("a", "b"):
        y = layers.Dense(12, activation="relu", name=f"dense_{name}")(layers.LayerNormalization()(x))
        x = layers.Add(name=f"add_{name}")([x, y])
    x = layers.LayerNormalization(name="norm")(x)
    return keras.Model(inputs, softmax_head(layers.GlobalAveragePooling1D()(x))), normal(3, 8, 8)


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow", reason="TensorFlow has no channels-first convolutions on the CPU."
)
@pytest.mark.parametrize("make", [patches_of_channels_first])
def test_weights_of_zero_train_as_plain(make):
    assert_trains_as_plain(make)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_channels_first_taps(dimensions):
    convolution = getattr(layers, f"Conv{dimensions}D")
    pooling = getattr(layers, f"MaxPooling{dimensions}D")
    inputs = keras.Input((2, *(8, 6, 4)[:dimensions]))
    x = convolution(5, 3, padding="same", data_format="channels_first", name="conv")(inputs)
    x = pooling(2, data_format="channels_first", name="pool")(layers.ReLU(name="relu")(x))
    network = keras.Model(inputs, layers.Dense(3, name="head")(layers.Flatten(name="flatten")(x)))
    *maps, flat = NetworkReader(network).taps(["relu", "pool", "flatten"])
    assert [tap.channels_first for tap in maps] == [True, True]
    assert [tap.channels for tap in maps] == [5, 5]
    assert [tap.positions for tap in maps] == [(8, 6, 4)[:dimensions], (4, 3, 2)[:dimensions]]
    assert not flat.channels_first
    assert flat.channels == 5 * keras.ops.prod((4, 3, 2)[:dimensions])


def test_channels_first_inside_a_wrapper():
    inputs = keras.Input((3, 16, 32))
    convolution = layers.Conv2D(8, 3, padding="same", data_format="channels_first")
    x = layers.SpectralNormalization(convolution, name="spectral")(inputs)
    network = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D(data_format="channels_first")(x)))
    (tap,) = NetworkReader(network).taps()
    assert (tap.channels, tap.positions) == (8, (16, 32))
