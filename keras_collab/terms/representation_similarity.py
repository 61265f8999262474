"""Collaboration of representations: channels of a layer do not repeat each other."""

import math
from typing import Any

import keras
from keras import ops

from keras_collab._checks import check_range
from keras_collab.network.select import Layers, NetworkReader, Selection, Tap
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
from keras_collab.terms.term import StepTensors, Term, Weight


def squared_correlations(rows: Any, columns: Any) -> Any:
    """R² of every pair of channels, 0 for dead channels.

    Args:
        rows: `(positions, channels)`, any float dtype.
        columns: `(positions, other channels)`.

    Returns:
        `(channels, other channels)` in [0, 1], float32.
    """
    (rows, row_floor), (columns, column_floor) = _centred(rows), _centred(columns)
    return ops.square(cosines(rows, columns, (row_floor + column_floor) / 2))


def _centred(columns: Any) -> tuple[Any, Any]:
    """Columns less their means, and the squared length below which one counts as dead.

    The means are constants to the gradient, which is exact all the same: a product of centred columns has no gradient
    towards their means. What is constant but for the rounding of its mean is dead too.
    """
    columns = ops.cast(columns, "float32")
    means = ops.stop_gradient(ops.mean(columns, axis=0, keepdims=True))
    centred = columns - means
    squared_length = ops.mean(ops.sum(ops.square(centred), axis=0)) + 1e-6 * ops.sum(ops.square(means))
    return centred, ops.stop_gradient(1e-6 * squared_length + 1e-20)


def representation_similarity(tap: Any) -> Any:
    """Mean over i != j of the squared correlation of channels i and j, over samples and positions.

    Args:
        tap: `(batch, positions..., channels)`.

    Returns:
        A float32 scalar in [0, 1]; N independent positions give about 1 / (N − 1), not 0.
    """
    flat = ops.reshape(tap, (-1, tap.shape[-1]))
    return mean_over_all_pairs(squared_correlations(flat, flat))


@keras.saving.register_keras_serializable("keras_collab")
class RepresentationSimilarity(Term):
    """Makes the channels of a layer carry different things: penalises their squared correlation.

    X = the tap as (positions, channels), centred and scaled per channel; R = XᵀX / N; the loss is the mean over taps
    and over i != j of R_ij². Scale free: shrinking activations does not pay, as it does for the covariance of DeCov
    (Cogswell et al., 2016, arXiv 1511.06068). The formula is this project's reading of the abstract of Fang & Lin
    (2021, arXiv 2105.09590). Each step looks at a grid of positions with a random offset and at two random blocks of
    channels, the first of which it moves; on average over the draws of channels value and gradient are those of all
    pairs.

    Args:
        weight: number >= 0 or schedule, see `Term`. Defaults to 10: with the other terms as accurate
            as 1 without label noise, and 3 to 6 points better with it (examples/results/choose-together.jsonl). Where
            images are not augmented it has cost accuracy (examples/results/choose-unaugmented.jsonl).
        layers: layers to tap (names, a regular expression, a function of the layer), or `"auto"`: the end of each
            stage. Defaults to `"auto"`.
        max_positions: positions of a sample that a step looks at, at most. Defaults to 4.
        max_channels: channels in a block, at most; a tap with no more channels than that is compared in full.
            Defaults to 32.
        name: column in the history. Defaults to `"representation_similarity"`.
        seed: integer seed of the draws, see `Term`.

    All samples count alike: sample weights do not apply.
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

    def select(self, network: NetworkReader) -> Selection:
        taps = network.taps(self.layers)
        single = [tap.path for tap in taps if tap.channels < 2]
        if single:
            raise ValueError(f"layers {single} have a single channel, so there is nothing to compare; leave them out.")
        return Selection(taps=taps)

    def call(self, tensors: StepTensors) -> Any:
        draws = keras.random.uniform((len(tensors.taps), 3, 3), seed=self.seed_generator)
        value = ops.mean(ops.stack([self._sampled(tap, draws[i]) for i, tap in enumerate(tensors.taps)]))
        return scale_gradient(value, 2.0)  # The gradient towards one channel of a pair stands for both.

    def _sampled(self, tap: Any, draws: Any) -> Any:
        blocks = Blocks(tap.shape[-1], self.max_channels)
        positions = sample_positions(tap, self.max_positions, draws[1:])
        first, second = draw_index(draws[0, 0], blocks.count), draw_index(draws[0, 1], blocks.count)
        rows, columns = blocks.two_combs(positions, first, second)
        values = squared_correlations(rows, ops.stop_gradient(columns))
        item = blocks.count * ops.arange(blocks.length, dtype="int32")
        return mean_over_pairs(values, first + item, second + item, blocks.pair_weight)

    def operations(self, selection: Selection, batch_size: int) -> float:
        return sum(self._operations(tap, batch_size) for tap in selection.taps)

    def _operations(self, tap: Tap, batch_size: int) -> float:
        blocks = Blocks(tap.channels, self.max_channels)
        positions = batch_size * math.prod(count for count, _ in position_grid(tap.positions, self.max_positions))
        # The Gram matrix and one product for its gradient; standardising takes about 20 operations a value.
        return positions * blocks.length * (4.0 * blocks.length + 40.0 + 4.0 * (blocks.count > 1) * blocks.count)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "layers": self.layers_config(self.layers),
            "max_positions": self.max_positions,
            "max_channels": self.max_channels,
        }


def position_grid(sizes: tuple[int, ...], max_positions: int) -> list[tuple[int, int]]:
    """For each axis of positions how many are taken, and how far apart.

    Args:
        sizes: lengths of the axes.
        max_positions: positions to take in all, at most.
    """
    a_side = max(1, math.floor(max_positions ** (1 / max(1, len(sizes))) + 1e-9))
    counts = [min(a_side, size) for size in sizes]
    return [(count, size // count) for size, count in zip(sizes, counts, strict=True)]


def sample_positions(tap: Any, max_positions: int, draws: Any) -> Any:
    """A regular grid of positions with a random offset, `(positions of all samples, channels)`.

    Where sizes are not known before the step, all positions are taken.

    Args:
        tap: `(batch, positions..., channels)`.
        max_positions: positions of a sample, at most.
        draws: `(2, axes of positions)`, uniform numbers in [0, 1): for the offset of the grid's positions, and for
            where a grid that does not fill the map begins.
    """
    sizes, channels = tap.shape[1:-1], tap.shape[-1]
    grid = [] if None in sizes else position_grid(sizes, max_positions)
    if any(count < size for (count, _), size in zip(grid, sizes, strict=False)):
        for axis, (size, (count, stride)) in enumerate(zip(sizes, grid, strict=True)):
            # A grid that does not fill the map begins anywhere.
            start = draw_index(draws[1, axis], size - count * stride + 1)
            tap = window(tap, 1 + axis, start, count * stride)
        tap = ops.reshape(tap, (ops.shape(tap)[0], *(side for pair in grid for side in pair), channels))
        tap = pick(tap, {2 + 2 * axis: draw_index(draws[0, axis], stride) for axis, (_, stride) in enumerate(grid)})
    return ops.reshape(tap, (-1, channels))
