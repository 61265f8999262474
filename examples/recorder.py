"""What a run keeps after each epoch, so that it can go on from there after it was stopped at any moment."""

import errno
import io
import json
import shutil
import time

import keras
import numpy as np
from keras import ops
from records import write


class Recorder(keras.callbacks.Callback):
    """Keeps after each epoch, in one file that is renamed once it is whole, what a resumed run needs.

    Keras' BackupAndRestore writes over the file that it would restore (Keras 3.15): a kill meanwhile costs the run.

    Args:
        folder: the run's own folder, which exists.
        network: the network without what only training has; its best weights are kept.
        steps: training steps of an epoch.
    """

    def __init__(self, folder, network, steps):
        super().__init__()
        self.path = folder / "checkpoint.npz"
        self.network, self.steps = network, steps
        self.epochs, self.best_weights = [], []

    @property
    def best(self):
        """The number, from 1, of the first of the best epochs among those with validation."""
        accuracies = []
        for values in self.epochs:
            accuracies.append(values.get("val_accuracy", -1))
        return 1 + int(np.argmax(accuracies))

    def columns(self):
        """The values of all epochs by name; those of validation only for the epochs that have them."""
        history = {}
        for values in self.epochs:
            for name, value in values.items():
                history.setdefault(name, []).append(value)
        return history

    def restore(self):
        """Goes back to the last whole epoch, if there is one; returns its number."""
        self.model.optimizer.build(self.model.trainable_variables)
        if not self.path.exists():
            return 0
        with np.load(self.path) as arrays:
            for index, variable in enumerate(self._variables()):
                variable.assign(arrays[f"variable{index}"])
            self.best_weights = []
            for index in range(len(self.network.weights)):
                self.best_weights.append(arrays[f"best{index}"])
            self.epochs = json.loads(str(arrays["epochs"]))
        return len(self.epochs)

    def check_room(self):
        """Raises OSError if the disk has no room for two files of what is kept."""
        size = 0
        for variable in [*self.network.weights, *self._variables()]:
            size += ops.convert_to_numpy(variable).nbytes
        free = shutil.disk_usage(self.path.parent).free
        if free < 2 * size:
            sizes = f"No space left: {free / 1e6:.0f} MB are free, {2 * size / 1e6:.0f} MB are needed"
            raise OSError(errno.ENOSPC, sizes, str(self.path.parent))

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.ended = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        values = {}
        for name, value in logs.items():
            values[name] = float(value)
        if "val_accuracy" in values:
            values["val_epoch"] = epoch + 1
        values["seconds_per_step"] = (self.ended - self.started) / self.steps
        self.epochs.append(values)
        if self.best == len(self.epochs):
            # On torch (Keras 3.15) the arrays share the memory of what is trained.
            self.best_weights = [array.copy() for array in self.network.get_weights()]
        self._keep()

    def _variables(self):
        return [*self.model.variables, *self.model.optimizer.variables]

    def _keep(self):
        arrays = {"epochs": np.array(json.dumps(self.epochs))}
        for index, variable in enumerate(self._variables()):
            arrays[f"variable{index}"] = ops.convert_to_numpy(variable)
        for index, array in enumerate(self.best_weights):
            arrays[f"best{index}"] = array
        file = io.BytesIO()
        np.savez(file, **arrays)
        write(self.path, file.getvalue())
        # For the bar that shows how far the run is.
        write(self.path.with_name("epoch"), str(len(self.epochs)))
