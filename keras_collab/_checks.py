"""Checks of settings and of what is installed, that say what was received and what was expected."""

import importlib
import math
import numbers
from typing import Any

INSTALL = "`pip install 'keras-collab[datasets]'`"


def check_choice(owner: Any, *, choices: tuple[str, ...], **setting: Any) -> Any:
    """Returns the one setting given by keyword if it is among `choices`."""
    ((name, value),) = setting.items()
    if value not in choices:
        raise ValueError(f"{_name(owner)}: `{name}` must be one of {choices}. Received: {name}={value!r}.")
    return value


def check_range(
    owner: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
    below: float | None = None,
    whole: bool = False,
    **setting: Any,
) -> Any:
    """Returns the one setting given by keyword if it is a finite number (an integer if `whole`) within the bounds."""
    ((name, value),) = setting.items()
    kind = numbers.Integral if whole else numbers.Real
    bounds = {">": above, ">=": least, "<=": most, "<": below}
    stated = " and ".join(f"{sign} {bound}" for sign, bound in bounds.items() if bound is not None)
    good = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    good = good and (above is None or value > above) and (least is None or value >= least)
    good = good and (below is None or value < below) and (most is None or value <= most)
    if not good:
        what = "an integer" if whole else "a number"
        raise ValueError(f"{_name(owner)}: `{name}` must be {what} {stated}. Received: {name}={value!r}.")
    return int(value) if whole else float(value)


def _name(owner: Any) -> str:
    """Of a function its own, of an object its class's."""
    return getattr(owner, "__name__", type(owner).__name__)


def require(module: str, mend: str) -> Any:
    """The module, or an error that begins with how to mend that it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{mend}. Received: {error}.") from error
