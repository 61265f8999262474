"""Similarity of kernels: a penalty on filters of a layer that repeat each other."""

import keras
from keras import ops

from keras_collab._checks import check_range
from keras_collab._types import Tensor
from keras_collab.network.layers import Kernel
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
)
from keras_collab.terms.step_tensors import StepTensors
from keras_collab.terms.term import Term
from keras_collab.terms.weights import Weight


def welch_bound(filters: int, size: int) -> float:
    """The smallest mean squared cosine of n = `filters` vectors in d = `size` dimensions; 0 for n <= d."""
    return max(0.0, (filters - size) / (size * (filters - 1)))


def kernel_similarity(filters: Tensor) -> Tensor:
    """Mean over i != j of cos²(w_i, w_j), minus its smallest possible value, `welch_bound`.

    Args:
        filters: `(size, filters)`, one column for each filter.

    Returns:
        A float32 scalar; 0 for filters as different as possible.
    """
    size, count = filters.shape
    return mean_over_all_pairs(ops.square(cosines(filters, filters))) - welch_bound(count, size)


@keras.saving.register_keras_serializable("keras_collab")
class KernelSimilarity(Term):
    """Makes the filters of a layer differ: penalizes the squared cosine between them.

    w_i is filter i as a vector. The value is the mean over layers and over i != j of cos²(w_i, w_j), minus its smallest
    possible value, which is (n − d) / (d (n − 1)) for n > d filters in d dimensions (Welch, 1974) and else 0. The
    gradient is orthogonal to each filter: it changes the direction and leaves the length to weight decay.

    The formula is this project's reading of the abstract of Fang & Lin (2021, arXiv 2105.09590). Each step compares
    two random blocks of filters in each layer. Only the first block gets a gradient; in expectation over the blocks,
    value and gradient equal those of all pairs.

    Frozen layers are left out. Set `trainable` before `compile`, as always in Keras.

    Args:
        weight: number >= 0 or schedule, see `Term`. Defaults to 10.
        layers: layers with kernels (names, a regular expression, a function of the layer), or `"auto"`, see
            `NetworkReader.kernels`. Defaults to `"auto"`.
        max_filters: integer >= 2. Largest number of filters in a block. Defaults to 8.
        name: column in the history. Defaults to `"kernel_similarity"`.
        seed: integer seed of the draws, see `Term`.
    """

    def __init__(
        self,
        weight: Weight = 10.0,
        *,
        layers: Layers = "auto",
        max_filters: int = 8,
        name: str | None = None,
        seed: int | None = None,
    ):
        super().__init__(weight, name=name, seed=seed)
        self.layers = layers
        self.max_filters = check_range(self, max_filters=max_filters, least=2, whole=True)

    def select(self, reader: NetworkReader) -> Selection:
        return Selection(kernels=reader.kernels(self.layers))

    def call(self, tensors: StepTensors) -> Tensor:
        draws = keras.random.uniform((len(tensors.kernels), 3), dtype="float32", seed=self.seed_generator)
        total = ops.zeros((), dtype="float32")
        start = 0
        for kernels in self._alike(tensors.kernels):
            total = total + ops.sum(self._estimates(kernels, draws[start : start + len(kernels)]))
            start += len(kernels)
        return scale_gradient(total / len(tensors.kernels), 2.0)  # The gradient towards one filter stands for both.

    def _alike(self, kernels: tuple[Kernel, ...]) -> list[list[Kernel]]:
        """The kernels by the shape of their blocks: those of one shape take one product together."""
        groups: dict[tuple[int, int], list[Kernel]] = {}
        for kernel in kernels:
            shape = kernel.size, Blocks(kernel.filters, self.max_filters).length
            groups.setdefault(shape, []).append(kernel)
        return list(groups.values())

    def _estimates(self, kernels: list[Kernel], draws: Tensor) -> Tensor:
        """The values of kernels with blocks of one shape, `(kernels,)`, from draws of `(kernels, 3)`."""
        rows, columns = [], []
        row_items, column_items = [], []
        pair_weights, least = [], []
        for index, kernel in enumerate(kernels):
            blocks = Blocks(kernel.filters, self.max_filters)
            first = blocks.draw(draws[index, 0])
            second = blocks.draw(draws[index, 1])
            filters = kernel.read()
            if kernel.groups > 1:
                filters = pick(filters, 0, draw_index(draws[index, 2], kernel.groups))
            rows.append(blocks.take(filters, first))
            columns.append(blocks.take(filters, second))
            row_items.append(blocks.items(first))
            column_items.append(blocks.items(second))
            pair_weights.append(blocks.pair_weight)
            least.append(welch_bound(kernel.filters, kernel.size))
        values = ops.square(cosines(ops.stack(rows), ops.stop_gradient(ops.stack(columns))))
        weights = ops.convert_to_tensor(pair_weights, dtype="float32")
        means = mean_over_pairs(values, ops.stack(row_items), ops.stack(column_items), weights)
        return means - ops.convert_to_tensor(least, dtype="float32")
