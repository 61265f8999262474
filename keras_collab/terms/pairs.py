"""Pairs of columns: their cosines, and unbiased estimates of a mean over all pairs from two random blocks."""

import dataclasses
import math
from typing import Any

from keras import ops


@dataclasses.dataclass(frozen=True)
class Blocks:
    """`size` items cut into `count` blocks of `length`, as few as `limit` allows; zeros fill up the last items.

    There are two ways to cut. Run r has the items r · length, r · length + 1, ...; comb c has c, c + count,
    c + 2 · count, ... Item i is in one comb and item j in one run, so that drawing one of each, or two of a kind, gives
    every pair (i, j) the same chance. A run is the faster to read; a comb's gradient, an outer product, to write.

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

    @property
    def pair_weight(self) -> float:
        """What a sum over the pairs of a drawn comb and a drawn run is multiplied by to estimate the mean of all."""
        return self.count**2 / (self.size * (self.size - 1))

    def comb(self, values: Any, index: Any) -> Any:
        """A comb of the items along the last axis: `(..., size)` to `(..., length)`; the index may be drawn."""
        return values if self.count == 1 else pick(self._cut(values, self.length, self.count), {-1: index})

    def two_combs(self, values: Any, first: Any, second: Any) -> tuple[Any, Any]:
        """Two combs by a product of matrices, `(rows, size)` to twice `(rows, length)`, for small `values`.

        The gradient is a product too: a buffer as large as `values`, which is not computed again by all that it is
        fused into, as `comb`'s would be (0.7% of ResNet-50's operations at 32×32 under XLA).
        """
        if self.count == 1:
            return values, values
        chosen = ops.one_hot(ops.stack([first, second], axis=-1), self.count, axis=0, dtype=values.dtype)
        pair = ops.matmul(self._cut(values, self.length, self.count), chosen)
        return pair[..., 0], pair[..., 1]

    def run(self, values: Any, index: Any) -> Any:
        """A run of the items along the last axis: `(..., size)` to `(..., length)`; the index may be drawn."""
        return values if self.count == 1 else pick(self._cut(values, self.count, self.length), {-2: index})

    def _cut(self, values: Any, *shape: int) -> Any:
        filled = self.count * self.length - self.size
        if filled:
            values = ops.pad(values, [(0, 0)] * (len(values.shape) - 1) + [(0, filled)])
        return ops.reshape(values, (*ops.shape(values)[:-1], *shape))


def draw_index(uniform: Any, count: Any) -> Any:
    """One of `count` indices from a uniform number in [0, 1), elementwise; int32."""
    count = ops.convert_to_tensor(count, dtype="int32")
    return ops.minimum(ops.cast(uniform * ops.cast(count, uniform.dtype), "int32"), count - 1)


def scale_gradient(values: Any, scale: float) -> Any:
    """`values`, with a gradient that is multiplied by `scale`."""
    return scale * values + ops.stop_gradient((1.0 - scale) * values)


def pick(values: Any, indices: dict[int, Any]) -> Any:
    """`values` at one index along each of some axes, which go; an index may be drawn inside a compiled step.

    The gradient is a selection that the compiler fuses into what it is added to. A slice's own gradient would be a
    buffer of the full size, 9% of ResNet-18's temporary memory under XLA; a gather's, a dense scatter. What is read is
    a gather, since TensorFlow (2.21) compiles a step with XLA anew for every place where a slice begins.

    Args:
        values: an array.
        indices: for each axis to go the index to keep.
    """
    shape = ops.shape(values)
    rank = len(shape)
    indices = {axis % rank: index for axis, index in indices.items()}

    @ops.custom_gradient
    def select(values):
        def gradient(*arguments, upstream=None):
            upstream = arguments[0] if upstream is None else upstream  # torch passes it by keyword.
            spread = ops.expand_dims(upstream, tuple(indices))
            for axis, index in indices.items():
                chosen = ops.one_hot(index, shape[axis], dtype=upstream.dtype)
                spread = spread * ops.reshape(chosen, [-1 if other == axis else 1 for other in range(rank)])
            return spread

        for axis in sorted(indices, reverse=True):
            values = ops.take(values, indices[axis], axis=axis)
        return values, gradient

    return select(values)


def window(values: Any, axis: int, start: Any, length: int) -> Any:
    """`length` values from `start` on along an axis; the start may be drawn inside a compiled step. See `pick`."""
    size = values.shape[axis]
    if length == size:
        return values

    @ops.custom_gradient
    def select(values):
        def gradient(*arguments, upstream=None):
            upstream = arguments[0] if upstream is None else upstream
            place = ops.arange(size, dtype="int32") - start
            inside = ops.cast(ops.logical_and(place >= 0, place < length), upstream.dtype)
            spread = ops.take(upstream, ops.clip(place, 0, length - 1), axis=axis)
            return spread * ops.reshape(inside, [-1 if other == axis else 1 for other in range(len(spread.shape))])

        return ops.take(values, start + ops.arange(length, dtype="int32"), axis=axis), gradient

    return select(values)


def cosines(rows: Any, columns: Any, floor: Any = 1e-20) -> Any:
    """Cosine of every pair of columns of two matrices; a column of zeros is at right angles to all.

    Args:
        rows: `(..., size, count)`.
        columns: `(..., size, other count)`.
        floor: squared length that is added to every column's own, at least 1e-20: the gradient of a column of zeros
            must not overflow.

    Returns:
        `(..., count, other count)` in [−1, 1], float32.
    """
    rows, columns = ops.cast(rows, "float32"), ops.cast(columns, "float32")
    products = ops.einsum("...si,...sj->...ij", rows, columns)
    # Scaling the products, not the columns, keeps no second copy of these for the backward pass.
    lengths = _inverse_lengths(rows, floor), _inverse_lengths(columns, floor)
    return products * ops.expand_dims(lengths[0], -1) * ops.expand_dims(lengths[1], -2)


def _inverse_lengths(columns: Any, floor: Any) -> Any:
    return ops.rsqrt(ops.sum(ops.square(columns), axis=-2) + floor)


def mean_over_pairs(values: Any, left: Any, right: Any, pair_weight: Any) -> Any:
    """The mean over i != j of a value of pairs, estimated from two blocks of the items.

    Averaged over all draws of the two it equals the mean over all pairs exactly; pairs with a zero that fills up the
    last items must have the value 0.

    Args:
        values: `(..., length, length)`, the value of each pair.
        left: `(..., length)`, which items the rows are.
        right: `(..., length)`, which items the columns are.
        pair_weight: `(...)`, the blocks' `pair_weight`.

    Returns:
        `(...)`.
    """
    different = ops.not_equal(ops.expand_dims(left, -1), ops.expand_dims(right, -2))
    return ops.sum(values * ops.cast(different, values.dtype), axis=(-2, -1)) * pair_weight


def mean_over_all_pairs(values: Any) -> Any:
    """The mean over i != j of `(size, size)` values of pairs."""
    item = ops.arange(values.shape[-1])
    return mean_over_pairs(values, item, item, Blocks(len(item), len(item)).pair_weight)
