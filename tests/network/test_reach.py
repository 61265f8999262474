"""Which weights the terms can change, and which layers no term reads."""

import warnings

import keras
import numpy as np
import pytest
from helpers import small_network
from keras import layers

from keras_collab import KernelSimilarity, OutputConsistency, describe, wrap


def count(*layers_):
    return sum(layer.count_params() for layer in layers_)


def test_the_share_of_weights_that_a_term_can_change():
    network = small_network()
    trainable = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    description = describe(wrap(network, [KernelSimilarity(), OutputConsistency()]), verbose=False)
    kernels, output = description.terms
    assert description.trainable == trainable
    assert kernels.reach == pytest.approx(count(network.get_layer("conv1"), network.get_layer("conv2")) / trainable)
    assert output.reach == 1.0
    assert description.unread == {}


def test_a_frozen_backbone_is_out_of_reach():
    backbone = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Conv2D(4, 3, name="second")])
    backbone.trainable = False
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(backbone(inputs))
    network = keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x))
    kernels, output = describe(wrap(network, [KernelSimilarity(), OutputConsistency()]), verbose=False).terms
    assert (kernels.reach, kernels.frozen) == (0.0, kernels.kernels)
    assert (output.reach, output.frozen) == (1.0, ())


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras 3.15 on torch; `pytest.warns` warns it anew.
def test_a_target_is_out_of_reach():
    """Intermediate consistency changes what comes before its taps, not the layers that make its target."""
    inputs = keras.Input((16, 16, 3))
    x = layers.MaxPooling2D()(layers.Conv2D(4, 3, padding="same", name="conv0")(inputs))
    x = layers.MaxPooling2D()(layers.Conv2D(4, 3, padding="same", name="conv1")(x))
    x = layers.Dense(100, activation="relu", name="wide")(layers.Flatten()(x))
    network = keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x))
    with pytest.warns(UserWarning, match=r"9\d% of the .* layers that no term can change: wide \(6,500\)\."):
        model = wrap(network)
    description = describe(model, verbose=False)
    before = count(network.get_layer("conv0"), network.get_layer("conv1"))
    assert description.terms[0].reach == pytest.approx(before / network.count_params())
    assert description.unread == {"wide": 6500}  # The head is read, though not changed.


def test_filters_of_a_layer_in_a_layer_are_reached():
    inputs = keras.Input((4, 8, 8, 3))
    x = layers.TimeDistributed(layers.Conv2D(4, 3), name="first")(inputs)
    x = layers.TimeDistributed(layers.Conv2D(4, 3), name="second")(x)
    network = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    (term,) = describe(wrap(network, [KernelSimilarity(layers=".*second.*")]), verbose=False).terms
    assert term.reach == pytest.approx(count(network.get_layer("second")) / network.count_params())


@pytest.mark.parametrize("wide", [True, False])
def test_most_weights_in_layers_that_no_term_reads(wide, capsys):
    """A convolution is read; a recurrent layer, ten times as large or a tenth, is not."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv0")(inputs)
    x = layers.Conv2D(8, 3, name="conv1")(x)
    x = layers.GRU(64 if wide else 1, name="memory")(layers.Reshape((16, 8))(x))
    network = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    description = describe(wrap(network, [KernelSimilarity()]))
    assert next(iter(description.unread)) == ("memory" if wide else "conv0")
    assert description.unread["memory"] == network.get_layer("memory").count_params()
    assert "conv1" not in description.unread
    printed = " ".join(capsys.readouterr().out.split())
    assert ("of the trainable parameters lie in layers that no term can change: memory (14,208)" in printed) == wide


def test_wrap_warns_where_the_default_reads_least_of_the_weights():
    inputs = x = keras.Input((8, 8, 3))
    for name in ("conv0", "conv1", "conv2"):
        x = layers.Conv2D(4, 3, padding="same", activation="relu", name=name)(x)
    kind = layers.Dense(3, activation="softmax", name="kind")(layers.GlobalAveragePooling2D()(x))
    size = layers.Dense(1, name="size")(layers.Dense(500, activation="relu", name="wide")(layers.Flatten()(inputs)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wrap(keras.Model(inputs, [kind, size]))
    told = "\n".join(str(warning.message) for warning in caught)
    assert "99% of the trainable parameters lie in layers that no term can change: wide (96,500)" in told
