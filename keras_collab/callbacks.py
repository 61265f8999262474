"""A callback that lets training resume after an interruption."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras import ops

from keras_collab._files import write_error, write_whole

__all__ = ["Backup"]

_ENTRY = "keras_collab_backup"


class Backup(keras.callbacks.Callback):
    """Lets `fit` resume after an interruption at any moment, including a kill and a power cut.

    After each epoch, the callback saves weights, optimizer with its learning rate, random state, history and epoch
    number to one file. A new file replaces the old one only once it is complete, so at most the current epoch is lost.
    Keras' BackupAndRestore (Keras 3.15) overwrites the file that it would restore and keeps the epoch number in another
    one: a kill at the wrong moment loses the training.

    To resume, call the same `fit` with the same path. The file stays after training; delete it once the result is
    saved, or a later `fit` has nothing to do, or goes on with a training that `EarlyStopping` ended. The order of
    batches and the state of other callbacks, such as `EarlyStopping`, are not restored. On PyTorch, layers without a
    seed of their own, such as `Dropout(0.2)`, draw from PyTorch's generator, which is not restored either; and terms
    without one draw as before only after the same `keras.utils.set_random_seed`.

    Works for wrapped and for plain models, which must be built and compiled.

    Args:
        path: file whose name ends in `.weights.h5`, one for each training. Its folder is created if needed.

    Attributes:
        epoch: number of complete epochs, including those before the interruption.
        history: dict of lists, the history of all these epochs; NaN for an epoch without that column, for instance
            without validation.

    Raises:
        ValueError: if the name has another ending; at the start of `fit`, if the model is not built, or the variables
            in the file have other shapes than those of model and optimizer.
        OSError: at the start of `fit` or after an epoch, if the file cannot be written; the last complete file is kept.

    >>> model.fit(train, epochs=100, callbacks=[keras_collab.callbacks.Backup("run/backup.weights.h5")])
    """

    def __init__(self, path: str | Path):
        super().__init__()
        self.path = Path(path)
        if not self.path.name.endswith(".weights.h5"):
            raise ValueError(
                f"Backup: `path` must end in '.weights.h5', as Keras' weights do. Received: {str(path)!r}."
            )
        self.epoch = 0
        self.history: dict[str, list[Any]] = {}

    def on_train_begin(self, logs=None):
        model = self.model
        if model.optimizer is None:
            raise ValueError(f"Backup needs a model that is compiled with an optimizer. Received: {model.name!r}.")
        if not model.built:
            raise ValueError(
                f"Backup needs a built model. Received: {model.name!r}, which is not. Call it on a batch first."
            )
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self.epoch, self.history = 0, {}
        resumes = self.path.exists()
        if resumes:
            self._restore()
        else:
            self._save()  # What cannot be written is known before the first epoch.
        self._check_room()
        if resumes:  # How Keras' own BackupAndRestore tells `fit` where to begin (Keras 3.15).
            model._initial_epoch = self.epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.model._initial_epoch = None  # It is meant for this `fit` alone.

    def on_epoch_end(self, epoch, logs=None):
        self.epoch = epoch + 1
        values = {}
        for name, value in (logs or {}).items():
            values[name] = np.asarray(value, "float64").tolist()  # A metric may have several values.
        for name in {**self.history, **values}:
            column = self.history.setdefault(name, [float("nan")] * epoch)
            column.append(values.get(name, float("nan")))
        self._save()

    def on_train_end(self, logs=None):
        self.model._initial_epoch = None

    def _save(self) -> None:
        write_whole(self.path, self._write)

    def _write(self, part: Path) -> None:
        self.model.save_weights(part)
        entry = {"shapes": self._shapes(), "epoch": self.epoch, "history": self.history}
        with h5py.File(part, "a") as file:
            group = file.create_group(_ENTRY)
            group["json"] = json.dumps(entry)
            for index, variable in enumerate(random_states(self.model)):
                group[f"random{index}"] = ops.convert_to_numpy(variable)

    def _restore(self) -> None:
        with self._open() as file:
            group = file[_ENTRY]
            try:
                entry = json.loads(group["json"][()])
                shapes, epoch, history = entry["shapes"], int(entry["epoch"]), dict(entry["history"])
            except (KeyError, TypeError, ValueError) as error:
                raise self._unfit(f"its epoch and history cannot be read ({type(error).__name__}: {error})") from error
            if shapes != self._shapes():
                raise self._unfit("weights or optimizer have other shapes")
            if epoch < 0 or any(len(column) != epoch for column in history.values()):
                raise self._unfit(f"its history is not that of {epoch} epochs")
            for index, variable in enumerate(random_states(self.model)):
                variable.assign(np.array(group[f"random{index}"]))
        self.model.load_weights(self.path)
        self.epoch, self.history = epoch, history

    def _open(self) -> h5py.File:
        try:
            file = h5py.File(self.path, "r")
        except OSError as error:
            raise self._unfit(str(error)) from error
        if _ENTRY not in file:
            file.close()
            raise self._unfit("it has weights, but no epoch number")
        return file

    def _unfit(self, reason: str) -> ValueError:
        return ValueError(
            f"{self.path} is no backup of the model {self.model.name!r}: {reason}. One file belongs to one training: "
            "give another path, or delete the file to train anew."
        )

    def _shapes(self) -> list[list[int]]:
        """Keras 3.15 restores what fits, with a warning: here all has to."""
        variables = [*self.model.weights, *self.model.optimizer.variables, *random_states(self.model)]
        return [list(variable.shape) for variable in variables]

    def _check_room(self) -> None:
        """For a moment there are two files, the last complete one and the next."""
        size, free = self.path.stat().st_size, shutil.disk_usage(self.path.parent).free
        if free < size:
            raise write_error(self.path, OSError(errno.ENOSPC, f"{size:,} bytes are needed, {free:,} are free"))


def epochs_in(path: Path) -> int:
    """The number of complete epochs in a file of `Backup`; 0 if it cannot be read."""
    try:
        with h5py.File(path, "r") as file:
            return int(json.loads(file[_ENTRY]["json"][()])["epoch"])
    except (OSError, KeyError, TypeError, ValueError):
        return 0


def random_states(model: keras.Model) -> list[Any]:
    """The states of Dropout and its like, which Keras does not save with the weights (Keras 3.15)."""
    saved = {id(weight) for weight in model.weights}
    return [variable for variable in model.variables if id(variable) not in saved]
