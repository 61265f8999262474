"""A data set from files of images, in a folder or a zip."""

import contextlib
import io
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_collab._checks import INSTALL, require
from keras_collab.datasets.dataset import Dataset, Split

# What Pillow raises at a file that is no image, and zipfile at a member that is damaged or encrypted.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


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
    return Dataset(path.stem, train, train[:0], test, classes, flip=flip).cut(subset, validation, seed)


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
    pillow = require("PIL.Image", f"Reading image files needs Pillow: {INSTALL}")
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
