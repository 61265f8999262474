"""Regular expressions for layers: what is none, and what may take forever, is refused."""

import re

import keras
import pytest
from helpers import kernel_paths, tap_paths
from keras import layers

from keras_collab.network.names import LAYERS_HELP


@pytest.mark.parametrize(
    "pattern",
    [r"(left|right)?/?(d*){2}eep_.*", r"left/(deep_)?\w+", r"[(+]*deep_(conv|relu)|(left/)?(de+p)_.*", r"\(*.*_.*"],
)
def test_plain_patterns_are_not_refused(network, pattern):
    assert "left/deep_conv" in tap_paths(network, pattern)


def test_some_repeats_are_not_refused(network):
    assert kernel_paths(network, ".*" * 6) == ["left/conv", "left/deep_conv", "shared", "hidden", "head"]


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


def test_pattern_has_a_bound(network):
    with pytest.raises(ValueError, match="has 201 characters; a regular expression may have 200"):
        tap_paths(network, "a" * 201)
    assert tap_paths(network, "hidden" + "|x" * 97) == ["hidden"]  # 200 characters.


def test_bad_pattern(network):
    with pytest.raises(ValueError, match=re.escape("layers='conv(' is not a regular expression: missing )")) as error:
        tap_paths(network, "conv(")
    assert LAYERS_HELP in str(error.value)
