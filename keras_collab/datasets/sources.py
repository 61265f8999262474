"""Well-known data sets, read from this machine. Nothing is downloaded."""

import contextlib
import gzip
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from keras_collab._checks import INSTALL, close_matches, require
from keras_collab.datasets.dataset import Dataset, Split, stratified_order, uncut

_Dir = str | os.PathLike[str] | None
_DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"  # Where the package dataset-fashion-mnist puts its files.
_FASHION = "T-shirt/top, Trouser, Pullover, Dress, Coat, Sandal, Shirt, Sneaker, Bag, Ankle boot"


def cifar10(
    *,
    subset: int | None = None,
    validation: float = 0.1,
    seed: int = 0,
    data_dir: _Dir = None,
) -> Dataset:
    """CIFAR-10 (Krizhevsky, 2009): 32×32, 10 classes, 50,000 + 10,000 images.

    Read from the files that tensorflow-datasets has prepared on this machine.

    Args:
        subset, validation, seed: choice of training images, see `keras_collab.datasets`.
        data_dir: data folder of tensorflow-datasets. Defaults to that package's default.

    Returns:
        A `Dataset`.

    Raises:
        FileNotFoundError: if the data set is not prepared; the message has the command that prepares it.
        ValueError: if `subset` or `validation` does not fit the data.
        ImportError: if tensorflow-datasets is not installed, or TensorFlow is needed to read the files and is not.
    """
    return _from_tfds("cifar10", data_dir).cut(subset, validation, seed)


def cifar100(
    *,
    subset: int | None = None,
    validation: float = 0.1,
    seed: int = 0,
    data_dir: _Dir = None,
) -> Dataset:
    """CIFAR-100 (Krizhevsky, 2009): 32×32, 100 classes, 50,000 + 10,000 images. Otherwise as `cifar10`."""
    return _from_tfds("cifar100", data_dir).cut(subset, validation, seed)


def stl10(
    *,
    subset: int | None = None,
    validation: float = 0.1,
    seed: int = 0,
    data_dir: _Dir = None,
) -> Dataset:
    """STL-10 (Coates et al., 2011): 96×96, 10 classes, 5,000 + 8,000 labelled images. Otherwise as `cifar10`."""
    return _from_tfds("stl10", data_dir).cut(subset, validation, seed)


def imagenet32(
    *,
    subset: int | None = None,
    validation: float = 0.1,
    seed: int = 0,
    data_dir: _Dir = None,
) -> Dataset:
    """ImageNet at 32×32 (Chrabaszcz et al., 2017, arXiv 1707.08819): 1,000 classes, 1,281,167 + 50,000 images.

    The test split is ImageNet's validation set, since the labels of its test set are not public. The images take 4 GB
    of memory, and at least twice that while loading. Otherwise as `cifar10`; its name in tensorflow-datasets is
    imagenet_resized/32x32.
    """
    source = _from_tfds("imagenet32", data_dir, builder="imagenet_resized/32x32", test="validation")
    return source.cut(subset, validation, seed)


def fashion_mnist(
    *,
    subset: int | None = None,
    validation: float = 0.1,
    seed: int = 0,
    data_dir: _Dir = None,
) -> Dataset:
    """Fashion-MNIST (Xiao et al., 2017, arXiv 1708.07747): 28×28, grey, 10 classes, 60,000 + 10,000 images.

    Read from the four original files, `train-images-idx3-ubyte.gz` and so on, in `data_dir` or in the folder of
    Debian's package dataset-fashion-mnist. If they are not there, it is read as `cifar10` is. A damaged file raises a
    ValueError.
    """
    folder = Path(data_dir or _DEBIAN_FASHION_MNIST)
    if not (folder / "train-images-idx3-ubyte.gz").exists():
        hint = " Or install Debian's package of it: `apt-get install dataset-fashion-mnist`."
        return _from_tfds("fashion_mnist", data_dir, hint=hint).cut(subset, validation, seed)
    train, test = _read_fashion(folder, "train"), _read_fashion(folder, "t10k")
    dataset = uncut("fashion_mnist", train, test, tuple(_FASHION.split(", ")))
    return dataset.cut(subset, validation, seed)


def _read_fashion(folder: Path, part: str) -> Split:
    images = _read_idx(folder / f"{part}-images-idx3-ubyte.gz", rank=3)
    labels = _read_idx(folder / f"{part}-labels-idx1-ubyte.gz", rank=1)
    return Split(images[..., None], labels.astype("int32"))


def digits(
    *,
    subset: int | None = None,
    validation: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Handwritten digits that come with scikit-learn: 8×8, grey, 10 classes, 1,437 + 360 images.

    scikit-learn has no test split. The 360 test images here are stratified, and the same for every seed.

    Args:
        subset, validation, seed: choice of training images, see `keras_collab.datasets`.

    Raises:
        ValueError: if `subset` or `validation` does not fit the data.
        ImportError: if scikit-learn is not installed.
    """
    sklearn_datasets = require("sklearn.datasets", f"`digits` needs scikit-learn: {INSTALL}")
    source = sklearn_datasets.load_digits()
    images = source.images[..., None] * (255 / 16)  # White is 16 in the source.
    images = images.round().astype("uint8")
    every = Split(images, source.target.astype("int32"))
    order = stratified_order(every.labels, seed=0)
    train, test = every[order[:-360]], every[order[-360:]]
    dataset = uncut("digits", train, test, tuple("0123456789"), flip=False)
    return dataset.cut(subset, validation, seed)


def load(name: str, **settings: Any) -> Dataset:
    """Loads a data set by its name: `load("cifar10", subset=4000)` is `cifar10(subset=4000)`.

    Args:
        name: "cifar10", "cifar100", "stl10", "imagenet32", "fashion_mnist" or "digits".
        settings: keyword arguments of the function of that name.

    Raises:
        ValueError: if there is no data set of that name.
    """
    known = {make.__name__: make for make in _NAMED}
    if name not in known:
        hint = f"{close_matches(str(name), known)} Known: {', '.join(known)}; of your own: `image_folder`.".lstrip()
        raise ValueError(f"No data set named {name!r}. {hint}")
    return known[name](**settings)


_NAMED = (cifar10, cifar100, stl10, imagenet32, fashion_mnist, digits)


def _from_tfds(
    name: str,
    data_dir: _Dir,
    builder: str = "",
    test: str = "test",
    hint: str = "",
) -> Dataset:
    """A data set that tensorflow-datasets has prepared on this machine; every training image is in `train`."""
    tfds = require("tensorflow_datasets", f"`{name}` needs tensorflow-datasets: {INSTALL}")
    source = tfds.builder(builder or name, data_dir=data_dir)
    if not source.is_prepared():
        where = f", data_dir={os.fspath(data_dir)!r}" if data_dir else ""
        # Not `tfds build`, which needs apache-beam (tensorflow/datasets issue 5463).
        code = f"import tensorflow_datasets as t; t.builder('{builder or name}'{where}).download_and_prepare()"
        raise FileNotFoundError(f'{name} is not in {source.data_dir}. Prepare it once: `python -c "{code}"`.{hint}')
    classes = tuple(source.info.features["label"].names)
    return uncut(name, _read_tfds(tfds, source, "train"), _read_tfds(tfds, source, test), classes)


def _read_tfds(tfds: Any, source: Any, split: str) -> Split:
    try:
        examples = source.as_data_source(split)
        images = np.stack([example["image"] for example in examples])
        labels = np.stack([example["label"] for example in examples])
    except NotImplementedError:  # It is stored as TFRecord, the default.
        mend = "`pip install tensorflow`, or prepare it in another folder with file_format='array_record'"
        tf = require("tensorflow", f"TFRecord files in {source.data_dir} need TensorFlow: {mend}")
        if keras.backend.backend() != "tensorflow":
            with contextlib.suppress(RuntimeError):  # TensorFlow is in use already.
                tf.config.set_visible_devices([], "GPU")  # TensorFlow 2.21 would take memory from the backend.
        whole = source.as_dataset(split=split, batch_size=-1, as_supervised=True)
        images, labels = tfds.as_numpy(whole)
    return Split(images, labels.astype("int32"))


def _read_idx(path: Path, rank: int) -> NDArray[np.uint8]:
    """An array in MNIST's format: two zeros, 8 for unsigned bytes, the rank, big-endian sizes, the values."""
    try:
        content = gzip.decompress(path.read_bytes())
        beginning = bytes([0, 0, 8, rank])
        if content[:4] != beginning:
            raise ValueError(f"it begins with {content[:4]!r}")
        shape = struct.unpack_from(f">{rank}I", content, 4)
        values = np.frombuffer(content, "uint8", offset=4 + 4 * rank)
        return values.reshape(shape).copy()
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        what = f"a gzipped idx file of unsigned bytes, rank {rank}"
        raise ValueError(f"{path} must be {what}. Received: {error}. Copy or install it again.") from error
