"""The first batches of whatever `fit` takes, as NumPy arrays: for what is measured, not trained."""

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops, tree
from numpy.typing import NDArray


def first_batches(data: Any, count: int, size: int) -> Iterator[tuple[Any, Any, Any]]:
    """Batches `(x, y, sample_weight)` of NumPy arrays, None for what the data lack.

    Args:
        data: a tuple of arrays, or what gives batches: a `tf.data.Dataset`, a `keras.utils.PyDataset`, a torch
            `DataLoader`. Arrays are drawn from in random order, always the same, since they are often sorted by class.
        count: batches, at most.
        size: samples in a batch of arrays; a smaller last one is left out, unless it is the only one.
    """
    found: Any
    if isinstance(data, tuple | list):
        samples = len(tree.flatten(data)[0])
        order = np.random.default_rng(0).permutation(samples)
        starts = range(0, samples - size + 1, size) if samples >= size else [0]
        found = (tree.map_structure(lambda a, at=at: _numpy(a)[order[at : at + size]], tuple(data)) for at in starts)
    elif isinstance(data, keras.utils.PyDataset):
        found = (data[index] for index in range(len(data)))
    else:
        found = iter(data)
    for _, batch in zip(range(count), found, strict=False):
        yield keras.utils.unpack_x_y_sample_weight(tree.map_structure(_numpy, batch))


def _numpy(array: Any) -> NDArray[Any]:
    return array if isinstance(array, np.ndarray) else ops.convert_to_numpy(array)
