"""Regular expressions for names of layers, within a bound on the time that a name takes."""

import dataclasses
import math
import re
from collections.abc import Iterable
from re import _constants, _parser  # type: ignore[attr-defined]  # Python's own reading of an expression.
from typing import Any

_LONGEST = 200
_MOST_WAYS = 10_000_000


def compile_pattern(pattern: str, names: Iterable[str], help_text: str) -> re.Pattern[str]:
    """A user's `layers=` as a regular expression.

    Args:
        pattern: the expression, at most 200 characters. In the longest name there may be 10 million ways to match it,
            since a search may have to try all of them.
        names: the names that it is for.
        help_text: what `layers` takes, for the error.
    """
    if len(pattern) > _LONGEST:
        raise ValueError(
            f"layers={pattern[:20]!r}... has {len(pattern)} characters; a regular expression may have {_LONGEST}. "
            f"Give a list of names, or a function of the layer. {help_text}."
        )
    try:
        compiled = re.compile(pattern)
        ways = _ways(_parser.parse(pattern))
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"layers={pattern!r} is not a regular expression: {error}. {help_text}.") from error
    if ways.count(max(map(len, names), default=0)) > _MOST_WAYS:
        raise ValueError(
            f"layers={pattern!r} may take forever, since it can match a name in too many ways: it has many repeats (*, "
            f"+, {{}}) or choices, repeats one of them as in (a+)+ or (a|b)*, or refers back. Write it with fewer. "
            f"{help_text}."
        )
    return compiled


@dataclasses.dataclass(frozen=True)
class _Ways:
    """In how many ways an expression can match a name.

    Attributes:
        repeats: number of repeats that share the name's characters among them.
        choices: number of ways for each such share.
    """

    repeats: float = 0
    choices: float = 1

    def count(self, length: int) -> float:
        if math.isinf(self.repeats):
            return math.inf
        return math.comb(length + int(self.repeats), int(self.repeats)) * self.choices


def _ways(sequence: Iterable[Any]) -> _Ways:
    """The ways of a sequence: each of one part goes with each of the others."""
    repeats, choices = 0.0, 1.0
    for kind, argument in sequence:
        part = _ways_of(kind, argument)
        repeats, choices = repeats + part.repeats, choices * part.choices
    return _Ways(repeats, choices)


def _ways_of(kind: Any, argument: Any) -> _Ways:
    """The ways of one part of an expression, as Python's parser gives it."""
    if kind in (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT):
        least, most, inner = argument
        return _repeated(_ways(inner), int(least), int(most))
    if kind == _constants.BRANCH:
        branches = [_ways(branch) for branch in argument[1]]
        return _Ways(max(way.repeats for way in branches), sum(way.choices for way in branches))
    if kind in (_constants.GROUPREF, _constants.GROUPREF_EXISTS):
        return _Ways(math.inf)
    if kind in (_constants.SUBPATTERN, _constants.ATOMIC_GROUP, _constants.ASSERT, _constants.ASSERT_NOT):
        return _ways(argument if kind == _constants.ATOMIC_GROUP else argument[-1])
    return _Ways()


def _repeated(inner: _Ways, least: int, most: int) -> _Ways:
    if inner == _Ways():
        return _Ways(repeats=1 if most > least else 0)
    if most > 100:
        return _Ways(math.inf)
    choices = inner.choices**most * (most - least + 1)
    return _Ways(inner.repeats * most, choices)
