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


class Scaled(keras_collab.Term):
    """A term with an argument of its own and without get_config."""

    def __init__(self, scale, **settings):
        super().__init__(**settings)
        self.scale = scale

    def select(self, network):
        return keras_collab.Selection(head=network.head())

    def call(self, tensors):
        return self.scale * tensors.mean_over_samples(keras.ops.mean(tensors.head.logits**2, axis=-1))


class Forgets(Scaled):
    def __init__(self, power):
        super().__init__(2.0)
        self._power = power


def test_arguments_that_a_term_keeps_are_in_its_config():
    again = Scaled.from_config(Scaled(3.0, weight=0.5, seed=4).get_config())
    assert (again.scale, again.weight, again.seed) == (3.0, 0.5, 4)
    with pytest.raises(ValueError, match=r"'forgets' does not keep its argument `power`.*self.power = power in"):
        Forgets(2).get_config()


def test_a_tool_makes_the_same_term():
    def share(scale):
        keras.utils.set_random_seed(0)
        model = keras_collab.wrap(small_network(), [Scaled(scale)])
        model.compile("sgd", "sparse_categorical_crossentropy")
        return keras_collab.balance(model, small_data(), verbose=False).weights["scaled"]

    assert share(100.0) == pytest.approx(share(1.0) / 100, rel=1e-3)


class Returns(keras_collab.Term):
    """A term whose value a test chooses."""

    def __init__(self, make):
        super().__init__()
        self.make = make

    def call(self, tensors):
        return self.make(tensors.outputs)


@pytest.mark.parametrize(
    ("make", "received"),
    [
        (lambda outputs: keras.ops.mean(outputs, axis=-1), r"shape \(8,\)"),
        (lambda outputs: None, "None"),
        (lambda outputs: "1", "'1'"),
        (lambda outputs: (1.0, 2.0), r"\(1.0, 2.0\)"),
    ],
)
def test_a_value_that_is_no_scalar(make, received):
    model = keras_collab.wrap(small_network(), [Returns(make)])
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    with pytest.raises(ValueError, match=rf"value of term 'returns' must be a scalar. Received: {received}"):
        model.train_on_batch(*[part[:8] for part in small_data()])


def test_a_value_that_is_a_number_or_of_another_dtype():
    for make, value in ((lambda outputs: 2, 2), (lambda outputs: ops.cast(ops.sum(outputs[0]), "float16"), 1)):
        model = keras_collab.wrap(small_network(), [Returns(make)])
        model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
        assert model.train_on_batch(*small_data(), return_dict=True)["returns"] == pytest.approx(value, 0.01)


def test_call_takes_tensors():
    class Other(keras_collab.Term):
        def call(self, batch):
            return 0.0

    with pytest.raises(TypeError, match=r"Other must have a method call\(self, tensors\)"):
        keras_collab.wrap(small_network(), [Other()])


@pytest.mark.parametrize("selected", [None, (), "taps"])
def test_select_returns_a_selection(selected):
    class Other(keras_collab.Term):
        def select(self, network):
            return keras_collab.Selection(taps=network.taps()[0]) if selected == "taps" else selected

    with pytest.raises(TypeError, match=r"select\(\) must return a keras_collab.Selection, with a tuple of taps"):
        keras_collab.wrap(small_network(), [Other()])


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
