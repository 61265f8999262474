"""Layers chosen by name, pattern or function; and what is said where none is meant."""

import re

import keras
import pytest
from helpers import branch, kernel_paths, tap_paths
from keras import layers

from keras_collab.network.names import LAYERS_HELP


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (["hidden"], ["hidden"]),
        (["left/relu"], ["left/relu"]),
        (["deep_relu"], ["left/deep_relu"]),  # The name of a nested layer will do if no other layer has it.
        (["hidden", "left/pool", "left/conv"], ["left/conv", "left/pool", "hidden"]),  # In the order of the network.
        ("hidden", ["hidden"]),
        (r".*relu", ["left/relu", "left/deep_relu", "relu"]),
        (r"left/.*conv", ["left/conv", "left/deep_conv"]),
        (r"conv", ["left/conv"]),  # The whole name has to match: not "deep_conv".
        ("shared", ["shared", "shared"]),  # One tap a call.
        (["shared"], ["shared", "shared"]),
        (lambda layer: isinstance(layer, keras.layers.MaxPooling2D), ["left/pool"]),
        (lambda layer: layer.name.startswith("deep"), ["left/deep_conv", "left/deep_relu"]),
    ],
)
def test_choice_of_taps(network, chosen, expected):
    assert tap_paths(network, chosen) == expected


def test_a_name_comes_before_the_pattern_that_it_is():
    network = keras.Sequential([keras.Input((5,)), layers.ReLU(name="a.c"), layers.ReLU(name="abc")])
    assert tap_paths(network, "a.c") == ["a.c"]
    assert tap_paths(network, "a.[c]") == ["a.c", "abc"]


def test_pattern_that_is_broken_is_a_name_if_a_layer_has_it():
    network = keras.Sequential([keras.Input((5,)), layers.ReLU(name="relu(1"), layers.ReLU(name="*")])
    assert tap_paths(network, "relu(1") == ["relu(1"]
    assert tap_paths(network, "*") == ["*"]


@pytest.mark.parametrize(("pattern", "message"), [("conv(", "missing )"), ("a{99999999999}", "too large")])
def test_bad_pattern(network, pattern, message):
    with pytest.raises(ValueError, match=re.escape(f"layers={pattern!r} is not a regular expression")) as error:
        tap_paths(network, pattern)
    assert message in str(error.value)
    assert LAYERS_HELP in str(error.value)


def test_the_same_names_in_two_branches():
    inputs = keras.Input((8, 8, 3))
    x = layers.Concatenate()([branch("left")(inputs), branch("right")(inputs)])
    network = keras.Model(inputs, layers.Dense(3, name="conv")(layers.Flatten()(x)), name="twins")
    assert set(tap_paths(network, ["left/conv", "right/relu"])) == {"left/conv", "right/relu"}
    assert kernel_paths(network, r"(left|right)/.*") == ["left/conv", "left/deep_conv", "right/conv", "right/deep_conv"]
    assert kernel_paths(network) == ["left/deep_conv", "right/deep_conv"]
    for chosen in (["conv"], "conv"):  # A path comes before a name.
        assert tap_paths(network, chosen) == ["conv"]
    for chosen in (["pool"], "pool"):
        with pytest.raises(ValueError, match=r"several layers are named 'pool' in network 'twins'") as error:
            tap_paths(network, chosen)
        assert "give one path of ['left/pool', 'right/pool']" in str(error.value)


# Errors say what was received, what was expected, how to mend it.

HELP = "`layers` takes a list of names, a regular expression, a function that takes a layer"


@pytest.mark.parametrize("chosen", ["deep_knv", ["hidden", "deep_knv"]])
def test_unknown_name(network, chosen):
    with pytest.raises(ValueError, match=r"no name of a layer matches 'deep_knv' in network 'outer'\.") as error:
        tap_paths(network, chosen)
    assert "Close matches: 'deep_conv'" in str(error.value)
    assert HELP in str(error.value)


@pytest.mark.parametrize("chosen", ["xyzzy", ["xyzzy"], "block[0-9]", ".*conv_"])
def test_names_are_listed_where_nothing_matches(network, chosen):
    with pytest.raises(ValueError, match="no name of a layer matches") as error:
        tap_paths(network, chosen)
    assert "Close matches" not in str(error.value)
    assert "Names: 'left/conv', 'left/relu', 'left/pool', 'left/deep_conv', 'left/deep_relu', " in str(error.value)


def test_the_first_names_are_listed_where_they_are_many():
    network = keras.Sequential([keras.Input((5,)), *(layers.ReLU(name=f"relu{index}") for index in range(23))])
    with pytest.raises(ValueError, match=r"'relu19' and 3 more\. ") as error:
        tap_paths(network, "conv[0-9]")
    assert "relu20" not in str(error.value)


@pytest.mark.parametrize(
    ("chosen", "hint"),
    [
        ("deep", "the beginning of 'deep_conv', 'deep_relu', but the whole name must match, as 'deep.*' does."),
        ("left/p[o]+", "the beginning of 'left/pool', but the whole name must match, as 'left/p[o]+.*' does."),
    ],
)
def test_pattern_that_matches_the_beginning_of_a_name(network, chosen, hint):
    with pytest.raises(ValueError, match="no name of a layer matches") as error:
        tap_paths(network, chosen)
    assert hint in str(error.value)


def test_a_function_is_asked_of_layers_only():
    inputs = keras.Input((8,))
    x = layers.Dense(8, name="wide")(inputs)
    network = keras.Model(inputs, layers.Dense(3, name="last")(x + inputs))  # The sum is a call of `keras.ops`.
    assert tap_paths(network, lambda layer: layer.trainable) == ["wide", "last"]


def test_layer_without_kernel(network):
    with pytest.raises(ValueError, match="no name of a layer with a kernel matches 'relu'"):
        kernel_paths(network, ["relu"])


def test_name_of_a_nested_model_is_no_layer(network):
    with pytest.raises(ValueError, match="no name of a layer matches 'left'") as error:
        tap_paths(network, ["left"])
    assert "'left/" in str(error.value)


def test_function_that_says_no_to_all(network):
    with pytest.raises(ValueError, match="did not choose a layer in network 'outer'"):
        tap_paths(network, lambda layer: False)
    with pytest.raises(ValueError, match="did not choose a layer with a kernel in network 'outer'"):
        kernel_paths(network, lambda layer: isinstance(layer, keras.layers.ReLU))


@pytest.mark.parametrize("chosen", [[], 3, None, [3], ["hidden", 3], {"hidden"}])
def test_wrong_type(network, chosen):
    with pytest.raises(TypeError, match=re.escape(f"Received: layers={chosen!r}")) as error:
        tap_paths(network, chosen)
    assert HELP in str(error.value)
