"""Frozen layers: they do not change, no term counts what lies behind them, and training says so."""

import keras
import numpy as np
import pytest
from helpers import FEW_STEPS, LABELS, normal, small_data, small_network, zero_weights
from keras import layers, ops

import keras_collab
from keras_collab.network.reach import trained_selection


def compiled(network, terms):
    model = keras_collab.wrap(network, terms)
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    return model


def test_what_is_frozen_adds_nothing():
    x, y = small_data()
    network = small_network()
    for name in ("conv0", "bn0", "conv1", "bn1"):
        network.get_layer(name).trainable = False
    whole = keras_collab.wrap(network, [keras_collab.RepresentationSimilarity(layers=["relu0", "relu1", "relu2"])])
    whole.compile("sgd", "sparse_categorical_crossentropy", **FEW_STEPS)
    logs = whole.train_on_batch(x, y, return_dict=True)
    last = compiled(network, [keras_collab.RepresentationSimilarity(layers=["relu2"], max_positions=64)])
    assert [tap.path for tap in last.terms["representation_similarity"].selection.taps] == ["relu2"]
    assert 0 < logs["representation_similarity"] < 1
    with pytest.warns(UserWarning, match=r"'kernel_similarity' trains nothing.*Unfreeze"):
        frozen = compiled(network, [keras_collab.KernelSimilarity(100.0, layers=["conv0", "conv1"])])
    history = frozen.fit(x, y, verbose=0).history
    assert history["kernel_similarity"] == [0.0]
    assert history["loss"] == pytest.approx(history["task_loss"], abs=1e-6)
    network.get_layer("conv1").trainable = True
    frozen.compile("sgd", "sparse_categorical_crossentropy")
    assert frozen.fit(x, y, verbose=0).history["kernel_similarity"][0] > 0


def test_a_frozen_backbone_with_a_new_head_trains():
    x, y = small_data()
    network = small_network()
    for layer in network.layers[:-1]:
        layer.trainable = False
    with pytest.warns(UserWarning, match="trains nothing") as caught:
        model = compiled(network, keras_collab.recipes.strong())
    assert sorted(str(warning.message).split("'")[1] for warning in caught) == [
        "intermediate_consistency",
        "kernel_similarity",
        "representation_similarity",
    ]
    history = model.fit(x, y, verbose=0).history
    assert history["output_consistency"][0] > 0
    assert history["intermediate_consistency"] == history["representation_similarity"] == [0.0]


class FeaturesLikeOutputs(keras_collab.Term):
    """A term that reads a tap and the head, and gives both a gradient."""

    def select(self, reader):
        return keras_collab.Selection(taps=reader.taps(["relu2"]), head=reader.head())

    def call(self, tensors):
        return ops.mean(tensors.taps[0]) + tensors.mean_over_samples(ops.mean(tensors.head.logits**2, axis=-1))


def test_a_term_is_handed_frozen_taps_while_its_head_trains():
    network = small_network()
    for layer in network.layers[:-1]:
        layer.trainable = False
    model = compiled(network, [FeaturesLikeOutputs()])
    assert model.fit(*small_data(), verbose=0).history["features_like_outputs"][0] > 0


class OutputsLikeHead(keras_collab.Term):
    """A term that reads a head as a target only: the other output learns from it."""

    def select(self, reader):
        head = reader.head("one")
        return keras_collab.Selection(head=head, targets=(head,))

    def call(self, tensors):
        target = ops.stop_gradient(ops.softmax(tensors.head.logits))
        return tensors.mean_over_samples(ops.mean((tensors.outputs["two"] - target) ** 2, axis=-1))


def test_a_term_that_teaches_an_output_is_not_frozen():
    inputs = keras.Input((5,))
    x = layers.Dense(4, activation="relu")(inputs)
    outputs = {name: layers.Dense(3, activation="softmax", name=name)(x) for name in ("one", "two")}
    model = keras_collab.wrap(keras.Model(inputs, outputs), [OutputsLikeHead()])
    model.compile("sgd", {"one": "sparse_categorical_crossentropy", "two": "sparse_categorical_crossentropy"})
    history = model.fit(normal(5), {"one": LABELS, "two": LABELS}, verbose=0).history
    assert history["outputs_like_head"][0] > 0


def test_a_frozen_tap_stays_beside_its_target_while_the_head_trains():
    network = small_network()
    for layer in network.layers[:-1]:
        layer.trainable = False
    reader = keras_collab.NetworkReader(network)
    taps = reader.taps(["relu1", "relu2"])
    selection = keras_collab.Selection(taps=taps, head=reader.head(), targets=taps[-1:])
    assert trained_selection(selection, reader.graph).taps == taps
    network.get_layer("conv1").trainable = True
    assert trained_selection(selection, reader.graph).taps == taps
    some = keras_collab.Selection(taps=reader.taps(["relu0", "relu1"]))
    assert [tap.path for tap in trained_selection(some, reader.graph).taps] == ["relu1"]


def test_a_term_whose_target_alone_trains_says_so():
    network = small_network()
    for layer in network.layers[:-3]:
        layer.trainable = False
    taps = ["relu0", "relu1", "head"]
    with pytest.warns(UserWarning, match="'intermediate_consistency' trains nothing"):
        compiled(network, [keras_collab.IntermediateConsistency(target="deepest", layers=taps)])
    (term,) = keras_collab.describe(
        keras_collab.wrap(network, [keras_collab.IntermediateConsistency()]), verbose=False
    ).terms
    assert "head" not in term.frozen  # It trains, though the term does not change it.
    assert term.reach == 0.0


def arrays(weights):
    return [ops.convert_to_numpy(weight).copy() for weight in weights]


def on_backbone(trainable, **call):
    hidden = [layers.Dense(6, name="first"), layers.BatchNormalization(), layers.Dense(6, activation="relu")]
    body = keras.Sequential([keras.Input((5,)), *hidden], name="backbone")
    body.trainable = trainable
    inputs = keras.Input((5,))
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(body(inputs, **call)))


@pytest.mark.filterwarnings("ignore:.*trains nothing:UserWarning")
def test_frozen_backbone_does_not_change():
    network = on_backbone(trainable=False, training=False)
    body = network.get_layer("backbone")
    model = keras_collab.wrap(network)
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", **FEW_STEPS)
    before, head = arrays(body.weights), arrays([network.get_layer("head").kernel])
    history = model.fit(normal(5), LABELS, batch_size=3, epochs=2, verbose=0).history
    for weight, old, new in zip(body.weights, before, arrays(body.weights), strict=True):
        np.testing.assert_array_equal(new, old, err_msg=weight.path)
    assert history["kernel_similarity"] == [0.0, 0.0]  # All of its kernels are frozen.
    assert not np.array_equal(arrays([network.get_layer("head").kernel]), head)


@pytest.mark.filterwarnings("ignore:.*trains nothing:UserWarning")
@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("training", [None, False])
def test_batch_normalization_in_a_backbone_moves_as_in_plain_keras(trainable, training):
    """Keras 3.15 heeds `trainable`; `training=False` is overridden while a network trains (keras issue 20285)."""
    plain, network = on_backbone(trainable, training=training), on_backbone(trainable, training=training)
    network.set_weights(plain.get_weights())
    start = plain.get_weights()
    for model in (plain, keras_collab.wrap(network, zero_weights())):
        model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", **FEW_STEPS)
        for seed in (0, 1):
            model.train_on_batch(normal(5, seed=seed), LABELS)
    assert not np.array_equal(plain.get_layer("head").get_weights()[0], start[-2])
    for weight, expected, found in zip(plain.weights, plain.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=weight.path)
