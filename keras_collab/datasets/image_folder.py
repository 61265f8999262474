"""A data set from image files in a folder or a zip."""

import contextlib
import io
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_collab._checks import INSTALL, require
from keras_collab.datasets.dataset import Dataset, Split, uncut

Reader = Callable[[str], bytes]

_ENDINGS = (".jpg", ".jpeg", ".png")
_LAYOUT = "train/CLASS/*.jpg and test/CLASS/*.jpg (or .jpeg, .png)"
_MAX_BYTES = 2**28  # Of one file, also of one that a zip has compressed.

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
    """Reads images of one size from a folder or zip of class folders, as RGB.

    The layout is `train/CLASS/*.jpg` and `test/CLASS/*.jpg` (or .jpeg, .png). A warning names images that
    lie elsewhere, such as in a folder `val`: those for validation are taken from `train`. Marks of orientation (EXIF)
    are ignored, as by Keras: turn photographs that lie on their side first.

    Args:
        path: the folder or zip. Its name, that of a zip without suffix, becomes the name of the data set.
        subset, validation, seed: choice of training images, see `keras_collab.datasets`.
        flip: whether a mirrored image still shows its class. Defaults to True.
        skip_unreadable: whether to leave out images that cannot be read, with a warning, instead of raising an error.
            Links out of the folder, devices and pipes count as unreadable. Defaults to False.

    Returns:
        A `Dataset` with images `(n, height, width, 3)`.

    Raises:
        FileNotFoundError: if there is nothing at `path`.
        ValueError: if the zip is damaged, an image cannot be read, images differ in size, a class lacks images in
            train or test, or `subset` or `validation` does not fit the data.
        ImportError: if Pillow is not installed.
    """
    path = Path(path)
    with _open(path) as (names, read):
        folders = _class_folders(path, names)
        train = _read_images(path, "train", folders["train"], read, skip_unreadable)
        test = _read_images(path, "test", folders["test"], read, skip_unreadable)
    classes = tuple(sorted(folders["train"]))
    name = path.resolve().name if path.is_dir() else path.stem
    dataset = uncut(name, train, test, classes, flip=flip)
    return dataset.cut(subset, validation, seed)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[tuple[list[str], Reader]]:
    """The names in a folder or zip, such as `train/cat/` and `train/cat/1.jpg`, and a function that reads one."""
    if path.is_dir():
        yield _folder_names(path), lambda name: _read_file(path, name)
        return
    if path.exists() and not path.is_file():  # Opening a pipe would wait for somebody who writes to it.
        raise ValueError(f"{path} must be a folder or a zip. It is neither.")
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no folder and no complete zip: {error}. Copy or download it again.") from error
    with archive:
        yield archive.namelist(), lambda name: _read_member(archive, name)


def _folder_names(path: Path) -> list[str]:
    names = []
    for pattern in ("*", "*/*", "*/*/*", "*/*/*/*"):  # The last ones are told of.
        for file in path.glob(pattern):
            name = file.relative_to(path).as_posix()
            names.append(f"{name}/" if file.is_dir() else name)
    return names


def _read_file(folder: Path, name: str) -> bytes:
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()):
        raise OSError("it is a link that leaves the folder")
    if not file.is_file():  # Opening a pipe would wait for somebody who writes to it.
        raise OSError("it is no regular file")
    _check_size(file.stat().st_size)
    return file.read_bytes()


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    _check_size(archive.getinfo(name).file_size)
    return archive.read(name)


def _check_size(size: int) -> None:
    if size > _MAX_BYTES:
        raise OSError(f"it has {size:,} bytes, more than {_MAX_BYTES:,}")


def _class_folders(path: Path, names: list[str]) -> dict[str, dict[str, list[str]]]:
    """The names of the images by split and class."""
    folders: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    others: list[str] = []
    for name in sorted(names):
        split, _, rest = name.partition("/")
        label, is_inside, file = rest.partition("/")
        if any(part.startswith(".") for part in (split, label, file)):
            continue
        is_class, is_image = split in folders and is_inside, name.lower().endswith(_ENDINGS)
        images = folders[split].setdefault(label, []) if is_class else []
        if is_class and is_image and "/" not in file:
            images.append(name)
        elif is_image or (is_class and not name.endswith("/")):
            others.append(name)
    if others and folders["train"]:
        warnings.warn(f"{path}: left out {len(others)} files that are not {_LAYOUT}: {others[:5]}.", stacklevel=3)
    if not folders["train"] and not folders["test"]:
        raise ValueError(f"{path} must hold {_LAYOUT}. Received: {_summary(names)}. Move the images there.")
    single = sorted(folders["train"].keys() ^ folders["test"].keys())
    if single:
        raise ValueError(
            f"{path} must hold {_LAYOUT}, both with all classes. Received: {_summary(names)}; not in both: {single}."
        )
    return folders


def _summary(names: list[str]) -> str:
    """The first names, and how many images there are by folder."""
    counts: dict[str, int] = {}
    for name in names:
        if name.lower().endswith(_ENDINGS):
            folder = name.rpartition("/")[0] or "the folder itself"
            counts[folder] = counts.get(folder, 0) + 1
    if not counts:
        return f"no images, but {sorted(names)[:3]} and so on" if names else "an empty folder"
    shown = []
    for folder in sorted(counts)[:4]:
        shown.append(f"{counts[folder]} images in {folder}")
    more = f" and {len(counts) - 4} more folders" if len(counts) > 4 else ""
    return ", ".join(shown) + more


def _read_images(path: Path, split: str, folders: dict[str, list[str]], read: Reader, skip: bool) -> Split:
    pillow = require("PIL.Image", f"Reading image files needs Pillow: {INSTALL}")
    unreadable = (*_UNREADABLE, pillow.DecompressionBombError, pillow.DecompressionBombWarning)
    images: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    left_out: list[str] = []
    for label, folder in enumerate(sorted(folders)):
        for name in folders[folder]:
            try:
                picture = _open_image(pillow, read(name))
                size = (picture.height, picture.width)
                expected = images[0].shape[:2] if images else size
                pixels = np.asarray(picture.convert("RGB")) if size == expected else None
            except unreadable as error:
                if not skip:
                    mend = "Replace it, or leave such images out with `skip_unreadable=True`"
                    raise ValueError(f"{path}: cannot read image '{name}': {error}. {mend}.") from error
                left_out.append(name)
                continue
            if pixels is None:
                raise ValueError(
                    f"{path}: images must have one size. Received: '{name}' with {size} after {expected}. Resize them "
                    "first."
                )
            images.append(pixels)
            labels.append(label)
    if left_out:
        warnings.warn(f"{path}: left out {len(left_out)} unreadable images: {left_out[:5]}.", stacklevel=3)
    empty = [folder for label, folder in enumerate(sorted(folders)) if label not in labels]
    if empty:
        raise ValueError(f"{path}: no images in class folders {empty} of {split}. Fill them, or remove these classes.")
    return Split(np.stack(images), np.array(labels, "int32"))


def _open_image(pillow: Any, content: bytes) -> Any:
    """An image of which only the header was read."""
    with warnings.catch_warnings():
        # Pillow 13 warns above 89 million pixels, and raises above twice as many.
        warnings.simplefilter("error", pillow.DecompressionBombWarning)
        picture = pillow.open(io.BytesIO(content))
    if picture.mode[0] in "IF":  # Pillow 13 converts 16 bits to RGB by clipping at 255.
        raise ValueError("it has more than 8 bits a channel")
    return picture
