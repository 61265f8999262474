"""The divergence of the parts from the whole head, against its formula in float64 NumPy; losses it does not fit."""

import keras
import numpy as np
import pytest
from helpers import check, gradient, kl, small_network, softmax, tensor
from keras import layers, ops

from keras_collab import KernelSimilarity, OutputConsistency, wrap
from keras_collab.terms.output_consistency import consistency_divergence

RNG = np.random.default_rng(5)
LOGITS, PARTS = RNG.normal(size=(5, 4)), RNG.normal(size=(3, 5, 4))


def test_consistency_is_the_scaled_divergence_from_the_whole_to_its_parts():
    check(
        lambda z: ops.mean(consistency_divergence(tensor(LOGITS), z, 2.0)),
        lambda z: 4.0 * kl(softmax(LOGITS / 2), softmax(z / 2)).mean(),
        PARTS,
    )


def test_consistency_gives_the_whole_no_gradient():
    got = gradient(lambda z: ops.mean(consistency_divergence(z, tensor(PARTS), 2.0)), LOGITS)
    np.testing.assert_array_equal(got, np.zeros_like(LOGITS))


def regression(outputs):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, strides=2, activation="relu")(layers.Conv2D(4, 3, activation="relu")(inputs))
    return keras.Model(inputs, layers.Dense(outputs, name="size")(layers.GlobalAveragePooling2D()(x)))


def compile_on(network, term, loss):
    wrap(network, [term]).compile("sgd", loss)


@pytest.mark.parametrize(
    ("outputs", "loss"),
    [(1, "mse"), (4, "mse"), (4, keras.losses.Huber()), (1, [keras.losses.MeanAbsoluteError()]), (4, "poisson")],
)
def test_a_regression_loss_under_output_consistency_warns(outputs, loss):
    with pytest.warns(UserWarning, match=r"'output_consistency' reads the outputs of 'size' as logits.*regression"):
        compile_on(regression(outputs), OutputConsistency(), loss)


def test_classification_losses_do_not_warn():
    compile_on(regression(4), OutputConsistency(), keras.losses.CategoricalCrossentropy(from_logits=True))
    compile_on(regression(1), KernelSimilarity(), "mse")
    compile_on(small_network(), OutputConsistency(), "mse")  # Of probabilities: the Brier score.
