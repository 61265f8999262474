"""Nested models are opened where Keras does no more than run their layers, and are one layer elsewhere."""

import keras
import pytest
from helpers import assert_trains_as_plain, normal, padded_tokens, softmax_head
from keras import layers, ops

from keras_collab import NetworkReader

# Keras 3.15 warns of every nested model that a mask enters, though the layers inside see it.
pytestmark = pytest.mark.filterwarnings("ignore:Layer 'body' .* was passed an input with a mask")


def nested_with_mask():
    """The mask is another input, given to the nested model by name."""
    features = keras.Input((8, 4))
    valid = keras.Input((8,), dtype="bool")
    inner = keras.Input((8, 4))
    pooled = layers.GlobalAveragePooling1D(name="pool")(layers.Dense(6, name="dense")(inner))
    body = keras.Model(inner, pooled, name="body")
    x = layers.Dense(6, activation="relu", name="mixed")(body(features, mask=valid))
    return keras.Model([features, valid], softmax_head(x)), [normal(8, 4), padded_tokens() > 0]


def nested_behind_a_mask():
    """The mask comes with the tensor, as Keras attaches it."""
    inner = keras.Input((8, 6))
    pooled = layers.GlobalAveragePooling1D(name="pool")(layers.Dense(6, activation="relu", name="dense")(inner))
    body = keras.Model(inner, pooled, name="body")
    inputs = keras.Input((8,), dtype="int32")
    x = body(layers.Embedding(9, 6, mask_zero=True)(inputs))
    return keras.Model(inputs, softmax_head(layers.Dense(6, activation="relu", name="mixed")(x))), padded_tokens()


def nested_with_a_key_too_many():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    inner = keras.Input((4,), name="a")
    body = keras.Model([inner], layers.Dense(6, activation="relu", name="dense")(inner), name="body")
    x = layers.Dense(6, activation="relu", name="mixed")(body({"a": a, "b": b}))
    x = layers.Concatenate()([x, b])
    return keras.Model([a, b], softmax_head(x)), [normal(4), normal(4, seed=1)]


class Inference(keras.Model):
    """A backbone whose batch normalization never trains, whoever calls it."""

    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **{**kwargs, "training": False})


def nested_that_forces_inference():
    inner = keras.Input((5,))
    x = layers.Dropout(0.5, seed=1)(layers.Dense(6, name="dense")(inner))
    body = Inference(inner, layers.BatchNormalization(name="norm")(x), name="body")
    inputs = keras.Input((5,))
    return keras.Model(inputs, softmax_head(layers.Dense(6, activation="relu", name="mixed")(body(inputs)))), normal(5)


def nested_with_a_constant():
    """A query that is the same for every sample: the layers on it train, so that they must run in every step."""
    features, query = keras.Input((8,)), keras.Input(batch_shape=(1, 8))
    joined = ops.multiply(layers.Dense(8)(features), layers.Dense(8, name="query")(query))
    body = keras.Model([features, query], joined, name="body")
    inputs = keras.Input((8,))
    return keras.Model(inputs, softmax_head(body([inputs, ops.ones((1, 8))]))), normal(8)


@pytest.mark.parametrize(
    "make",
    [
        nested_with_mask,
        nested_behind_a_mask,
        nested_with_a_key_too_many,
        nested_that_forces_inference,
        nested_with_a_constant,
    ],
)
def test_weights_of_zero_train_as_plain(make):
    assert_trains_as_plain(make)


def test_nested_model_called_with_a_mask_is_one_layer():
    network, _ = nested_with_mask()
    paths = [call.path for call in NetworkReader(network).graph.calls]
    assert paths == ["body", "mixed", "head"]


def test_nested_model_behind_a_mask_is_opened():
    network, _ = nested_behind_a_mask()
    assert "body/dense" in [call.path for call in NetworkReader(network).graph.calls]


def test_keras_application_as_backbone():
    """As Keras' guide to transfer learning has it."""
    with keras.StatelessScope(initialize_variables=False):  # To be read its weights need not be filled.
        body = keras.applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, weights=None, include_top=False)
        network = keras.Sequential(
            [
                keras.Input((32, 32, 3)),
                layers.RandomFlip("horizontal"),
                body,
                layers.GlobalAveragePooling2D(),
                layers.Dropout(0.2),
                layers.Dense(3, activation="softmax", name="head"),
            ]
        )
        reader = NetworkReader(network)
    stages = ["block_2_add", "block_5_add", "block_12_add", "out_relu"]
    assert [tap.path for tap in reader.taps()] == [f"{body.name}/{stage}" for stage in stages]
    assert reader.head().path == "head"
    kernels = [kernel.path for kernel in reader.kernels()]
    assert kernels[0] == f"{body.name}/expanded_conv_project"
    assert kernels[-1] == f"{body.name}/Conv_1"
    assert not any("depthwise" in path for path in kernels)
