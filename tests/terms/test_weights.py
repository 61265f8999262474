"""What the weight of a term may be, and the height of a ramp."""

import math

import keras
import pytest

import keras_collab
from keras_collab.schedules import Ramp, RampDown
from keras_collab.terms.weights import at_height, height


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (-1.0, ValueError, r"weight of 'kernel_similarity' must be a number from 0 to 1e38. Received: -1.0"),
        (math.nan, ValueError, r"must be a number from 0 to 1e38. Received: nan"),
        (math.inf, ValueError, r"must be a number from 0 to 1e38. Received: inf"),
        (1e308, ValueError, r"must be a number from 0 to 1e38. Received: 1e\+308"),
        (1e-300, ValueError, r"is used as float32, which holds 0 and sizes from 1.2e-38. Received: 1e-300"),
        (1e-40, ValueError, r"is used as float32, which holds 0 and sizes from 1.2e-38. Received: 1e-40"),
        ("0.5", TypeError, r"must be a number >= 0, or a schedule such as keras_collab.schedules.Ramp.*'0.5'.*str"),
        (True, TypeError, r"must be a number >= 0.*True"),
        (None, TypeError, r"must be a number >= 0.*None"),
    ],
)
def test_bad_weights(weight, error, message):
    with pytest.raises(error, match=message):
        keras_collab.KernelSimilarity(weight)
    term = keras_collab.KernelSimilarity(0.3)
    with pytest.raises(error, match=message):
        term.weight = weight
    assert term.weight == 0.3


@pytest.mark.parametrize(
    ("schedule", "error", "message"),
    [
        (Ramp, TypeError, r"is not a schedule: it must turn a training step into one number"),
        (lambda step: None, TypeError, r"is not a schedule"),
        (lambda step: 1.0 - step / 1000, ValueError, r"must be a number >= 0 at every step. At step 10000 it is -9.0"),
        (lambda step: float("nan") if step > 50 else 1.0, ValueError, r"At step 100 it is nan"),
        pytest.param(
            lambda step: 0.1 if step < 4 else 0.0,
            TypeError,
            r"'kernel_similarity' is a function that cannot be compiled.*keras.ops.where",
            marks=pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch compiles nothing"),
        ),
        (lambda step: -5.0, ValueError, r"must be a number >= 0 at every step. At step 0 it is -5.0"),
    ],
)
def test_bad_schedules_are_told_at_once(schedule, error, message):
    with pytest.raises(error, match=message):
        keras_collab.KernelSimilarity(schedule)


def test_heights():
    ramp, down = Ramp(10.0, steps=4, begin=2), RampDown(8.0, steps=4, begin=2)
    assert [height("a", weight) for weight in (0.5, ramp, down)] == [0.5, 10.0, 8.0]
    assert at_height(0.5, 3.0) == 3.0
    assert [float(at_height(ramp, 5.0)(step)) for step in (0, 3, 6)] == [0.0, 1.25, 5.0]
    assert [float(at_height(down, 4.0)(step)) for step in (0, 3, 6)] == [4.0, 3.0, 0.0]
    with pytest.raises(ValueError, match=r"The weight of 'a' must be a number, a Ramp or a RampDown.*Received: .*Make"):
        height("a", keras.optimizers.schedules.CosineDecay(1.0, 5))
