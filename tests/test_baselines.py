"""The methods of others: their losses against NumPy, the gradient that is shared, and the network that is kept."""

import functools

import keras
import numpy as np
import pytest
from helpers import small_data, small_network
from keras import layers, ops

from keras_collab import baselines, wrap
from keras_collab._training_step import training_step
from keras_collab.terms.pairs import scale_gradient

METHODS = {
    "heads": lambda network: baselines.MultiHead(network),
    "tree": lambda network: baselines.MultiHead(network, ["relu0", "relu1"]),
    "r_drop": lambda network: baselines.RDrop(network),
    "exits": lambda network: baselines.Exits(network),
    "exits_bottleneck": lambda network: baselines.Exits(network, bottleneck=True),
}


@pytest.fixture(params=METHODS)
def method(request):
    return METHODS[request.param]


def compiled(model, rate=0.05):
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def test_trains_and_leaves_the_network(method):
    x, y = small_data(60)
    network = small_network(dropout=0.3)
    before, plain_parameters = network.get_weights(), network.count_params()
    model = compiled(method(network))
    history = model.fit(x, y, batch_size=20, epochs=6, verbose=0).history
    assert set(history) == {"loss", "accuracy"}
    assert network._called  # Else Keras 3.15 would not export it to ONNX.
    assert history["loss"][-1] < history["loss"][0]
    assert model.unwrap() is network
    assert any((a != b).any() for a, b in zip(before, network.get_weights(), strict=True))
    assert network.count_params() == plain_parameters
    compiled(network)
    np.testing.assert_allclose(model.evaluate(x, y, verbose=0), network.evaluate(x, y, verbose=0), rtol=1e-5)
    np.testing.assert_array_equal(model.predict(x, verbose=0), network.predict(x, verbose=0))


def test_added_parameters():
    def count(*parts):
        return sum(part.count_params() for part in parts)

    def added(model):
        return model.count_params() - model.unwrap().count_params()

    network = small_network(dropout=0.3)
    third, head = [network.get_layer(name) for name in ("conv2", "bn2")], network.get_layer("head")
    second = [network.get_layer(name) for name in ("conv1", "bn1")]
    assert added(baselines.RDrop(network)) == 0
    assert added(baselines.MultiHead(network, ["relu1"])) == count(*third, head)
    assert added(baselines.MultiHead(network, ["relu0", "relu1"])) == count(*second) + 3 * count(*third, head)
    assert added(baselines.MultiHead(network, 2)) == count(*second) + 3 * count(*third, head)
    exits = baselines.Exits(network, ["relu0", "relu1"])
    assert added(exits) == (6 + 1) * 3 + (8 + 1) * 3
    exits = baselines.Exits(network, ["relu0"], bottleneck=True)  # From 8×8 positions to 2×2, where relu2 is.
    convolutions = (6 + 1) * 2 + (4 * 4 * 2 + 1) * 2 + (2 + 1) * 10
    assert added(exits) == convolutions + 4 * (2 + 2 + 10) + (10 + 1) * 3


def test_gradient_is_divided_at_a_split():
    """Before the split the gradient is 1/H of the sum over heads; behind it, it is not scaled."""
    scaled = functools.partial(scale_gradient, scale=0.25)
    x = np.array([[1.0, -2.0]], "float32")
    np.testing.assert_allclose(ops.convert_to_numpy(scaled(ops.convert_to_tensor(x))), x)
    inputs = keras.Input((2,))
    gradients = {}
    for kind in ("plain", "scaled"):
        first = layers.Dense(2, kernel_initializer="ones", name="first")
        second = layers.Dense(1, kernel_initializer="ones", name="second")
        hidden = first(inputs)
        model = keras.Model(inputs, second(scaled(hidden) if kind == "scaled" else hidden))
        before = [ops.convert_to_numpy(layer.kernel) for layer in (first, second)]
        model.compile(keras.optimizers.SGD(1.0), "mse")
        model.train_on_batch(x, np.array([[1.0]], "float32"))
        after = [ops.convert_to_numpy(layer.kernel) for layer in (first, second)]
        gradients[kind] = [a - b for a, b in zip(before, after, strict=True)]
    np.testing.assert_allclose(gradients["scaled"][0], 0.25 * gradients["plain"][0], rtol=1e-5)
    np.testing.assert_allclose(gradients["scaled"][1], gradients["plain"][1], rtol=1e-5)


def test_losses_are_those_of_the_papers():
    rng = np.random.default_rng(2)
    z = [rng.normal(size=(5, 3)).astype("float32") for _ in range(3)]
    labels = np.eye(3, dtype="float32")[rng.integers(0, 3, 5)]
    hard = [-(labels * log_softmax(each)).sum(-1) for each in z]
    tensors = [ops.convert_to_tensor(each) for each in z]
    given = ops.convert_to_tensor(labels)

    heads = baselines.MultiHead(small_network(), branches=3, hard_share=0.4, temperature=2.0)
    expected = 0.0
    for h in range(3):
        others = np.mean([z[j] for j in range(3) if j != h], axis=0)
        consensus = np.exp(log_softmax(others / 2.0))
        expected = expected + 0.4 * hard[h] - 0.6 * (consensus * log_softmax(z[h] / 2.0)).sum(-1)
    np.testing.assert_allclose(ops.convert_to_numpy(heads.loss_of(given, tensors)), expected, rtol=1e-5)

    drop = baselines.RDrop(small_network(dropout=0.3), weight=0.7)
    a, b = (log_softmax(each) for each in z[:2])
    apart = (np.exp(a) * (a - b)).sum(-1) + (np.exp(b) * (b - a)).sum(-1)
    found = ops.convert_to_numpy(drop.loss_of(given, tensors[:2]))
    np.testing.assert_allclose(found, (hard[0] + hard[1]) / 2 + 0.7 * apart / 2, rtol=1e-5)

    exits = baselines.Exits(small_network(), soft_share=0.2, temperature=3.0)
    target = log_softmax(z[0] / 3.0)
    expected = hard[0]
    for h in (1, 2):
        agreement = 9.0 * (np.exp(target) * (target - log_softmax(z[h] / 3.0))).sum(-1)
        expected = expected + 0.8 * hard[h] + 0.2 * agreement
    np.testing.assert_allclose(ops.convert_to_numpy(exits.loss_of(given, tensors)), expected, rtol=1e-5)
    exits = baselines.Exits(small_network(), soft_share=0.2, bottleneck=True, hint_weight=0.1)
    hints = [rng.normal(size=(5, 4)).astype("float32") for _ in range(2)]
    expected = expected + 0.1 * sum((hint**2).sum(-1) for hint in hints)
    outputs = [*tensors, *(ops.convert_to_tensor(hint) for hint in hints)]
    np.testing.assert_allclose(ops.convert_to_numpy(exits.loss_of(given, outputs)), expected, rtol=1e-5)


def test_sample_weights_and_regularizers_count():
    x, y = small_data(20)
    model = baselines.MultiHead(small_network(regularizer=keras.regularizers.L2(0.1)))
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    whole = model.train_on_batch(x, y)
    regularized = model.train_on_batch(x, y, sample_weight=np.zeros(20, "float32"))
    half = model.train_on_batch(x, y, sample_weight=np.full(20, 0.5, "float32"))
    assert regularized == pytest.approx(float(ops.convert_to_numpy(sum(model.losses))), rel=1e-4)
    assert half - regularized == pytest.approx((whole - regularized) / 2, rel=1e-3)


def test_the_network_is_saved_and_not_the_baseline(tmp_path):
    path = tmp_path / "network.keras"
    model = baselines.MultiHead(small_network())
    model.unwrap().save(path)
    with pytest.raises(NotImplementedError, match=r"MultiHead model is not saved.*model\.unwrap\(\)\.save"):
        model.save(path)
    assert keras.saving.load_model(path).output_shape == (None, 3)


def test_labels_of_another_shape():
    x, y = small_data(8)
    model = baselines.Exits(small_network())
    with training_step(model):
        outputs = model(x)
        with pytest.raises(ValueError, match=r"Labels for head 'head' have shape \(8, 5\). Expected \(batch, 3\)"):
            model.compute_loss(x, ops.convert_to_tensor(np.eye(5)[y]), outputs)


def test_bad_input():
    with pytest.raises(ValueError, match=r"has no dropout: .*dropout=0.3"):
        baselines.RDrop(small_network())
    tokens = keras.Input((4, 6))
    x = layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 3, dropout=0.1)(tokens, tokens))
    baselines.RDrop(keras.Model(tokens, layers.Dense(3, activation="softmax")(x)))  # Attention has dropout of its own.
    with pytest.raises(ValueError, match=r"no name of a layer matches 'relu9'"):
        baselines.MultiHead(small_network(), ["relu9"])
    with pytest.raises(ValueError, match=r"already wrapped"):
        baselines.Exits(wrap(small_network()))
    with pytest.raises(ValueError, match=r"`temperature` must be a number >= 0.0001"):
        baselines.MultiHead(small_network(), temperature=0)
    with pytest.raises(ValueError, match=r"`splits` must be an integer >= 1"):
        baselines.MultiHead(small_network(), 0)
    with pytest.raises(ValueError, match=r"`splits` must be below the number of stages, which is 3.*splits=4"):
        baselines.MultiHead(small_network(), np.int64(4))
    tokens = keras.Input((7,), dtype="int32")
    x = layers.LSTM(4, return_sequences=True)(layers.Embedding(5, 3, mask_zero=True)(tokens))
    x = layers.Dense(3, activation="softmax")(layers.LSTM(4)(x))
    with pytest.raises(ValueError, match=r"cannot be split after 'lstm': a later layer, or its mask, reads what lies"):
        baselines.MultiHead(keras.Model(tokens, x), ["lstm"])
    with pytest.raises(ValueError, match=r"needs images.*layer 'flatten' with positions \(\)"):
        baselines.Exits(small_network(), ["flatten"], bottleneck=True)
    inputs = keras.Input((8, 8, 3))
    stage = layers.Dense(8, activation="relu")(layers.Flatten()(inputs))
    with pytest.raises(ValueError, match=r"2 layers are needed, .* has 1"):  # Without an exit it would train plainly.
        baselines.Exits(keras.Model(inputs, layers.Dense(3, activation="softmax")(stage)))
    one = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match=r"one output a class"):
        baselines.Exits(one)
