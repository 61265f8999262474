"""A data set: its splits, its augmentation and its batches."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_collab
from keras_collab import datasets

BACKEND = keras.backend.backend()


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
