"""`balance`: norms as small steps of training show them, weights of the stated share, and nothing else changed."""

import functools

import keras
import numpy as np
import pytest
from helpers import FEW_STEPS, small_data, small_network
from keras import layers, ops

import keras_collab
from keras_collab import IntermediateConsistency, KernelSimilarity, OutputConsistency, balance, wrap
from keras_collab.network.layers import kernel_of
from keras_collab.schedules import Ramp
from keras_collab.tools._copies import terms_like

RATE = 1e-3


def compiled(network, terms, rate=RATE, **kwargs):
    model = wrap(network, terms)
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy", **{**FEW_STEPS, **kwargs})
    return model


def fixed_terms(**weights):
    """Terms that draw nothing in a small network."""
    return [
        IntermediateConsistency(weights.get("intermediate", 0.0)),
        KernelSimilarity(weights.get("kernel", 0.0), max_filters=16),
    ]


def gradients_of_a_step(network, data, terms):
    """The gradient of each weight, from a step of SGD that is taken back."""
    kept = [ops.convert_to_numpy(variable) for variable in network.variables]
    trained = [ops.convert_to_numpy(weight) for weight in network.trainable_weights]
    compiled(network, terms).train_on_batch(*data)
    moved = [ops.convert_to_numpy(weight) for weight in network.trainable_weights]
    for variable, value in zip(network.variables, kept, strict=True):
        variable.assign(value)
    return [(one - other) / RATE for one, other in zip(trained, moved, strict=True)]


@pytest.mark.parametrize("regularizer", [None, "l2"])
def test_norms_are_those_of_the_gradients(regularizer):
    network, data = small_network(regularizer=regularizer), small_data()
    task = gradients_of_a_step(network, data, fixed_terms())
    found = balance(compiled(network, fixed_terms(kernel=3.0)), data, 1, batch_size=24, share=0.5, verbose=False)
    for row, name in zip(found.terms, ("intermediate", "kernel"), strict=True):
        both = gradients_of_a_step(network, data, fixed_terms(**{name: 100.0}))
        own = [(one - other) / 100 for one, other in zip(both, task, strict=True)]
        reached = [np.abs(gradient).max() > 1e-5 for gradient in own]
        norm = np.sqrt(sum(np.sum(g**2) for g in own))
        task_norm = np.sqrt(sum(np.sum(g**2) for g, here in zip(task, reached, strict=True) if here))
        assert row.norm == pytest.approx(norm, rel=2e-3)
        assert row.task_norm == pytest.approx(task_norm, rel=2e-2)
        assert row.weight == pytest.approx(0.5 * row.task_norm / row.norm)
        assert row.before == {"intermediate": 0.0, "kernel": 3.0}[name]
    assert found.batches == 1


def test_weights_are_set_and_nothing_else_changes():
    data = small_data(samples=64)
    terms = [OutputConsistency(), *fixed_terms(kernel=1.0)]
    model = compiled(small_network(dropout=0.3), terms, run_eagerly=False)  # As users compile it.
    model.fit(*data, batch_size=16, verbose=0)
    others = [v for v in model.variables if not v.path.endswith("/weight")]
    before = [ops.convert_to_numpy(variable) for variable in others]
    found = balance(model, data, share=0.1, batch_size=16, verbose=False)
    for variable, value in zip(others, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value, err_msg=variable.path)
    assert found.batches == 4
    assert found.weights == pytest.approx({name: term.weight for name, term in model.terms.items()})
    for name, (low, high) in found.ranges.items():
        assert (low, high) == pytest.approx((found.weights[name] / 10, found.weights[name] * 10))
    again = balance(model, data, share=0.1, batch_size=16, verbose=False)
    assert [row.share_before for row in again.terms[1:]] == pytest.approx([0.1, 0.1], rel=0.05)
    assert {"loss", "kernel_similarity"} <= model.fit(*data, batch_size=16, verbose=0).history.keys()


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return tuple(part[8 * index : 8 * index + 8] for part in small_data(samples=24))


def torch_loader():
    data = pytest.importorskip("torch.utils.data")
    torch = pytest.importorskip("torch")
    return data.DataLoader(data.TensorDataset(*map(torch.as_tensor, small_data(samples=24))), batch_size=8)


def tf_dataset():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(small_data(samples=24)).batch(8)


@pytest.mark.parametrize("make", [lambda: Batches(), tf_dataset, torch_loader], ids=["PyDataset", "tf.data", "torch"])
def test_data_in_batches(make):
    model = compiled(small_network(), fixed_terms())
    expected = balance(model, iter(list(Batches())), verbose=False)
    found = balance(model, make(), verbose=False)
    assert found.batches == expected.batches == 3
    assert [row.norm for row in found.terms] == pytest.approx([row.norm for row in expected.terms], rel=1e-4)


def test_of_a_ramp_the_height_is_set():
    """The share is as asked for once the ramp is over, and a training that has begun takes the new height."""
    data = small_data(samples=8)
    ramp = Ramp(1.0, steps=1)
    model = compiled(small_network(), [KernelSimilarity(ramp, max_filters=16)], rate=0.0)
    model.fit(*data, epochs=2, verbose=0)
    (row,) = balance(model, data, 1, share=0.5, verbose=False).terms
    assert row.weight == pytest.approx(0.5 * row.task_norm / row.norm)
    assert (row.before, ramp.value) == (1.0, 1.0)  # The ramp may be another model's as well.
    history = model.fit(*data, verbose=0).history
    assert history["kernel_similarity_weight"] == pytest.approx([row.weight])
    (term,) = terms_like(model)
    assert term.weight.get_config() == {"value": row.weight, "steps": 1, "begin": 0}


def test_the_default_terms_can_be_balanced():
    model = compiled(small_network(), None)
    found = balance(model, small_data(), 1, verbose=False)
    for name, term in model.terms.items():
        assert term.weight.value == pytest.approx(found.weights[name])


class Nothing(keras_collab.Term):
    def call(self, tensors):
        return ops.zeros(())


def test_a_term_without_gradient_keeps_its_weight(capsys):
    model = compiled(small_network(), [Nothing(0.7), *fixed_terms()])
    found = balance(model, small_data(), 1)
    assert model.terms["nothing"].weight == 0.7
    assert "nothing" not in {*found.weights, *found.ranges}
    shown = capsys.readouterr().out
    assert "no gradient" in shown
    assert "kernel_similarity" in shown


def test_a_term_that_reads_only_what_is_frozen_keeps_its_weight():
    network = small_network()
    for name in ("conv1", "conv2"):
        network.get_layer(name).trainable = False
    model = wrap(network, [KernelSimilarity(3.0), IntermediateConsistency()])
    with pytest.warns(UserWarning, match="'kernel_similarity' trains nothing"):
        model.compile(keras.optimizers.SGD(RATE), "sparse_categorical_crossentropy", **FEW_STEPS)
    row, other = balance(model, small_data(), 1, verbose=False).terms
    assert (row.norm, model.terms["kernel_similarity"].weight) == (0.0, 3.0)
    assert np.isnan(row.weight)
    assert other.weight > 0


def regression_network(outputs):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="conv0")(inputs)
    x = layers.Conv2D(8, 3, name="conv1")(x)
    return keras.Model(inputs, layers.Dense(outputs, name="values")(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize("outputs", [1, 4])
def test_regression(outputs):
    """The loss is quadratic, so its gradient is known: 2 / n · error · features, on the kernel of the last layer."""
    network = regression_network(outputs)
    x = small_data()[0]
    y = np.random.default_rng(1).normal(size=(len(x), outputs))
    model = wrap(network, [KernelSimilarity(), Decay()])
    model.compile(keras.optimizers.SGD(RATE), "mse", **FEW_STEPS)
    rows = {row.name: row for row in balance(model, (x, y), 1, batch_size=24, verbose=False).terms}
    pooled = keras.Model(network.input, network.layers[-2].output)
    features = ops.convert_to_numpy(pooled(x, training=False)).astype("float64")
    kernel, bias = network.layers[-1].get_weights()
    error = features @ kernel + bias - y
    gradient = 2 / y.size * features.T @ error
    assert rows["decay"].task_norm == pytest.approx(np.linalg.norm(gradient), rel=1e-3)
    assert rows["decay"].norm == pytest.approx(2 * np.linalg.norm(kernel), rel=1e-4)
    assert model.terms["kernel_similarity"].weight == pytest.approx(rows["kernel_similarity"].weight)


class Decay(keras_collab.Term):
    """The sum of the squares of the last kernel, whose gradient is twice the kernel."""

    def select(self, reader):
        call = reader.graph.calls[-1]
        return keras_collab.Selection(kernels=(kernel_of(call.operation, call.path),))

    def call(self, tensors):
        (kernel,) = tensors.kernels
        return ops.sum(ops.square(kernel.read()))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision(policy):
    exact, half = small_network(), small_network(dtype=policy)
    half.set_weights(exact.get_weights())
    rows = [balance(compiled(n, fixed_terms()), small_data(), 1, verbose=False).terms for n in (exact, half)]
    for exact, half in zip(*rows, strict=True):
        assert half.norm == pytest.approx(exact.norm, rel=0.2)
        assert half.task_norm == pytest.approx(exact.task_norm, rel=0.2)


def test_large_gradients_in_half_precision():
    """Targets of hundreds overflow float16 where the loss is scaled up; the weights are those of float32."""
    weights = []
    for policy in ("float32", "mixed_float16"):
        keras.utils.set_random_seed(0)
        keras.mixed_precision.set_global_policy(policy)
        try:
            network = regression_network(1)
        finally:
            keras.mixed_precision.set_global_policy("float32")
        model = wrap(network, [KernelSimilarity(max_filters=16)])
        model.compile("sgd", "mse", **FEW_STEPS)
        x, _ = small_data()
        weights.append(balance(model, (x, np.linspace(0, 500, len(x))), verbose=False).weights["kernel_similarity"])
    assert weights[1] == pytest.approx(weights[0], rel=0.05)


def test_repeated_tokens_are_summed():
    """On TensorFlow the gradient of an Embedding has a row for each token of the batch."""
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Conv1D(6, 3, name="conv")(layers.Embedding(5, 4, name="table")(inputs))
    network = keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling1D()(x)))
    tokens = np.random.default_rng(0).integers(0, 5, (24, 6))
    data = tokens, np.arange(24) % 3
    task = gradients_of_a_step(network, data, [])
    model = compiled(network, [IntermediateConsistency(layers=["conv"])])
    (row,) = balance(model, data, 1, batch_size=24, verbose=False).terms
    norm = np.sqrt(sum(np.sum(gradient**2) for gradient in task[:3]))  # The table, and the convolution behind it.
    assert row.task_norm == pytest.approx(norm, rel=2e-2)


def test_rounding_is_no_gradient():
    """Orthogonal filters are as different as can be: what is left of the term's gradient is rounding."""
    inputs = x = keras.Input((8, 8, 3))
    for name in ("one", "two"):
        x = layers.Conv2D(4, 3, kernel_initializer="orthogonal", name=name)(x)
    network = keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    assert balance(compiled(network, [KernelSimilarity(7.0)]), small_data(), verbose=False).weights == {}


def test_a_gradient_that_is_not_finite_is_told():
    x, y = small_data()
    with pytest.raises(ValueError, match="NaN or infinity in the gradient of the task"):
        balance(compiled(small_network(), [KernelSimilarity()]), (np.where(x > 2, np.nan, x), y), verbose=False)


def test_a_loss_that_cannot_be_saved():
    def loss(factor, y, prediction):
        return factor * keras.losses.sparse_categorical_crossentropy(y, prediction)

    norms = []
    for loss_weights in (None, [3.0]):
        keras.utils.set_random_seed(0)
        model = wrap(small_network(), [KernelSimilarity()])
        model.compile("sgd", [functools.partial(loss, 2.0)], loss_weights=loss_weights, **FEW_STEPS)
        (row,) = balance(model, small_data(), 1, verbose=False).terms
        norms.append(row.task_norm)
    assert norms[1] == pytest.approx(3 * norms[0], rel=1e-3)


def test_bad_input():
    network, data = small_network(), small_data()
    with pytest.raises(TypeError, match=r"`balance` takes a wrapped network.*keras_collab.wrap"):
        balance(network, data)
    with pytest.raises(ValueError, match=r"call model.compile"):
        balance(wrap(network), data)
    polynomial = keras.optimizers.schedules.PolynomialDecay(1.0, decay_steps=5)
    for schedule in (polynomial, lambda step: 1.0):
        scheduled = compiled(network, [KernelSimilarity(schedule)])
        with pytest.raises(ValueError, match=r"weight of 'kernel_similarity' must be a number, a Ramp or a RampDown"):
            balance(scheduled, data)
    model = compiled(network, fixed_terms())
    with pytest.raises(ValueError, match=r"`share` must be a number > 0"):
        balance(model, data, share=0)
    with pytest.raises(ValueError, match=r"`batches` must be an integer >= 1"):
        balance(model, data, 0)
    with pytest.raises(ValueError, match=r"at least one batch"):
        balance(model, iter([]))
    with pytest.raises(TypeError, match=r"needs labels. Received: data without y. Give balance\(model, \(x, y\)\)"):
        balance(model, data[0])
    with pytest.raises(TypeError, match=r"`batches` must be an integer.*of type ndarray.*balance\(model, \(x, y\)\)"):
        balance(model, *data)
    with pytest.raises(TypeError, match=r"balance: data must be arrays.*Received: None"):
        balance(model, None)


def test_a_list_of_batches_is_one():
    x, y = small_data(16)
    model = keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity()])
    model.compile("sgd", "sparse_categorical_crossentropy", **FEW_STEPS)
    batches = [(x[:8], y[:8]), (x[8:], y[8:])]
    assert keras_collab.balance(model, batches, verbose=False).weights["kernel_similarity"] > 0
