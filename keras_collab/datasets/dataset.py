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
    """Images and what they show.

    Attributes:
        images: uint8 `(n, height, width, channels)`.
        labels: int32 `(n,)`, positions in `Dataset.classes`.
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
        train: what the network learns from.
        validation: what settings are chosen on.
        test: what is reported on.
        classes: name of each class.
        flip: whether a mirrored image still shows its class.

    Raises:
        ValueError: if images are not uint8 and of one size, or a label is no position in `classes`.
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
            if split.images.dtype != "uint8" or len(size) != 3 or split.images.shape != (*split.labels.shape, *size):
                raise ValueError(
                    f"{self.name}: a split must have n uint8 images (n, height, width, channels), as large as those of "
                    f"`train`, {size}, and n labels. Received: {name} with {split.images.dtype} images "
                    f"{split.images.shape} and labels {split.labels.shape}."
                )
            outside = sorted(set(np.unique(split.labels).tolist()) - set(range(len(self.classes))))
            if outside:
                raise ValueError(
                    f"{self.name}: labels must be positions in `classes`, from 0 to {len(self.classes) - 1}. Received: "
                    f"{outside} in {name}. Prepare the data again, or give one name for each class."
                )

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={len(split)} images" for name, split in self._splits().items())
        return f"Dataset(name={self.name!r}, {sizes}, classes={len(self.classes)}, input_shape={self.input_shape})"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        _, height, width, channels = self.train.images.shape
        return height, width, channels

    def preprocessing(self, augment: bool = True) -> list[layers.Layer]:
        """Layers to put in front of a network, for pixels from 0 to 255. They compute in float32.

        Training images are padded with zeros by an eighth of their height (4 pixels at 32×32), cropped back at random
        places and, if `flip`, mirrored at random; `keras.utils.set_random_seed` seeds both. Then every pixel is
        normalized by the mean and variance of its channel over the training split.

        Args:
            augment: whether to crop and mirror. A network saved with these layers needs keras_collab to load.
        """
        pixels = self.train.images.reshape(-1, self.input_shape[-1])
        mean = pixels.mean(axis=0, dtype="float64")
        variance = np.einsum("nc,nc->c", pixels, pixels, dtype="float64") / len(pixels) - mean**2
        normalize = layers.Normalization(mean=mean.tolist(), variance=variance.tolist(), dtype="float32")
        crop = RandomPadCrop(max(1, round(self.input_shape[0] / 8)), dtype="float32")
        flip = [layers.RandomFlip("horizontal", dtype="float32")] if self.flip else []
        return [crop, *flip, normalize] if augment else [normalize]

    def batches(self, split: str, batch_size: int, *, shuffle: bool = True, seed: int = 0) -> Any:
        """Batches of images and labels for `fit` and `evaluate`; the last one may be smaller.

        With TensorFlow a `tf.data.Dataset`, otherwise a `keras.utils.PyDataset`. Call `fit` with `shuffle=False`:
        these are shuffled, and by default Keras 3.15 warns of the former and shuffles the latter's batches once more.

        Args:
            split: "train", "validation" or "test".
            batch_size: images in a batch, >= 1.
            shuffle: whether each epoch has an order of its own. Otherwise all have that of `images`.
            seed: what the orders follow from.
        """
        chosen = self._splits()[check_choice(self, choices=("train", "validation", "test"), split=split)]
        batch_size = check_range(self, batch_size=batch_size, least=1, whole=True)
        if not len(chosen):
            raise ValueError(f"{self.name}: split '{split}' holds no images. Load the data set with `{split}` above 0.")
        # tf.data is TensorFlow's own pipeline (2.21); the other backends do without TensorFlow.
        make = _tf_batches if keras.backend.backend() == "tensorflow" else _Batches
        return make(chosen, batch_size, shuffle, seed)

    def _splits(self) -> dict[str, Split]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def cut(self, subset: int | None, validation: float, seed: int) -> "Dataset":
        """This data set with its training images cut into training and validation."""
        count, least = len(self.train), len(self.classes)
        share = isinstance(validation, float) and 0 <= validation < 1
        cut = round(validation * count) if share else validation
        if not isinstance(cut, numbers.Integral) or isinstance(cut, bool) or not 0 <= cut <= count - least:
            raise ValueError(
                f"{self.name}: `validation` must be a share (>= 0.0 and < 1.0) or an integer number of the {count} "
                f"training images, and leave at least one of each of {least} classes. Received: {validation=}."
            )
        kept = count - cut if subset is None else subset
        if not isinstance(kept, numbers.Integral) or not least <= kept <= count - cut:
            raise ValueError(
                f"{self.name}: `subset` must be an integer from {least}, one image a class, to {count - cut}, all "
                f"training images without those for validation. Received: {subset=}."
            )
        order = stratified_order(self.train.labels, seed)
        train, held_out = self.train[order[:kept]], self.train[order[count - cut :]]
        return dataclasses.replace(self, train=train, validation=held_out)


@keras.saving.register_keras_serializable("keras_collab")
class RandomPadCrop(layers.Layer):
    """Pads images with zeros and crops each, at a random place of its own, back to its size; only in training.

    The usual augmentation of small images (as in He et al., 2016, arXiv 1512.03385). `keras.layers.RandomCrop` crops
    all images of a batch at one place (Keras 3.15). Input and output: `(batch, height, width, channels)`.

    Args:
        padding: pixels added on every side, >= 1.
        seed: of the places. Defaults to a random one.
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
        side, both = (self.padding, self.padding), 2 * self.padding
        pixels = ops.reshape(ops.pad(images, ((0, 0), side, side, (0, 0))), (-1, channels))
        corners = keras.random.randint((2, batch, 1, 1), 0, both + 1, seed=self.seed_generator)
        rows = corners[0] + ops.arange(height)[:, None]
        columns = corners[1] + ops.arange(width)
        samples = ops.arange(batch)[:, None, None]
        return ops.take(pixels, (samples * (height + both) + rows) * (width + both) + columns, axis=0)

    def get_config(self):
        return {**super().get_config(), "padding": self.padding, "seed": self.seed}


def stratified_order(labels: NDArray[np.int32], seed: int) -> NDArray[np.intp]:
    """A random order whose every beginning and end holds each class in its share; first comes one image of each."""
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)  # Within the class.
    place = np.where(rank == 0, 0, (rank + 0.5) / np.repeat(counts, counts))
    return by_class[np.lexsort((random.random(len(labels)), place))]


class _Batches(keras.utils.PyDataset):
    """NumPy arrays in batches; each epoch has an order of its own."""

    def __init__(self, split: Split, batch_size: int, shuffle: bool, seed: int):
        super().__init__()
        self.split, self.batch_size, self.shuffle = split, batch_size, shuffle
        self.random = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self):
        return -(-len(self.split) // self.batch_size)

    def __getitem__(self, index):
        batch = self.split[self.order[index * self.batch_size : (index + 1) * self.batch_size]]
        return batch.images, batch.labels

    def on_epoch_end(self):
        count = len(self.split)
        self.order = self.random.permutation(count) if self.shuffle else np.arange(count)


def _tf_batches(split: Split, batch_size: int, shuffle: bool, seed: int) -> Any:
    tf = importlib.import_module("tensorflow")
    positions = tf.data.Dataset.range(len(split))
    positions = positions.shuffle(len(split), seed=seed) if shuffle else positions
    with tf.device("cpu"):  # Else the whole split goes to the GPU, and every batch back from there.
        images, labels = tf.constant(split.images), tf.constant(split.labels)
    batches = positions.batch(batch_size).map(lambda batch: (tf.gather(images, batch), tf.gather(labels, batch)))
    options = tf.data.Options()
    options.autotune.enabled = False  # Stopping its thread takes up to a second an epoch (2.21).
    return batches.prefetch(2).with_options(options)
