"""Similarity of representations: a penalty on channels of a layer that repeat each other."""

import math

import keras
from keras import ops

from keras_collab._checks import check_range
from keras_collab._types import Tensor
from keras_collab.network.names import Layers
from keras_collab.network.select import NetworkReader, Selection
from keras_collab.terms.pairs import (
    Blocks,
    cosines,
    draw_index,
    mean_over_all_pairs,
    mean_over_pairs,
    pick,
    scale_gradient,
    window,
)
from keras_collab.terms.step_tensors import StepTensors
from keras_collab.terms.term import Term
from keras_collab.terms.weights import Weight

# R² of N rows is 1 / (N − 1) by chance alone. An estimate from fewer rows than this counts by their number.
_ENOUGH_ROWS = 64


def squared_correlations(rows: Tensor, columns: Tensor, counts: Tensor = None) -> Tensor:
    """Squared correlation of every pair of channels; 0 for dead (constant) channels.

    Args:
        rows: `(positions, channels)`, any float dtype.
        columns: `(positions, other channels)`.
        counts: `(positions, 1)`, 1 for valid positions and 0 for masked ones; None if all are valid.

    Returns:
        `(channels, other channels)` in [0, 1], float32.
    """
    rows, row_floor = _centred(rows, counts)
    columns, column_floor = _centred(columns, counts)
    return ops.square(cosines(rows, columns, (row_floor + column_floor) / 2))


def _centred(columns: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Columns minus their means, and the squared length below which a column counts as dead.

    The means get no gradient. The result is exact: the gradient of a product of centered columns towards their means is
    0. A column that varies only by the rounding of its mean is dead too.
    """
    columns = ops.cast(columns, "float32")
    if counts is None:
        means = ops.stop_gradient(ops.mean(columns, axis=0, keepdims=True))
        centred = columns - means
    else:
        total = ops.maximum(ops.sum(counts), 1.0)
        means = ops.stop_gradient(ops.sum(columns * counts, axis=0, keepdims=True) / total)
        centred = (columns - means) * counts
    squared_length = ops.mean(ops.sum(ops.square(centred), axis=0))
    squared_length = squared_length + 1e-6 * ops.sum(ops.square(means))
    return centred, ops.stop_gradient(1e-6 * squared_length)


def representation_similarity(tap: Tensor) -> Tensor:
    """Mean over i != j of the squared correlation of channels i and j, taken over samples and positions.

    Args:
        tap: `(batch, positions..., channels)`.

    Returns:
        A float32 scalar in [0, 1]. Independent channels give about 1 / (N − 1) for N = batch · positions.
    """
    flat = ops.reshape(tap, (-1, tap.shape[-1]))
    return mean_over_all_pairs(squared_correlations(flat, flat))


@keras.saving.register_keras_serializable("keras_collab")
class RepresentationSimilarity(Term):
    """Decorrelates the channels of a layer: penalizes their squared correlation.

    X is the tap as N rows of channels, N = batch · positions, each channel standardized; R = XᵀX / N is the
    correlation matrix. The value is the mean over taps and over i != j of R_ij². It is scale-invariant: smaller
    activations do not lower it. They do lower the covariance of DeCov (Cogswell et al., 2016, arXiv 1511.06068).

    The formula is this project's reading of the abstract of Fang & Lin (2021, arXiv 2105.09590). Each step takes a
    grid of positions with a random offset and two random blocks of channels. Only the first block gets a gradient; in
    expectation over the blocks, value and gradient equal those of all pairs. If a step takes n < 65 valid rows, the
    value is multiplied by (n − 1) / 64, since few rows correlate by chance.

    Sample weights do not apply.

    Args:
        weight: number >= 0 or schedule, see `Term`. Defaults to 10.
        layers: layers to tap (names, a regular expression, a function of the layer), or `"auto"`: the last
            block of each stage, or four blocks of a network with one stage. Defaults to `"auto"`.
        max_positions: integer >= 1. Largest number of positions taken from a sample. Defaults to 4.
        max_channels: integer >= 2. Largest number of channels in a block. Defaults to 32.
        name: column in the history. Defaults to `"representation_similarity"`.
        seed: integer seed of the draws, see `Term`.
    """

    def __init__(
        self,
        weight: Weight = 10.0,
        *,
        layers: Layers = "auto",
        max_positions: int = 4,
        max_channels: int = 32,
        name: str | None = None,
        seed: int | None = None,
    ):
        super().__init__(weight, name=name, seed=seed)
        self.layers = layers
        self.max_positions = check_range(self, max_positions=max_positions, least=1, whole=True)
        self.max_channels = check_range(self, max_channels=max_channels, least=2, whole=True)

    def select(self, reader: NetworkReader) -> Selection:
        taps = reader.taps(self.layers)
        single = [tap.path for tap in taps if tap.channels < 2]
        if single:
            raise ValueError(f"layers {single} have a single channel, so there is nothing to compare; leave them out.")
        return Selection(taps=taps)

    def call(self, tensors: StepTensors) -> Tensor:
        axes = max(3, *(len(tap.shape) - 2 for tap in tensors.taps))  # Of positions; no fewer, so that seeds keep.
        draws = keras.random.uniform((len(tensors.taps), 3, axes), dtype="float32", seed=self.seed_generator)
        total = ops.zeros((), dtype="float32")
        for index, (tap, mask) in enumerate(zip(tensors.taps, tensors.masks, strict=True)):
            total = total + self._estimate(tap, mask, draws[index])
        return scale_gradient(total / len(tensors.taps), 2.0)  # The gradient towards one channel stands for both.

    def _estimate(self, tap: Tensor, mask: Tensor, draws: Tensor) -> Tensor:
        blocks = Blocks(tap.shape[-1], self.max_channels)
        first = blocks.draw(draws[0, 0])
        second = blocks.draw(draws[0, 1])
        positions = sample_positions(tap, self.max_positions, draws[1:])
        rows = blocks.take(positions, first)
        columns = blocks.take(positions, second)
        counts = None
        count = ops.cast(ops.shape(positions)[0], "float32")
        if mask is not None:
            counts = ops.cast(ops.expand_dims(mask, -1), "float32")
            counts = sample_positions(counts, self.max_positions, draws[1:])
            count = ops.sum(counts)
        values = squared_correlations(rows, ops.stop_gradient(columns), counts)
        mean = mean_over_pairs(values, blocks.items(first), blocks.items(second), blocks.pair_weight)
        return mean * ops.clip((count - 1.0) / _ENOUGH_ROWS, 0.0, 1.0)


def position_grid(sizes: tuple[int, ...], max_positions: int) -> list[tuple[int, int]]:
    """The number of positions to take along each axis, and their stride.

    Args:
        sizes: lengths of the axes.
        max_positions: largest number of positions to take in all.
    """
    most = min(max_positions, math.prod(sizes))
    a_side = max(1, math.floor(most ** (1 / max(1, len(sizes))) + 1e-9))
    grid = []
    for size in sizes:
        count = min(a_side, size)
        grid.append((count, size // count))
    return grid


def sample_positions(tap: Tensor, max_positions: int, draws: Tensor) -> Tensor:
    """A regular grid of positions with a random offset, `(positions of all samples, channels)`.

    If an axis has no static size, all positions are taken.

    Args:
        tap: `(batch, positions..., channels)`.
        max_positions: largest number of positions taken from a sample.
        draws: `(2, axes of positions)`, uniform numbers in [0, 1): one row for the offset within a stride, one for the
            start of a grid that does not fill the map.
    """
    sizes = tap.shape[1:-1]
    if None not in sizes:
        for axis, (count, stride) in enumerate(position_grid(sizes, max_positions)):
            start = draw_index(draws[1, axis], sizes[axis] - count * stride + 1)
            tap = _every(window(tap, 1 + axis, start, count * stride), 1 + axis, stride, draws[0, axis])
    return ops.reshape(tap, (-1, tap.shape[-1]))


def _every(tap: Tensor, axis: int, stride: int, uniform: Tensor) -> Tensor:
    """Every `stride`-th value along an axis, with a random offset."""
    if stride == 1:
        return tap
    shape = ops.shape(tap)
    cells = ops.reshape(tap, (*shape[:axis], shape[axis] // stride, stride, *shape[axis + 1 :]))
    return pick(cells, axis + 1, draw_index(uniform, stride))
