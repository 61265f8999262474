"""Weights that change: numbers assigned between fits and in callbacks, and schedules inside the compiled step."""

import math

import keras
import numpy as np
import pytest
from helpers import small_data, small_network

import keras_collab
from keras_collab.schedules import Ramp

BACKEND = keras.backend.backend()


def wrapped(weight, **compile_kwargs):
    model = keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity(weight)])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", **compile_kwargs)
    return model


def weighted_values(history):
    """What the term added to the loss, epoch by epoch."""
    return np.array(history["loss"]) - np.array(history["task_loss"])


def test_a_number_assigned_between_fits_takes_effect():
    x, y = small_data(16)
    model = wrapped(2.0)
    term = model.terms["kernel_similarity"]
    added = []
    for weight in (2.0, 0.5, 0.0):
        term.weight = weight
        assert term.weight == weight
        history = model.fit(x, y, batch_size=8, verbose=0).history
        added.append(weighted_values(history)[0] / history["kernel_similarity"][0])
    assert added == pytest.approx([2.0, 0.5, 0.0], abs=1e-3)


class SetWeightOfEachEpoch(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.model.terms["kernel_similarity"].weight = float(epoch)


def test_a_callback_may_set_the_weight():
    x, y = small_data(16)
    history = wrapped(9.0).fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[SetWeightOfEachEpoch()]).history
    ratio = weighted_values(history) / np.array(history["kernel_similarity"])
    assert ratio == pytest.approx([0.0, 1.0, 2.0], abs=1e-3)


class SetWeightOfEachBatch(keras.callbacks.Callback):
    def __init__(self, model=None):
        super().__init__()
        self.given = model

    def on_train_batch_begin(self, batch, logs=None):
        model = self.given or self.model
        model.terms["kernel_similarity"].weight = float(batch)


def test_a_weight_set_for_each_batch():
    x, y = small_data(16)
    model = wrapped(9.0)
    history = model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[SetWeightOfEachBatch()]).history
    added = weighted_values(history)[0]
    assert added == pytest.approx(1.5 * history["kernel_similarity"][0], abs=1e-3)
    assert model.terms["kernel_similarity"].weight == 3.0


@pytest.mark.skipif(BACKEND != "jax", reason="JAX alone takes the values out of the variables while fit runs")
def test_a_weight_set_past_the_callbacks_own_model_is_an_error():
    x, y = small_data(16)
    model = wrapped(9.0)
    with pytest.raises(RuntimeError, match=r"inside a running `fit` on JAX.*self.model.terms"):
        model.fit(x, y, batch_size=4, verbose=0, callbacks=[SetWeightOfEachBatch(model)])


@pytest.mark.parametrize("weight", [-5.0, math.nan])
def test_a_loaded_weight_is_checked(weight):
    term = keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity()]).terms["kernel_similarity"]
    with pytest.raises(ValueError, match="weight of 'kernel_similarity' must be a number from 0 to 1e38"):
        term.load_own_variables({"0": np.float32(weight), "1": np.int32(0)})


# Schedules.


@pytest.mark.parametrize(
    ("in_file", "own", "message"),
    [
        (Ramp(10.0, steps=5), 3.0, "follows a schedule, in this model it is a number"),
        (3.0, Ramp(10.0, steps=5), "is a number, in this model it follows a schedule"),
    ],
)
def test_weights_of_a_schedule_and_numbers_do_not_load_into_each_other(in_file, own, message, tmp_path):
    path = tmp_path / "term.weights.h5"
    keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity(in_file)]).save_weights(path)
    model = keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity(own)])
    with pytest.raises(ValueError, match=rf"'kernel_similarity' {message}"):
        model.load_weights(path)
    assert model.terms["kernel_similarity"].weight == own


def test_a_number_in_place_of_a_schedule_loads_where_the_schedule_is(tmp_path):
    ramp = Ramp(10.0, steps=5)
    model = keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity(ramp)])
    model.terms["kernel_similarity"].weight = 4.0
    model.save_weights(tmp_path / "term.weights.h5")
    other = keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity(ramp)])
    other.load_weights(tmp_path / "term.weights.h5")
    assert other.terms["kernel_similarity"].weight == 4.0


def test_a_schedule_counts_steps_and_a_number_takes_over(tmp_path):
    x, y = small_data(16)
    model = wrapped(Ramp(6.0, steps=6))
    history = model.fit(x, y, batch_size=8, epochs=4, verbose=0).history
    assert history["kernel_similarity_weight"] == pytest.approx([0.5, 2.5, 4.5, 6.0])
    term = model.terms["kernel_similarity"]
    assert term.weight.steps == 6
    term.weight = 1.5
    assert term.weight == 1.5
    history = model.fit(x, y, batch_size=8, verbose=0).history
    assert history["kernel_similarity_weight"] == pytest.approx([1.5])
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras").terms["kernel_similarity"]
    assert (restored.scheduled, restored.weight) == (False, 1.5)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras refuses steps_per_execution > 1 on torch")
def test_schedules_are_right_with_several_steps_an_execution():
    x, y = small_data(32)
    model = wrapped(Ramp(8.0, steps=8), steps_per_execution=4)
    history = model.fit(x, y, batch_size=8, epochs=2, verbose=0).history
    assert history["kernel_similarity_weight"] == pytest.approx([(0 + 1 + 2 + 3) / 4, (4 + 5 + 6 + 7) / 4])


def test_any_keras_schedule_and_function_of_the_step_works():
    x, y = small_data(16)
    polynomial = keras.optimizers.schedules.PolynomialDecay(4.0, decay_steps=4, end_learning_rate=0.0)
    history = wrapped(polynomial).fit(x, y, batch_size=8, epochs=2, verbose=0).history
    assert history["kernel_similarity_weight"] == pytest.approx([3.5, 1.5])
    history = wrapped(lambda step: 2.0 * keras.ops.cast(step, "float32")).fit(x, y, batch_size=8, verbose=0).history
    assert history["kernel_similarity_weight"] == pytest.approx([1.0])


def test_a_schedule_cannot_be_assigned_later():
    term = keras_collab.KernelSimilarity()
    keras_collab.wrap(small_network(), [term])
    with pytest.raises(TypeError, match=r"can only be set to a number.*Give the schedule when the term is made"):
        term.weight = Ramp(1.0, steps=3)
