"""What the weight of a term may be: a number, or a schedule over training steps."""

import numbers
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_collab._checks import FLOAT32_TINY
from keras_collab._types import Tensor
from keras_collab.schedules import LinearSchedule

Weight = float | Callable[[Tensor], Tensor]

# Steps at which a schedule is tried out when a term is made.
_TRIED_STEPS = (0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)

# Times a value of more than 1 it is still a float32.
_LARGEST_WEIGHT = 1e38


def checked_weight(name: str, weight: Any) -> Weight:
    if isinstance(weight, numbers.Real) and not isinstance(weight, bool):
        if not 0 <= weight <= _LARGEST_WEIGHT:  # type: ignore[operator]  # NaN is neither, and an int of any size is.
            raise ValueError(f"The weight of '{name}' must be a number from 0 to 1e38. Received: {weight!r}.")
        if 0 < float(weight) < FLOAT32_TINY:
            raise ValueError(
                f"The weight of '{name}' is used as float32, which holds 0 and sizes from {FLOAT32_TINY:.2g}. "
                f"Received: {weight!r}. Give 0 for none."
            )
        return float(weight)
    if not callable(weight):
        raise TypeError(
            f"The weight of '{name}' must be a number >= 0, or a schedule such as keras_collab.schedules.Ramp(1.0, "
            f"steps=1000). Received: {weight!r} (of type {type(weight).__name__})."
        )
    for step in _TRIED_STEPS:
        _try_schedule(name, weight, step)
    _try_compiled(name, weight)
    return weight


def _try_compiled(name: str, schedule: Any) -> None:
    """Calls the schedule with a step whose value is not known yet, as in a compiled training step."""

    def weight_at(step: Tensor) -> Tensor:
        return ops.cast(schedule(step), "float32")

    try:
        layer = keras.layers.Lambda(weight_at, dtype="int32")
        layer.compute_output_spec(keras.KerasTensor((), "int32"))
    except Exception as error:
        raise TypeError(
            f"The weight of '{name}' is a function that cannot be compiled: it raises {type(error).__name__} where the "
            "step is not known yet. Write it with keras.ops, such as keras.ops.where(step < 100, 1.0, 0.0) for `if`."
        ) from error


def _try_schedule(name: str, schedule: Any, step: int) -> None:
    """Calls the schedule once: an error inside a compiled step would come late."""
    try:
        value = float(ops.convert_to_numpy(schedule(ops.convert_to_tensor(step, dtype="int32"))))
    except Exception as error:
        raise TypeError(
            f"The weight of '{name}' is not a schedule: it must turn a training step into one number. "
            f"Received: {schedule!r}, which at step {step} raises {type(error).__name__}: {error}"
        ) from error
    # The schedule has computed in float32: a decay may have come down to where there is nothing left.
    if not 0 <= value <= _LARGEST_WEIGHT:
        raise ValueError(f"The weight of '{name}' must be a number >= 0 at every step. At step {step} it is {value}.")


def serialized_weight(name: str, weight: Any) -> Any:
    if isinstance(weight, float):
        return weight
    registered = isinstance(weight, keras.optimizers.schedules.LearningRateSchedule) or ">" in (
        keras.saving.get_registered_name(weight)
    )
    if not registered or getattr(weight, "__name__", "") == "<lambda>":
        raise ValueError(
            f"The weight of '{name}' is a function that cannot be saved: {weight!r}. Use a schedule of "
            "keras_collab.schedules or keras.optimizers.schedules, or decorate a named function with "
            "@keras.saving.register_keras_serializable()."
        )
    return keras.saving.serialize_keras_object(weight)


def height(name: str, weight: Any) -> float:
    """The number that a weight is, or the highest that its ramp reaches.

    Raises:
        ValueError: if the weight of the term `name` is another schedule.
    """
    if isinstance(weight, LinearSchedule):
        return weight.value
    if callable(weight):
        raise ValueError(
            f"The weight of '{name}' must be a number, a Ramp or a RampDown, whose height can be set. Received: "
            f"{weight!r}. Make the term with weight=keras_collab.schedules.Ramp(1.0, steps=1000), or with a number."
        )
    return float(weight)


def in_words(weight: Any) -> str:
    """A weight as a reader sees it: the number, the height of a ramp, or the kind of another schedule."""
    if isinstance(weight, LinearSchedule):
        return f"{type(weight).__name__} {weight.value:g}"
    return type(weight).__name__ if callable(weight) else f"{weight:g}"


def at_height(weight: Any, value: float) -> Any:
    """A ramp like the given one that goes to `value` or begins there; `value` itself in the place of a number."""
    if isinstance(weight, LinearSchedule):
        return type(weight).from_config({**weight.get_config(), "value": value})
    return value
