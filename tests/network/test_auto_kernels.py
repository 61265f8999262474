"""Which kernels `layers="auto"` stands for."""

import keras
import pytest
from helpers import kernel_paths
from keras import layers


def test_auto_leaves_out_first_depthwise_and_dense_layers():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="first")(inputs)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = layers.Conv2D(16, 1, groups=8, name="one_channel_a_group")(x)
    x = layers.Conv2D(8, 3, padding="same", groups=2, name="grouped")(x)
    x = layers.SeparableConv2D(8, 3, padding="same", name="separable")(x)
    x = layers.Conv2DTranspose(8, 3, name="transposed")(x)
    x = layers.Conv2D(1, 1, name="single_filter")(x)
    x = layers.Dense(8, name="hidden")(layers.Flatten()(x))
    assert kernel_paths(keras.Model(inputs, layers.Dense(3, name="head")(x))) == ["grouped", "separable", "transposed"]


def test_first_convolution_of_each_input_is_left_out():
    left, right = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    x = [layers.Conv2D(4, 3, padding="same", name=f"first_{i}")(y) for i, y in enumerate((left, right))]
    x = layers.Conv2D(4, 3, name="second")(layers.Concatenate()(x))
    network = keras.Model([left, right], layers.Dense(3)(layers.Flatten()(x)))
    assert kernel_paths(network) == ["second"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        (12, ["wide"]),  # 9 · 4 · 12 = 432 weights, and 12 · 8 = 96.
        (2, ["wide", "pointwise"]),  # 9 · 4 · 2 = 72, of 9 · 4 · 2 + 2 · 128 = 328.
    ],
)
def test_auto_leaves_out_pointwise_convolutions_where_a_quarter_of_the_weights_is_elsewhere(filters, found):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(filters, 3, name="wide")(layers.Conv2D(4, 3, name="first")(inputs))
    x = layers.Conv2D(8 if filters == 12 else 128, 1, name="pointwise")(x)
    x = layers.GlobalAveragePooling2D()(x)
    assert kernel_paths(keras.Model(inputs, layers.Dense(3, name="head")(x))) == found


def test_auto_leaves_out_a_convolution_that_classifies():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="second")(layers.Conv2D(4, 3, name="first")(inputs))
    x = layers.Conv2D(3, 1, name="head")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    assert kernel_paths(keras.Model(inputs, layers.Softmax()(layers.Flatten()(x)))) == ["second"]


def test_auto_in_a_network_of_dense_layers():
    dense = [layers.Dense(4, name="a"), layers.Dense(4, name="b"), layers.Dense(3, name="head")]
    assert kernel_paths(keras.Sequential([keras.Input((5,)), *dense])) == ["a", "b"]


@pytest.mark.parametrize(
    "network",
    [
        lambda: keras.Sequential([keras.Input((5,)), layers.Dense(3, name="head")], name="net"),
        lambda: keras.Sequential(
            [keras.Input((8, 3)), layers.Conv1D(4, 3, name="first"), layers.Flatten(), layers.Dense(3, name="head")],
            name="net",
        ),
    ],
    ids=["linear", "one convolution"],
)
def test_auto_finds_nothing(network):
    with pytest.raises(ValueError, match="network 'net' has 0 layers with two or more filters") as error:
        kernel_paths(network())
    assert "head" in str(error.value).partition("layers with kernels: ")[2]
