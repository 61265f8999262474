"""Bad input: what was received, what was expected, how to mend it; and the network is as it was."""

import math

import keras
import numpy as np
import pytest
from helpers import small_data, small_network
from keras import layers

import keras_collab


def unbuilt():
    return keras.Sequential([layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)], name="lazy")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="pythonic")
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


class OwnStep(keras.Model):
    def train_step(self, *args, **kwargs):
        return super().train_step(*args, **kwargs)


def headless():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="first")(inputs)
    return keras.Model(inputs, layers.Conv2D(4, 3, strides=2, name="second")(x), name="backbone")


def with_own_step():
    network = small_network()
    return OwnStep(network.inputs, network.outputs)


def narrow():
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(inputs))
    return keras.Model(inputs, layers.Dense(3)(x))


OUTPUT, INTERMEDIATE = keras_collab.OutputConsistency, keras_collab.IntermediateConsistency
REPRESENTATION, KERNEL = keras_collab.RepresentationSimilarity, keras_collab.KernelSimilarity


@pytest.mark.parametrize(
    ("make_network", "make_terms", "error", "message"),
    [
        (
            lambda: "resnet",
            lambda: None,
            TypeError,
            r"must be a Functional or Sequential keras.Model. Received: 'resnet'",
        ),
        (unbuilt, lambda: None, ValueError, r"'lazy' was never built.*keras.Input"),
        (
            Subclassed,
            lambda: None,
            ValueError,
            r"'pythonic' is a subclassed model \(Subclassed\).*no graph.*keras.Model",
        ),
        (with_own_step, lambda: None, ValueError, r"overrides train_step.*Wrap keras.Model"),
        (
            headless,
            lambda: [OUTPUT()],
            ValueError,
            r"'output_consistency': no classifier found in network 'backbone'.*Dense",
        ),
        (
            small_network,
            lambda: [KERNEL(layers="conv_1")],
            ValueError,
            r"'kernel_similarity': no name of a layer with a kernel matches 'conv_1'.*Close matches: 'conv1'.*`layers`",
        ),
        (
            small_network,
            lambda: [INTERMEDIATE(layers=["relu0", "relu7"])],
            ValueError,
            r"'intermediate_consistency': no name of a layer matches 'relu7'.*Close matches: 'relu2', 'relu1'",
        ),
        (
            small_network,
            lambda: [REPRESENTATION(layers=r"block\d+_out")],
            ValueError,
            r"'representation_similarity': no name of a layer matches 'block\\\\d\+_out'",
        ),
        (small_network, lambda: [REPRESENTATION(layers="(")], ValueError, r"layers='\(' is not a regular expression"),
        (
            small_network,
            lambda: [REPRESENTATION(layers=lambda layer: False)],
            ValueError,
            r"function given as layers= did not choose a layer in network",
        ),
        (small_network, lambda: [REPRESENTATION(layers=3)], TypeError, r"`layers` takes a list of names.*layers=3"),
        (
            small_network,
            lambda: [INTERMEDIATE(layers="relu1", target="deepest")],
            ValueError,
            r"2 layers are needed, 1 found.*'relu1'",
        ),
        (narrow, lambda: [INTERMEDIATE(target="deepest")], ValueError, r"2 layers are needed, 1 found.*layers='auto'"),
        (narrow, lambda: [KERNEL()], ValueError, r"no layer with two or more filters to compare"),
        (small_network, lambda: [KERNEL(), KERNEL()], ValueError, r"two columns named 'kernel_similarity'.*own name="),
        (
            small_network,
            lambda: [KERNEL(keras_collab.schedules.Ramp(1.0, steps=3)), OUTPUT(name="kernel_similarity_weight")],
            ValueError,
            r"two columns named 'kernel_similarity_weight'",
        ),
        (small_network, lambda: [KERNEL(name="loss")], ValueError, r"two columns named 'loss'.*are taken"),
        (small_network, lambda: [KERNEL(name="task_loss")], ValueError, r"two columns named 'task_loss'.*are taken"),
        (small_network, lambda: [layers.Dense(3)], TypeError, r"must be a list of keras_collab.Term.*Dense"),
        (small_network, lambda: [KERNEL], TypeError, r"must be a list of keras_collab.Term objects"),
        (
            small_network,
            lambda: [OUTPUT(output="tail")],
            ValueError,
            r"no classifier makes an output named 'tail'.*head",
        ),
    ],
)
def test_wrap_says_what_is_wrong_and_leaves_the_network_as_it_was(make_network, make_terms, error, message):
    network = make_network()
    before = vars(network).copy() if isinstance(network, keras.Model) else None
    terms = make_terms()
    with pytest.raises(error, match=message):
        keras_collab.wrap(network, terms)
    if before is not None:
        assert vars(network) == before
    for term in terms or []:
        assert not getattr(term, "built", False)  # None is half-wrapped: it can be used again.


def test_already_wrapped_and_a_term_already_used():
    term = keras_collab.KernelSimilarity()
    model = keras_collab.wrap(small_network(), [term])
    with pytest.raises(ValueError, match=r"'small' is already wrapped. Take its network, small.unwrap\(\)"):
        keras_collab.wrap(model)
    nested = keras.Sequential([keras.Input((8, 8, 3)), model, layers.Dense(3)])
    with pytest.raises(ValueError, match=r"'small' is already wrapped"):
        keras_collab.wrap(nested)
    with pytest.raises(ValueError, match=r"'kernel_similarity' is already part of a model.*from_config"):
        keras_collab.wrap(small_network(), [term])
    again = keras_collab.KernelSimilarity.from_config(term.get_config())
    assert list(keras_collab.wrap(small_network(), [again]).terms) == ["kernel_similarity"]


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (-1.0, ValueError, r"weight of 'kernel_similarity' must be a number from 0 to 1e38. Received: -1.0"),
        (math.nan, ValueError, r"must be a number from 0 to 1e38. Received: nan"),
        (math.inf, ValueError, r"must be a number from 0 to 1e38. Received: inf"),
        (1e308, ValueError, r"must be a number from 0 to 1e38. Received: 1e\+308"),
        (1e-300, ValueError, r"is used as float32, which holds 0 and sizes from 1.2e-38. Received: 1e-300"),
        (1e-40, ValueError, r"is used as float32, which holds 0 and sizes from 1.2e-38. Received: 1e-40"),
        ("0.5", TypeError, r"must be a number >= 0, or a schedule such as keras_collab.schedules.Ramp.*'0.5'.*str"),
        (True, TypeError, r"must be a number >= 0.*True"),
        (None, TypeError, r"must be a number >= 0.*None"),
    ],
)
def test_bad_weights(weight, error, message):
    with pytest.raises(error, match=message):
        keras_collab.KernelSimilarity(weight)
    term = keras_collab.KernelSimilarity(0.3)
    with pytest.raises(error, match=message):
        term.weight = weight
    assert term.weight == 0.3


@pytest.mark.parametrize(
    ("schedule", "error", "message"),
    [
        (keras_collab.schedules.Ramp, TypeError, r"is not a schedule: it must turn a training step into one number"),
        (lambda step: None, TypeError, r"is not a schedule"),
        (lambda step: 1.0 - step / 1000, ValueError, r"must be a number >= 0 at every step. At step 10000 it is -9.0"),
        (lambda step: float("nan") if step > 50 else 1.0, ValueError, r"At step 100 it is nan"),
        (lambda step: -5.0, ValueError, r"must be a number >= 0 at every step. At step 0 it is -5.0"),
    ],
)
def test_bad_schedules_are_told_at_once(schedule, error, message):
    with pytest.raises(error, match=message):
        keras_collab.KernelSimilarity(schedule)


@pytest.mark.parametrize("seed", [2**40, -1, 1.5])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match=r"`seed` must be an integer >= 0 and <= 2147483647"):
        keras_collab.KernelSimilarity(seed=seed)


def test_a_single_term_that_is_not_in_a_list():
    with pytest.raises(TypeError, match=r"`terms` must be a list of terms.*Received: terms=<KernelSimilarity"):
        keras_collab.wrap(small_network(), keras_collab.KernelSimilarity())


def test_a_schedule_cannot_be_assigned_later():
    term = KERNEL()
    keras_collab.wrap(small_network(), [term])
    with pytest.raises(TypeError, match=r"can only be set to a number.*Give the schedule when the term is made"):
        term.weight = keras_collab.schedules.Ramp(1.0, steps=3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: OUTPUT(temperature=0),
            r"OutputConsistency: `temperature` must be a number >= 0.0001 and <= 10000.0. Received: temperature=0",
        ),
        (lambda: OUTPUT(temperature=-2.0), r"`temperature` must be a number >= 0.0001 and <= 10000.0"),
        (
            lambda: INTERMEDIATE(temperature=0.0),
            r"IntermediateConsistency: `temperature` must be a number >= 0.0001 and <= 10000.0",
        ),
        (lambda: INTERMEDIATE(target="labels"), r"`target` must be one of \('outputs', 'deepest'\).*'labels'"),
        (lambda: OUTPUT(parts=2.5), r"`parts` must be an integer >= 1. Received: parts=2.5"),
        (lambda: OUTPUT(rate=1.0), r"`rate` must be a number > 0 and < 1"),
        (lambda: REPRESENTATION(max_channels=1), r"`max_channels` must be an integer >= 2"),
        (lambda: KERNEL(max_filters=True), r"`max_filters` must be an integer >= 2"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class Raises(keras_collab.Term):
    def call(self, tensors):
        raise ValueError("this term fails")


class ReadsLabels(keras_collab.Term):
    def select(self, network):
        return keras_collab.Selection(head=network.head())

    def call(self, tensors):
        return tensors.mean_over_samples(keras.ops.sum(tensors.labels, axis=-1))


@pytest.mark.parametrize(("term", "message"), [(Raises, "this term fails"), (ReadsLabels, "Labels for head 'head'")])
@pytest.mark.parametrize("steps_before", [0, 1])
def test_an_error_in_a_step_leaves_the_weights(term, message, steps_before):
    """Keras 3.15 on JAX takes the values out of the variables while `fit` runs."""
    x, y = small_data(16)
    plain = keras_collab.wrap(small_network(), [])
    plain.compile("sgd", "sparse_categorical_crossentropy")
    plain.fit(x, y, epochs=steps_before, verbose=0)
    model = keras_collab.wrap(plain.unwrap(), [term()])
    model.compile("sgd", loss=lambda y, p: keras.ops.mean(p, axis=-1))
    weights = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    with pytest.raises(ValueError, match=message):
        model.fit(x, np.zeros((16, 7), "float32"), verbose=0)
    for one, other in zip(model.trainable_weights, weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), other)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.parametrize("terms", [3, "all", {"kernel_similarity": KERNEL}])
def test_terms_that_are_no_list(terms):
    with pytest.raises(TypeError, match=r"`terms` must be a list of terms, such as .* Received: terms="):
        keras_collab.wrap(small_network(), terms)


def test_a_name_that_is_no_string():
    with pytest.raises(TypeError, match=r"`name` must be a string. Received: name=3"):
        keras_collab.wrap(small_network(), name=3)
    with pytest.raises(TypeError, match=r"KernelSimilarity: `name` must be a string. Received: name=3"):
        KERNEL(name=3)


def test_saving_with_a_lambda_schedule(tmp_path):
    model = keras_collab.wrap(small_network(), [KERNEL(lambda step: 0.5)])
    with pytest.raises(ValueError, match=r"'kernel_similarity' is a function that cannot be saved.*schedules"):
        model.save(tmp_path / "model.keras")
    assert not (tmp_path / "model.keras").exists()


def test_a_file_of_keras_older_format_is_refused(tmp_path):
    model = keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity()])
    with pytest.raises(ValueError, match=r"saved as a .keras file. Received: .*model.h5"):
        model.save(tmp_path / "model.h5")
    assert not (tmp_path / "model.h5").exists()


def test_numbers_of_any_size():
    with pytest.raises(ValueError, match="must be a number from 0 to 1e38"):
        keras_collab.KernelSimilarity(10**400)
    kernels = keras_collab.KernelSimilarity(max_filters=10**400)
    channels = keras_collab.RepresentationSimilarity(max_positions=10**400)
    model = keras_collab.wrap(small_network(), [kernels, channels])
    model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    assert np.isfinite(model.train_on_batch(*small_data(), return_dict=True)["loss"])


@pytest.mark.parametrize("weight", [-5.0, math.nan])
def test_a_loaded_weight_is_checked(weight):
    term = keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity()]).terms["kernel_similarity"]
    with pytest.raises(ValueError, match="weight of 'kernel_similarity' must be a number from 0 to 1e38"):
        term.load_own_variables({"0": np.float32(weight), "1": np.int32(0)})


@pytest.mark.parametrize("part", ["name", "network", "terms"])
def test_a_config_without_a_part(part):
    config = keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity()]).get_config()
    del config[part]
    with pytest.raises(ValueError, match=f"config of a CollabModel has '{part}'.*Received: {part}=None"):
        keras_collab.CollabModel.from_config(config)
