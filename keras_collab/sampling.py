"""Unbiased estimates of a mean over all pairs from two random contiguous blocks.

A contiguous slice costs little: its gradient is a pad that the compiler fuses, a gather's is a dense scatter.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from keras import ops


@dataclasses.dataclass(frozen=True)
class Blocks:
    """`size` items cut into `count` blocks of `length`, as few as `limit` allows; the last two may overlap.

    Args:
        size: how many items there are.
        limit: how many items a block may have.
    """

    size: int
    limit: int

    @property
    def count(self) -> int:
        return math.ceil(self.size / self.limit)

    @property
    def length(self) -> int:
        return math.ceil(self.size / self.count)

    def start(self, draw: Any) -> Any:
        """The first item of a block drawn by a uniform number in [0, 1)."""
        block = ops.cast(ops.floor(draw * self.count), "int32")
        return ops.minimum(block * self.length, self.size - self.length)

    def items(self, start: Any) -> tuple[Any, Any]:
        """The indices in the block from `start`, and how much each counts: one over the blocks that hold it."""
        indices = start + ops.arange(self.length, dtype="int32")
        starts = np.minimum(np.arange(self.count) * self.length, self.size - self.length)
        holders = np.zeros(self.size)
        for first in starts:
            holders[first : first + self.length] += 1
        return indices, ops.slice(ops.convert_to_tensor(1 / holders, dtype="float32"), [start], [self.length])


def mean_over_pairs(values: Any, blocks: Blocks, rows: Any, columns: Any) -> Any:
    """The mean over i != j of a value of pairs, estimated from a block of rows and a block of columns.

    Averaged over all draws of the two blocks it equals the mean over all pairs exactly.

    Args:
        values: `(length, length)`, the value of each pair of a row's and a column's item.
        blocks: how the items were cut.
        rows: first item of the block of rows.
        columns: first item of the block of columns.
    """
    row_items, row_share = blocks.items(rows)
    column_items, column_share = blocks.items(columns)
    pairs = ops.where(row_items[:, None] == column_items[None, :], 0.0, values)
    total = ops.sum(pairs * row_share[:, None] * column_share[None, :])
    return total * (blocks.count**2 / (blocks.size * (blocks.size - 1)))
