"""The divergence of a layer's relations from their target, against its formula in float64 NumPy."""

import keras
import numpy as np
import pytest
from helpers import check, gradient, relational, relations, tensor
from keras import layers

import keras_collab
from keras_collab.terms.intermediate_consistency import relational_divergence
from keras_collab.terms.relations import log_relations

RNG = np.random.default_rng(5)
SHALLOW, DEEP = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 5))


def test_relations_of_a_shallow_layer_follow_the_deepest():
    check(
        lambda u: relational_divergence(u, log_relations(tensor(DEEP), 0.5), 0.5),
        lambda u: relational(relations(DEEP, 0.5), relations(u, 0.5)),
        SHALLOW,
        gradient_tolerance=1e-3,
    )


def test_relations_are_their_own_target_and_scale_free():
    target = log_relations(tensor(DEEP), 0.1)
    assert float(relational_divergence(tensor(7 * DEEP + 3), target, 0.1)) == pytest.approx(0, abs=1e-5)
    teach = gradient(lambda u: relational_divergence(tensor(SHALLOW), log_relations(u, 0.1), 0.1), DEEP)
    np.testing.assert_array_equal(teach, np.zeros_like(DEEP))


def test_layers_follow_the_logits_by_default():
    inputs = keras.Input((8, 8, 3))
    first = layers.ReLU()(layers.Conv2D(4, 3)(inputs))
    second = layers.ReLU()(layers.Conv2D(6, 3)(first))
    head = layers.Dense(5, activation="softmax")
    network = keras.Model(inputs, head(layers.GlobalAveragePooling2D()(second)))
    x, y = RNG.normal(size=(6, 8, 8, 3)).astype("float32"), np.arange(6) % 5
    model = keras_collab.wrap(network, [keras_collab.IntermediateConsistency()])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    measured = model.fit(x, y, epochs=1, verbose=0).history["intermediate_consistency"][0]
    pooled = [tap.mean((1, 2)) for tap in keras.Model(inputs, [first, second]).predict(x, verbose=0)]
    kernel, bias = head.get_weights()
    target = relations(pooled[-1] @ kernel + bias, 0.1)
    assert measured == pytest.approx(np.mean([relational(target, relations(u, 0.1)) for u in pooled]), rel=1e-3)
