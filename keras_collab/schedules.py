"""Weights that change while training. Any `keras.optimizers.schedules.LearningRateSchedule` works as well."""

import numbers
from typing import Any

import keras
from keras import ops

from keras_collab._checks import check_range


class _Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule whose settings are its constructor's arguments."""

    def get_config(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if isinstance(value, numbers.Number | str)}


@keras.saving.register_keras_serializable("keras_collab")
class Ramp(_Schedule):
    """0 until step `begin`, then linearly up to `value` within `steps` steps, then `value`.

    Consistency terms are usually ramped up: early on there is nothing worth agreeing on.

    Args:
        value: the weight at the end, >= 0.
        steps: training steps (batches) that the ramp takes, >= 1.
        begin: training step at which it begins. Defaults to 0.

    >>> [float(keras_collab.schedules.Ramp(10.0, steps=4)(step)) for step in (0, 1, 4, 9)]
    [0.0, 2.5, 10.0, 10.0]
    """

    def __init__(self, value: float, steps: int, begin: int = 0):
        self.value = check_range(self, value=value, least=0)
        self.steps = check_range(self, steps=steps, least=1, whole=True)
        self.begin = check_range(self, begin=begin, least=0, whole=True)

    def __call__(self, step: Any) -> Any:
        return self.value * _progress(step, self.begin, self.steps)


@keras.saving.register_keras_serializable("keras_collab")
class RampDown(_Schedule):
    """`value` until step `begin`, then linearly down to 0 within `steps` steps, then 0.

    Penalties on kernels are usually ramped down, so that the last epochs serve the task alone.

    Args:
        value: the weight at the beginning, >= 0.
        begin: training step (batch) at which it starts to fall.
        steps: training steps that the fall takes, >= 1.
    """

    def __init__(self, value: float, begin: int, steps: int):
        self.value = check_range(self, value=value, least=0)
        self.begin = check_range(self, begin=begin, least=0, whole=True)
        self.steps = check_range(self, steps=steps, least=1, whole=True)

    def __call__(self, step: Any) -> Any:
        return self.value * (1.0 - _progress(step, self.begin, self.steps))


def _progress(step: Any, begin: int, steps: int) -> Any:
    return ops.clip((ops.cast(step, "float32") - begin) / steps, 0.0, 1.0)
