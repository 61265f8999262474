"""Layers chosen by a user: by name, by regular expression, or by a function."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import keras

from keras_collab._checks import close_matches
from keras_collab.network.calls import Call
from keras_collab.network.layers import Kernel

Choice = TypeVar("Choice", Call, Kernel)

Layers = str | Sequence[str] | Callable[[keras.Layer], bool]

LAYERS_HELP = (
    "`layers` takes a list of names, a regular expression, a function that takes a layer and returns a boolean, "
    'or "auto" for the default choice'
)

_MOST_NAMES = 20  # in an error


def choose(candidates: Sequence[Choice], layers: Layers, kind: str, network: str) -> list[Choice]:
    """What a user's `layers=` chooses among calls or kernels, in the order of the network.

    Args:
        candidates: the calls or kernels to choose from.
        layers: a list of names, a regular expression, or a function of the layer.
        kind: what is chosen, for errors: `"a layer"`.
        network: the network's name, for errors.
    """
    if isinstance(layers, str):
        return _named(candidates, layers, network) or _matching(candidates, layers, kind, network)
    if callable(layers) and not isinstance(layers, type | keras.Layer):
        return _accepted(candidates, layers, kind, network)
    names = _checked_names(layers)
    chosen = []
    for name in names:
        named = _named(candidates, name, network)
        if not named:
            raise ValueError(f"{_no_name(name, kind, network)}{_close_matches(name, candidates)} {LAYERS_HELP}.")
        chosen.extend(named)
    return [candidate for candidate in candidates if candidate in chosen]


def _named(candidates: Sequence[Choice], name: str, network: str) -> list[Choice]:
    """The candidates of the one layer that has this path, or else this name; none if no layer has it."""
    named = [candidate for candidate in candidates if candidate.path == name]
    named = named or [candidate for candidate in candidates if candidate.name == name]
    paths = sorted(set(map(path_of, named)))
    if len(paths) > 1:
        raise ValueError(f"several layers are named {name!r} in network '{network}'; give one path of {paths}.")
    return named


def _matching(candidates: Sequence[Choice], layers: str, kind: str, network: str) -> list[Choice]:
    """The candidates whose layers have a name or path that a regular expression matches whole."""
    try:
        pattern = re.compile(layers)
    except (re.error, OverflowError) as error:
        raise ValueError(f"layers={layers!r} is not a regular expression: {error}. {LAYERS_HELP}.") from error
    matching, beginning = [], []
    for candidate in candidates:
        if pattern.fullmatch(candidate.name) or pattern.fullmatch(candidate.path):
            matching.append(candidate)
        elif pattern.match(candidate.name):
            beginning.append(candidate.name)
        elif pattern.match(candidate.path):
            beginning.append(candidate.path)
    if matching:
        return matching
    hint = ""
    if beginning:
        names = quoted(beginning[:3])
        hint = f" It matches the beginning of {names}, but the whole name must match, as {layers + '.*'!r} does."
    elif re.escape(layers) == layers:
        hint = _close_matches(layers, candidates)
    raise ValueError(f"{_no_name(layers, kind, network)}{hint or _names_of(candidates)} {LAYERS_HELP}.")


def _accepted(
    candidates: Sequence[Choice], accepts: Callable[[keras.Layer], bool], kind: str, network: str
) -> list[Choice]:
    """The candidates whose layers a function accepts; it is not asked of calls of `keras.ops`."""
    accepted = []
    for candidate in candidates:
        if isinstance(candidate.operation, keras.Layer) and accepts(candidate.operation):
            accepted.append(candidate)
    if not accepted:
        raise ValueError(f"the function given as layers= did not choose {kind} in network '{network}'. {LAYERS_HELP}.")
    return accepted


def _no_name(asked: str, kind: str, network: str) -> str:
    return f"no name of {kind} matches {asked!r} in network '{network}'."


def _checked_names(layers: Any) -> Sequence[str]:
    is_valid = isinstance(layers, list | tuple) and len(layers) > 0
    for name in layers if is_valid else []:
        is_valid = is_valid and isinstance(name, str)
    if not is_valid:
        raise TypeError(f"{LAYERS_HELP}. Received: layers={layers!r}.")
    return layers


def path_of(layer: Any) -> str:
    return layer.path


def quoted(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _close_matches(asked: str, candidates: Sequence[Choice]) -> str:
    """A hint with names close to the given one, else with all names."""
    names: dict[str, None] = {}
    for candidate in candidates:
        names[candidate.name] = None
        names[candidate.path] = None
    close = close_matches(asked, names)
    return f" {close}" if close else _names_of(candidates)


def _names_of(candidates: Sequence[Choice]) -> str:
    """The names to choose from, at most the first twenty."""
    paths = list(dict.fromkeys(map(path_of, candidates)))
    more = f" and {len(paths) - _MOST_NAMES} more" if len(paths) > _MOST_NAMES else ""
    return f" Names: {quoted(paths[:_MOST_NAMES])}{more}."
