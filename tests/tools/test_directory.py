"""The directory of a comparison: it holds one, has one owner, and names a file that it cannot read."""

import functools
import json
import shutil

import filelock
import keras
import numpy as np
import pytest
from helpers import FEW_STEPS, Unsaved, compare_tiny, compile_model, small_data, small_network, tiny_network

import keras_collab
from keras_collab.tools._directory import training_settings


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of a comparison that is over."""
    directory = tmp_path_factory.mktemp("finished")
    compare_tiny(directory=directory)
    return directory


def zero_terms():
    return [keras_collab.KernelSimilarity(0.0)]


def trained_elsewhere():
    network = tiny_network()
    network.set_weights([2 * weight for weight in network.get_weights()])
    return network


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 3}, "epochs: 2, now 3"),
        ({"arms": ["plain", "kernel_similarity"]}, "arms, 1: 'wrapped', now 'kernel_sim"),
        ({"arms": {"plain": None, "wrapped": zero_terms}}, "training of 'wrapped'"),
        (
            {"compile": lambda model: model.compile("sgd", "sparse_categorical_crossentropy")},
            "training of 'plain'.*SGD",
        ),
        ({"train": small_data(48)}, r"digest of train: \d+, now \d+"),
        ({"validation": (small_data(40)[0], small_data(40)[1][::-1])}, "digest of validation"),
        ({"build_network": lambda: tiny_network("tanh")}, "digest of the network"),
        ({"build_network": small_network}, "parameters: .* now"),
        ({"build_network": trained_elsewhere}, r"mean size of the initial weights: '0\.\d+', now '0\.\d+'"),
    ],
)
def test_one_directory_holds_one_comparison(changes, message, finished):
    with pytest.raises(ValueError, match=rf"(?s)another comparison.*{message}.*another directory="):
        compare_tiny(directory=finished, **changes)


TOO_LONG = {
    "metric": "m",
    "metric_name": "m",
    "larger_is_better": True,
    "first_batch": 1,
    "risen": 1.0,
    "history": {"m": [1, 2, 3]},
}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("seed0-plain.json", b'{"metric": "val_acc'),
        ("seed0-plain.json", b"[1]"),
        ("seed0-plain.json", b"\xff\xfe"),
        ("seed0-plain.json", json.dumps(TOO_LONG).encode()),
        ("comparison.json", b"[]"),
        ("start0.weights.h5", b"cut off"),
    ],
)
def test_a_damaged_file_is_named(name, content, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    (tmp_path / "copy" / "seed0-wrapped.json").unlink()  # To be trained again, from the start that is kept.
    (tmp_path / "copy" / name).write_bytes(content)
    mend = "Delete the folder" if name == "comparison.json" else "Delete it to train again what it held"
    with pytest.raises(ValueError, match=rf"{name} cannot be read: .*{mend}"):
        compare_tiny(directory=tmp_path / "copy")


def test_files_of_others_are_left(tmp_path):
    for name in ("start.weights.h5", "started.weights.h5", "backup-best.weights.h5"):
        (tmp_path / name).write_bytes(b"of a user")
    compare_tiny(directory=tmp_path, epochs=1, arms=["plain"])
    for name in ("start.weights.h5", "started.weights.h5", "backup-best.weights.h5"):
        assert (tmp_path / name).read_bytes() == b"of a user"


def test_a_directory_without_its_description_is_refused(tmp_path):
    (tmp_path / "start0.weights.h5").write_bytes(b"of whom?")
    with pytest.raises(ValueError, match=r"holds start0.weights.h5, but no comparison.json"):
        compare_tiny(directory=tmp_path)
    assert (tmp_path / "start0.weights.h5").read_bytes() == b"of whom?"


class Unbounded(keras.losses.SparseCategoricalCrossentropy):
    """A loss with a number that JSON does not hold."""

    def __init__(self):
        super().__init__()
        self.largest = np.inf


def test_numbers_that_json_does_not_hold(tmp_path):
    def compile(model):
        model.compile("adam", Unbounded(), **FEW_STEPS)

    for _ in range(2):
        assert len(compare_tiny(directory=tmp_path, compile=compile, epochs=1, arms=["plain"]).runs) == 1


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras 3.15 on torch; `pytest.warns` warns it anew.
def test_data_that_are_not_those_of_the_directory_are_told_of(tmp_path):
    def first():
        return small_data(40)

    def other():
        return small_data(40)[0] + 1, small_data(40)[1]

    compare_tiny(directory=tmp_path, train=first, arms=["plain"])
    with pytest.warns(UserWarning, match="different training batches"):
        compare_tiny(directory=tmp_path, train=other, arms=["plain"])


def test_what_differs_is_named_by_its_place(finished):
    def compile(model):
        optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 9))
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **FEW_STEPS)

    with pytest.raises(ValueError, match=r"'plain', compiled, optimizer, config, learning_rate, class.*'CosineDecay'"):
        compare_tiny(directory=finished, compile=compile)


def test_names_that_keras_numbers_do_not_make_another_comparison(tmp_path):
    def compile(model):
        model.compile("adam", "categorical_crossentropy", metrics=[keras.metrics.AUC()], **FEW_STEPS)

    x, y = small_data(40)
    data = x, keras.utils.to_categorical(y, 3)
    changes = {"train": data, "validation": data, "compile": compile, "epochs": 1, "arms": ["plain"]}
    for seeds in (1, 2):
        assert len(compare_tiny(directory=tmp_path, seeds=seeds, **changes).runs) == seeds


def test_a_call_that_failed_leaves_its_directory_to_the_next(tmp_path):
    x, y = small_data(40)
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        compare_tiny(directory=tmp_path, train=(x, np.stack([y, y], axis=1)), arms=["plain"])
    compare_tiny(directory=tmp_path, epochs=1, arms=["plain"])


def test_a_training_that_was_interrupted_is_not_deleted(tmp_path):
    def interrupt(epoch, logs):
        if epoch == 1:
            raise KeyboardInterrupt

    def fails(model):
        compile_model(model, optimizer="adam", **FEW_STEPS)
        fit = model.fit
        stop = keras.callbacks.LambdaCallback(on_epoch_begin=interrupt)
        model.fit = lambda *args, callbacks, **kwargs: fit(*args, callbacks=[*callbacks, stop], **kwargs)

    with pytest.raises(KeyboardInterrupt):
        compare_tiny(directory=tmp_path, compile=fails, arms=["plain"])
    (backup,) = tmp_path.glob("backup-*.weights.h5")
    with pytest.raises(ValueError, match=r"another comparison\. What differs: epochs: 2, now 3"):
        compare_tiny(directory=tmp_path, epochs=3, arms=["plain"])
    assert backup.exists()
    compare_tiny(directory=tmp_path, arms=["plain"])  # Goes on.


@pytest.mark.parametrize("name", ["start", "a/b", "terms [/low]"])
def test_arms_have_any_name(name, tmp_path):
    comparison = compare_tiny(directory=tmp_path, arms={name: None, "plain": None}, epochs=1)
    assert comparison.difference("plain").mean == 0
    assert f"to {name}" in " ".join(str(comparison).split())
    first, second = comparison.runs
    assert second.history["loss"] == pytest.approx(first.history["loss"], rel=1e-5)


def test_what_keras_cannot_save_is_compared(tmp_path):
    def compile(model):
        loss = functools.partial(keras.losses.sparse_categorical_crossentropy)
        model.compile(keras.optimizers.SGD(Unsaved()), loss, metrics=["accuracy"], **FEW_STEPS)

    arms = {"plain": None, "half": lambda: [keras_collab.KernelSimilarity(lambda step: 0.5)]}
    for seeds in (1, 2):
        comparison = compare_tiny(directory=tmp_path, compile=compile, seeds=seeds, epochs=1, arms=arms)
        assert len(comparison.runs) == 2 * seeds


class Scaled(keras.losses.Loss):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def call(self, y_true, y_pred):
        return self.scale * keras.losses.sparse_categorical_crossentropy(y_true, y_pred)


def compiled(rate=0.1, scale=None, branches=2):
    model = keras_collab.baselines.MultiHead(small_network(), branches=branches)
    loss = Scaled(scale) if scale else functools.partial(keras.losses.sparse_categorical_crossentropy)
    model.compile(keras.optimizers.SGD(rate), loss, metrics=["accuracy"])
    return model


@pytest.mark.parametrize(
    ("before", "now"), [({}, {"rate": 0.2}), ({"scale": 1.0}, {"scale": 2.0}), ({}, {"branches": 3})]
)
def test_settings_that_keras_does_not_save_are_told_apart(before, now):
    settings = training_settings(compiled(**now))
    assert settings != training_settings(compiled(**before))
    assert settings == training_settings(compiled(**now))


def test_one_directory_has_one_owner(tmp_path):
    with filelock.FileLock(tmp_path / "owner.lock"), pytest.raises(ValueError, match="is in use"):
        compare_tiny(directory=tmp_path)


def diverging(model):
    model.compile(keras.optimizers.SGD(1e30), "sparse_categorical_crossentropy")


def test_records_are_json(tmp_path):
    compare_tiny(directory=tmp_path, compile=diverging, epochs=1, arms=["plain"])
    record = json.loads((tmp_path / "seed0-plain.json").read_text(), parse_constant=pytest.fail)
    assert record["history"]["val_loss"] == [None]
