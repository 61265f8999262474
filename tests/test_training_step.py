"""A training on JAX that ends in the middle leaves the weights of its last whole step."""

import os
import signal

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_collab
from keras_collab._training_step import is_evaluating

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="JAX alone takes the values out of the variables while fit runs"
)
STEPS = 2  # In an epoch.


class Batches(keras.utils.PyDataset):
    """Two batches an epoch. The data raise an error when one is asked for after the last good one."""

    def __init__(self, good=999):
        super().__init__()
        self.good = good

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        self.good -= 1
        if self.good < 0:
            raise OSError("the disk is gone")
        return np.random.default_rng(index).normal(size=(6, 4)).astype("float32"), np.arange(6) % 3


class Stop(keras.callbacks.Callback):
    """Raises an interruption in one of the methods of a callback, when it is called for the given time."""

    def __init__(self, method, time):
        super().__init__()
        self.time = time
        setattr(self, method, self.stop_in_time)

    def stop_in_time(self, *args, **kwargs):
        self.time -= 1
        if self.time == 0:
            raise KeyboardInterrupt


def new_model(*terms):
    keras.utils.set_random_seed(3)
    hidden = [layers.Dense(5), layers.BatchNormalization(), layers.Dropout(0.5)]
    network = keras.Sequential([keras.Input((4,)), *hidden, layers.Dense(3, activation="softmax")])
    model = keras_collab.wrap(network, [keras_collab.OutputConsistency(), *terms])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    return model


def fit(model, data, **kwargs):
    model.fit(data, shuffle=False, verbose=0, epochs=3, **kwargs)


def values(model):
    """Those of the network, of its random draws, of the terms and of the optimizer."""
    variables = [*model.trainable_variables, *model.non_trainable_variables, *model.optimizer.variables]
    return [ops.convert_to_numpy(variable) for variable in variables]


def assert_trained_for(model, steps):
    """All is as after a training of so many steps, and training goes on."""
    expected = new_model()
    for step in range(steps):
        x, y = Batches()[step % STEPS]
        expected.train_on_batch(x, y)
    for ours, theirs in zip(values(model), values(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    fit(model, Batches())
    assert int(model.optimizer.iterations) == steps + 3 * STEPS


@pytest.mark.parametrize(
    ("method", "time", "steps"),
    [
        ("on_train_batch_begin", 1, 0),
        ("on_train_batch_end", 1, 1),
        ("on_train_batch_begin", 4, 3),
        ("on_test_batch_begin", 2, 2),
        ("on_test_batch_end", 1, 2),
    ],
)
def test_a_callback_that_stops_the_training(method, time, steps):
    model = new_model()
    with pytest.raises(KeyboardInterrupt):
        fit(model, Batches(), validation_data=Batches(), callbacks=[Stop(method, time)])
    assert_trained_for(model, steps)


@pytest.mark.parametrize(
    ("platform", "good", "steps"),
    [("cpu", 2, 1), ("cpu", 3, 2), ("cpu", 4, 3), ("gpu", 2, 0), ("gpu", 3, 0), ("gpu", 4, 2)],
)
def test_data_that_fail(platform, good, steps, monkeypatch):
    """In an epoch, and at the beginning of one after a validation.

    Keras 3.15 reads one batch before it trains, and on an accelerator always one batch ahead.
    """
    import jax

    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    model = new_model()
    with pytest.raises(OSError, match="the disk is gone"):
        fit(model, Batches(good), validation_data=Batches())
    assert_trained_for(model, steps)


@pytest.mark.parametrize("method", ["evaluate", "predict"])
def test_data_that_fail_where_nothing_trains(method):
    model = new_model()
    with pytest.raises(OSError, match="the disk is gone"):
        getattr(model, method)(Batches(1), verbose=0)
    assert_trained_for(model, 0)


def test_a_model_that_is_not_compiled_predicts():
    network = new_model().unwrap()
    assert keras_collab.wrap(network, []).predict(Batches(), verbose=0).shape == (12, 3)


def send_ctrl_c(tensor):
    """Sends Ctrl-C to this process while a step runs."""
    import jax

    jax.debug.callback(lambda value: os.kill(os.getpid(), signal.SIGINT), ops.stop_gradient(tensor))
    return ops.zeros(())


@pytest.fixture
def ctrl_c():
    """Python's own handler; a process that was started in the background ignores Ctrl-C."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


class CtrlC(keras_collab.Term):
    def call(self, tensors):
        return send_ctrl_c(tensors.y)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_while_a_step_runs():
    """The step deletes its old state; Ctrl-C must not come before the new one is kept."""
    model = new_model(CtrlC())
    for step in range(1, 6):
        with pytest.raises(KeyboardInterrupt):
            fit(model, Batches())
        assert all(np.isfinite(value).all() for value in values(model))
        assert int(model.optimizer.iterations) >= step


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_in_a_validation_keeps_what_was_trained():
    """Keras 3.15 puts the values of the training, which the first step of the validation deletes, back once more."""

    def metric(y, outputs):
        return send_ctrl_c(y) if is_evaluating() else ops.zeros(())

    model = new_model()
    start = values(model)[0]
    model.compile(model.optimizer, model.loss, metrics=[metric])
    with pytest.raises(KeyboardInterrupt):
        fit(model, Batches(), validation_data=Batches())
    assert all(np.isfinite(value).all() for value in values(model))
    assert int(model.optimizer.iterations) == STEPS
    assert not np.array_equal(values(model)[0], start)


def test_what_an_interrupted_training_left_hides_no_later_error():
    model = new_model()
    with pytest.raises(KeyboardInterrupt):
        fit(model, Batches(), callbacks=[Stop("on_train_batch_end", 1)])
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"expected shape=\(None, 4\)"):
        model.fit(np.ones((6, 5)), np.zeros(6), verbose=0)
