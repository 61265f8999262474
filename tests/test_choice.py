"""The terms that a network is wrapped with: which lists, terms, selections and values are accepted."""

import keras
import pytest
from helpers import FEW_STEPS, small_data, small_network
from keras import layers, ops

import keras_collab


def test_already_wrapped_and_a_term_already_used():
    term = keras_collab.KernelSimilarity()
    model = keras_collab.wrap(small_network(), [term])
    with pytest.raises(ValueError, match=r"'small' is already wrapped. Take its network, small.unwrap\(\)"):
        keras_collab.wrap(model)
    nested = keras.Sequential([keras.Input((8, 8, 3)), model, layers.Dense(3)])
    with pytest.raises(ValueError, match=r"'small' is already wrapped"):
        keras_collab.wrap(nested)
    with pytest.raises(ValueError, match=r"'kernel_similarity' is already part of a model.*term.copy\(\)"):
        keras_collab.wrap(small_network(), [term])
    again = term.copy()
    assert list(keras_collab.wrap(small_network(), [again]).terms) == ["kernel_similarity"]


def test_a_single_term_that_is_not_in_a_list():
    with pytest.raises(TypeError, match=r"`terms` must be a list of terms.*Received: terms=<KernelSimilarity"):
        keras_collab.wrap(small_network(), keras_collab.KernelSimilarity())


@pytest.mark.parametrize("terms", [3, "all", {"kernel_similarity": keras_collab.KernelSimilarity}])
def test_terms_that_are_no_list(terms):
    with pytest.raises(TypeError, match=r"`terms` must be a list of terms, such as .* Received: terms="):
        keras_collab.wrap(small_network(), terms)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras 3.15 on torch; `pytest.warns` warns it anew.
def test_default_terms_that_do_not_fit_are_left_out():
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(inputs))  # A single convolution has no filters to compare.
    with pytest.warns(
        UserWarning, match=r"do not fit .* are left out.\n'kernel_similarity': network '.*' has 0 layers with two"
    ):
        model = keras_collab.wrap(keras.Model(inputs, layers.Dense(3)(x)))
    assert list(model.terms) == ["intermediate_consistency"]
    linear = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match=r"(?s)None of the default terms fits.*'intermediate_con.*'kernel_similarity'"):
        keras_collab.wrap(linear)


def test_a_wrong_name_of_a_term_has_close_matches():
    model = keras_collab.wrap(small_network(), [keras_collab.OutputConsistency()])
    with pytest.raises(KeyError, match=r"no term 'outputconsistency'\. Close matches: 'output_consistency'"):
        model.terms["outputconsistency"]
    with pytest.raises(TypeError, match=r"does(n't| not) support item deletion"):
        del model.terms["output_consistency"]


@pytest.mark.parametrize("targets", [lambda taps: taps[-1], lambda taps: (3,), lambda taps: ("relu1",)])
def test_targets_are_some_of_the_taps_or_the_head(targets):
    class Students(keras_collab.Term):
        def select(self, reader):
            taps = reader.taps(["relu0", "relu1"])
            return keras_collab.Selection(taps=taps, targets=targets(taps))

        def call(self, tensors):
            return 0.0

    with pytest.raises(TypeError, match=r"^Term 'students': The targets of a selection must be a tuple"):
        keras_collab.wrap(small_network(), [Students()])


def test_error_names_the_term():
    with pytest.raises(ValueError, match=r"^Term 'repeats': no name of a layer matches 'nowhere'"):
        keras_collab.wrap(small_network(), [keras_collab.RepresentationSimilarity(layers="nowhere", name="repeats")])
    with pytest.raises(TypeError, match=r"^Term 'kernel_similarity': `layers` takes"):
        keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity(layers=7)])


# What terms have, select and return.


def test_call_takes_tensors():
    class Other(keras_collab.Term):
        def call(self, batch):
            return 0.0

    with pytest.raises(TypeError, match=r"Other must have a method call\(self, tensors\)"):
        keras_collab.wrap(small_network(), [Other()])


@pytest.mark.parametrize("selected", [None, (), "taps"])
def test_select_returns_a_selection(selected):
    class Other(keras_collab.Term):
        def select(self, reader):
            return keras_collab.Selection(taps=reader.taps()[0]) if selected == "taps" else selected

    with pytest.raises(TypeError, match=r"select\(\) must return a keras_collab.Selection, with a tuple of taps"):
        keras_collab.wrap(small_network(), [Other()])


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
    model.compile("sgd", "sparse_categorical_crossentropy", **FEW_STEPS)
    with pytest.raises(ValueError, match=rf"value of term 'returns' must be a scalar. Received: {received}"):
        model.train_on_batch(*[part[:8] for part in small_data()])


def test_a_value_that_is_a_number_or_of_another_dtype():
    for make, value in ((lambda outputs: 2, 2), (lambda outputs: ops.cast(ops.sum(outputs[0]), "float16"), 1)):
        model = keras_collab.wrap(small_network(), [Returns(make)])
        model.compile("sgd", "sparse_categorical_crossentropy", **FEW_STEPS)
        assert model.train_on_batch(*small_data(), return_dict=True)["returns"] == pytest.approx(value, 0.01)
