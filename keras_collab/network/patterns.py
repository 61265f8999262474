"""Regular expressions for names of layers, within bounds that no pattern takes forever."""

import re

_LONGEST = 200
_MOST_REPEATS = 6

# An escaped character or a class of characters: one character to the checks below.
_CHARACTER = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]")
# A group without groups inside, and what it holds.
_GROUP = re.compile(r"\((?:\?(?:P<\w+>|<?[=!]|:))?([^()]*)\)")


def compile_pattern(pattern: str, help_text: str) -> re.Pattern[str]:
    """A user's `layers=` as a regular expression.

    Args:
        pattern: the expression, at most 200 characters, with at most 6 repeats, and none of them of a group that
            itself repeats something or offers a choice: `(a+)+` would take time exponential in the name's length.
        help_text: what `layers` takes, for the error.
    """
    if len(pattern) > _LONGEST:
        raise ValueError(
            f"layers={pattern[:20]!r}... has {len(pattern)} characters; a regular expression may have {_LONGEST}. "
            f"Give a list of names, or a function of the layer. {help_text}."
        )
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"layers={pattern!r} is not a regular expression: {error}. {help_text}.") from error
    plain = _CHARACTER.sub("x", pattern)
    if _repeats_a_repeat(plain):
        raise ValueError(
            f"layers={pattern!r} repeats a group that itself repeats or offers a choice, as in (a+)+ or (a|b)*, which "
            f"may take forever. Write it without the outer repeat. {help_text}."
        )
    repeats = len(re.findall(r"[*+{]", plain))
    if repeats > _MOST_REPEATS:
        raise ValueError(
            f"layers={pattern!r} has {repeats} repeats (*, +, {{}}); a regular expression may have {_MOST_REPEATS}. "
            f"{help_text}."
        )
    return compiled


def _repeats_a_repeat(plain: str) -> bool:
    """Whether a group with a repeat or a choice in it is repeated; `plain` has neither escapes nor classes."""
    while re.search("\0[*+{]", plain) is None:
        group = _GROUP.search(plain)
        if group is None:
            return False
        varies = re.search(r"[*+?{|\0]", group[1])
        plain = plain[: group.start()] + ("\0" if varies else "x") + plain[group.end() :]
    return True
