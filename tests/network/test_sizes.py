"""Sizes that a network leaves open, and frames, patches or windows that it folds into the batch."""

import keras
import pytest
from helpers import assert_trains_as_plain, normal, padded_tokens, softmax_head, tap_paths
from keras import layers, ops
from networks import backbone_of_open_size, open_size

from keras_collab import NetworkReader, RepresentationSimilarity, describe, wrap

# Folded into the batch.


def frames():
    inputs = keras.Input((4, 16, 16, 3))
    x = ops.reshape(inputs, (-1, 16, 16, 3))
    for name in ("first", "second"):
        x = layers.Conv2D(8, 3, strides=2, name=name)(x)
    x = ops.mean(ops.reshape(layers.GlobalAveragePooling2D()(x), (-1, 4, 8)), axis=1)
    return keras.Model(inputs, softmax_head(layers.Dense(6, activation="relu", name="mixed")(x))), normal(4, 16, 16, 3)


class Fold(layers.Layer):
    """Folds the frames into the batch, and says of it what it makes, with None for the first axis."""

    def call(self, x):
        return ops.reshape(x, (-1, x.shape[-1]))

    def compute_output_shape(self, shape):
        return (None, shape[-1])


def frames_folded_by_layers():
    inputs = keras.Input((4, 5))
    x = layers.Dense(6, activation="relu", name="frame")(Fold()(inputs))
    x = layers.Lambda(lambda x: ops.reshape(x, (-1, 4, 6)), output_shape=(4, 6))(x)
    x = layers.Dense(6, activation="relu", name="mixed")(ops.mean(x, axis=1))
    return keras.Model(inputs, softmax_head(x)), normal(4, 5)


def time_first():
    """Steps of a sequence come first inside, samples second."""
    inputs = keras.Input((5, 4))
    x = layers.Dense(6, activation="relu", name="steps")(ops.transpose(inputs, (1, 0, 2)))
    x = ops.mean(x, axis=0)
    return keras.Model(inputs, softmax_head(layers.Dense(6, activation="relu", name="mixed")(x))), normal(5, 4)


# Left open.


def raw_audio():
    inputs = keras.Input((None, 1))
    x = layers.Conv1D(8, 80, strides=4, activation="relu", name="first")(inputs)
    for name in ("second", "third", "fourth"):
        x = layers.Conv1D(8, 3, activation="relu", padding="same", name=name)(layers.MaxPooling1D(4)(x))
    return keras.Model(inputs, softmax_head(layers.GlobalAveragePooling1D()(x))), normal(2000, 1)


def learned_positions():
    """A table of 128 positions, of which as many are taken as there are tokens."""

    class Positions(layers.Layer):
        def build(self, input_shape):
            self.table = self.add_weight(shape=(128, input_shape[-1]), name="table")

        def call(self, inputs):
            if inputs.shape[1] is not None and inputs.shape[1] > 128:
                raise ValueError("at most 128 tokens")
            return inputs + self.table[: ops.shape(inputs)[1]]

        def compute_output_shape(self, input_shape):
            if input_shape[1] is not None and input_shape[1] > 128:
                raise ValueError("at most 128 tokens")
            return input_shape

    inputs = keras.Input((None,), dtype="int32")
    x = Positions(name="positions")(layers.Embedding(9, 6)(inputs))
    for name in ("a", "b"):
        x = layers.Dense(6, activation="relu", name=name)(x)
    return keras.Model(inputs, softmax_head(layers.GlobalAveragePooling1D()(x))), padded_tokens()


def windows():
    inputs = keras.Input((None, 4))
    x = layers.Reshape((-1, 10, 4))(inputs)
    x = layers.Conv2D(6, (1, 3), activation="relu", name="first")(x)
    x = layers.Conv2D(6, (1, 3), strides=(1, 2), activation="relu", name="second")(x)
    return keras.Model(inputs, softmax_head(layers.GlobalAveragePooling2D()(x))), normal(30, 4)


def spectrogram():
    inputs = keras.Input((None, 20))
    x = layers.Reshape((-1, 20, 1))(inputs)
    for name in ("first", "second"):
        x = layers.Conv2D(6, 3, padding="same", activation="relu", name=name)(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.GRU(6, name="gru")(layers.Reshape((-1, 5 * 6))(x))
    return keras.Model(inputs, softmax_head(x)), normal(16, 20)


@pytest.mark.parametrize(
    "make", [frames, frames_folded_by_layers, time_first, raw_audio, learned_positions, windows, spectrogram]
)
def test_weights_of_zero_train_as_plain(make):
    assert_trains_as_plain(make)


@pytest.mark.parametrize("make", [windows, spectrogram])
def test_size_left_open_inside_the_network_is_described(make):
    (term,) = describe(wrap(make()[0], [RepresentationSimilarity()]), verbose=False).terms
    assert term.taps == {tap.path: tap.shape for tap in NetworkReader(make()[0]).taps()}
    assert None in term.taps["first"][1:]


def test_shapes_of_taps_in_a_network_of_open_size():
    fixed, free = (
        describe(wrap(make().network, [RepresentationSimilarity()]), verbose=False).terms[0].taps
        for make in (backbone_of_open_size, open_size)
    )
    assert fixed == {"backbone/out1": (None, 8, 8, 6), "backbone/out2": (None, 4, 4, 6)}
    assert free == {"backbone/out1": (None, None, None, 6), "backbone/out2": (None, None, None, 6)}


def test_folded_layer_is_refused_by_name():
    network, _ = frames()
    with pytest.raises(ValueError, match=r"layer 'second' .* first axis does not count the samples"):
        wrap(network, [RepresentationSimilarity(layers=["second"])])
    assert tap_paths(network) == ["mixed"]


def test_folded_frames_are_no_taps_whatever_layers_declare():
    assert tap_paths(frames_folded_by_layers()[0]) == ["mixed"]


def test_a_batch_of_fixed_size_is_told_from_an_axis_of_this_length():
    inputs = keras.Input(batch_shape=(6, 6, 4))
    x = layers.Dense(4, activation="relu", name="steps")(ops.transpose(inputs, (1, 0, 2)))
    x = layers.Dense(4, activation="relu", name="mixed")(ops.mean(x, axis=0))
    assert tap_paths(keras.Model(inputs, softmax_head(x))) == ["mixed"]
