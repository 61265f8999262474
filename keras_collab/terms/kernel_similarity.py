"""Collaboration of kernels: filters of a layer do not repeat each other."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_collab._checks import check_choice, check_range
from keras_collab.network.layers import Kernel
from keras_collab.network.select import Layers, NetworkReader, Selection
from keras_collab.terms.pairs import (
    Blocks,
    cosines,
    draw_index,
    mean_over_all_pairs,
    mean_over_pairs,
    pick,
    scale_gradient,
)
from keras_collab.terms.term import StepTensors, Term, Weight

FORMS = ("cosine", "angle")


def squared_angles(cosine: Any) -> Any:
    """(arccos cos − π/2)² = arcsin² cos, kept away from ±1 where its gradient has no bound."""
    return ops.square(ops.arcsin(cosine / 1.001))


def welch_bound(filters: int, size: int) -> float:
    """The least mean squared cosine that `filters` vectors in `size` dimensions can have: (n − d) / (d (n − 1))."""
    return max(0.0, (filters - size) / (size * (filters - 1)))


def kernel_similarity(filters: Any, form: str = "cosine") -> Any:
    """Mean over i != j of cos²(w_i, w_j) less the least that is possible, or of the squared angle to orthogonal.

    Args:
        filters: `(size, filters)`, one column a filter.
        form: `"cosine"` or `"angle"`.

    Returns:
        A float32 scalar; 0 when the filters are as different as they can be.
    """
    size, count = filters.shape
    values = _pair_values(cosines(filters, filters), form)
    least = welch_bound(count, size) if form == "cosine" else 0.0
    return mean_over_all_pairs(values) - least


def _pair_values(cosine: Any, form: str) -> Any:
    return ops.square(cosine) if form == "cosine" else squared_angles(cosine)


def _of_group(kernel: Kernel, group: Any) -> Any:
    """The filters of one group, `(size, filters)`; the group may be drawn."""
    filters = kernel.read()
    return filters if kernel.groups == 1 else pick(filters, {0: group})


@keras.saving.register_keras_serializable("keras_collab")
class KernelSimilarity(Term):
    """Makes the filters of a layer look for different things: penalises the squared cosine between them.

    w_i = filter i as a vector; the loss is the mean over layers of the mean over i != j of cos²(w_i, w_j), less the
    least value that n filters in d dimensions can reach when n > d (Welch, 1974), so that 0 is reachable. The square
    matters: a signed cosine would drive filters to be opposite. The gradient is at right angles to each filter, so it
    fights neither batch normalization nor weight decay. The formula is this project's reading of the abstract of Fang &
    Lin (2021, arXiv 2105.09590). Each step and layer compares two random blocks of filters and moves those of the
    first; on average over the draws value and gradient are those of all pairs. Forms:

    - `"cosine"`: as above.
    - `"angle"`: mean of (arccos cos − π/2)², the angular form of Evenly-Dispersing Regularization ("ADK").

    Args:
        weight: number >= 0 or schedule, see `Term`. Defaults to 10: the combination without it was 4 points
            worse with label noise (one run) and the same without, and 100 was worse with noise and on a VGG-16
            (examples/results/choose-together.jsonl).
        layers: layers with kernels (names, a regular expression, a function of the layer), or `"auto"`: every
            convolution but the first, the depthwise and, in networks whose weights are mostly in wider ones, the 1×1
            ones; see `NetworkReader.kernels`. Defaults to `"auto"`.
        max_filters: filters in a block, at most. Defaults to 8.
        form: one of the above. Defaults to `"cosine"`.
        name: column in the history. Defaults to `"kernel_similarity"`.
        seed: integer seed of the draws, see `Term`.

    Frozen layers take no penalty; freeze and unfreeze before `compile`, as always in Keras.
    """

    def __init__(
        self,
        weight: Weight = 10.0,
        *,
        layers: Layers = "auto",
        max_filters: int = 8,
        form: str = "cosine",
        name: str | None = None,
        seed: int | None = None,
    ):
        super().__init__(weight, name=name, seed=seed)
        self.form = check_choice(self, form=form, choices=FORMS)
        self.layers = layers
        self.max_filters = check_range(self, max_filters=max_filters, least=2, whole=True)

    def select(self, network: NetworkReader) -> Selection:
        return Selection(kernels=network.kernels(self.layers))

    def call(self, tensors: StepTensors) -> Any:
        if not tensors.kernels:
            return ops.zeros(())
        alike: dict[tuple[int, int], list[Kernel]] = {}  # These take one product together, not one each.
        for kernel in tensors.kernels:
            alike.setdefault((kernel.size, self._blocks(kernel).length), []).append(kernel)
        draws = keras.random.uniform((3, len(tensors.kernels)), seed=self.seed_generator)
        values, start = [], 0
        for kernels in alike.values():
            values.append(self._sampled(kernels, draws[:, start : start + len(kernels)]))
            start += len(kernels)
        # The gradient towards one filter of a pair stands for both.
        return scale_gradient(ops.mean(ops.concatenate(values)), 2.0)

    def _blocks(self, kernel: Kernel) -> Blocks:
        return Blocks(kernel.filters, self.max_filters)

    def _sampled(self, kernels: Sequence[Kernel], draws: Any) -> Any:
        """The values of kernels whose blocks have the same shape, `(kernels,)`, from draws of `(3, kernels)`."""
        blocks = [self._blocks(kernel) for kernel in kernels]
        count = ops.convert_to_tensor([cut.count for cut in blocks], dtype="int32")
        combs, runs = draw_index(draws[0], count), draw_index(draws[1], count)
        groups = draw_index(draws[2], [kernel.groups for kernel in kernels])
        filters = [_of_group(kernel, group) for kernel, group in zip(kernels, ops.unstack(groups), strict=True)]
        left = [cut.comb(*pair) for cut, *pair in zip(blocks, filters, ops.unstack(combs), strict=True)]
        right = [cut.run(*pair) for cut, *pair in zip(blocks, filters, ops.unstack(runs), strict=True)]
        values = _pair_values(cosines(ops.stack(left), ops.stop_gradient(ops.stack(right))), self.form)
        item = ops.arange(blocks[0].length, dtype="int32")
        items = combs[:, None] + count[:, None] * item, runs[:, None] * blocks[0].length + item
        mean = mean_over_pairs(values, *items, ops.convert_to_tensor([cut.pair_weight for cut in blocks]))
        return mean - ops.convert_to_tensor([self._least(kernel) for kernel in kernels])

    def _least(self, kernel: Kernel) -> float:
        return welch_bound(kernel.filters, kernel.size) if self.form == "cosine" else 0.0

    def operations(self, selection: Selection, batch_size: int) -> float:
        total = 0.0
        for kernel in (kernel for kernel in selection.kernels if kernel.trainable):
            blocks = self._blocks(kernel)
            # Two products; normalising takes about 8 operations a weight, spreading the gradient 2 a weight.
            total += kernel.size * blocks.length * (4.0 * blocks.length + 16.0 + 2.0 * blocks.count)
        return total

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "layers": self.layers_config(self.layers),
            "max_filters": self.max_filters,
            "form": self.form,
        }
