"""The first batches of data, as NumPy arrays: for measurements."""

import numbers
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import keras
import numpy as np
from keras import ops, tree

from keras_collab._checks import check_range
from keras_collab._types import Array, Data

Batch = tuple[Any, Any, Any]  # x, y and sample_weight; None for what the data lack.


@runtime_checkable
class ArrayLike(Protocol):
    """An array of any library: NumPy, TensorFlow, JAX, torch, pandas."""

    def __array__(self) -> Any: ...


def check_data(name: str, data: Any) -> None:
    """Raises if `fit` cannot take data more than once."""
    if data is None or _is_list_of_batches(data) or isinstance(data, Iterator | ArrayLike):
        raise ValueError(
            f"`{name}` must be data that `fit` takes, more than once: (x, y), a tf.data.Dataset, a "
            "keras.utils.PyDataset, a torch DataLoader, or a function that makes them. Received an object of type "
            f"{type(data).__name__}."
        )


def check_batches(owner: Any, batches: Any) -> int:
    """Returns the number of batches if it is an integer >= 1.

    Raises:
        TypeError: if it is not a number, for instance labels that should be in a tuple with `x`.
        ValueError: if it is another number.
    """
    if not isinstance(batches, numbers.Number):
        raise TypeError(
            f"{owner.__name__}: `batches` must be an integer >= 1. Received an object of type "
            f"{type(batches).__name__}. Give arrays in one tuple: {owner.__name__}(model, (x, y))."
        )
    return int(check_range(owner, batches=batches, least=1, whole=True))


def first_batches(
    owner: Any,
    data: Data,
    count: int,
    size: int | None,
) -> Iterator[Batch]:
    """Batches `(x, y, sample_weight)` of NumPy arrays, None for what the data lack.

    Args:
        owner: the function that the errors name.
        data: arrays `x`, or a tuple of arrays, or an iterable of batches: a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a torch `DataLoader`. Arrays are shuffled, always in the same way, since they are
            often sorted by class.
        count: largest number of batches.
        size: batch size of arrays; the last batch may be smaller. None for a single batch, not shuffled.

    Raises:
        TypeError: if the data are neither arrays nor batches.
        ValueError: if arrays do not have the same number of samples, or are lists of numbers.
    """
    is_path = isinstance(data, str | os.PathLike)
    if is_path or not isinstance(data, ArrayLike | Iterable):
        raise TypeError(
            f"{owner.__name__}: data must be arrays, x or (x, y), or batches of them. Received: {data!r} (of type "
            f"{type(data).__name__}). Read images in folders by keras.utils.image_dataset_from_directory(...)."
        )
    if isinstance(data, ArrayLike | dict):
        data = (data,)
    batches = data
    if isinstance(data, tuple | list) and not _is_list_of_batches(data):
        batches = _array_batches(data, size)
    for _, batch in zip(range(count), batches, strict=False):
        yield keras.utils.unpack_x_y_sample_weight(tree.map_structure(_numpy, batch))


def _is_list_of_batches(data: Any) -> bool:
    return isinstance(data, list) and len(data) > 0 and isinstance(data[0], tuple)


def _array_batches(data: Sequence[Any], size: int | None) -> Iterator[tuple[Any, ...]]:
    arrays, samples = _arrays(data)
    if size is None:
        yield arrays
        return
    order = np.random.default_rng(0).permutation(samples)
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        yield tree.map_structure(lambda array, rows=rows: array[rows], arrays)


def _arrays(data: Sequence[Any]) -> tuple[Any, int]:
    """The data as NumPy arrays without what is None, and the number of samples, which is that of all arrays."""
    given = tuple(part for part in data if part is not None)
    if any(part is None for part in data[: len(given)]):
        raise ValueError(
            "Data are x, (x, y) or (x, y, sample_weight). Received None before an array: give labels too, or leave the "
            "sample weights out."
        )
    arrays = tree.map_structure(_numpy, given)
    if any(array.ndim == 0 for array in tree.flatten(arrays)):
        raise ValueError("Data must be arrays. Received lists of numbers: make them arrays by numpy.asarray(...).")
    lengths = {len(array) for array in tree.flatten(arrays)}
    if len(lengths) > 1:
        raise ValueError(f"Data must have the same number of samples in all arrays. Received: {sorted(lengths)}.")
    return arrays, max(lengths, default=0)


class Shuffled(keras.utils.PyDataset):
    """Arrays in batches, in another order each epoch, drawn from NumPy's random numbers.

    On TensorFlow, Keras 3.15 shuffles arrays in the same order each epoch once a seed is set.
    """

    def __init__(self, arrays: Sequence[Any], batch_size: int):
        super().__init__()
        arrays, samples = _arrays(arrays)
        self.arrays = tree.lists_to_tuples(arrays)
        self.batch_size = batch_size
        self.order = np.arange(samples)

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return tree.map_structure(lambda array: _batch(array[rows]), self.arrays)

    def on_epoch_begin(self) -> None:
        self.order = np.random.permutation(len(self.order))


def _batch(array: Array) -> Any:
    """As `fit` would make it of arrays (Keras 3.15 leaves what a PyDataset gives as it is, and takes no text of it)."""
    if array.dtype.kind in "OSU":
        return ops.convert_to_tensor(array)
    return array.astype(keras.backend.floatx()) if array.dtype.kind == "f" else array


def _numpy(array: Any) -> Array:
    return array if isinstance(array, np.ndarray) else ops.convert_to_numpy(array)
