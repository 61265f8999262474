"""Pairs of columns: their cosines, and unbiased estimates of a mean over all pairs from two random blocks."""

import dataclasses

from keras import ops

from keras_collab._types import Tensor


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Splits `size` items into the fewest blocks of at most `limit` items; zeros pad the last ones.

    Block b has the items b, b + count, b + 2 · count, ... Two independently drawn blocks contain every pair of items
    with the same probability.

    Args:
        size: number of items.
        limit: largest number of items in a block.
    """

    size: int
    limit: int

    @property
    def count(self) -> int:
        return -(-self.size // self.limit)

    @property
    def length(self) -> int:
        return -(-self.size // self.count)

    @property
    def pair_weight(self) -> float:
        """The factor that turns a sum over the pairs of two blocks into an estimate of the mean over all pairs."""
        return self.count**2 / (self.size * (self.size - 1))

    def draw(self, uniform: Tensor) -> Tensor:
        """The index of a block from a uniform number in [0, 1); int32."""
        return draw_index(uniform, self.count)

    def items(self, index: Tensor) -> Tensor:
        """The items of a block, `(length,)`."""
        return index + self.count * ops.arange(self.length, dtype="int32")

    def take(self, values: Tensor, index: Tensor) -> Tensor:
        """One block of the items along the last axis: `(..., size)` to `(..., length)`; the index may be drawn."""
        if self.count == 1:
            return values
        missing = self.count * self.length - self.size
        if missing:
            unpadded = [(0, 0)] * (len(values.shape) - 1)
            values = ops.pad(values, [*unpadded, (0, missing)])
        shape = ops.shape(values)[:-1]
        values = ops.reshape(values, (*shape, self.length, self.count))
        return pick(values, -1, index)


def draw_index(uniform: Tensor, count: Tensor) -> Tensor:
    """One of `count` indices from a uniform number in [0, 1), elementwise; int32."""
    count = ops.convert_to_tensor(count, dtype="int32")
    scaled = uniform * ops.cast(count, uniform.dtype)
    return ops.minimum(ops.cast(scaled, "int32"), count - 1)


def scale_gradient(values: Tensor, scale: float) -> Tensor:
    """`values`, with a gradient that is multiplied by `scale`."""
    return scale * values + ops.stop_gradient((1.0 - scale) * values)


def pick(values: Tensor, axis: int, index: Tensor) -> Tensor:
    """`values` at one index of an axis, which is removed; the index may be drawn inside a compiled step.

    The gradient is a product with a one-hot vector, which the compiler can fuse. The gradient of a gather would need a
    buffer of the full size: 9% of the temporary memory of a ResNet-18 under XLA.
    """
    shape = ops.shape(values)
    axis = axis % len(shape)

    @ops.custom_gradient
    def select(values):
        def gradient(*arguments, upstream=None):
            upstream = arguments[0] if upstream is None else upstream  # torch passes it by keyword (Keras 3.15).
            chosen = ops.one_hot(index, shape[axis], dtype=upstream.dtype)
            return ops.expand_dims(upstream, axis) * _along(chosen, axis, len(shape))

        return ops.take(values, index, axis=axis), gradient

    return select(values)


def window(values: Tensor, axis: int, start: Tensor, length: int) -> Tensor:
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
            return spread * _along(inside, axis, len(spread.shape))

        return ops.take(values, start + ops.arange(length, dtype="int32"), axis=axis), gradient

    return select(values)


def _along(vector: Tensor, axis: int, rank: int) -> Tensor:
    """A vector as an array of `rank` axes, along `axis`."""
    shape = [1] * rank
    shape[axis] = -1
    return ops.reshape(vector, shape)


def cosines(rows: Tensor, columns: Tensor, floor: Tensor = 0.0) -> Tensor:
    """Cosine of every pair of columns of two matrices; 0 for a column of zeros.

    Args:
        rows: `(..., size, count)`.
        columns: `(..., size, other count)`.
        floor: added to the squared length of every column.

    Returns:
        `(..., count, other count)` in [−1, 1], float32.
    """
    rows, columns = ops.cast(rows, "float32"), ops.cast(columns, "float32")
    floor = floor + 1e-20  # Keeps the gradient of a column of zeros finite.
    products = ops.einsum("...si,...sj->...ij", rows, columns)
    # Scaling the products, not the columns, keeps no second copy of these for the backward pass.
    row_scale = ops.rsqrt(ops.sum(ops.square(rows), axis=-2) + floor)
    column_scale = ops.rsqrt(ops.sum(ops.square(columns), axis=-2) + floor)
    return products * ops.expand_dims(row_scale, -1) * ops.expand_dims(column_scale, -2)


def mean_over_pairs(values: Tensor, row_items: Tensor, column_items: Tensor, pair_weight: Tensor) -> Tensor:
    """The mean over i != j of the values of pairs, estimated from two blocks of items.

    The estimate is unbiased if pairs with a padded item have the value 0.

    Args:
        values: `(..., length, length)`, the value of each pair.
        row_items: `(..., length)`, the items of the rows.
        column_items: `(..., length)`, the items of the columns.
        pair_weight: `(...)`, from `Blocks`.

    Returns:
        `(...)`.
    """
    row_items = ops.expand_dims(row_items, -1)
    column_items = ops.expand_dims(column_items, -2)
    different = ops.cast(ops.not_equal(row_items, column_items), values.dtype)
    return ops.sum(values * different, axis=(-2, -1)) * pair_weight


def mean_over_all_pairs(values: Tensor) -> Tensor:
    """The mean over i != j of `(size, size)` values of pairs."""
    items = ops.arange(values.shape[-1])
    return mean_over_pairs(values, items, items, Blocks(len(items), len(items)).pair_weight)
