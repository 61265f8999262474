"""Ramps: their values at each step, and what they refuse."""

import keras
import pytest

from keras_collab.schedules import Ramp, RampDown


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
