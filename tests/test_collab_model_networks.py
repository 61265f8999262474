"""Networks of every shape are trained, evaluated and unwrapped as what they are."""

import keras
import numpy as np
import pytest
from helpers import FEW_STEPS, LABELS, SAMPLES, normal
from keras import layers, ops
from networks import CASES, channels_first, open_size, text_convolutions, transfer_learning

from keras_collab import Selection, Term, recipes, wrap


def compile_for_its_precision(model, loss, **settings):
    optimizer = keras.optimizers.SGD(0.05)
    if model.dtype_policy.name == "mixed_float16":  # Its first scale, 2**15, overflows here, and the step is left out.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=64.0)
    model.compile(optimizer, loss, **{**FEW_STEPS, **settings})


def copied(weight):
    return ops.convert_to_numpy(weight).copy()


def loss_by_numpy(loss, y, outputs):
    probabilities = np.clip(ops.convert_to_numpy(outputs).astype("float64"), 1e-7, 1 - 1e-7)
    if loss == "binary_crossentropy":
        return -np.mean(y * np.log(probabilities) + (1 - y) * np.log(1 - probabilities))
    return -np.mean(np.log(probabilities[np.arange(len(y)), y]))


class MeanSquares(Term):
    """Reads all that there is to read, and tells the sum of its mean squares."""

    def select(self, reader):
        return Selection(taps=reader.taps(), head=reader.head(), kernels=reader.kernels())

    def call(self, tensors):
        read = [*tensors.taps, tensors.head.features, *(kernel.read() for kernel in tensors.kernels)]
        return sum(ops.mean(ops.square(ops.cast(values, "float32"))) for values in read)


def layer_at(network, path):
    for name in path.split("/"):
        network = network.get_layer(name)
    return network


def mean_squares(case, monkeypatch):
    """The same by recording what goes through the network's layers when it is called in training."""
    values = [copied(layer_at(case.network, path).kernel) for path in case.kernels]
    with monkeypatch.context() as patch:
        for path in (*case.taps, case.head):
            layer = layer_at(case.network, path)

            def call(*args, layer=layer, is_head=path == case.head, call=layer.call, **kwargs):
                outputs = call(*args, **kwargs)
                values.append(ops.convert_to_numpy(args[0] if is_head else outputs).astype("float32"))
                return outputs

            patch.setattr(layer, "call", call)
        outputs = case.network(case.x, training=True)
    assert len(values) == len(case.kernels) + len(case.taps) + 1
    return sum(np.mean(np.square(value)) for value in values), outputs


@pytest.mark.parametrize("make", CASES)
def test_trains(make, monkeypatch):
    if make is channels_first and keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow has no channels-first convolutions on the CPU.")
    case = make()
    network, x, y = case.network, case.x, case.y
    model = wrap(network, [MeanSquares(0.01)])
    compile_for_its_precision(model, case.loss)
    if case.comparable:
        expected, outputs = mean_squares(case, monkeypatch)
    before = copied(layer_at(network, case.head).kernel)

    history = model.fit(x, y, batch_size=SAMPLES, epochs=2, verbose=0).history
    assert set(history) == {"loss", "task_loss", "mean_squares"}
    total = np.array(history["task_loss"]) + 0.01 * np.array(history["mean_squares"])
    np.testing.assert_allclose(history["loss"], total, rtol=1e-5)
    if case.comparable:  # The tapped network computes what the network does.
        task = loss_by_numpy(case.loss, y, outputs)
        np.testing.assert_allclose(history["task_loss"][0], task, rtol=case.tolerance)
        np.testing.assert_allclose(history["mean_squares"][0], expected, rtol=case.tolerance)
    assert not np.array_equal(copied(layer_at(network, case.head).kernel), before)

    task = loss_by_numpy(case.loss, y, network(x, training=False))
    evaluated = model.evaluate(x, y, batch_size=SAMPLES, verbose=0, return_dict=True)
    assert set(evaluated) == {"loss"}
    np.testing.assert_allclose(evaluated["loss"], task, rtol=case.tolerance)
    assert model.unwrap() is network


@pytest.mark.filterwarnings("ignore:.*trains nothing:UserWarning")  # As some of these networks are.
@pytest.mark.parametrize("make", [transfer_learning, open_size, text_convolutions])
def test_trains_with_all_terms_compiled(make):
    case = make()
    model = wrap(case.network, recipes.strong())
    compile_for_its_precision(model, case.loss, run_eagerly=False)
    history = model.fit(case.x, case.y, batch_size=SAMPLES, epochs=2, verbose=0).history
    assert set(history) == {"loss", "task_loss", *model.terms}
    assert max(min(history[name]) for name in model.terms) > 0
    total = sum(term.weight * np.array(history[name]) for name, term in model.terms.items())
    np.testing.assert_allclose(history["loss"], history["task_loss"] + total, rtol=1e-5)
    expected = loss_by_numpy(case.loss, case.y, case.network(case.x, training=False))
    np.testing.assert_allclose(model.evaluate(case.x, case.y, verbose=0), expected, rtol=case.tolerance)


@pytest.mark.parametrize("make", CASES)
def test_is_the_network(make):
    network = make().network
    model = wrap(network, name="wrapped")
    own, wrapped = [], []
    network.summary(print_fn=lambda line, **_: own.append(line))
    model.summary(print_fn=lambda line, **_: wrapped.append(line))
    assert wrapped == own
    assert model.name == "wrapped"
    assert model.input_shape == network.input_shape
    assert model.output_shape == network.output_shape
    for layer in network.layers:
        assert model.get_layer(layer.name) is layer
    assert [id(weight) for weight in model.trainable_weights] == [id(weight) for weight in network.trainable_weights]
    assert {id(weight) for weight in network.weights} <= {id(weight) for weight in model.weights}


class Counter(layers.Layer):
    calls = 0

    def call(self, inputs):
        self.calls += 1
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape


@pytest.mark.parametrize("nested", [False, True])
def test_one_forward_pass_a_step(nested):
    inputs = keras.Input((5,))
    x = Counter(name="counter")(layers.Dense(6, activation="relu", name="first")(inputs))
    body = keras.Model(inputs, layers.Dense(6, activation="relu", name="second")(x), name="body")
    outer = keras.Input((5,))
    start, features = (outer, body(outer)) if nested else (inputs, body.output)
    network = keras.Model(start, layers.Dense(3, activation="softmax", name="head")(features))
    model = wrap(network, [MeanSquares(0.01)])
    compile_for_its_precision(model, "sparse_categorical_crossentropy", run_eagerly=True, jit_compile=False)
    counter, x = body.get_layer("counter"), normal(5)
    model.train_on_batch(x, LABELS)
    for steps in (1, 2):
        counter.calls = 0
        model.fit(x, LABELS, batch_size=SAMPLES // steps, verbose=0)
        assert counter.calls == steps
    counter.calls = 0
    model.test_on_batch(x, LABELS)
    assert counter.calls == 1
