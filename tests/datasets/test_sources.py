"""Named data sets: what is read is what was written, and cuts are stratified and repeatable."""

import gzip
import re
import struct
import sys

import numpy as np
import pytest

from keras_collab import datasets


def numbered(numbers, size, channels):
    """Images that say which they are."""
    images = np.full((len(numbers), size, size, channels), 7, "uint8")
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.divmod(numbers, 256)
    return images


def numbers_of(split):
    return split.images[:, 0, 0, 0].astype(int) * 256 + split.images[:, 0, 1, 0]


# Data sets in the format of tensorflow-datasets.


def prepare(monkeypatch, data_dir, name, splits, file_format="tfrecord"):
    """What `tfds build` does, with examples of our own instead of a download."""
    pytest.importorskip("tensorflow")
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder(name, data_dir=data_dir, file_format=file_format)
    features = builder.info.features

    def example(number, image):
        label = -1 if number < 0 else number % features["label"].num_classes
        extra = {"id": str(number), "coarse_label": 0}
        return {"image": image, "label": label} | {key: extra[key] for key in features if key in extra}

    def generate(numbers):
        size, _, channels = features["image"].shape
        return (
            (str(n), example(n, image)) for n, image in zip(numbers, numbered(numbers, size, channels), strict=True)
        )

    def generators(self, manager):
        return {split: generate(numbers) for split, numbers in splits.items()}

    monkeypatch.setattr(type(builder), "_split_generators", generators)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))


TFDS = {
    "cifar10": ("cifar10", 10, 32, "test"),
    "cifar100": ("cifar100", 100, 32, "test"),
    "stl10": ("stl10", 10, 96, "test"),
    "imagenet32": ("imagenet_resized/32x32", 1000, 32, "validation"),
    "fashion_mnist": ("fashion_mnist", 10, 28, "test"),
}


@pytest.mark.parametrize(("name", "file_format"), [*((name, "tfrecord") for name in TFDS), ("cifar10", "array_record")])
def test_reads_what_tensorflow_datasets_has_prepared(monkeypatch, tmp_path, name, file_format):
    builder, classes, size, test = TFDS[name]
    train_numbers, test_numbers = range(classes + 10), range(5000, 5006)
    splits = {"train": train_numbers, test: test_numbers}
    if name == "stl10":
        splits["unlabelled"] = range(-3, 0)
    prepare(monkeypatch, tmp_path, builder, splits, file_format)
    data = datasets.load(name, data_dir=tmp_path, validation=10)
    assert (data.name, len(data.classes)) == (name, classes)
    assert data.input_shape == (size, size, 1 if name == "fashion_mnist" else 3)
    assert (len(data.train), len(data.validation), len(data.test)) == (classes, 10, 6)
    read = np.concatenate([numbers_of(data.train), numbers_of(data.validation)])
    assert sorted(read) == list(train_numbers)
    assert sorted(numbers_of(data.test)) == list(test_numbers)
    for split in (data.train, data.validation, data.test):
        assert (split.images.dtype, split.labels.dtype) == ("uint8", "int32")
        assert (split.labels == numbers_of(split) % classes).all()
    assert sorted(data.train.labels) == list(range(classes))  # Ten are cut off, and one of each class stays.


@pytest.mark.parametrize("name", TFDS)
def test_unprepared_data_names_the_command_that_prepares_it(tmp_path, name):
    pytest.importorskip("tensorflow_datasets")
    builder, *_ = TFDS[name]
    with pytest.raises(FileNotFoundError, match=rf"{name} is not in .*python -c .*t.builder\('{builder}', data_dir='/"):
        datasets.load(name, data_dir=tmp_path / "a b")


def test_that_command_prepares_it(monkeypatch, tmp_path):
    prepare(monkeypatch, tmp_path / "elsewhere", "cifar10", {"train": range(20), "test": range(3)})
    with pytest.raises(FileNotFoundError) as caught:
        datasets.cifar10(data_dir=tmp_path / "a b")
    exec(re.search(r'`python -c "(.*)"`', str(caught.value))[1], {})
    assert len(datasets.cifar10(data_dir=tmp_path / "a b", validation=0).train) == 20


def test_only_array_record_is_read_without_tensorflow(monkeypatch, tmp_path):
    prepare(monkeypatch, tmp_path / "tfrecord", "cifar10", {"train": range(20), "test": range(3)})
    prepare(monkeypatch, tmp_path / "array", "cifar10", {"train": range(20), "test": range(3)}, "array_record")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match=r"TFRecord .* `pip install tensorflow`, or .* file_format='array_record'"):
        datasets.cifar10(data_dir=tmp_path / "tfrecord")
    assert len(datasets.cifar10(data_dir=tmp_path / "array", validation=0).train) == 20


@pytest.mark.parametrize(
    ("module", "read"),
    [
        ("tensorflow_datasets", datasets.stl10),
        ("sklearn.datasets", datasets.digits),
    ],
)
def test_missing_packages_are_named(monkeypatch, module, read):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'keras-collab\[datasets\]'"):
        read()


# The original files of Fashion-MNIST.


def write_idx(path, values):
    header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(header + values.astype("uint8").tobytes(), compresslevel=1))


def write_fashion(folder, train_labels, test_labels=tuple(range(10))):
    for part, labels in (("train", train_labels), ("t10k", test_labels)):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", numbered(np.arange(len(labels)), 28, 1)[..., 0])
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", np.array(labels))
    return folder


def uneven_labels():
    """Classes 0 to 9 with 10, 20, ... 100 images, mixed."""
    return np.random.default_rng(5).permutation(np.repeat(np.arange(10), 10 * np.arange(1, 11)))


def test_reads_fashion_mnist_from_its_original_files(tmp_path):
    labels = uneven_labels()
    data = datasets.fashion_mnist(data_dir=write_fashion(tmp_path, labels), validation=0)
    assert (data.input_shape, data.classes[0], data.classes[9]) == ((28, 28, 1), "T-shirt/top", "Ankle boot")
    assert sorted(numbers_of(data.train)) == list(range(550))
    assert (data.train.labels == labels[numbers_of(data.train)]).all()
    assert (numbers_of(data.test) == np.arange(10)).all()
    assert "train=550 images, validation=0 images, test=10 images, classes=10" in repr(data)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[: len(content) // 2], "ended before the end-of-stream"),
        (lambda content: b"<html>" + content, "Not a gzipped file"),
        (lambda content: gzip.compress(gzip.decompress(content)[:-1]), "cannot reshape"),
        (lambda content: gzip.compress(b"\0\0\x0d\x03" + gzip.decompress(content)[4:]), r"it begins with b'.*\\r"),
        (lambda content: gzip.compress(b"\0\0\x08\x03"), "unpack_from requires"),
    ],
)
def test_damaged_idx_files(tmp_path, damage, message):
    path = write_fashion(tmp_path, uneven_labels()) / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=rf"t10k-images-idx3-ubyte.gz must be a gzipped idx.*{message}"):
        datasets.fashion_mnist(data_dir=tmp_path)


def test_labels_out_of_range(tmp_path):
    write_fashion(tmp_path, uneven_labels(), test_labels=[3, 11, 12])
    with pytest.raises(ValueError, match=r"from 0 to 9. Received: \[11, 12\] in test"):
        datasets.fashion_mnist(data_dir=tmp_path)


def test_cuts_are_stratified_nested_and_seeded(tmp_path):
    labels = uneven_labels()
    write_fashion(tmp_path, labels)
    shares = np.bincount(labels) / len(labels)
    test_set = datasets.fashion_mnist(data_dir=tmp_path).test

    def read(**cut):
        data = datasets.fashion_mnist(data_dir=tmp_path, **cut)
        assert (data.test.images == test_set.images).all()
        train, held_out = set(numbers_of(data.train)), set(numbers_of(data.validation))
        assert len(train) == len(data.train)
        assert not train & held_out
        for split in (data.train, data.validation):
            off = np.bincount(split.labels, minlength=10) - shares * len(split)
            assert abs(off).max() <= 1
        return train, held_out

    everything, tenth = read()
    assert (len(everything), len(tenth)) == (495, 55)
    previous = set()
    for subset in (10, 11, 100, 301, 495):
        train, held_out = read(subset=subset)
        assert len(train) == subset
        assert previous <= train
        assert held_out == tenth
        previous = train
    smallest = datasets.fashion_mnist(data_dir=tmp_path, subset=10).train
    assert sorted(smallest.labels) == list(range(10))
    assert read(validation=55)[1] == tenth
    assert read(subset=100, seed=1)[0] != read(subset=100)[0] == read(subset=100)[0]
    assert tenth < read(validation=0.5)[1]


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        ({"subset": 9}, r"`subset` must be an integer from 10, one image a class, to 495, .* Received: subset=9"),
        ({"subset": 496}, r"to 495, all training images without those for validation. Received: subset=496"),
        ({"subset": 0.5}, r"Received: subset=0.5"),
        ({"validation": 1.0}, r"`validation` must be a share .* of the 550 .* Received: validation=1.0"),
        ({"validation": -0.1}, r"Received: validation=-0.1"),
        ({"validation": 541}, r"leave at least one of each of 10 classes. Received: validation=541"),
        ({"validation": 0.99}, r"Received: validation=0.99"),
        ({"validation": True}, r"Received: validation=True"),
        ({"validation": "0.1"}, r"Received: validation='0.1'"),
        ({"validation": float("nan")}, r"Received: validation=nan"),
    ],
)
def test_cuts_that_do_not_fit(tmp_path, cut, message):
    write_fashion(tmp_path, uneven_labels())
    with pytest.raises(ValueError, match=message):
        datasets.fashion_mnist(data_dir=tmp_path, **cut)


def test_digits():
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    data, other = datasets.digits(), datasets.digits(seed=1, subset=50)
    assert (len(data.train), len(data.validation), len(data.test)) == (1293, 144, 360)
    assert (data.test.images == other.test.images).all()
    assert set(np.bincount(data.test.labels)) <= {34, 35, 36, 37}  # A fifth of 174 to 183.
    assert (data.train.images.max(), data.classes[3]) == (255, "3")
    source = {image.tobytes() for image in sklearn_datasets.load_digits().images}
    assert {(image / (255 / 16)).round().tobytes() for image in data.test.images[..., 0]} <= source


def test_unknown_names_have_close_matches():
    with pytest.raises(ValueError, match=r"No data set named 'cifar-10'. Close matches: 'cifar10', .*Known: cifar10, "):
        datasets.load("cifar-10")
