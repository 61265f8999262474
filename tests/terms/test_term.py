"""The base class as a user meets it: a fifth term, the public names, describe."""

import keras
import numpy as np
import pytest
from helpers import small_data, small_network
from keras import ops

import keras_collab


# The README shows these lines.
@keras.saving.register_keras_serializable("my_project")
class ConfidencePenalty(keras_collab.Term):
    """Punishes predictions of low entropy (Pereyra et al., 2017, arXiv 1701.06548)."""

    def select(self, network):
        return keras_collab.Selection(head=network.head())

    def call(self, tensors):
        log_probabilities = ops.log_softmax(tensors.head.logits)
        return tensors.mean_over_samples(ops.sum(ops.exp(log_probabilities) * log_probabilities, axis=-1))


def test_a_fifth_term(tmp_path):
    network = small_network()
    model = keras_collab.wrap(network, [ConfidencePenalty(0.1), keras_collab.KernelSimilarity()])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", run_eagerly=True)
    x, y = small_data()
    logs = model.train_on_batch(x, y, return_dict=True)
    probabilities = ops.convert_to_numpy(network(x, training=True))
    assert logs["confidence_penalty"] == pytest.approx(
        np.mean(np.sum(probabilities * np.log(probabilities), axis=-1)), rel=1e-4
    )
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert restored.terms["confidence_penalty"].weight == pytest.approx(0.1)


def test_a_term_that_reads_outputs_and_labels_only():
    class Distance(keras_collab.Term):
        def call(self, tensors):
            labels = ops.cast(ops.reshape(tensors.y, (-1, 1)), "float32")
            return ops.mean(ops.square(tensors.outputs - labels))

    network = small_network()
    model = keras_collab.wrap(network, [Distance()])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", run_eagerly=True)
    x, y = small_data()
    expected = np.mean((ops.convert_to_numpy(network(x, training=True)) - y[:, None]) ** 2)
    assert model.train_on_batch(x, y, return_dict=True)["distance"] == pytest.approx(expected, rel=1e-4)


def test_a_term_without_a_head_trains_with_sample_weights():
    class Size(keras_collab.Term):
        def select(self, network):
            return keras_collab.Selection(taps=network.taps("relu1"))

        def call(self, tensors):
            return tensors.mean_over_samples(ops.mean(ops.square(tensors.taps[0]), axis=(1, 2, 3)))

    model = keras_collab.wrap(small_network(), [Size()])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", run_eagerly=True)
    x, y = small_data()
    plain = model.train_on_batch(x, y, return_dict=True)["size"]
    model.reset_metrics()
    double = model.train_on_batch(x, y, sample_weight=np.full(len(x), 2.0, "float32"), return_dict=True)["size"]
    assert double == pytest.approx(2 * plain, rel=1e-4)


def test_call_must_be_written():
    with pytest.raises(NotImplementedError, match="Term must implement call"):
        keras_collab.Term().call(None)


def test_configs_make_the_same_term(make_term):
    term = make_term(weight=0.7, name="mine")
    again = type(term).from_config(term.get_config())
    assert again.get_config() == term.get_config()
    assert (again.weight, again.name, again.seed) == (0.7, "mine", term.seed)


def test_public_names():
    assert sorted(keras_collab.__all__) == [
        "Balance",
        "CollabModel",
        "Comparison",
        "Description",
        "Diagnosis",
        "IntermediateConsistency",
        "KernelSimilarity",
        "NetworkReader",
        "OutputConsistency",
        "RepresentationSimilarity",
        "Selection",
        "StepTensors",
        "Term",
        "balance",
        "baselines",
        "callbacks",
        "compare",
        "datasets",
        "describe",
        "diagnose",
        "label_noise",
        "models",
        "recipes",
        "schedules",
        "wrap",
    ]
