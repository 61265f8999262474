"""Schedules for the weights of terms. Any `keras.optimizers.schedules.LearningRateSchedule` works as well."""

from typing import Any

import keras
from keras import ops

from keras_collab._checks import check_range
from keras_collab._types import Tensor

__all__ = ["Ramp", "RampDown"]


class LinearSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A weight that changes linearly over some steps; `value` is the highest that it takes."""

    def __init__(self, value: float, steps: int, begin: int = 0):
        self.value = check_range(self, value=value, least=0)
        self.steps = check_range(self, steps=steps, least=1, whole=True)
        self.begin = check_range(self, begin=begin, least=0, whole=True)

    def _progress(self, step: Tensor) -> Tensor:
        """The fraction of the ramp completed at `step`, in [0, 1]."""
        done = ops.cast(step, "float32") - self.begin
        return ops.clip(done / self.steps, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {"value": self.value, "steps": self.steps, "begin": self.begin}


@keras.saving.register_keras_serializable("keras_collab")
class Ramp(LinearSchedule):
    """Raises a weight linearly from 0 to `value`.

    The weight is 0 until step `begin`, rises over `steps` steps, and stays at `value`. Consistency terms are often
    ramped up, since early predictions are poor targets.

    Args:
        value: float, >= 0. The weight at the end.
        steps: integer, >= 1. Length of the ramp in training steps (batches),
            counted from `wrap` on through every `compile` and `fit`.
        begin: integer, >= 0. Training step at which the weight starts to rise. Defaults to 0.

    Raises:
        ValueError: if an argument is outside its range.

    >>> [float(keras_collab.schedules.Ramp(10.0, steps=4)(step)) for step in (0, 1, 4, 9)]
    [0.0, 2.5, 10.0, 10.0]
    """

    def __call__(self, step: Tensor) -> Tensor:
        return self.value * self._progress(step)


@keras.saving.register_keras_serializable("keras_collab")
class RampDown(LinearSchedule):
    """Lowers a weight linearly from `value` to 0.

    The weight is `value` until step `begin`, falls over `steps` steps, and stays at 0. Penalties on kernels are often
    ramped down, so that the last epochs train the task alone.

    Args:
        value: float, >= 0. The weight at the beginning.
        steps: integer, >= 1. Length of the ramp in training steps (batches),
            counted from `wrap` on through every `compile` and `fit`.
        begin: integer, >= 0. Training step at which the weight starts to fall. Defaults to 0.

    Raises:
        ValueError: if an argument is outside its range.

    >>> [float(keras_collab.schedules.RampDown(8.0, steps=4, begin=2)(step)) for step in (0, 2, 3, 6)]
    [8.0, 8.0, 6.0, 0.0]
    """

    def __call__(self, step: Tensor) -> Tensor:
        return self.value * (1.0 - self._progress(step))
