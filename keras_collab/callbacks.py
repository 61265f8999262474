"""A callback that keeps a training safe from interruptions."""

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
from keras import ops

from keras_collab._files import write_error, write_whole

_ENTRY = "keras_collab_backup"


class Backup(keras.callbacks.Callback):
    """Lets `fit` go on after an interruption at any moment, a kill or a power cut included.

    After each epoch weights, optimizer, random state, history and the number of the epoch are written into one file,
    beside the last one, whose place it takes once it is whole. So there is always a whole one, and at most the epoch
    under way is lost. Keras' BackupAndRestore (Keras 3.15) writes over the file that it would restore, and keeps the
    epoch in another one: a kill at the wrong moment costs the training.

    The same `fit` with the same path goes on after the last whole epoch. The file stays after training, since the
    process may end before its result is saved: delete it when that is done, or a later `fit` finds nothing to do. The
    order of the batches is up to the data; other callbacks, such as `EarlyStopping`, begin anew.

    Works for wrapped and for plain models, which must be built and compiled.

    Args:
        path: the file, whose name ends in `.weights.h5`. Its folder is made if need be. One file belongs to one
            training.

    Attributes:
        epoch: whole epochs so far, also those before the interruption.
        history: what `fit` returns as its history, of all these epochs: one list a column. NaN for an epoch that lacks
            a column, as those without validation do.

    Raises:
        ValueError: if the name ends otherwise, or at the start of `fit` if the file is not of this model.
        OSError: at the start of `fit`, or after an epoch, if the file cannot be written; the last whole one stays.

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
        self.history: dict[str, list[float]] = {}

    def on_train_begin(self, logs=None):
        model = self.model
        if not model.built:
            raise ValueError(
                f"Backup needs a model that is built. Received: {model.name!r}; call it on a batch before."
            )
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        if self.path.exists():
            self._restore()
            # How Keras' own BackupAndRestore tells `fit` where to begin (Keras 3.15).
            model._initial_epoch = self.epoch
        else:
            self._save()  # What cannot be written is known before the first epoch.
        self._check_room()

    def on_epoch_begin(self, epoch, logs=None):
        self.model._initial_epoch = None  # It is meant for this `fit` alone.

    def on_epoch_end(self, epoch, logs=None):
        self.epoch = epoch + 1
        values = {name: float(value) for name, value in (logs or {}).items()}
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
            for index, variable in enumerate(self._random_states()):
                group[f"random{index}"] = ops.convert_to_numpy(variable)

    def _restore(self) -> None:
        with self._open() as file:
            group = file[_ENTRY]
            entry = json.loads(group["json"][()])
            if entry["shapes"] != self._shapes():
                raise self._unfit("weights or optimizer have other shapes")
            for index, variable in enumerate(self._random_states()):
                variable.assign(np.array(group[f"random{index}"]))
        self.model.load_weights(self.path)
        self.epoch, self.history = entry["epoch"], entry["history"]

    def _open(self) -> h5py.File:
        try:
            file = h5py.File(self.path, "r")
        except OSError as error:
            raise self._unfit(str(error)) from error
        if _ENTRY not in file:
            file.close()
            raise self._unfit("it has weights, but no epoch")
        return file

    def _unfit(self, reason: str) -> ValueError:
        return ValueError(
            f"{self.path} is no backup of the model {self.model.name!r}: {reason}. One file belongs to one training: "
            "give another path, or delete the file to train anew."
        )

    def _shapes(self) -> list[list[int]]:
        """Keras 3.15 restores what fits, with a warning: here all has to."""
        variables = [*self.model.weights, *self.model.optimizer.variables, *self._random_states()]
        return [list(variable.shape) for variable in variables]

    def _random_states(self) -> list[Any]:
        """The states of Dropout and its like, which Keras does not save with the weights (Keras 3.15)."""
        saved = {id(weight) for weight in self.model.weights}
        return [variable for variable in self.model.variables if id(variable) not in saved]

    def _check_room(self) -> None:
        """There are two files for a moment, the last whole one and the next."""
        size, free = self.path.stat().st_size, shutil.disk_usage(self.path.parent).free
        if free < size:
            raise write_error(self.path, OSError(f"{size:,} bytes are needed, {free:,} are free"))
