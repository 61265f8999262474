"""The arms that `compare` knows by name train with the terms that they stand for."""

import keras
import pytest
from helpers import compare_tiny, small_data, small_network

import keras_collab
from keras_collab.tools.arms import LabelSmoothing


def test_ready_arms_train():
    terms = ["output_consistency", "intermediate_consistency", "representation_similarity", "kernel_similarity"]
    names = ["plain", *terms, "label_smoothing", "balanced"]
    comparison = compare_tiny(arms=names, epochs=1)
    columns = {
        run.arm: [name for name in run.history if name in [*terms, "label_smoothing"]] for run in comparison.runs
    }
    for name in [*terms, "label_smoothing"]:
        assert columns[name] == [name]
    assert columns["plain"] == []
    assert sorted(columns["balanced"]) == sorted(terms)


def test_label_smoothing_is_that_of_keras():
    x, y = small_data()
    network = small_network()
    model = keras_collab.wrap(network, [LabelSmoothing(0.1)])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    loss = model.train_on_batch(x, y, return_dict=True)["loss"]
    smoothed = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    predicted = network(x, training=True)
    expected = keras.ops.stop_gradient(smoothed(keras.ops.one_hot(y, 3), predicted))
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)
