"""What a run keeps beside its `Backup`: the weights of its best epoch, the time of a step, and how far it is."""

import time

import keras
import numpy as np
from records import write


class Recorder(keras.callbacks.Callback):
    """Comes before the run's `Backup`, so that a kill between the two costs an epoch, which is then trained again.

    Args:
        folder: the run's own folder, which exists.
        network: the network without what only training has; its best weights are kept.
        steps: training steps of an epoch.
        backup: the run's `Backup`, with the history of the epochs before.
    """

    def __init__(self, folder, network, steps, backup):
        super().__init__()
        self.folder, self.network, self.steps, self.backup = folder, network, steps, backup

    def best_weights(self, epoch):
        return self.folder / f"best{epoch}.weights.h5"

    def on_epoch_begin(self, epoch, logs=None):
        write(self.folder / "epoch", str(epoch))  # For the bar that shows how far the run is.
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.ended = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds_per_step"] = (self.ended - self.started) / self.steps
        accuracies = np.array([-1.0, *self.backup.history.get("val_accuracy", [])])  # NaN without validation.
        if logs.get("val_accuracy", -1.0) > np.nanmax(accuracies):
            self.network.save_weights(self.best_weights(epoch + 1))
            for number in range(int(np.nanargmax(accuracies))):  # The last best one stays until the backup is whole.
                self.best_weights(number).unlink(missing_ok=True)
