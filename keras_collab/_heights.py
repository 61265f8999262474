"""The height of a ramp, which `balance` and the tuner set as they set a number."""

from typing import Any

from keras_collab.schedules import Ramp, RampDown


def height(name: str, weight: Any) -> float:
    """The number that a weight is, or the highest that its ramp reaches.

    Raises:
        ValueError: if the weight of the term `name` is another schedule.
    """
    if isinstance(weight, Ramp | RampDown):
        return weight.value
    if callable(weight):
        raise ValueError(
            f"The weight of '{name}' must be a number, a Ramp or a RampDown, whose height can be set. Received: "
            f"{weight!r}. Make the term with weight=keras_collab.schedules.Ramp(1.0, steps=1000), or with a number."
        )
    return float(weight)


def at_height(weight: Any, value: float) -> Any:
    """A ramp like the given one that goes to `value` or begins there; `value` itself in the place of a number."""
    if isinstance(weight, Ramp | RampDown):
        return type(weight).from_config({**weight.get_config(), "value": value})
    return value
