"""The networks have the parameters of the literature, and every network can be wrapped with all four terms."""

import math

import keras
import numpy as np
import pytest

import keras_collab
from keras_collab import models


def trainable(network):
    return sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)


@pytest.mark.parametrize(
    ("make", "shape", "classes", "parameters"),
    [
        (models.resnet18, (32, 32, 3), 10, 11_173_962),  # He et al. with the stem for small images; widely quoted.
        (models.resnet18, (224, 224, 3), 1000, 11_689_512),  # He et al., 2016.
        (models.resnet20, (32, 32, 3), 10, 272_474),  # He et al., 2016: 0.27 million.
        (models.resnet14, (32, 32, 3), 10, 175_258),
        (models.resnet10, (32, 32, 3), 10, 308_826),
        (models.resnet8, (32, 32, 3), 10, 78_042),
        (models.vgg16, (32, 32, 3), 10, 14_728_266),  # The usual VGG-16 for CIFAR, with batch normalization.
    ],
)
def test_parameters_of_the_literature(make, shape, classes, parameters):
    network = make(shape, classes)
    assert trainable(network) == parameters
    assert network.output_shape == (None, classes)


@pytest.mark.parametrize("make", [models.resnet8, models.resnet18, models.vgg16])
def test_channels_are_last_whatever_the_setting_of_keras(make):
    expected = make((64, 64, 3), width=4).get_layer("pool").input.shape
    keras.config.set_image_data_format("channels_first")
    try:
        network = make((64, 64, 3), width=4)
    finally:
        keras.config.set_image_data_format("channels_last")
    assert network.get_layer("pool").input.shape == expected


@pytest.mark.parametrize("make", [models.resnet8, models.resnet18, models.vgg16])
def test_narrower_larger_and_wrapped(make):
    network = make((96, 96, 3), 7, width=4, dropout=0.2)
    assert trainable(network) < 100_000
    assert any(layer.name == "dropout" for layer in network.layers)
    model = keras_collab.wrap(network, keras_collab.recipes.strong())
    taps = model.terms["representation_similarity"].selection.taps
    assert len(taps) >= 3
    assert math.prod(taps[-1].positions) >= 9


@pytest.mark.parametrize("make", [models.resnet8, models.resnet18, models.vgg16])
@pytest.mark.parametrize("side", [8, 28])
def test_digits_and_fashion_mnist_are_not_too_small(make, side):
    network = make((side, side, 1), 10, width=4)
    assert network(np.zeros((2, side, side, 1), "float32")).shape == (2, 10)
    wrapped = keras_collab.wrap(network, keras_collab.recipes.strong())
    assert len(wrapped.terms["representation_similarity"].selection.taps) >= 3


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (models.resnet8, {"classes": ("cat", "dog", "fox", "owl")}, r"resnet8: `classes` must be the number.*4 names"),
        (models.vgg16, {"classes": ["cat"]}, r"vgg16: .* Give their number, classes=1"),
        (models.resnet18, {"classes": 10.0}, r"resnet18: `classes` must be an integer >= 1. Received: classes=10.0"),
        (models.resnet20, {"input_shape": (32, 32)}, r"resnet20: `input_shape` must be \(height, width, channels\)"),
        (models.resnet10, {"input_shape": (32, None, 3)}, r"resnet10: `input_shape` must be an integer >= 1"),
        (models.resnet14, {"width": 0}, r"resnet14: `width` must be an integer >= 1. Received: width=0"),
        (models.vgg16, {"dropout": 1.0}, r"vgg16: `dropout` must be a number >= 0 and < 1. Received: dropout=1.0"),
    ],
)
def test_bad_input(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(**arguments)
