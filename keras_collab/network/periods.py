"""Whole blocks of a network of one resolution, where each half of a block ends in a sum of its own."""

import itertools
from collections.abc import Sequence


def whole_blocks(layers: Sequence[list[str]]) -> slice:
    """Which ends are those of whole blocks.

    A transformer has an end behind its attention and one behind its Dense layers. Its ends come in periods of two, and
    the second one of each is that of a whole block.

    Args:
        layers: for each end, the class names of the layers that compute since the end before it.

    Returns:
        A slice of the ends; all of them where no period repeats.

    >>> whole_blocks([["Conv2D", "MultiHeadAttention"], ["Dense"], ["MultiHeadAttention"], ["Dense"]])
    slice(1, None, 2)
    """
    count = len(layers)
    if count == 2 and _attends(layers[0]) and not _attends(layers[1]):
        return slice(1, None)  # A single block has no second one to tell its halves by.
    for period in range(1, count):
        if layers[period + 1 :] != layers[1 : count - period]:
            continue
        first = (count - 1) % period
        block = list(itertools.chain(*layers[count - period :]))
        # What comes before the first end includes the stem. With fewer halves than a block has it is a stem alone,
        # unless the block's other halves do not close.
        begin = list(itertools.chain(*layers[: first + 1]))
        if first == period - 1 or begin[-len(block) :] == block:
            return slice(first, None, period)
        if period < count - 1:
            return slice(first + period, None, period)
    return slice(None)


def _attends(names: Sequence[str]) -> bool:
    return "Attention" in " ".join(names)
