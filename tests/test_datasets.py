"""Data sets: what is read is what was written, cuts are stratified and repeatable, each image is cropped by itself."""

import gzip
import re
import shutil
import struct
import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_collab
from keras_collab import datasets

BACKEND = keras.backend.backend()


def numbered(numbers, size, channels):
    """Images that say which they are."""
    images = np.full((len(numbers), size, size, channels), 7, "uint8")
    images[:, 0, 0, 0], images[:, 0, 1, 0] = np.divmod(numbers, 256)
    return images


def numbers_of(split):
    return split.images[:, 0, 0, 0].astype(int) * 256 + split.images[:, 0, 1, 0]


# -- tensorflow-datasets, in its own format on disk


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
        ("PIL.Image", lambda: datasets.image_folder("pets")),
    ],
)
def test_missing_packages_are_named(monkeypatch, tmp_path, module, read):
    monkeypatch.chdir(write_folder(tmp_path / "pets").parent)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"pip install 'keras-collab\[datasets\]'"):
        read()


# -- The original files of Fashion-MNIST, and how training images are cut


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


# -- Folders and zips of images


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
        (lambda root: root.parent, ValueError, r"must hold train/CLASS/\*.jpg and .* Received: \['pets/"),
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


# -- In front of a network


def own_data(size=16, channels=3, count=60, flip=True):
    rng = np.random.default_rng(3)
    images = rng.integers(0, 256, (count, size, size, channels)) // np.arange(1, channels + 1)
    split = datasets.Split(images.astype("uint8"), (np.arange(count) % 3).astype("int32"))
    return datasets.Dataset("own", split[12:], split[:6], split[6:12], ("a", "b", "c"), flip)


def test_splits_that_do_not_fit():
    data = own_data()
    floats = datasets.Split(data.test.images / 255, data.test.labels)
    short = datasets.Split(data.test.images, data.test.labels[1:])
    for bad in (floats, short):
        with pytest.raises(ValueError, match=r"own: a split must have n uint8 images .* Received: test with"):
            datasets.Dataset("own", data.train, data.validation, bad, data.classes)


def test_normalization_has_the_moments_of_the_training_split():
    data = own_data()
    (normalize,) = data.preprocessing(augment=False)
    pixels = data.train.images.astype("float64")
    expected = (data.test.images - pixels.mean(axis=(0, 1, 2))) / pixels.std(axis=(0, 1, 2))
    assert normalize.dtype_policy.name == "float32"
    np.testing.assert_allclose(keras.ops.convert_to_numpy(normalize(data.test.images)), expected, atol=1e-5)


def test_padding_grows_with_the_images_and_only_mirrored_data_is_mirrored():
    for size, padding in ((8, 1), (28, 4), (32, 4), (96, 12)):
        crop, flip, normalize = own_data(size, count=15).preprocessing()
        assert (crop.padding, type(flip), type(normalize)) == (padding, layers.RandomFlip, layers.Normalization)
    crop, normalize = own_data(flip=False).preprocessing()
    assert (type(crop), type(normalize)) == (datasets.RandomPadCrop, layers.Normalization)


def corners(images, crops, padding):
    """Where each crop lies in its padded image."""
    padded = np.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    height, width = images.shape[1:3]
    places = [(top, left) for top in range(2 * padding + 1) for left in range(2 * padding + 1)]
    found = []
    for image, crop in zip(padded, crops, strict=True):
        (place,) = [(y, x) for y, x in places if (image[y : y + height, x : x + width] == crop).all()]
        found.append(place)
    return found


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_each_image_is_cropped_at_a_place_of_its_own_and_only_in_training(dtype):
    layer = datasets.RandomPadCrop(2, seed=1)
    images = np.random.default_rng(0).integers(1, 256, (200, 6, 7, 3)).astype(dtype)
    crops = keras.ops.convert_to_numpy(layer(images, training=True))
    assert crops.dtype == dtype
    places = corners(images, crops, 2)
    assert set(places) == {(top, left) for top in range(5) for left in range(5)}  # All 25, in 200 draws.
    again = corners(images, keras.ops.convert_to_numpy(layer(images, training=True)), 2)
    assert np.mean([a == b for a, b in zip(places, again, strict=True)]) < 0.2
    same = datasets.RandomPadCrop(2, seed=1)(images, training=True)
    assert corners(images, keras.ops.convert_to_numpy(same), 2) == places
    assert (keras.ops.convert_to_numpy(layer(images, training=False)) == images).all()
    assert (keras.ops.convert_to_numpy(layer(images)) == images).all()


def test_bad_padding():
    with pytest.raises(ValueError, match=r"RandomPadCrop: `padding` must be an integer >= 1. Received: padding=0"):
        datasets.RandomPadCrop(0)


class Recorder(layers.Layer):
    """Keeps the largest difference between what images of one batch have become."""

    def build(self, shape):
        self.spread = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.spread.assign(keras.ops.max(keras.ops.std(x, axis=0)))
        return x


def test_images_differ_inside_a_compiled_step():
    data = own_data()
    same = datasets.Split(np.repeat(data.train.images[:1], 24, axis=0), data.train.labels[:24])
    data = datasets.Dataset("same", same, same[:8], same[:8], data.classes)
    crop, flip, _ = data.preprocessing()
    for preprocessing in ([crop], [flip]):
        recorder = Recorder()
        head = [layers.GlobalAveragePooling2D(), layers.Dense(3)]
        model = keras.Sequential([keras.Input(data.input_shape), *preprocessing, recorder, *head])
        model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(data.batches("train", 12), shuffle=False, verbose=0)
        assert float(recorder.spread) > 10
        model.evaluate(data.batches("test", 8), verbose=0)
        assert float(recorder.spread) == pytest.approx(0, abs=1e-3)


def test_preprocessing_is_saved_and_loaded(tmp_path):
    data = own_data()
    model = keras.Sequential([keras.Input(data.input_shape), *data.preprocessing()])
    expected = model.predict(data.test.images, verbose=0)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(restored.predict(data.test.images, verbose=0), expected)
    assert restored.layers[0].get_config() == model.layers[0].get_config()
    assert restored.layers[0].padding == 2


# -- Batches


def epochs_of(batches, count):
    """The images of each epoch, in order, with labels checked."""
    found = []
    for _ in range(count):
        parts = [(np.asarray(images), np.asarray(labels)) for images, labels in batches]
        images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
        assert (images.dtype, labels.dtype) == ("uint8", "int32")
        assert [len(part) for part, _ in parts] == [20, 20, 8]
        found.append([(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)])
        if isinstance(batches, keras.utils.PyDataset):
            batches.on_epoch_end()
    return found


def test_each_epoch_has_all_images_in_a_seeded_order_of_its_own():
    data = own_data()
    given = [(image.tobytes(), int(label)) for image, label in zip(data.train.images, data.train.labels, strict=True)]
    first, second = epochs_of(data.batches("train", 20), 2)
    assert sorted(first) == sorted(second) == sorted(given)
    assert first != second
    assert epochs_of(data.batches("train", 20), 2) == [first, second]
    assert epochs_of(data.batches("train", 20, seed=1), 1) != [first]
    assert epochs_of(data.batches("train", 20, shuffle=False), 2) == [given, given]


def test_batches_are_of_the_backends_kind_and_fit_takes_them():
    data = own_data()
    batches = data.batches("train", 20)
    assert isinstance(batches, keras.utils.PyDataset) == (BACKEND != "tensorflow")
    network = [layers.Conv2D(4, 3, name="conv1"), layers.Conv2D(4, 3, name="conv2"), layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input(data.input_shape), *data.preprocessing(), *network, layers.Dense(3)])
    model = keras_collab.wrap(model)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    held_out = data.batches("validation", 4, shuffle=False)
    history = model.fit(batches, validation_data=held_out, epochs=2, shuffle=False, verbose=0)
    assert np.isfinite(history.history["val_loss"]).all()
    images, labels = data.test.images, data.test.labels
    loss, accuracy = model.evaluate(data.batches("test", 4), verbose=0)[:2]
    expected = model.evaluate(images, labels, verbose=0)[:2]
    assert [loss, accuracy] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda data: data.batches("training", 4), r"`split` must be one of \('train', 'validation', 'test'\)"),
        (lambda data: data.batches("train", 0), r"`batch_size` must be an integer >= 1. Received: batch_size=0"),
        (
            lambda data: datasets.Dataset("own", data.train, data.train[:0], data.test, data.classes).batches(
                "validation", 4
            ),
            r"split 'validation' holds no images. Load the data set with `validation` above 0",
        ),
    ],
)
def test_batches_that_cannot_be(ask, message):
    with pytest.raises(ValueError, match=message):
        ask(own_data())
