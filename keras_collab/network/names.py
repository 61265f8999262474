"""Layers chosen by a user: by name, by regular expression, or by a function."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from keras_collab._checks import close_matches
from keras_collab.network.calls import Call
from keras_collab.network.patterns import compile_pattern

Layers = str | Sequence[str] | Callable[[keras.Layer], bool]

LAYERS_HELP = (
    "`layers` takes a list of names, a regular expression, a function that takes a layer and returns a boolean, "
    'or "auto" for the default choice'
)

_MOST_NAMES = 20  # in an error


def choose(calls: Sequence[Call], layers: Layers, kind: str, network: str) -> list[Call]:
    """The calls that a user's `layers=` chooses, in the order of the network.

    Args:
        calls: the calls to choose from.
        layers: a list of names, a regular expression, or a function of the layer.
        kind: what is chosen, for errors: `"a layer"`.
        network: the network's name, for errors.
    """
    if isinstance(layers, str):
        return _named(calls, layers, network) or _matching(calls, layers, kind, network)
    if callable(layers) and not isinstance(layers, type | keras.Layer):
        return _accepted(calls, layers, kind, network)
    names = _checked_names(layers)
    chosen = []
    for name in names:
        named = _named(calls, name, network)
        if not named:
            raise ValueError(f"{_no_name(name, kind, network)}{_close_matches(name, calls)} {LAYERS_HELP}.")
        chosen.extend(named)
    return [call for call in calls if call in chosen]


def _named(calls: Sequence[Call], name: str, network: str) -> list[Call]:
    """The calls of the one layer that has this path, or else this name; none if no layer has it."""
    named = [call for call in calls if call.path == name]
    named = named or [call for call in calls if call.name == name]
    paths = sorted(set(map(path_of, named)))
    if len(paths) > 1:
        raise ValueError(f"several layers are named {name!r} in network '{network}'; give one path of {paths}.")
    return named


def _matching(calls: Sequence[Call], layers: str, kind: str, network: str) -> list[Call]:
    """The calls of layers whose whole name or path a regular expression matches."""
    pattern = compile_pattern(layers, (call.path for call in calls), LAYERS_HELP)
    matching, beginning = [], []
    for call in calls:
        if pattern.fullmatch(call.name) or pattern.fullmatch(call.path):
            matching.append(call)
        elif pattern.match(call.name):
            beginning.append(call.name)
        elif pattern.match(call.path):
            beginning.append(call.path)
    if matching:
        return matching
    hint = ""
    if beginning:
        names = quoted(beginning[:3])
        hint = f" It matches the beginning of {names}, but the whole name must match, as {layers + '.*'!r} does."
    elif re.escape(layers) == layers:
        hint = _close_matches(layers, calls)
    raise ValueError(f"{_no_name(layers, kind, network)}{hint or _names_of(calls)} {LAYERS_HELP}.")


def _accepted(calls: Sequence[Call], accepts: Callable[[keras.Layer], bool], kind: str, network: str) -> list[Call]:
    """The calls of the layers that a function accepts; it is not asked of calls of `keras.ops`."""
    accepted = []
    for call in calls:
        if isinstance(call.operation, keras.Layer) and accepts(call.operation):
            accepted.append(call)
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


def _close_matches(asked: str, calls: Sequence[Call]) -> str:
    """A hint with names close to the given one, else with all names."""
    names: dict[str, None] = {}
    for call in calls:
        names[call.name] = None
        names[call.path] = None
    close = close_matches(asked, names)
    return f" {close}" if close else _names_of(calls)


def _names_of(calls: Sequence[Call]) -> str:
    """The names to choose from, at most the first twenty."""
    paths = list(dict.fromkeys(map(path_of, calls)))
    more = f" and {len(paths) - _MOST_NAMES} more" if len(paths) > _MOST_NAMES else ""
    return f" Names: {quoted(paths[:_MOST_NAMES])}{more}."
