"""What a term may ask of a network: taps with their shapes, and the kernels of chosen layers."""

import keras
import pytest
from helpers import kernel_paths
from keras import layers

from keras_collab import NetworkReader
from keras_collab.network.names import LAYERS_HELP


def test_taps_tell_shape_channels_and_positions(network):
    pool, hidden = NetworkReader(network).taps(["left/pool", "hidden"])
    assert (pool.shape, pool.channels, pool.positions) == ((None, 4, 4, 4), 4, (4, 4))
    assert (hidden.shape, hidden.channels, hidden.positions) == ((None, 5), 5, ())
    assert not pool.channels_first
    assert not hidden.channels_first


def test_layer_with_several_outputs_is_tapped_at_the_first():
    tokens = keras.Input((7, 2))
    sequence, state, _ = layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")(tokens)
    pooled = layers.Concatenate()([layers.GlobalMaxPooling1D()(sequence), state])
    (tap,) = NetworkReader(keras.Model(tokens, layers.Dense(3)(pooled))).taps("lstm")
    assert tap.shape == (None, 7, 4)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ("auto", ["left/deep_conv", "shared"]),
        (["hidden"], ["hidden"]),
        ([r"shared", "conv"], ["left/conv", "shared"]),  # A layer that is called twice has its filters once.
        (".*", ["left/conv", "left/deep_conv", "shared", "hidden", "head"]),
        (lambda layer: layer.name != "shared", ["left/conv", "left/deep_conv", "hidden", "head"]),
    ],
)
def test_choice_of_kernels(network, chosen, expected):
    assert kernel_paths(network, chosen) == expected


def test_layer_with_one_filter_has_nothing_to_compare():
    inputs = keras.Input((5,))
    x = layers.Dense(1, name="single")(layers.Dense(4, name="wide")(inputs))
    network = keras.Model(inputs, layers.Dense(3, name="head")(x))
    assert kernel_paths(network, ".*") == ["wide", "head"]
    with pytest.raises(ValueError, match=r"has 1 layers with two or more filters.*; 2 or more are needed"):
        NetworkReader(network).kernels(["wide", "single"], at_least=2)
    with pytest.raises(ValueError, match="has 0 layers with two or more filters to compare") as error:
        kernel_paths(network, "single")
    assert "layers with kernels: wide, single, head" in str(error.value)


def test_too_few_layers(network):
    with pytest.raises(ValueError, match=r"2 layers are needed, network \'outer\' has 1 .*: \'hidden\'") as error:
        NetworkReader(network).taps("hidden", at_least=2)
    assert LAYERS_HELP in str(error.value)


def test_a_network_without_a_graph_is_refused():
    with pytest.raises(ValueError, match="was never built"):
        NetworkReader(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(TypeError, match="Received: None"):
        NetworkReader(None)
