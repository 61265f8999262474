"""Masks of Keras: a tap knows which positions count, and padding changes no term."""

import keras
import numpy as np
import pytest
from helpers import JIT, assert_trains_as_plain, normal, padded_tokens, small_network, softmax_head, train
from keras import layers, ops

from keras_collab import IntermediateConsistency, NetworkReader, RepresentationSimilarity, diagnose, wrap

# Keras 3.15 warns of layers that a mask enters and does not leave.
pytestmark = pytest.mark.filterwarnings("ignore:Layer '(pairs|pool|flat)' .* was passed an input with a mask")


def masked():
    inputs = keras.Input((8,), dtype="int32")
    x = layers.Embedding(9, 6, mask_zero=True)(inputs)
    for name in ("a", "b"):
        x = layers.Dense(6, activation="relu", name=name)(x)
    return keras.Model(inputs, softmax_head(layers.GlobalAveragePooling1D()(x))), padded_tokens()


def masked_recurrent():
    inputs = keras.Input((8, 4))
    x = layers.Masking()(inputs)
    x = layers.LSTM(6, return_sequences=True, name="first")(x)
    x = layers.LSTM(6, name="second")(x)
    return keras.Model(inputs, softmax_head(x)), normal(8, 4) * (padded_tokens() > 0)[..., None]


def in_both_directions():
    inputs = keras.Input((8,), dtype="int32")
    x = layers.Embedding(9, 6, mask_zero=True, name="embedding")(inputs)
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True), name="both")(x)
    x = layers.Dense(6, activation="relu", name="mixed")(x)
    return keras.Model(inputs, softmax_head(layers.GlobalAveragePooling1D()(x))), padded_tokens()


@pytest.mark.parametrize("make", [masked, masked_recurrent])
def test_weights_of_zero_train_as_plain(make):
    assert_trains_as_plain(make)


@pytest.mark.parametrize("make", [masked, in_both_directions])
def test_embedding_of_padding_changes_no_term(make):
    values = []
    for padding in (0.0, 5.0):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(3)
        network, x = make()
        table = next(layer for layer in network.layers if isinstance(layer, layers.Embedding)).embeddings
        start = ops.convert_to_numpy(table).copy()
        start[0] = padding
        table.assign(start)
        model = wrap(network, [RepresentationSimilarity(), IntermediateConsistency()])
        history = train(model, x)
        values.append([history["representation_similarity"][0], history["intermediate_consistency"][0]])
    np.testing.assert_allclose(values[1], values[0], rtol=1e-4)
    assert min(values[0]) > 0


@pytest.mark.parametrize(("make", "layer"), [(masked, "b"), (masked_recurrent, "first")])
def test_tap_knows_which_positions_count(make, layer):
    network, x = make()
    reader = NetworkReader(network)
    (tap,) = reader.taps([layer])
    mask = reader.graph.tapped([tap.mask])(x)["taps"][0]
    np.testing.assert_array_equal(ops.convert_to_numpy(mask), padded_tokens() > 0)


def test_tap_without_a_mask():
    assert [tap.mask for tap in NetworkReader(small_network()).taps()] == [None, None, None]


def test_mask_of_another_length_is_left_out():
    inputs = keras.Input((8,), dtype="int32")
    x = layers.Embedding(9, 6, mask_zero=True)(inputs)
    x = layers.Activation("relu", name="relu")(x)
    x = layers.Reshape((4, 12), name="pairs")(x)
    reader = NetworkReader(keras.Model(inputs, softmax_head(layers.GlobalMaxPooling1D()(x))))
    relu, pairs = reader.taps(["relu", "pairs"])
    assert relu.mask is not None
    assert pairs.mask is None


class Frames(layers.Layer):
    """Masks frames whose first channel is 0, as integers, which a user's layer may do."""

    def compute_mask(self, inputs, mask=None):
        return ops.cast(ops.any(inputs[..., 0] > 0, axis=(2, 3)), "int32")

    def call(self, inputs):
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape


def test_a_mask_of_frames_holds_for_all_their_positions():
    """What masked frames hold changes no term and no number of `diagnose`."""
    inputs = keras.Input((4, 6, 6, 2))
    x = layers.TimeDistributed(layers.Conv2D(4, 1), name="first")(Frames()(inputs))
    x = layers.TimeDistributed(layers.Conv2D(4, 1), name="second")(x)
    network = keras.Model(inputs, softmax_head(layers.GlobalAveragePooling3D(name="pool")(x)))
    taps = ["first", "second"]
    terms = [IntermediateConsistency(target="deepest", layers=taps), RepresentationSimilarity(layers=taps)]
    model = wrap(network, terms)
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", jit_compile=JIT)
    frames = np.abs(normal(4, 6, 6, 2)) + 0.1
    values = []
    for other in (0.0, 5.0):
        frames[:, 2:] = (0.0, other)
        model._counter.step.assign(0)
        logs = model.train_on_batch(frames, np.arange(len(frames)) % 3, return_dict=True)
        found = diagnose(network, frames, layers=taps, verbose=False)
        model.reset_metrics()
        values.append([logs["intermediate_consistency"], logs["representation_similarity"], found.alignment[0, 1]])
    np.testing.assert_allclose(values[1], values[0], rtol=1e-4)


def test_a_mask_over_channels_is_none():
    inputs = keras.Input((5, 7))
    x = layers.BatchNormalization(axis=1, name="first")(layers.Masking()(inputs))
    network = keras.Model(inputs, softmax_head(layers.Flatten(name="flat")(x)))
    (tap,) = NetworkReader(network).taps(["first"])
    assert tap.channels_first
    assert tap.mask is None
