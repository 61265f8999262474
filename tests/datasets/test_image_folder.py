"""Folders and zips of images: what is read is what was written; what cannot be read is named."""

import importlib
import os
import re
import shutil
import struct
import sys
import zipfile
import zlib

import numpy as np
import pytest

from keras_collab import datasets


def write_folder(root):
    """Images of two classes: 6 of each in train, 3 in test; cats are red, dogs are green."""
    image_module = pytest.importorskip("PIL.Image")
    for split, count in (("train", 6), ("test", 3)):
        for channel, label in enumerate(("cat", "dog")):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = np.zeros((8, 9, 3), "uint8")
                pixels[..., channel] = 200 + number
                kind = "png" if number % 2 else "JPG"
                image_module.fromarray(pixels).save(folder / f"{number}.{kind}")
            (folder / ".DS_Store").write_bytes(b"junk")
    (root / "README.txt").write_text("cats and dogs")
    (root / "train" / "labels.csv").write_text("0,cat")
    return root


def zipped(folder):
    return shutil.make_archive(str(folder), "zip", folder)


@pytest.mark.parametrize("pack", [lambda folder: folder, zipped], ids=["folder", "zip"])
def test_reads_folders_and_zips(tmp_path, pack):
    data = datasets.image_folder(pack(write_folder(tmp_path / "pets")), validation=2, flip=False)
    assert (data.name, data.classes, data.input_shape, data.flip) == ("pets", ("cat", "dog"), (8, 9, 3), False)
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 2, 6)
    for split in (data.train, data.validation, data.test):
        assert (split.images.argmax(axis=-1) == split.labels[:, None, None]).all()
    # A jpg keeps colours but for a few levels, a png keeps them all.
    assert data.test.images[:3].max(axis=(1, 2, 3)) == pytest.approx([200, 201, 202], abs=4)
    assert (data.test.images[1] == [201, 0, 0]).all()


def truncate(root):
    path = zipped(root)
    with open(path, "r+b") as file:
        file.truncate(1000)
    return path


def without(root, *names):
    for name in names:
        shutil.rmtree(root / name)
    return root


def emptied(root):
    for file in (root / "test" / "dog").iterdir():
        file.unlink()
    return root


def resized(root):
    pillow = pytest.importorskip("PIL.Image")
    pillow.new("RGB", (7, 5)).save(root / "train" / "cat" / "3.png")
    return root


def all_larger(root):
    pillow = pytest.importorskip("PIL.Image")
    for path in (root / "test").glob("*/?.*"):
        pillow.new("RGB", (10, 10)).save(path)
    return root


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (lambda root: root / "nowhere", FileNotFoundError, "nowhere"),
        (truncate, ValueError, r"pets.zip is no folder and no complete zip: .*again"),
        (lambda root: root / "README.txt", ValueError, r"README.txt is no folder and no complete zip"),
        (lambda root: root.parent, ValueError, r"must hold train/CLASS/.* Received: .* images in pets/"),
        (
            lambda root: without(root, "train/cat", "train/dog") / "train",
            ValueError,
            r"must hold train/CLASS/.* Received: no images, but \['labels.csv'\]",
        ),
        (lambda root: without(root, "test"), ValueError, r"not in both: \['cat', 'dog'\]"),
        (lambda root: without(root, "train/dog"), ValueError, r"both with all classes. .* not in both: \['dog'\]"),
        (emptied, ValueError, r"no images in class folders \['dog'\] of test. Fill them"),
        (lambda root: zipped(emptied(root)), ValueError, r"no images in class folders \['dog'\] of test"),
        (resized, ValueError, r"Received: 'train/cat/3.png' with \(5, 7\) after \(8, 9\). Resize them first"),
        (all_larger, ValueError, r"as those of `train`, \(8, 9, 3\).* Received: test with uint8 images \(6, 10,"),
    ],
)
def test_folders_that_do_not_fit(tmp_path, spoil, error, message):
    path = spoil(write_folder(tmp_path / "pets"))
    with pytest.raises(error, match=message):
        datasets.image_folder(path)


@pytest.mark.parametrize("pack", [lambda folder: folder, zipped], ids=["folder", "zip"])
def test_unreadable_images_are_named_and_skipped_only_on_demand(tmp_path, pack):
    root = write_folder(tmp_path / "pets")
    (root / "train" / "cat" / "2.JPG").write_bytes(b"no image")
    png = root / "train" / "dog" / "1.png"
    png.write_bytes(png.read_bytes()[:50])
    path = pack(root)
    with pytest.raises(ValueError, match=r"cannot read image 'train/cat/2.JPG': .* `skip_unreadable=True`"):
        datasets.image_folder(path)
    with pytest.warns(UserWarning, match=r"left out 2 unreadable images: \['train/cat/2.JPG', 'train/dog/1.png'\]"):
        data = datasets.image_folder(path, skip_unreadable=True, validation=0)
    assert (np.bincount(data.train.labels) == [5, 5]).all()


def test_images_of_16_bits_are_not_clipped(tmp_path):
    root = write_folder(tmp_path / "pets")
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(np.full((8, 9), 1000, "uint16")).save(root / "train" / "cat" / "1.png")
    with pytest.raises(ValueError, match=r"cannot read image 'train/cat/1.png': it has more than 8 bits a channel"):
        datasets.image_folder(root)


def test_a_damaged_image_in_a_zip_is_named(tmp_path):
    path = zipped(write_folder(tmp_path / "pets"))
    with open(path, "r+b") as file:
        place = file.read().index(b"train/dog/3.png") + len("train/dog/3.png") + 5
        file.seek(place)
        file.write(bytes(20))
    with pytest.raises(ValueError, match=r"cannot read image 'train/dog/3.png'"):
        datasets.image_folder(path)


def test_a_class_whose_images_are_all_unreadable(tmp_path):
    root = write_folder(tmp_path / "pets")
    for path in (root / "test" / "cat").glob("?.*"):
        path.write_bytes(b"no image")
    with (
        pytest.raises(ValueError, match=r"no images in class folders \['cat'\] of test"),
        pytest.warns(UserWarning, match="left out 3 unreadable images"),
    ):
        datasets.image_folder(root, skip_unreadable=True)


def test_without_pillow_the_error_names_the_extra(monkeypatch, tmp_path):
    path = write_folder(tmp_path / "pets")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"pip install 'keras-collab\[datasets\]'"):
        datasets.image_folder(path)


def png_header(width, height):
    """A PNG file that says how large it is and holds next to nothing (PNG specification, sections 5.3 and 11.2.2)."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("pack", [lambda folder: folder, zipped], ids=["folder", "zip"])
@pytest.mark.parametrize("side", [10_000, 60_000])  # Pillow warns of the first and refuses the second.
@pytest.mark.parametrize("name", ["train/cat/0.JPG", "train/dog/3.png"])  # The first image, and a later one.
def test_a_decompression_bomb_is_named(tmp_path, pack, side, name):
    root = write_folder(tmp_path / "pets")
    (root / name).write_bytes(png_header(side, side))
    path = pack(root)
    with pytest.raises(ValueError, match=rf"cannot read image '{name}': Image size \(\d+ pixels\) exceeds limit"):
        datasets.image_folder(path)
    with pytest.warns(UserWarning, match=rf"left out 1 unreadable images: \['{name}'\]"):
        data = datasets.image_folder(path, skip_unreadable=True, validation=0)
    assert len(data.train) == 11


def test_an_image_of_another_size_is_not_decoded(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "pets")
    (root / "train/cat/3.png").write_bytes(png_header(9_000, 9_000))
    decoded = []
    convert = pytest.importorskip("PIL.Image").Image.convert
    monkeypatch.setattr(
        "PIL.Image.Image.convert", lambda image, mode: decoded.append(image.size) or convert(image, mode)
    )
    with pytest.raises(ValueError, match=r"'train/cat/3.png' with \(9000, 9000\) after \(8, 9\)"):
        datasets.image_folder(root)
    assert set(decoded) == {(9, 8)}


@pytest.mark.parametrize("pack", [lambda folder: folder, zipped], ids=["folder", "zip"])
def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch, pack):
    root = write_folder(tmp_path / "pets")
    (root / "test/cat/1.png").write_bytes(bytes(50_000))
    path = pack(root)
    # The package's function of this name hides the module.
    monkeypatch.setattr(importlib.import_module("keras_collab.datasets.image_folder"), "_MAX_BYTES", 40_000)
    monkeypatch.setattr(zipfile.ZipFile, "read", no_large(zipfile.ZipFile.read))
    with pytest.raises(ValueError, match=r"'test/cat/1.png': it has 50,000 bytes, more than 40,000"):
        datasets.image_folder(path)


def no_large(read):
    def checked(archive, name):
        assert archive.getinfo(name).file_size < 40_000
        return read(archive, name)

    return checked


def test_pipes_and_links_out_of_the_folder_are_no_images(tmp_path):
    root = write_folder(tmp_path / "pets")
    secret = tmp_path / "secret.png"
    shutil.copy(root / "train/cat/1.png", secret)
    (root / "train/cat/link.png").symlink_to(secret)
    (root / "train/cat/inside.png").symlink_to(root / "train/cat/1.png")  # A link that stays in the folder is read.
    (root / "train/dog/broken.png").symlink_to(root / "nowhere.png")
    os.mkfifo(root / "train/dog/pipe.png")
    (root / "train/dog/device.png").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=r"'train/cat/link.png': it is a link that leaves the folder"):
        datasets.image_folder(root)
    names = ["train/cat/link.png", "train/dog/broken.png", "train/dog/device.png", "train/dog/pipe.png"]
    with pytest.warns(UserWarning, match=re.escape(str(names))):
        data = datasets.image_folder(root, skip_unreadable=True, validation=0)
    assert len(data.train) == 13


def flat(root):
    """Images without class folders."""
    for file in sorted(root.glob("train/*/*.png")):
        file.rename(root / f"{file.parent.name}{file.name}")
    return without(root, "train", "test")


def one_level(root):
    """Class folders without train and test."""
    for folder in sorted(root.glob("train/*/")):
        folder.rename(root / folder.name)
    return without(root, "train", "test")


@pytest.mark.parametrize("pack", [lambda folder: folder, zipped], ids=["folder", "zip"])
@pytest.mark.parametrize(
    ("spoil", "received"),
    [(flat, "6 images in the folder itself"), (one_level, "6 images in cat, 6 images in dog")],
)
def test_another_layout_is_said_beside_the_expected_one(tmp_path, pack, spoil, received):
    path = pack(spoil(write_folder(tmp_path / "pets")))
    with pytest.raises(ValueError, match=rf"must hold train/CLASS/\*.jpg and test/CLASS/.*Received: {received}"):
        datasets.image_folder(path)


def test_an_empty_folder(tmp_path):
    with pytest.raises(ValueError, match=r"Received: an empty folder. Move the images there"):
        datasets.image_folder(tmp_path)


def test_a_pipe_is_neither_folder_nor_zip(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match=r"pipe must be a folder or a zip\. It is neither"):
        datasets.image_folder(tmp_path / "pipe")


def test_files_that_are_no_images_are_told_of(tmp_path):
    root = write_folder(tmp_path / "pets")
    for name in ("a.webp", "notes.txt", ".hidden"):
        (root / "train" / "cat" / name).write_text("other")
    with pytest.warns(UserWarning, match=r"left out 2 files that are not train/CLASS/.*: \['train/cat/a.webp'"):
        assert len(datasets.image_folder(root, validation=0).train) == 12


@pytest.mark.parametrize("pack", [lambda folder: folder, zipped], ids=["folder", "zip"])
@pytest.mark.parametrize("place", ["val/cat", "train/cat/young", "train"])
def test_images_elsewhere_are_told_of(pack, place, tmp_path):
    root = write_folder(tmp_path / "pets")
    (root / place).mkdir(parents=True, exist_ok=True)
    shutil.copy(root / "train" / "cat" / "1.png", root / place / "other.png")
    with pytest.warns(UserWarning, match=rf"left out 1 files that are not .*: \['{place}/other.png'\]"):
        assert len(datasets.image_folder(pack(root), validation=0).train) == 12
