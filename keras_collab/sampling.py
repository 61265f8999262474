"""Pairs of columns: their cosines, and unbiased estimates of a mean over all pairs from two random blocks."""

import dataclasses
import math
from typing import Any

from keras import ops


@dataclasses.dataclass(frozen=True)
class Blocks:
    """`size` items cut into `count` blocks of `length`, as few as `limit` allows; the last may be filled up with zeros.

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

    def select(self, values: Any, block: Any) -> Any:
        """The items of one block along the last axis: `(..., size)` to `(..., length)`.

        Args:
            values: `(..., size)`.
            block: index of the block, an integer scalar; it may be drawn.
        """
        return values if self.count == 1 else pick(self._cut(values), {len(values.shape) - 1: block})

    def select_pair(self, values: Any, first: Any, second: Any) -> tuple[Any, Any]:
        """Two blocks, selected by a product of matrices, `(rows, size)` to twice `(rows, length)`.

        The gradient is a product too: one buffer as large as `values`, which is not computed again by all that it is
        fused into, as `select`'s would be (0.7% of ResNet-50's operations at 32×32 under XLA). For small `values`.
        """
        if self.count == 1:
            return values, values
        chosen = ops.one_hot(ops.stack([first, second]), self.count, dtype=values.dtype)
        pair = ops.matmul(chosen, self._cut(values))
        return pair[:, 0], pair[:, 1]

    def _cut(self, values: Any) -> Any:
        """`(..., size)` to `(..., count, length)`."""
        filled = self.count * self.length - self.size
        if filled:
            values = ops.pad(values, [(0, 0)] * (len(values.shape) - 1) + [(0, filled)])
        return ops.reshape(values, (*ops.shape(values)[:-1], self.count, self.length))


def draw_index(uniform: Any, count: int) -> Any:
    """One of `count` indices from a uniform number in [0, 1)."""
    return ops.minimum(ops.cast(ops.floor(uniform * count), "int32"), count - 1)


def pick(values: Any, indices: dict[int, Any]) -> Any:
    """`values` at one index along each of some axes, which go; an index may be drawn inside a compiled step.

    The gradient is a selection that the compiler fuses into what it is added to. A slice's own gradient would be a
    buffer of the full size, 9% of ResNet-18's temporary memory under XLA; a gather's, a dense scatter.

    Args:
        values: an array.
        indices: for each axis to go the index to keep.
    """
    shape = ops.shape(values)
    rank = len(shape)

    @ops.custom_gradient
    def select(values):
        starts = [indices.get(axis, 0) for axis in range(rank)]
        kept = ops.slice(values, starts, [1 if axis in indices else shape[axis] for axis in range(rank)])

        def gradient(*arguments, upstream=None):
            upstream = arguments[0] if upstream is None else upstream  # torch passes it by keyword.
            chosen = ops.ones((1,) * rank, dtype=upstream.dtype)
            for axis, index in indices.items():
                here = ops.one_hot(index, shape[axis], dtype=upstream.dtype)
                chosen = chosen * ops.reshape(here, [-1 if other == axis else 1 for other in range(rank)])
            return ops.expand_dims(upstream, tuple(indices)) * chosen

        return ops.squeeze(kept, tuple(indices)), gradient

    return select(values)


def cosines(rows: Any, columns: Any, floor: Any = 1e-20) -> Any:
    """Cosine of every pair of columns of two matrices; a column of zeros is at right angles to all.

    Args:
        rows: `(size, count)`.
        columns: `(size, other count)`.
        floor: squared length that is added to every column's own, at least 1e-20: the gradient of a column of zeros
            must not overflow.

    Returns:
        `(count, other count)` in [−1, 1], float32.
    """
    rows, columns = ops.cast(rows, "float32"), ops.cast(columns, "float32")
    products = ops.matmul(ops.transpose(rows), columns)
    # Scaling the products, not the columns, keeps no second copy of these for the backward pass.
    return products * _inverse_lengths(rows, floor)[:, None] * _inverse_lengths(columns, floor)[None, :]


def _inverse_lengths(columns: Any, floor: Any) -> Any:
    return ops.rsqrt(ops.sum(ops.square(columns), axis=0) + floor)


def mean_over_pairs(values: Any, blocks: Blocks, rows: Any, columns: Any) -> Any:
    """The mean over i != j of a value of pairs, estimated from a block of rows and a block of columns.

    Averaged over all draws of the two blocks it equals the mean over all pairs exactly; pairs with a zero that fills
    up the last block must have the value 0.

    Args:
        values: `(length, length)`, the value of each pair of a row's and a column's item.
        blocks: how the items were cut.
        rows: index of the block of rows.
        columns: index of the block of columns.
    """
    same_block = ops.cast(ops.equal(rows, columns), values.dtype)
    diagonal = ops.eye(blocks.length, dtype=values.dtype) * same_block
    return ops.sum(values * (1 - diagonal)) * (blocks.count**2 / (blocks.size * (blocks.size - 1)))
