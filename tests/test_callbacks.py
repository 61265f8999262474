"""A training that was interrupted goes on as if it had not been, and its file is whole at every moment."""

import errno
import json
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from helpers import FEW_STEPS, compile_model, small_data, small_network, tiny_network

import keras_collab
from keras_collab.callbacks import Backup

EPOCHS = 4


class Die(keras.callbacks.Callback):
    """Ends the training as a kill would, at the start of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise KeyboardInterrupt


def new_model(wrapped=False, network=tiny_network):
    keras.utils.set_random_seed(3)
    network = network()
    model = keras_collab.wrap(network) if wrapped else network
    return network, compile_model(model, optimizer="adam", **FEW_STEPS)


def fit(model, *callbacks):
    x, y = small_data()
    settings = {"epochs": EPOCHS, "batch_size": 8, "shuffle": False, "verbose": 0, "validation_data": (x, y)}
    return model.fit(x, y, callbacks=list(callbacks), **settings).history


def statistics_and_dropout():
    return small_network(dropout=0.5)


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "wrapped"])
def test_goes_on_as_if_never_stopped(wrapped, tmp_path):
    network, model = new_model(wrapped, statistics_and_dropout)
    expected = fit(model)
    path = tmp_path / "new" / "backup.weights.h5"
    for stop in (0, 1, 3):
        _, model = new_model(wrapped, statistics_and_dropout)
        with pytest.raises(KeyboardInterrupt):
            fit(model, Backup(path), Die(stop))
    resumed, model = new_model(wrapped, statistics_and_dropout)
    backup = Backup(path)
    assert list(map(len, fit(model, backup).values())) == [1] * len(expected)

    assert backup.epoch == EPOCHS
    assert backup.history.keys() == expected.keys()
    for name, column in expected.items():
        np.testing.assert_allclose(backup.history[name], column, rtol=1e-5, err_msg=name)
    for ours, theirs in zip(resumed.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert int(model.optimizer.iterations) == EPOCHS * 3
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_finished_training_is_not_repeated_and_the_model_can_be_trained_further(tmp_path):
    network, model = new_model()
    fit(model, Backup(tmp_path / "a.weights.h5"))
    trained = network.get_weights()
    again, model = new_model()
    assert fit(model, Backup(tmp_path / "a.weights.h5")) == {}
    for ours, theirs in zip(again.get_weights(), trained, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(fit(model)["loss"]) == EPOCHS  # A fit without the callback begins at its first epoch.


def test_one_object_for_a_second_training(tmp_path):
    backup = Backup(tmp_path / "a.weights.h5")
    _, model = new_model()
    fit(model, backup)
    backup.path.unlink()
    _, model = new_model()
    with pytest.raises(KeyboardInterrupt):
        fit(model, backup, Die(0))
    _, model = new_model()
    assert len(fit(model, Backup(backup.path))["loss"]) == EPOCHS


@pytest.mark.parametrize("moment", ["weights", "epoch", "rename"])
def test_the_last_whole_epoch_survives_a_stop_at_any_moment_of_writing(moment, tmp_path, monkeypatch):
    path = tmp_path / "backup.weights.h5"
    _, model = new_model()
    with pytest.raises(KeyboardInterrupt):
        fit(model, Backup(path), Die(2))

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    def half(self, file):
        Path(file).write_bytes(path.read_bytes()[:1000])
        raise KeyboardInterrupt

    dying = {
        "weights": (keras.Model, "save_weights", half),
        "epoch": (keras_collab.callbacks.json, "dumps", stop),
        "rename": (Path, "replace", stop),
    }
    _, model = new_model()
    with monkeypatch.context() as patched:
        patched.setattr(*dying[moment])
        with pytest.raises(KeyboardInterrupt):
            fit(model, Backup(path))
    _, model = new_model()
    backup = Backup(path)
    assert len(fit(model, backup)["loss"]) == EPOCHS - 2
    assert len(backup.history["loss"]) == EPOCHS


def test_columns_that_an_epoch_lacks(tmp_path):
    _, model = new_model()
    x, y = small_data()
    backup = Backup(tmp_path / "a.weights.h5")
    model.fit(x, y, epochs=3, validation_data=(x, y), validation_freq=2, verbose=0, callbacks=[backup])
    assert np.isnan(backup.history["val_loss"]).tolist() == [True, False, True]
    assert np.isfinite(backup.history["loss"]).all()


def test_a_folder_that_cannot_be_written_to_is_known_before_training(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    _, model = new_model()
    die = Die(0)  # Not reached.
    with pytest.raises(OSError, match=r"backup.weights.h5 could not be written: .*choose a folder"):
        fit(model, Backup(tmp_path / "file" / "backup.weights.h5"), die)


def test_a_disk_without_room_for_the_next_file_is_known_before_training(tmp_path, monkeypatch):
    _, model = new_model()
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"could not be written: .* bytes are needed, 100 are free. .*Make room"):
        fit(model, Backup(tmp_path / "a.weights.h5"), Die(0))


def test_a_disk_that_fills_up_costs_the_epoch_under_way(tmp_path, monkeypatch):
    path = tmp_path / "a.weights.h5"
    _, model = new_model()
    with pytest.raises(KeyboardInterrupt):
        fit(model, Backup(path), Die(2))

    def full(self, file):
        Path(file).write_bytes(b"part")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(keras.Model, "save_weights", full)
        with pytest.raises(OSError, match=r"No space left on device.*are intact"):
            fit(model, Backup(path))
    _, model = new_model()
    assert len(fit(model, Backup(path))["loss"]) == EPOCHS - 2


def test_a_file_of_another_model_or_of_something_else_is_named(tmp_path):
    _, model = new_model()
    fit(model, Backup(tmp_path / "a.weights.h5"))
    model.save_weights(tmp_path / "b.weights.h5")
    (tmp_path / "c.weights.h5").write_text("text")
    for name, other in (("a", small_network(classes=5, dropout=0.5)), ("b", model), ("c", model)):
        compile_model(other, optimizer="adam", **FEW_STEPS)
        with pytest.raises(
            ValueError, match=rf"{name}.weights.h5 is no backup of the model '{other.name}'.*another path"
        ):
            fit(other, Backup(tmp_path / f"{name}.weights.h5"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda entry: entry.pop("shapes"), "KeyError: 'shapes'"),
        (lambda entry: entry.update(epoch=-5), "history is not that of -5 epochs"),
        (lambda entry: entry.update(history={"loss": [1.0]}), "history is not that of 4 epochs"),
    ],
)
def test_a_file_whose_entry_is_damaged_is_named(change, reason, tmp_path):
    path = tmp_path / "a.weights.h5"
    _, model = new_model()
    fit(model, Backup(path))
    with h5py.File(path, "a") as file:
        group = file["keras_collab_backup"]
        entry = json.loads(group["json"][()])
        change(entry)
        del group["json"]
        group["json"] = json.dumps(entry)
    _, other = new_model()
    with pytest.raises(ValueError, match=rf"(?s)a.weights.h5 is no backup of the model.*{reason}"):
        fit(other, Backup(path))


def test_a_metric_of_several_values(tmp_path):
    x, y = small_data()
    _, model = new_model()
    model.compile("sgd", "categorical_crossentropy", metrics=[keras.metrics.F1Score()])
    backup = Backup(tmp_path / "a.weights.h5")
    model.fit(x, keras.utils.to_categorical(y, 3), epochs=2, verbose=0, callbacks=[backup])
    assert np.shape(backup.history["f1_score"]) == (2, 3)


def test_a_fit_that_another_callback_ends_at_its_start_leaves_no_trace(tmp_path):
    class Ends(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            raise KeyboardInterrupt

    _, model = new_model(True)
    fit(model, Backup(tmp_path / "a.weights.h5"))
    _, model = new_model(True)
    x, y = small_data()
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, epochs=9, verbose=0, callbacks=[Backup(tmp_path / "a.weights.h5"), Ends()])
    assert len(model.fit(x, y, epochs=2, verbose=0).history["loss"]) == 2


def test_the_name_of_the_file_is_checked():
    with pytest.raises(ValueError, match=r"must end in '.weights.h5'.*Received: 'backup'"):
        Backup("backup")
