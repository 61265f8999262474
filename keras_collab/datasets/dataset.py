"""A data set in memory: its splits, its augmentation and its batches."""

import dataclasses
import importlib
import numbers
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from keras_collab._checks import check_choice, check_range


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    Attributes:
        images: uint8 `(n, height, width, channels)`.
        labels: int32 `(n,)`, indices into `Dataset.classes`.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, positions: Any) -> "Split":
        return Split(self.images[positions], self.labels[positions])


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A data set for image classification, in memory.

    Attributes:
        name: name of the data set.
        train: `Split` to train on.
        validation: `Split` to choose settings on.
        test: `Split` to report results on.
        classes: names of the classes.
        flip: whether a mirrored image still shows its class.

    Raises:
        ValueError: if images are not uint8 or differ in size, or a label is not an index into `classes`.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    flip: bool = True

    def __post_init__(self) -> None:
        size = self.train.images.shape[1:]
        for name, split in self._splits().items():
            expected = (*split.labels.shape, *size)
            fits = len(size) == 3 and split.images.shape == expected
            if split.images.dtype != "uint8" or not fits:
                raise ValueError(
                    f"{self.name}: a split must have n uint8 images (n, height, width, channels), as large as those of "
                    f"`train`, {size}, and n labels. Received: {name} with {split.images.dtype} images "
                    f"{split.images.shape} and labels {split.labels.shape}."
                )
            labels = np.unique(split.labels)
            if labels.dtype.kind not in "iu":
                raise ValueError(f"{self.name}: labels must be integers. Received: {name} with {labels.dtype} labels.")
            outside = labels[(labels < 0) | (labels >= len(self.classes))]
            if len(outside):
                raise ValueError(
                    f"{self.name}: labels must be positions in `classes`, from 0 to {len(self.classes) - 1}. Received: "
                    f"{outside.tolist()} in {name}. Prepare the data again, or give one name for each class."
                )

    def __repr__(self) -> str:
        sizes = []
        for name, split in self._splits().items():
            sizes.append(f"{name}={len(split)} images")
        return (
            f"Dataset(name={self.name!r}, {', '.join(sizes)}, classes={len(self.classes)}, "
            f"input_shape={self.input_shape})"
        )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        _, height, width, channels = self.train.images.shape
        return height, width, channels

    def preprocessing(self, augment: bool = True) -> list[layers.Layer]:
        """Returns float32 layers to put in front of a network, for pixels from 0 to 255.

        In training, images are padded with zeros by an eighth of their height (4 pixels at 32×32), cropped back to
        their size at a random position and, if `flip`, mirrored at random. `keras.utils.set_random_seed` seeds both.
        Then each channel is normalized by its mean and variance over the training split.

        Args:
            augment: whether to crop and mirror. To load a network saved with these layers, import keras_collab first.
                Defaults to True.
        """
        chosen: list[layers.Layer] = []
        height, _, channels = self.input_shape
        if augment:
            chosen.append(RandomPadCrop(max(1, round(height / 8)), dtype="float32"))
        if augment and self.flip:
            chosen.append(layers.RandomFlip("horizontal", dtype="float32"))
        pixels = self.train.images.reshape(-1, channels)
        mean = pixels.mean(axis=0, dtype="float64")
        squares = np.einsum("nc,nc->c", pixels, pixels, dtype="float64")  # Without a copy of all pixels as floats.
        variance = squares / len(pixels) - mean**2
        moments = {"mean": mean.tolist(), "variance": variance.tolist()}
        chosen.append(layers.Normalization(**moments, dtype="float32"))
        return chosen

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        shuffle: bool = True,
        seed: int = 0,
    ) -> Any:
        """Returns batches of images and labels for `fit` and `evaluate`; the last one may be smaller.

        Call `fit` with `shuffle=False`, since the batches are shuffled already. Otherwise Keras 3.15 warns, on
        TensorFlow, or shuffles the order of batches again.

        Args:
            split: "train", "validation" or "test".
            batch_size: integer, >= 1. Images in a batch.
            shuffle: whether to shuffle the images anew for each epoch. Defaults to True.
            seed: integer seed of the shuffling. Defaults to 0.

        Returns:
            A `tf.data.Dataset` on TensorFlow, else a `keras.utils.PyDataset`.

        Raises:
            ValueError: if there is no split of that name, or it has no images.
        """
        splits = self._splits()
        chosen = splits[check_choice(self, choices=tuple(splits), split=split)]
        batch_size = check_range(self, batch_size=batch_size, least=1, whole=True)
        if not len(chosen):
            raise ValueError(f"{self.name}: split '{split}' holds no images. Load the data set with `{split}` above 0.")
        seed = check_range(self, seed=seed, least=0, whole=True)
        # tf.data is TensorFlow's own pipeline (2.21); the other backends do without TensorFlow.
        make = _tf_batches if keras.backend.backend() == "tensorflow" else _Batches
        return make(chosen, batch_size, shuffle, seed)

    def _splits(self) -> dict[str, Split]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def cut(self, subset: int | None, validation: float, seed: int) -> "Dataset":
        """Returns the data set with its training images split anew; validation images that it has are dropped.

        Args:
            subset: integer number of training images to keep; None for all that validation leaves.
            validation: share in [0, 1), or integer number, of the training images that become validation images.
            seed: integer >= 0, of the order in which images are taken, class by class.

        Raises:
            ValueError: if an argument does not fit the data.
        """
        count, least = len(self.train), len(self.classes)
        cut = validation
        is_share = isinstance(validation, numbers.Real) and not isinstance(validation, numbers.Integral)
        if is_share and 0 <= validation < 1:
            cut = round(float(validation) * count)
        if not _is_integer(cut) or not 0 <= cut <= count - least:
            raise ValueError(
                f"{self.name}: `validation` must be a share (>= 0.0 and < 1.0) or an integer number of the {count} "
                f"training images, and leave at least one of each of {least} classes. Received: {validation=}."
            )
        kept = count - cut if subset is None else subset
        if not _is_integer(kept) or not least <= kept <= count - cut:
            raise ValueError(
                f"{self.name}: `subset` must be an integer from {least}, one image a class, to {count - cut}, all "
                f"training images without those for validation. Received: {subset=}."
            )
        order = stratified_order(self.train.labels, check_range(self, seed=seed, least=0, whole=True))
        first, last = order[:kept], order[count - cut :]
        return dataclasses.replace(self, train=self.train[first], validation=self.train[last])


def uncut(
    name: str,
    train: Split,
    test: Split,
    classes: tuple[str, ...],
    flip: bool = True,
) -> Dataset:
    """A data set without validation images: every training image is in `train`."""
    return Dataset(name, train, train[:0], test, classes, flip)


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


@keras.saving.register_keras_serializable("keras_collab")
class RandomPadCrop(layers.Layer):
    """Pads images with zeros and crops each back to its size at a random position, in training only.

    The usual augmentation of small images (He et al., 2016, arXiv 1512.03385). `keras.layers.RandomCrop` crops all
    images of a batch at the same position (Keras 3.15). Input and output: `(batch, height, width, channels)`.

    Args:
        padding: integer, >= 1. Pixels added on every side.
        seed: integer seed of the positions. Defaults to a random one.
    """

    def __init__(self, padding: int, seed: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.padding = check_range(self, padding=padding, least=1, whole=True)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, images, training=False):
        if not training:
            return images
        batch, height, width, channels = ops.shape(images)
        side, none = (self.padding, self.padding), (0, 0)
        padded = ops.pad(images, (none, side, side, none))
        pixels = ops.reshape(padded, (-1, channels))
        both = 2 * self.padding
        corners = keras.random.randint((2, batch, 1, 1), 0, both + 1, seed=self.seed_generator)
        rows = corners[0] + ops.arange(height)[:, None]
        columns = corners[1] + ops.arange(width)
        samples = ops.arange(batch)[:, None, None]
        positions = (samples * (height + both) + rows) * (width + both) + columns
        return ops.take(pixels, positions, axis=0)

    def get_config(self):
        config = super().get_config()
        config.update(padding=self.padding, seed=self.seed)
        return config


def stratified_order(labels: NDArray[np.int32], seed: int) -> NDArray[np.intp]:
    """A random order whose every beginning and every end is stratified; one image of each class comes first."""
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    begins = np.repeat(np.cumsum(counts) - counts, counts)
    rank = np.arange(len(labels)) - begins  # Within the class.
    place = (rank + 0.5) / np.repeat(counts, counts)
    place[rank == 0] = 0
    ties = random.random(len(labels))
    return by_class[np.lexsort((ties, place))]


class _Batches(keras.utils.PyDataset):
    """NumPy arrays in batches, shuffled anew for each epoch."""

    def __init__(self, split: Split, batch_size: int, shuffle: bool, seed: int):
        super().__init__()
        self.split, self.batch_size, self.shuffle = split, batch_size, shuffle
        self.random = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.split) // self.batch_size)

    def __getitem__(self, index):
        start = index * self.batch_size
        batch = self.split[self.order[start : start + self.batch_size]]
        return batch.images, batch.labels

    def on_epoch_end(self):
        self.order = np.arange(len(self.split))
        if self.shuffle:
            self.order = self.random.permutation(len(self.split))


def _tf_batches(split: Split, batch_size: int, shuffle: bool, seed: int) -> Any:
    tf = importlib.import_module("tensorflow")
    positions = tf.data.Dataset.range(len(split))
    if shuffle:
        positions = positions.shuffle(len(split), seed=seed)
    with tf.device("cpu"):  # Else the whole split goes to the GPU, and every batch back from there.
        images = tf.constant(split.images)
        labels = tf.constant(split.labels)

    def read(batch):
        return tf.gather(images, batch), tf.gather(labels, batch)

    batches = positions.batch(batch_size).map(read)
    options = tf.data.Options()
    options.autotune.enabled = False  # Stopping its thread takes up to a second an epoch (2.21).
    return batches.prefetch(2).with_options(options)
