"""Weights that change: numbers assigned between fits, and schedules inside the compiled step."""

import keras
import numpy as np
import pytest
from helpers import small_data, small_network

import keras_collab
from keras_collab.schedules import Ramp, RampDown
from keras_collab.terms.weights import at_height, height

BACKEND = keras.backend.backend()


def wrapped(weight, **compile_kwargs):
    model = keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity(weight)])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", **compile_kwargs)
    return model


def weighted_values(history):
    """What the term added to the loss, epoch by epoch."""
    return np.array(history["loss"]) - np.array(history["task_loss"])


@pytest.mark.parametrize(
    ("schedule", "steps", "expected"),
    [
        (Ramp(10.0, steps=4), [0, 1, 4, 9], [0.0, 2.5, 10.0, 10.0]),
        (Ramp(10.0, steps=4, begin=2), [0, 2, 3, 6], [0.0, 0.0, 2.5, 10.0]),
        (RampDown(8.0, steps=4, begin=2), [0, 2, 3, 6, 99], [8.0, 8.0, 6.0, 0.0, 0.0]),
    ],
)
def test_values_of_schedules(schedule, steps, expected):
    assert [float(schedule(step)) for step in steps] == expected
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert type(restored) is type(schedule)
    assert [float(restored(step)) for step in steps] == expected


def test_heights():
    ramp, down = Ramp(10.0, steps=4, begin=2), RampDown(8.0, steps=4, begin=2)
    assert [height("a", weight) for weight in (0.5, ramp, down)] == [0.5, 10.0, 8.0]
    assert at_height(0.5, 3.0) == 3.0
    assert [float(at_height(ramp, 5.0)(step)) for step in (0, 3, 6)] == [0.0, 1.25, 5.0]
    assert [float(at_height(down, 4.0)(step)) for step in (0, 3, 6)] == [4.0, 3.0, 0.0]
    with pytest.raises(ValueError, match=r"The weight of 'a' must be a number, a Ramp or a RampDown.*Received: .*Make"):
        height("a", keras.optimizers.schedules.CosineDecay(1.0, 5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ramp(-1.0, steps=4), r"`value` must be a number >= 0. Received: value=-1.0"),
        (lambda: Ramp(1e308, steps=4), r"Ramp: `value` is used as float32.*Received: value=1e\+308"),
        (lambda: RampDown(1e-300, steps=4, begin=0), r"RampDown: `value` is used as float32.*Received: value=1e-300"),
        (lambda: Ramp(1.0, steps=0), r"`steps` must be an integer >= 1. Received: steps=0"),
        (lambda: RampDown(1.0, steps=3, begin=0.5), r"`begin` must be an integer >= 0. Received: begin=0.5"),
    ],
)
def test_bad_schedules(make, message):
    with pytest.raises(ValueError, match=message):
        make()


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


class SetWeight(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.model.terms["kernel_similarity"].weight = float(epoch)


def test_a_callback_may_set_the_weight():
    x, y = small_data(16)
    history = wrapped(9.0).fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[SetWeight()]).history
    ratio = weighted_values(history) / np.array(history["kernel_similarity"])
    assert ratio == pytest.approx([0.0, 1.0, 2.0], abs=1e-3)


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


def test_draws_follow_from_the_seed_and_the_step():
    x, y = small_data(16)

    def value(seed):
        keras.utils.set_random_seed(1)
        model = keras_collab.wrap(small_network(), [keras_collab.OutputConsistency(seed=seed)])
        model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", run_eagerly=True)
        return model.train_on_batch(x, y, return_dict=True)["output_consistency"]

    assert value(1) == value(1) != value(2)


def test_wrapping_consumes_no_random_numbers():
    import random

    network = small_network()
    before = random.getstate()
    model = keras_collab.wrap(network, keras_collab.recipes.strong())
    assert random.getstate() == before
    assert len({term.seed for term in model.terms.values()}) == 4
