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
        data: arrays `x`, or a tuple of arrays, or what gives batches: a `tf.data.Dataset`, a `keras.utils.PyDataset`, a
            torch `DataLoader`. Arrays are drawn from in random order, always the same, since they are often sorted by
            class.
        count: batches, at most.
        size: samples in a batch of arrays; the last may be smaller.

    Raises:
        ValueError: if arrays do not have the same number of samples.
    """
    if isinstance(data, dict) or hasattr(data, "ndim"):  # Arrays of any library; all else gives batches.
        data = (data,)
    found: Any
    if isinstance(data, tuple | list):
        arrays = tuple(tree.map_structure(_numpy, part) for part in data if part is not None)
        lengths = {len(array) for array in tree.flatten(arrays)}
        if len(lengths) > 1:
            raise ValueError(f"Data must have the same number of samples in all arrays. Received: {sorted(lengths)}.")
        order = np.random.default_rng(0).permutation(max(lengths, default=0))
        chosen = (order[at : at + size] for at in range(0, len(order), size))
        found = (tree.map_structure(lambda array, rows=rows: array[rows], arrays) for rows in chosen)
    elif isinstance(data, keras.utils.PyDataset):
        found = (data[index] for index in range(len(data)))
    else:
        found = iter(data)
    for _, batch in zip(range(count), found, strict=False):
        yield keras.utils.unpack_x_y_sample_weight(tree.map_structure(_numpy, batch))


def _numpy(array: Any) -> NDArray[Any]:
    return array if isinstance(array, np.ndarray) else ops.convert_to_numpy(array)
