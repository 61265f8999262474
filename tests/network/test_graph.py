"""Networks of every shape are read; what wrapping would pass by is refused, and what changed later is noticed."""

import functools

import keras
import pytest
from helpers import LABELS, branch, normal, softmax_head, train, zero_weights
from keras import layers, ops
from networks import CASES

from keras_collab import (
    IntermediateConsistency,
    KernelSimilarity,
    NetworkReader,
    OutputConsistency,
    RepresentationSimilarity,
    describe,
    wrap,
)


@pytest.mark.parametrize("make", CASES)
def test_reads(make):
    case = make()
    every_term = [OutputConsistency(), IntermediateConsistency(), RepresentationSimilarity(), KernelSimilarity()]
    terms = {term.name: term for term in describe(wrap(case.network, every_term), verbose=False).terms}
    assert list(terms["intermediate_consistency"].taps) == case.taps
    assert list(terms["representation_similarity"].taps) == case.taps
    assert terms["output_consistency"].head == case.head
    assert sorted(terms["kernel_similarity"].kernels) == sorted(case.kernels)


def test_layers_of_the_same_name_train_together():
    inputs = keras.Input((8, 8, 3))
    x = layers.Concatenate()([branch("left")(inputs), branch("right")(inputs)])
    network = keras.Model(inputs, layers.Dense(3, name="conv")(layers.Flatten()(x)), name="twins")
    names = [layer.name for layer in network._flatten_layers()]
    model = wrap(network, [RepresentationSimilarity(layers=r"(left|right)/relu"), KernelSimilarity()])
    assert [layer.name for layer in network._flatten_layers()] == names
    description = describe(model, verbose=False)
    assert list(description.terms[0].taps) == ["left/relu", "right/relu"]


# Overrides that wrapping would pass by.


def task(**methods):
    inputs = keras.Input((4,))
    cls = type("Task", (keras.Model,), methods)
    return cls(inputs, softmax_head(layers.Dense(6, activation="relu")(inputs)), name="task")


@pytest.mark.parametrize("method", ["fit", "predict_step", "evaluate", "train_on_batch", "compile", "__call__"])
def test_override_that_would_be_passed_by_is_refused(method):
    def preprocessing(self, *args, **kwargs):
        return getattr(keras.Model, method)(self, *args, **kwargs)

    with pytest.raises(ValueError, match=rf"'task' \(Task\) overrides {method}.*keras.Model\(network.inputs"):
        wrap(task(**{method: preprocessing}))


def test_an_overridden_property_and_a_copied_name_are_overrides():
    def penalized(self):
        return [ops.sum(ops.square(self.layers[-1].kernel))]

    @functools.wraps(keras.Model.compute_loss)
    def tenfold(self, *args, **kwargs):
        return 10 * keras.Model.compute_loss(self, *args, **kwargs)

    for name, method in (("losses", property(penalized)), ("compute_loss", tenfold)):
        with pytest.raises(ValueError, match=rf"'task' \(Task\) overrides {name}"):
            wrap(task(**{name: method}))
    network = task()
    network.compute_loss = tenfold
    with pytest.raises(ValueError, match=r"'task' \(Task\) overrides compute_loss"):
        wrap(network)


class Augmented(keras.Sequential):
    """Trains on noisy data, whatever its subclasses add to it."""

    def train_on_batch(self, x, y=None, **kwargs):
        return super().train_on_batch(x + 0.1, y, **kwargs)

    def evaluate(self, x=None, y=None, **kwargs):
        return super().evaluate(x - 0.1, y, **kwargs)


class Renamed(Augmented):
    pass


def test_inherited_overrides_of_a_sequential_are_refused():
    network = Renamed([keras.Input((4,)), layers.Dense(6, activation="relu"), layers.Dense(3)], name="renamed")
    with pytest.raises(ValueError, match=r"'renamed' \(Renamed\) overrides evaluate, train_on_batch"):
        wrap(network)


def test_own_methods_beside_those_of_keras_are_no_overrides():
    network = task(embed=lambda self, x: self.layers[1](x), get_config=lambda self: {})
    assert wrap(network, zero_weights()).unwrap() is network


def test_what_the_refusal_advises_works():
    network = task(predict_step=lambda self, data: self(2 * data))
    model = wrap(keras.Model(network.inputs, network.outputs), zero_weights())
    assert model.unwrap().layers == network.layers


# Networks that are changed afterwards.


def stack():
    hidden = layers.Dense(6, activation="relu", name="hidden")
    return keras.Sequential([keras.Input((5,)), hidden, layers.Dense(3, name="head")], name="stack")


def test_sequential_that_is_changed_is_noticed():
    network = stack()
    graph = NetworkReader(network).graph
    graph.check_unchanged()
    network.pop()
    network.add(layers.Dense(4, name="other"))
    with pytest.raises(ValueError, match=r"Network 'stack' was changed after it was wrapped.*wrap the network again"):
        graph.check_unchanged()


def test_a_changed_network_is_noticed_in_a_loop_of_ones_own():
    network = stack()
    model = wrap(network, [KernelSimilarity()])
    model.compile("sgd", "mse")
    network.pop()
    network.add(layers.Dense(3))
    with pytest.raises(ValueError, match="Network 'stack' was changed after it was wrapped"):
        model.loss_and_terms(normal(5), normal(3))


def test_nested_sequential_that_is_changed_is_noticed():
    body = stack()
    inputs = keras.Input((5,))
    graph = NetworkReader(keras.Model(inputs, softmax_head(body(inputs), name="top"))).graph
    graph.check_unchanged()
    body.add(layers.Dense(3))
    with pytest.raises(ValueError, match="Network 'stack' was changed"):
        graph.check_unchanged()


def test_network_that_is_quantized_is_noticed():
    network = stack()
    graph = NetworkReader(network).graph
    network.layers[-1].quantize("int8")
    with pytest.raises(ValueError, match="Network 'stack' was changed"):
        graph.check_unchanged()


def convolutional():
    first = layers.Conv2D(4, 3, activation="relu", name="first")
    pooled = [layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax", name="head")]
    return keras.Sequential([keras.Input((8, 8, 3)), first, *pooled], name="pictures")


def take_the_head_off(network):
    network.pop()


def add_a_layer(network):
    network.add(layers.Dense(3, activation="softmax"))


def add_a_layer_after_another(network):
    network.pop()
    network.add(layers.Dense(3, activation="softmax", name="head"))


@pytest.mark.parametrize("change", [take_the_head_off, add_a_layer, add_a_layer_after_another])
def test_changed_network_is_refused_before_it_trains(change):
    network = convolutional()
    model = wrap(network, [OutputConsistency()])
    change(network)
    with pytest.raises(ValueError, match=r"Network 'pictures' was changed after it was wrapped"):
        train(model, normal(8, 8, 3))


def test_network_that_changes_between_two_fits_is_refused():
    network = convolutional()
    model = wrap(network, [OutputConsistency()])
    train(model, normal(8, 8, 3))
    add_a_layer_after_another(network)
    with pytest.raises(ValueError, match=r"Network 'pictures' was changed after it was wrapped"):
        model.fit(normal(8, 8, 3), LABELS, verbose=0)
