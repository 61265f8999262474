"""The base class as a user meets it: a fifth term, its arguments, its draws, and what terms refuse."""

import keras
import numpy as np
import pytest
from helpers import FEW_STEPS, small_data, small_network
from keras import ops

import keras_collab
from keras_collab import IntermediateConsistency, KernelSimilarity, OutputConsistency, RepresentationSimilarity


@keras.saving.register_keras_serializable("my_project")
class ConfidencePenalty(keras_collab.Term):
    """Punishes predictions of low entropy (Pereyra et al., 2017, arXiv 1701.06548)."""

    def select(self, reader):
        return keras_collab.Selection(head=reader.head())

    def call(self, tensors):
        log_probabilities = ops.log_softmax(tensors.head.logits)
        return tensors.mean_over_samples(ops.sum(ops.exp(log_probabilities) * log_probabilities, axis=-1))


def test_a_fifth_term(tmp_path):
    network = small_network()
    model = keras_collab.wrap(network, [ConfidencePenalty(0.1), keras_collab.KernelSimilarity()])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", **FEW_STEPS)
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
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", **FEW_STEPS)
    x, y = small_data()
    expected = np.mean((ops.convert_to_numpy(network(x, training=True)) - y[:, None]) ** 2)
    assert model.train_on_batch(x, y, return_dict=True)["distance"] == pytest.approx(expected, rel=1e-4)


class Scaled(keras_collab.Term):
    """A term with an argument of its own and without get_config."""

    def __init__(self, scale, **settings):
        super().__init__(**settings)
        self.scale = scale

    def select(self, reader):
        return keras_collab.Selection(head=reader.head())

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


def test_call_must_be_written():
    with pytest.raises(NotImplementedError, match="Term must implement call"):
        keras_collab.Term().call(None)


def test_configs_make_the_same_term(make_term):
    term = make_term(weight=0.7, name="mine")
    again = type(term).from_config(term.get_config())
    assert again.get_config() == term.get_config()
    assert (again.weight, again.name, again.seed) == (0.7, "mine", term.seed)


class Reads(keras_collab.Term):
    def __init__(self, layers="auto", **kwargs):
        super().__init__(**kwargs)
        self.layers = layers

    def select(self, reader):
        return keras_collab.Selection(taps=reader.taps(self.layers), kernels=reader.kernels())

    def call(self, tensors):
        return ops.mean(tensors.taps[0])


@pytest.mark.parametrize("layers", [r"relu[12]", lambda layer: layer.name in ("relu1", "relu2")])
@pytest.mark.parametrize("kind", [Reads, RepresentationSimilarity])
def test_layers_that_a_pattern_or_a_function_chose_are_saved_by_name(kind, layers):
    term = kind(layers=layers)
    keras_collab.wrap(small_network(), [term])
    assert term.get_config()["layers"] == ["relu1", "relu2"]
    assert kind(layers="auto").get_config()["layers"] == "auto"


def test_a_copy_has_the_same_arguments_but_for_the_changes():
    term = KernelSimilarity(keras_collab.schedules.Ramp(2.0, steps=3), layers=["conv1"], name="mine", seed=4)
    copy = term.copy(max_filters=5)
    assert copy.get_config() == {**term.get_config(), "max_filters": 5}
    assert list(keras_collab.wrap(small_network(), [copy]).terms) == ["mine"]


def test_a_copy_needs_nothing_that_can_be_saved():
    term = KernelSimilarity(lambda step: 0.5, layers=lambda layer: layer.name != "conv0")
    keras_collab.wrap(small_network(), [term.copy()])
    pattern = KernelSimilarity(layers="conv[12]")
    keras_collab.wrap(small_network(), [pattern])
    assert pattern.copy().layers == "conv[12]"  # Not the paths that it chose in that network.
    with pytest.raises(ValueError, match="is a function that cannot be saved"):
        term.get_config()


# What is drawn.


def test_draws_follow_from_the_seed_and_the_step():
    x, y = small_data(16)

    def value(seed):
        keras.utils.set_random_seed(1)
        model = keras_collab.wrap(small_network(), [keras_collab.OutputConsistency(seed=seed)])
        model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", **FEW_STEPS)
        return model.train_on_batch(x, y, return_dict=True)["output_consistency"]

    assert value(1) == value(1) != value(2)


def test_seeds_and_steps_never_draw_alike():
    draws = set()
    for seed in (0, 1, 16, 256):
        term = keras_collab.OutputConsistency(seed=seed)
        keras_collab.wrap(small_network(), [term])
        for step in (0, 1, 16):
            term._draw_at(ops.convert_to_tensor(step, dtype="int32"))
            for _ in range(20):
                value = keras.random.uniform((), dtype="float32", seed=term.seed_generator)
                draws.add(float(ops.convert_to_numpy(value)))
    assert len(draws) == 4 * 3 * 20


def test_a_term_has_no_weights_that_train():
    class Learned(keras_collab.Term):
        def select(self, reader):
            self.temperature = self.add_weight(shape=(), initializer="ones", name="temperature")
            return keras_collab.Selection()

    with pytest.raises(TypeError, match=r"'learned' has weights of its own that would train: \['temperature'\]"):
        keras_collab.wrap(small_network(), [Learned()])


def test_wrapping_consumes_no_random_numbers():
    import random

    network = small_network()
    before = random.getstate()
    model = keras_collab.wrap(network, keras_collab.recipes.strong())
    assert random.getstate() == before
    assert len({term.seed for term in model.terms.values()}) == 4


# What is refused.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: OutputConsistency(temperature=0),
            r"OutputConsistency: `temperature` must be a number >= 0.0001 and <= 10000.0. Received: temperature=0",
        ),
        (lambda: OutputConsistency(temperature=-2.0), r"`temperature` must be a number >= 0.0001 and <= 10000.0"),
        (
            lambda: IntermediateConsistency(temperature=0.0),
            r"IntermediateConsistency: `temperature` must be a number >= 0.0001 and <= 10000.0",
        ),
        (
            lambda: IntermediateConsistency(target="labels"),
            r"`target` must be one of \('outputs', 'deepest'\).*'labels'",
        ),
        (lambda: IntermediateConsistency(target="deepest", output="head"), "`output` names the head that target="),
        (lambda: OutputConsistency(parts=2.5), r"`parts` must be an integer >= 1. Received: parts=2.5"),
        (lambda: OutputConsistency(rate=1.0), r"`rate` must be a number > 0 and < 1"),
        (lambda: RepresentationSimilarity(max_channels=1), r"`max_channels` must be an integer >= 2"),
        (lambda: KernelSimilarity(max_filters=True), r"`max_filters` must be an integer >= 2"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("seed", [2**40, -1, 1.5])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match=r"`seed` must be an integer >= 0 and <= 2147483647"):
        keras_collab.KernelSimilarity(seed=seed)


def test_numbers_of_any_size():
    with pytest.raises(ValueError, match="must be a number from 0 to 1e38"):
        keras_collab.KernelSimilarity(10**400)
    kernels = keras_collab.KernelSimilarity(max_filters=10**400)
    channels = keras_collab.RepresentationSimilarity(max_positions=10**400)
    model = keras_collab.wrap(small_network(), [kernels, channels])
    model.compile("sgd", "sparse_categorical_crossentropy", **FEW_STEPS)
    assert np.isfinite(model.train_on_batch(*small_data(), return_dict=True)["loss"])
