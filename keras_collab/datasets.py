"""Image data sets in memory, with splits that stay what they are and the augmentation that the field uses.

Each function returns a `Dataset`, downloads nothing, leaves the test split alone and takes by keyword:

- `validation`: training images cut off for validation: a share (>= 0.0 and < 1.0) or a number. Defaults to a tenth.
- `subset`: number of the other training images to keep, at least one a class. Defaults to all of them.
- `seed`: which images these are. Of one seed, a larger subset holds every smaller one.

Both cuts are stratified: each class keeps its share.

>>> data = keras_collab.datasets.digits(subset=100)
>>> data
Dataset(name='digits', train=100 images, validation=144 images, test=360 images, classes=10, input_shape=(8, 8, 1))
>>> model = keras.Sequential([keras.Input(data.input_shape), *data.preprocessing(), network])
"""

import contextlib
import dataclasses
import difflib
import gzip
import importlib
import io
import numbers
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from keras_collab.checks import check_choice, check_range

_Dir = str | os.PathLike[str] | None
_INSTALL = "`pip install 'keras-collab[datasets]'`"
_DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"  # Where the package dataset-fashion-mnist puts its files.
_FASHION = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"
# What Pillow raises at a file that is no image, and zipfile at a member that is damaged or encrypted.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


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
        make = _tf_batches if keras.backend.backend() == "tensorflow" else _Batches
        return make(chosen, batch_size, shuffle, seed)

    def _splits(self) -> dict[str, Split]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def _cut(self, subset: int | None, validation: float, seed: int) -> "Dataset":
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
        order = _stratified_order(self.train.labels, seed)
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


def cifar10(*, subset: int | None = None, validation: float = 0.1, seed: int = 0, data_dir: _Dir = None) -> Dataset:
    """CIFAR-10 (Krizhevsky, 2009): 32×32, 10 classes, 50,000 + 10,000 images.

    Read from what tensorflow-datasets has prepared on this machine.

    Args:
        subset, validation, seed: which training images; see the module.
        data_dir: where tensorflow-datasets keeps its data. Defaults to its own default.

    Raises:
        FileNotFoundError: if it is not prepared; the message names the command that does.
        ValueError: if `subset` or `validation` does not fit the data.
        ImportError: if what reads it is not installed.
    """
    return _from_tfds("cifar10", data_dir)._cut(subset, validation, seed)


def cifar100(*, subset: int | None = None, validation: float = 0.1, seed: int = 0, data_dir: _Dir = None) -> Dataset:
    """CIFAR-100 (Krizhevsky, 2009): 32×32, 100 classes, 50,000 + 10,000 images. Otherwise as `cifar10`."""
    return _from_tfds("cifar100", data_dir)._cut(subset, validation, seed)


def stl10(*, subset: int | None = None, validation: float = 0.1, seed: int = 0, data_dir: _Dir = None) -> Dataset:
    """STL-10 (Coates et al., 2011): 96×96, 10 classes, 5,000 + 8,000 labelled images. Otherwise as `cifar10`."""
    return _from_tfds("stl10", data_dir)._cut(subset, validation, seed)


def imagenet32(*, subset: int | None = None, validation: float = 0.1, seed: int = 0, data_dir: _Dir = None) -> Dataset:
    """ImageNet at 32×32 (Chrabaszcz et al., 2017, arXiv 1707.08819): 1,000 classes, 1,281,167 + 50,000 images.

    Its validation images, of which the labels are known, are the test split here. The images take 4 GB, and at least
    twice that while they are loaded. Otherwise as `cifar10`; tensorflow-datasets calls it imagenet_resized/32x32.
    """
    source = _from_tfds("imagenet32", data_dir, builder="imagenet_resized/32x32", test="validation")
    return source._cut(subset, validation, seed)


def fashion_mnist(
    *, subset: int | None = None, validation: float = 0.1, seed: int = 0, data_dir: _Dir = None
) -> Dataset:
    """Fashion-MNIST (Xiao et al., 2017, arXiv 1708.07747): 28×28, grey, 10 classes, 60,000 + 10,000 images.

    Read from the four original files, `train-images-idx3-ubyte.gz` and so on, in `data_dir` or where Debian's package
    dataset-fashion-mnist puts them; if they are not there, as `cifar10`. A damaged file is a ValueError.
    """
    folder = Path(data_dir or _DEBIAN_FASHION_MNIST)
    if not (folder / "train-images-idx3-ubyte.gz").exists():
        hint = " Or install Debian's package of it: `apt-get install dataset-fashion-mnist`."
        return _from_tfds("fashion_mnist", data_dir, hint=hint)._cut(subset, validation, seed)
    train, test = (
        Split(
            _read_idx(folder / f"{part}-images-idx3-ubyte.gz", rank=3)[..., None],
            _read_idx(folder / f"{part}-labels-idx1-ubyte.gz", rank=1).astype("int32"),
        )
        for part in ("train", "t10k")
    )
    return Dataset("fashion_mnist", train, train[:0], test, tuple(_FASHION.split(", ")))._cut(subset, validation, seed)


def digits(*, subset: int | None = None, validation: float = 0.1, seed: int = 0) -> Dataset:
    """Handwritten digits that scikit-learn brings along: 8×8, grey, 10 classes, 1,437 + 360 images.

    scikit-learn has no test split; these 360 are stratified and the same for every seed.
    """
    source = _require("sklearn.datasets", f"`digits` needs scikit-learn: {_INSTALL}").load_digits()
    images = (source.images[..., None] * (255 / 16)).round().astype("uint8")  # There, white is 16.
    every = Split(images, source.target.astype("int32"))
    order = _stratified_order(every.labels, seed=0)
    train, test, classes = every[order[:-360]], every[order[-360:]], tuple("0123456789")
    return Dataset("digits", train, train[:0], test, classes, flip=False)._cut(subset, validation, seed)


def image_folder(
    path: str | os.PathLike[str],
    *,
    subset: int | None = None,
    validation: float = 0.1,
    seed: int = 0,
    flip: bool = True,
    skip_unreadable: bool = False,
) -> Dataset:
    """Images of one size in a folder or zip, `train/CLASS/*.jpg` and `test/CLASS/*.jpg` (or .jpeg, .png), read as RGB.

    Args:
        path: the folder or zip. Its name is the name of the data set.
        subset, validation, seed: which training images; see the module.
        flip: whether a mirrored image still shows its class.
        skip_unreadable: whether an image that cannot be read is left out, with a warning, or an error.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        ValueError: if the zip is damaged, an image cannot be read or has another size, a class has no images or is
            not in both train and test, or `subset` or `validation` does not fit the data.
        ImportError: if Pillow is not installed.
    """
    path = Path(path)
    with _opened(path) as (names, read):
        splits = _class_folders(path, names)
        train, test = (_read_images(path, split, splits[split], read, skip_unreadable) for split in ("train", "test"))
    classes = tuple(sorted(splits["train"]))
    return Dataset(path.stem, train, train[:0], test, classes, flip=flip)._cut(subset, validation, seed)


def load(name: str, **settings: Any) -> Dataset:
    """`load("cifar10", subset=4000)` is `cifar10(subset=4000)`; so for all functions here but `image_folder`."""
    known = {make.__name__: make for make in (cifar10, cifar100, stl10, imagenet32, fashion_mnist, digits)}
    if name not in known:
        close = difflib.get_close_matches(str(name), known)
        hint = f"Close matches: {', '.join(repr(match) for match in close)}. " if close else ""
        raise ValueError(f"No data set named {name!r}. {hint}Known: {', '.join(known)}; of your own: `image_folder`.")
    return known[name](**settings)


def _stratified_order(labels: NDArray[np.int32], seed: int) -> NDArray[np.intp]:
    """A random order whose every beginning and end holds each class in its share; first comes one image of each."""
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels)
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)  # Within the class.
    place = np.where(rank == 0, 0, (rank + 0.5) / np.repeat(counts, counts))
    return by_class[np.lexsort((random.random(len(labels)), place))]


def _from_tfds(name: str, data_dir: _Dir, builder: str = "", test: str = "test", hint: str = "") -> Dataset:
    """What tensorflow-datasets has prepared on this machine; every training image is in `train`."""
    tfds = _require("tensorflow_datasets", f"`{name}` needs tensorflow-datasets: {_INSTALL}")
    source = tfds.builder(builder or name, data_dir=data_dir)
    if not source.is_prepared():
        where = f", data_dir={os.fspath(data_dir)!r}" if data_dir else ""
        # Not `tfds build`, which needs apache-beam (tensorflow/datasets issue 5463).
        code = f"import tensorflow_datasets as t; t.builder('{builder or name}'{where}).download_and_prepare()"
        raise FileNotFoundError(f'{name} is not in {source.data_dir}. Prepare it once: `python -c "{code}"`.{hint}')
    train, held_out = (_read_tfds(tfds, source, split) for split in ("train", test))
    return Dataset(name, train, train[:0], held_out, tuple(source.info.features["label"].names))


def _read_tfds(tfds: Any, source: Any, split: str) -> Split:
    try:
        examples = [(example["image"], example["label"]) for example in source.as_data_source(split)]
        images, labels = (np.stack(column) for column in zip(*examples, strict=True))
    except NotImplementedError:  # It is stored as TFRecord, the default.
        mend = "`pip install tensorflow`, or prepare it in another folder with file_format='array_record'"
        tf = _require("tensorflow", f"TFRecord files in {source.data_dir} need TensorFlow: {mend}")
        if keras.backend.backend() != "tensorflow":
            with contextlib.suppress(RuntimeError):  # TensorFlow is in use already.
                tf.config.set_visible_devices([], "GPU")  # It would only take the GPU's memory from the backend.
        images, labels = tfds.as_numpy(source.as_dataset(split=split, batch_size=-1, as_supervised=True))
    return Split(images, labels.astype("int32"))


def _read_idx(path: Path, rank: int) -> NDArray[np.uint8]:
    """An array in MNIST's format: two zeros, 8 for unsigned bytes, the rank, big-endian sizes, the values."""
    try:
        content = gzip.decompress(path.read_bytes())
        if content[:4] != bytes((0, 0, 8, rank)):
            raise ValueError(f"it begins with {content[:4]!r}")
        shape = struct.unpack_from(f">{rank}I", content, 4)
        return np.frombuffer(content, "uint8", offset=4 + 4 * rank).reshape(shape).copy()
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        what = f"a gzipped idx file of unsigned bytes, rank {rank}"
        raise ValueError(f"{path} must be {what}. Received: {error}. Copy or install it again.") from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """The names in a folder or zip, such as `train/cat/` and `train/cat/1.jpg`, and what reads one of them."""
    if path.is_dir():
        folders = [f"{folder.relative_to(path).as_posix()}/" for folder in path.glob("*/*/")]
        files = [file.relative_to(path).as_posix() for file in path.glob("*/*/*")]
        yield folders + files, lambda name: (path / name).read_bytes()
        return
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no folder and no complete zip: {error}. Copy or download it again.") from error
    with archive:
        yield archive.namelist(), archive.read


def _class_folders(path: Path, names: list[str]) -> dict[str, dict[str, list[str]]]:
    """The names of the images by split and class."""
    folders: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for name in sorted(names):
        match name.split("/"):
            case ["train" | "test" as split, label, file] if not label.startswith(".") and not file.startswith("."):
                images = folders[split].setdefault(label, [])
                images += [name] if file.lower().endswith((".jpg", ".jpeg", ".png")) else []
    single = sorted(folders["train"].keys() ^ folders["test"].keys())
    if not folders["train"] or single:
        raise ValueError(
            f"{path} must hold train/CLASS/*.jpg and test/CLASS/*.jpg (or .jpeg, .png), both with all classes. "
            f"Received: {names[:3]} and so on; not in both: {single}."
        )
    return folders


def _read_images(
    path: Path, split: str, folders: dict[str, list[str]], read: Callable[[str], bytes], skip: bool
) -> Split:
    pillow = _require("PIL.Image", f"Reading image files needs Pillow: {_INSTALL}")
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    unreadable: list[str] = []
    classes = sorted(folders)
    for label, name in [(label, name) for label, folder in enumerate(classes) for name in folders[folder]]:
        try:
            picture = pillow.open(io.BytesIO(read(name)))
            if picture.mode[0] in "IF":  # Pillow 13 converts 16 bits to RGB by clipping at 255.
                raise ValueError("it has more than 8 bits a channel")
            image = np.asarray(picture.convert("RGB"))
        except _UNREADABLE as error:
            if not skip:
                mend = "Replace it, or leave such images out with `skip_unreadable=True`"
                raise ValueError(f"{path}: cannot read image '{name}': {error}. {mend}.") from error
            unreadable.append(name)
            continue
        if images and image.shape != images[0].shape:
            sizes = f"{image.shape[:2]} after {images[0].shape[:2]}"
            raise ValueError(f"{path}: images must have one size. Received: '{name}' with {sizes}. Resize them first.")
        images.append(image)
        labels.append(label)
    if unreadable:
        warnings.warn(f"{path}: left out {len(unreadable)} unreadable images: {unreadable[:5]}.", stacklevel=4)
    empty = sorted(set(classes) - {classes[label] for label in labels})
    if empty:
        raise ValueError(f"{path}: no images in class folders {empty} of {split}. Fill them, or remove these classes.")
    return Split(np.stack(images), np.array(labels, "int32"))


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
    batches = positions.batch(batch_size).map(
        lambda batch: (tf.gather(images, batch), tf.gather(labels, batch)), num_parallel_calls=tf.data.AUTOTUNE
    )
    return batches.prefetch(tf.data.AUTOTUNE)


def _require(module: str, mend: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{mend}. Received: {error}.") from error
