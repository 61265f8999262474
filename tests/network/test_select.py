"""What a term may ask of a network: taps and kernels, by name, pattern, function or rule."""

import re

import keras
import pytest
from keras import layers

from keras_collab import KernelSimilarity, NetworkReader, RepresentationSimilarity, Selection, describe, wrap


def branch(name):
    """Two networks made by this share every layer name."""
    inputs = keras.Input((8, 8, 3), name="image")
    x = layers.ReLU(name="relu")(layers.Conv2D(4, 3, padding="same", name="conv")(inputs))
    x = layers.Conv2D(6, 3, padding="same", name="deep_conv")(layers.MaxPooling2D(name="pool")(x))
    return keras.Model(inputs, layers.ReLU(name="deep_relu")(x), name=name)


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


def tap_paths(network, layers):
    return [tap.path for tap in NetworkReader(network).taps(layers)]


def kernel_paths(network, layers):
    return [kernel.path for kernel in NetworkReader(network).kernels(layers)]


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


def test_the_same_names_in_two_branches():
    inputs = keras.Input((8, 8, 3))
    x = layers.Concatenate()([branch("left")(inputs), branch("right")(inputs)])
    network = keras.Model(inputs, layers.Dense(3, name="conv")(layers.Flatten()(x)), name="twins")
    assert set(tap_paths(network, ["left/conv", "right/relu"])) == {"left/conv", "right/relu"}
    assert kernel_paths(network, r"(left|right)/.*") == ["left/conv", "left/deep_conv", "right/conv", "right/deep_conv"]
    assert kernel_paths(network, "auto") == ["left/deep_conv", "right/deep_conv"]
    for chosen in (["conv"], "conv"):
        with pytest.raises(ValueError, match=r"several layers are named 'conv' in network 'twins'") as error:
            tap_paths(network, chosen)
        assert "['conv', 'left/conv', 'right/conv']" in str(error.value)
    with pytest.raises(ValueError, match=r"give one path of \['left/pool', 'right/pool'\]"):
        tap_paths(network, "pool")


def test_layers_of_the_same_name_train_together():
    inputs = keras.Input((8, 8, 3))
    x = layers.Concatenate()([branch("left")(inputs), branch("right")(inputs)])
    network = keras.Model(inputs, layers.Dense(3, name="conv")(layers.Flatten()(x)), name="twins")
    names = [layer.name for layer in network._flatten_layers()]
    model = wrap(network, [RepresentationSimilarity(layers=r"(left|right)/relu"), KernelSimilarity()])
    assert [layer.name for layer in network._flatten_layers()] == names
    description = describe(model, verbose=False)
    assert list(description.terms[0].taps) == ["left/relu", "right/relu"]


def test_taps_tell_shape_channels_and_positions(network):
    pool, hidden = NetworkReader(network).taps(["left/pool", "hidden"])
    assert (pool.shape, pool.channels, pool.positions, pool.position_count) == ((None, 4, 4, 4), 4, (4, 4), 16)
    assert (hidden.shape, hidden.channels, hidden.positions, hidden.position_count) == ((None, 5), 5, (), 1)
    assert not pool.channels_first
    assert not hidden.channels_first


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


def test_first_convolution_of_each_input_is_left_out():
    left, right = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    x = [layers.Conv2D(4, 3, padding="same", name=f"first_{i}")(y) for i, y in enumerate((left, right))]
    x = layers.Conv2D(4, 3, name="second")(layers.Concatenate()(x))
    network = keras.Model([left, right], layers.Dense(3)(layers.Flatten()(x)))
    assert kernel_paths(network, "auto") == ["second"]


def test_layer_with_one_filter_has_nothing_to_compare():
    inputs = keras.Input((5,))
    x = layers.Dense(1, name="single")(layers.Dense(4, name="wide")(inputs))
    network = keras.Model(inputs, layers.Dense(3, name="head")(x))
    assert kernel_paths(network, ".*") == ["wide", "head"]
    with pytest.raises(ValueError, match="no layer with two or more filters to compare in network") as error:
        kernel_paths(network, "single")
    assert "layers with kernels: wide, single, head" in str(error.value)


def test_found_names_each_layer_once(network):
    reader = NetworkReader(network)
    found = Selection(taps=reader.taps(["shared", "hidden"]), kernels=reader.kernels(["shared", "conv"]))
    assert found.paths == ["shared", "hidden", "left/conv"]


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


def test_pattern_that_is_broken_is_a_name_if_a_layer_has_it():
    network = keras.Sequential([keras.Input((5,)), layers.ReLU(name="relu(1"), layers.ReLU(name="*")])
    assert tap_paths(network, "relu(1") == ["relu(1"]
    assert tap_paths(network, "*") == ["*"]


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+", "(a|aa)+", r"((conv|bn)\d*)*x", "(?:a?){30}", "(((a+)))+", r"([(]+)+", "(?P<name>a*)*"),
        *("(a|aa)" * 28, "((a|ab)(a|ab)){14}", r"(.*)(.*)\1\2", "(?=(a+)+)x", ".*" * 20),
    ],
)
def test_pattern_that_may_take_forever_is_refused(network, pattern):
    with pytest.raises(ValueError, match="may take forever, since it can match a name in too many ways"):
        tap_paths(network, pattern)


def test_the_longest_name_counts():
    network = keras.Sequential([keras.Input((4,)), layers.Dense(5, name="a" * 150), layers.Dense(3)])
    with pytest.raises(ValueError, match="may take forever"):
        tap_paths(network, ".*" * 6 + "c")


def test_some_repeats_are_not_refused(network):
    assert kernel_paths(network, ".*" * 6) == ["left/conv", "left/deep_conv", "shared", "hidden", "head"]


def test_pattern_has_a_bound(network):
    with pytest.raises(ValueError, match="has 201 characters; a regular expression may have 200"):
        tap_paths(network, "a" * 201)
    assert tap_paths(network, "hidden" + "|x" * 97) == ["hidden"]  # 200 characters.


@pytest.mark.parametrize(
    "pattern",
    [r"(left|right)?/?(d*){2}eep_.*", r"left/(deep_)?\w+", r"[(+]*deep_(conv|relu)|(left/)?(de+p)_.*", r"\(*.*_.*"],
)
def test_plain_patterns_are_not_refused(network, pattern):
    assert "left/deep_conv" in tap_paths(network, pattern)


def test_layer_without_kernel(network):
    with pytest.raises(ValueError, match="no name of a layer with a kernel matches 'relu'"):
        kernel_paths(network, ["relu"])


def test_name_of_a_nested_model_is_no_layer(network):
    with pytest.raises(ValueError, match="no name of a layer matches 'left'") as error:
        tap_paths(network, ["left"])
    assert "'left/" in str(error.value)


def test_bad_pattern(network):
    with pytest.raises(ValueError, match=re.escape("layers='conv(' is not a regular expression: missing )")) as error:
        tap_paths(network, "conv(")
    assert HELP in str(error.value)


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


def test_too_few_layers(network):
    with pytest.raises(ValueError, match=r"2 layers are needed, 1 found in network 'outer'.*: 'hidden'") as error:
        NetworkReader(network).taps("hidden", at_least=2)
    assert HELP in str(error.value)


def test_error_names_the_term(network):
    with pytest.raises(ValueError, match=r"^Term 'repeats': no name of a layer matches 'nowhere'"):
        wrap(network, [RepresentationSimilarity(layers="nowhere", name="repeats")])
    with pytest.raises(TypeError, match=r"^Term 'kernel_similarity': `layers` takes"):
        wrap(network, [KernelSimilarity(layers=7)])
