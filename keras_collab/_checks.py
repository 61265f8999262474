"""Checks of arguments and of installed packages. Each error says what was received and what was expected."""

import difflib
import importlib
import math
import numbers
import operator
from collections.abc import Collection
from typing import Any

INSTALL = "`pip install 'keras-collab[datasets]'`"

# The smallest normal and the largest float32. XLA sets smaller numbers to zero.
FLOAT32_TINY = 2.0**-126
FLOAT32_MAX = (2.0 - 2.0**-23) * 2.0**127


def check_choice(owner: Any, *, choices: tuple[str, ...], **setting: Any) -> Any:
    """Returns the one setting given by keyword if it is among `choices`.

    Raises:
        TypeError: if it is not a string.
        ValueError: if it is another string.
    """
    ((name, value),) = setting.items()
    message = f"{name_of(owner)}: `{name}` must be one of {choices}. Received: {name}={value!r}."
    if not isinstance(value, str):
        raise TypeError(message)
    if value not in choices:
        raise ValueError(message)
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
    """Returns the one setting given by keyword if it is a number within the bounds.

    Args:
        owner: the function or object that the error names.
        above, least, most, below: the bounds: `>`, `>=`, `<=` and `<`.
        whole: whether it must be an integer. Otherwise it must be a number that float32 can hold.

    Raises:
        ValueError: if it is no such number.
    """
    ((name, value),) = setting.items()
    kind, what = (numbers.Integral, "an integer") if whole else (numbers.Real, "a number")
    good = isinstance(value, kind) and not isinstance(value, bool)
    good = good and (whole or _is_finite(value))
    limits = []
    for sign, bound, holds in (
        (">", above, operator.gt),
        (">=", least, operator.ge),
        ("<=", most, operator.le),
        ("<", below, operator.lt),
    ):
        if bound is not None:
            limits.append(f"{sign} {bound}")
            good = good and holds(value, bound)
    if not good:
        expected = " ".join([what, " and ".join(limits)]).strip()
        raise ValueError(f"{name_of(owner)}: `{name}` must be {expected}. Received: {name}={value!r}.")
    if whole:
        return int(value)
    if value and not FLOAT32_TINY <= abs(value) <= FLOAT32_MAX:
        raise ValueError(
            f"{name_of(owner)}: `{name}` is used as float32, which holds 0 and sizes from {FLOAT32_TINY:.2g} to "
            f"{FLOAT32_MAX:.2g}. Received: {name}={value!r}."
        )
    return float(value)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # An int that no float holds.
        return False


def check_temperature(owner: Any, temperature: Any) -> float:
    """Returns a temperature in [1e-4, 1e4], where its square and logits divided by it stay within float32.

    Raises:
        ValueError: if it is outside.
    """
    return check_range(owner, temperature=temperature, least=1e-4, most=1e4)


def close_matches(asked: str, names: Collection[str]) -> str:
    """A sentence with the names that are written much like the one that was asked for; empty where none is."""
    close = difflib.get_close_matches(asked, names, n=3)
    return f"Close matches: {', '.join(map(repr, close))}." if close else ""


def name_of(owner: Any) -> str:
    """The name of a function, or of the class of an object."""
    return getattr(owner, "__name__", type(owner).__name__)


def require(module: str, mend: str) -> Any:
    """Imports and returns a module.

    Args:
        module: its full name.
        mend: how to install it; the error begins with it.

    Raises:
        ImportError: if it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{mend}. Received: {error}.") from error
