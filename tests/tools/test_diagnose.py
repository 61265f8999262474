"""`diagnose`: numbers as the terms' own functions and known networks give them, and nothing changed."""

import keras
import numpy as np
import pytest
from helpers import small_data, small_network
from keras import layers, ops

import keras_collab
from keras_collab import KernelSimilarity, diagnose, wrap
from keras_collab.terms.kernel_similarity import kernel_similarity
from keras_collab.terms.representation_similarity import representation_similarity
from keras_collab.tools.diagnose import _filters, _Halves, alignment


def test_numbers_are_those_of_the_terms():
    network, (x, y) = small_network(), small_data(samples=64)
    found = diagnose(network, (x, y), verbose=False)
    assert found.samples == 64
    reader = keras_collab.NetworkReader(network)
    taps = reader.taps("auto")
    assert [row.path for row in found.channels] == [tap.path for tap in taps]
    for row, tap in zip(found.channels, taps, strict=True):
        values = keras.Model(network.input, tap.tensor)(x, training=False)
        assert row.count == values.shape[-1]
        assert row.similarity == pytest.approx(float(ops.convert_to_numpy(representation_similarity(values))), rel=1e-4)
    for row, kernel in zip(found.filters, reader.kernels(), strict=True):
        assert row.similarity == pytest.approx(float(ops.convert_to_numpy(kernel_similarity(kernel.read()))), rel=1e-4)
        assert row.random == 1 / kernel.size
    (head,) = found.parts
    predicted = ops.convert_to_numpy(network(x, training=False)).argmax(axis=-1)
    assert (head.path, head.features) == ("head", 10)
    assert head.accuracy == pytest.approx(np.mean(predicted == y))


def test_batches_together_are_the_whole():
    network, data = small_network(), small_data(samples=96)
    many, one = (diagnose(network, data, batch_size=size, verbose=False) for size in (8, 96))
    for row, whole in zip(many.channels, one.channels, strict=True):
        assert row.similarity == pytest.approx(whole.similarity, rel=1e-4)
        assert row.dead == whole.dead
    np.testing.assert_allclose(many.alignment, one.alignment, rtol=1e-5)
    assert diagnose(network, data, batch_size=40, verbose=False).samples == 96  # The last batch is smaller.


def test_filters_are_compared_within_their_group():
    inputs = keras.Input((8, 8, 4))
    network = keras.Model(
        inputs, layers.Dense(2)(layers.Flatten()(layers.Conv2D(6, 1, groups=2, name="grouped")(inputs)))
    )
    kernel = np.random.default_rng(0).normal(size=(1, 1, 2, 6))
    network.get_layer("grouped").kernel.assign(kernel)
    images = np.random.default_rng(1).normal(size=(8, 8, 8, 4))
    # Expected: the squared cosines of the three pairs in each group, by hand.
    squares = []
    for group in (kernel[0, 0, :, :3], kernel[0, 0, :, 3:]):
        for one, other in ((0, 1), (0, 2), (1, 2)):
            a, b = group[:, one], group[:, other]
            squares.append((a @ b) ** 2 / (a @ a) / (b @ b))
    reader = keras_collab.NetworkReader(network)
    (row,) = [_filters(kernel) for kernel in reader.kernels(["grouped"])]
    assert row.similarity == pytest.approx(np.mean(squares), rel=1e-5)
    assert diagnose(network, images, verbose=False).samples == 8


def test_repeated_channels_and_filters_and_a_dead_channel_are_seen():
    network = small_network()
    convolution = network.get_layer("conv1")
    kernel = ops.convert_to_numpy(convolution.kernel).copy()
    kernel[..., 1:7] = kernel[..., :1]  # Seven filters are one, and the eighth never fires.
    convolution.kernel.assign(kernel)
    bias = np.zeros(8)
    bias[7] = -1e4
    convolution.bias.assign(bias)
    found = diagnose(network, small_data(), layers="relu[12]", verbose=False)
    assert found.channels[0].dead == 1
    assert found.channels[0].similarity == pytest.approx(7 * 6 / (8 * 7), abs=1e-4)
    assert found.channels[0].effective == pytest.approx(1.0, abs=1e-3)
    filters = {row.path: row for row in found.filters}["conv1"]
    assert filters.effective < 2.1
    assert {row.path: row for row in found.filters}["conv2"].effective > 5


def test_alignment_is_one_for_the_same_relations_and_none_by_chance():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(64, 20))
    turned = 3.0 * features @ np.linalg.qr(rng.normal(size=(20, 20)))[0] + 5.0
    found = alignment([features, turned, rng.normal(size=(64, 2000)), np.ones((64, 3))])
    assert found[0, 1] == pytest.approx(1.0)
    assert abs(found[0, 2]) < 0.1  # The biased estimate gives 0.5 for wide layers.
    assert np.isnan(found[3]).all()


def test_a_head_whose_halves_are_alike_agrees():
    inputs = keras.Input((8, 8, 3))
    features = layers.Dense(1)(layers.Flatten()(inputs))
    network = keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.Concatenate()([features] * 6)))
    kernel = np.repeat([[1.0, 2.0, -1.0]], 6, axis=0)
    network.layers[-1].set_weights([kernel, np.zeros(3)])
    (head,) = diagnose(network, small_data(), verbose=False).parts
    assert head.agreement == 1.0
    assert head.divergence == pytest.approx(0.0, abs=1e-5)
    assert head.accuracy == head.part_accuracy


def test_decisions_of_halves_are_the_network_s_own_with_half_the_features():
    network, (x, y) = small_network(), small_data(samples=32)
    (head,) = diagnose(network, (x, y), batch_size=32, verbose=False).parts
    graph_head = keras_collab.NetworkReader(network).head()
    (masks,) = _Halves(graph_head)._masks().transpose(1, 0, 2)
    assert sorted(np.unique(masks)) == [0, 2]
    assert (masks.sum(axis=1) == 10).all()
    features = ops.convert_to_numpy(keras.Model(network.input, network.get_layer("flatten").output)(x, training=False))
    kernel, bias = network.get_layer("head").get_weights()
    whole = (features @ kernel + bias).argmax(axis=1)
    halves = ((features * masks[:, None]) @ kernel + bias).argmax(axis=2)
    assert head.agreement == pytest.approx(np.mean(halves == whole))
    assert head.part_accuracy == pytest.approx(np.mean(halves == y))


def test_several_outputs_half_precision_and_a_sigmoid():
    """One head decides between classes, the other says yes or no to each of two; features are bfloat16."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, dtype="mixed_bfloat16", activation="relu")(inputs)
    x = layers.GlobalAveragePooling2D(dtype="mixed_bfloat16")(x)
    one = layers.Dense(3, dtype="float32", name="one")(x)
    two = layers.Dense(2, dtype="float32", activation="sigmoid", name="two")(x)
    network = keras.Model(inputs, {"one": one, "two": two})
    images, y = small_data(samples=40)
    yes = np.random.default_rng(0).integers(0, 2, (40, 2))
    found = diagnose(network, (images, {"one": y, "two": yes}), verbose=False)
    predicted = {name: ops.convert_to_numpy(z) for name, z in network(images, training=False).items()}
    rows = {row.path: row for row in found.parts}
    assert rows["one"].accuracy == pytest.approx(np.mean(predicted["one"].argmax(axis=1) == y))
    assert rows["two"].accuracy == pytest.approx(np.mean((predicted["two"] > 0.5) == yes))


def test_labels_of_one_of_two_outputs():
    inputs = keras.Input((4,))
    outputs = {
        "one": layers.Dense(3, activation="softmax", name="one")(inputs),
        "two": layers.Dense(1, name="two")(inputs),
    }
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    found = diagnose(keras.Model(inputs, outputs), (x, {"one": np.arange(8) % 3}), verbose=False)
    accuracies = {row.path: row.accuracy for row in found.parts}
    assert np.isfinite(accuracies["one"])
    assert np.isnan(accuracies["two"])


def test_nothing_changes():
    network, data = small_network(dropout=0.3), small_data()
    model = wrap(network, [KernelSimilarity(2.0)])
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(*data, verbose=0)
    before = [ops.convert_to_numpy(variable) for variable in model.variables]
    diagnose(model, data, verbose=False)
    after = [ops.convert_to_numpy(variable) for variable in model.variables]
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one, other)


def test_networks_that_lack_something_and_data_without_labels(capsys):
    inputs = keras.Input((6,), name="numbers")
    network = keras.Model({"numbers": inputs}, layers.Dense(4, name="only")(inputs))
    found = diagnose(network, {"numbers": np.random.default_rng(0).normal(size=(30, 6))})
    assert found.filters == ()
    assert np.isnan(found.parts[0].accuracy)
    assert "nan" not in capsys.readouterr().out


def test_bad_input():
    network, (x, y) = small_network(), small_data()
    with pytest.raises(ValueError, match=r"same number of samples.*\[3, 24\]"):
        diagnose(network, (x, y[:3]))
    with pytest.raises(ValueError, match=r"four or more. Received: 3"):
        diagnose(network, (x[:3], y[:3]))
    with pytest.raises(ValueError, match=r"diagnose: `batches` must be an integer >= 1. Received: batches=0"):
        diagnose(network, (x, y), 0)
    with pytest.raises(ValueError, match="Close matches: 'relu1'"):
        diagnose(network, (x, y), layers=["relu_1"])
    with pytest.raises(ValueError, match=r"Labels for head 'head' have shape \(24, 2\)"):
        diagnose(network, (x, np.ones((24, 2))))
    with pytest.raises(TypeError, match="must be a Functional or Sequential"):
        diagnose(layers.Dense(3), x)
    with pytest.raises(TypeError, match=r"diagnose: data must be arrays.*Received: 'images' \(of type str\)"):
        diagnose(network, "images")
    with pytest.raises(TypeError, match=r"diagnose: data must be arrays.*Received: 3 \(of type int\)"):
        diagnose(network, 3)
    with pytest.raises(TypeError, match=r"`batches` must be an integer.*of type ndarray.*diagnose\(model, \(x, y\)\)"):
        diagnose(network, x, y)


@pytest.mark.parametrize("labels", [np.arange(16) % 3 + 0.5, np.arange(16) % 3 - 1, np.full(16, np.nan)])
def test_labels_that_are_no_classes(labels):
    x, _ = small_data(16)
    with pytest.raises(ValueError, match=r"must be class indices from 0 to 2\. Received: numbers from"):
        keras_collab.diagnose(small_network(), (x, labels), verbose=False)


def test_padding_does_not_count():
    """Padded tokens change no number: 3 valid ones in 8 are as 3 in 5."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(inputs)
    x = layers.Dense(6, activation="relu", name="first")(x)
    x = layers.Dense(6, activation="relu", name="second")(x)
    network = keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling1D()(x)))
    tokens = np.random.default_rng(0).integers(1, 9, (12, 3))
    five, eight = (np.pad(tokens, ((0, 0), (0, more))) for more in (2, 5))
    one, other = (diagnose(network, x, layers=["first", "second"], verbose=False) for x in (five, eight))
    for row, padded in zip(one.channels, other.channels, strict=True):
        assert row.similarity == pytest.approx(padded.similarity, rel=1e-5)
    np.testing.assert_allclose(one.alignment, other.alignment, rtol=1e-5)
    batches = [(np.zeros((12, 5), "int32"),), (five,)]  # The first has no valid token.
    late = diagnose(network, batches, layers=["first"], verbose=False)
    assert late.channels[0].similarity == pytest.approx(one.channels[0].similarity, rel=1e-5)
