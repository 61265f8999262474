"""Kills a training ten times at random moments and prints what was lost; about three minutes.

    KERAS_BACKEND=jax python tests/kill_backup.py --kills 10

Each time a new process goes on with the same Backup. The network is large and the data are few, so that most kills
come while the file is being written. Then the weights are compared with those of a training that was left alone.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EPOCHS = 400


def train(folder, epochs):
    """Trains, and writes a line to done.txt after each epoch that is safe."""
    import keras
    import numpy as np

    from keras_collab.callbacks import Backup

    class Note(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            note(folder / "begun.txt", backup.epoch)

        def on_epoch_end(self, epoch, logs=None):
            note(folder / "done.txt", epoch + 1)

    keras.utils.set_random_seed(0)
    dense = [keras.layers.Dense(1000, activation="relu"), keras.layers.Dropout(0.5), keras.layers.Dense(1000)]
    network = keras.Sequential([keras.Input((20,)), *dense, keras.layers.Dense(3, activation="softmax")])
    network.compile("adam", "sparse_categorical_crossentropy")
    x = np.random.default_rng(0).normal(size=(16, 20)).astype("float32")
    backup = Backup(folder / "backup.weights.h5")
    network.fit(x, np.arange(16) % 3, epochs=epochs, shuffle=False, verbose=0, callbacks=[backup, Note()])
    sums = [float(np.abs(weight).sum(dtype="float64")) for weight in network.get_weights()]
    (folder / "sums.txt").write_text(" ".join(f"{value:.5g}" for value in sums))


def note(path, number):
    """Writes a number, whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(str(number))
    part.replace(path)


def start(folder, epochs):
    (folder / "begun.txt").unlink(missing_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])}
    command = [sys.executable, __file__, "--train", str(folder), "--epochs", str(epochs)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def wait_until_begun(process, folder):
    while not (folder / "begun.txt").exists():
        if process.poll() is not None:
            raise SystemExit(f"The training ended by itself, with status {process.returncode}.")
        time.sleep(0.01)


def wait_for_an_epoch(process, folder, begun):
    """Compiling is over then, and there is something to lose."""
    while process.poll() is None and number(folder / "done.txt") <= begun:
        time.sleep(0.01)


def number(path):
    return int(path.read_text()) if path.exists() else 0


def kill_often(folder, kills, epochs):
    """Whole epochs that were lost, summed; how many a kill has cost is known at the next start."""
    lost = 0
    for kill in range(kills + 1):
        done = number(folder / "done.txt")
        process = start(folder, epochs)
        wait_until_begun(process, folder)
        begun = number(folder / "begun.txt")
        print(f"{kill} kills: epoch {done} was done, goes on from epoch {begun}", flush=True)
        lost += max(0, done - begun)
        if kill < kills:
            wait_for_an_epoch(process, folder, begun)
            time.sleep(random.uniform(0.0, 1.0))
            if process.poll() is not None:
                raise SystemExit(f"The training was over before kill {kill + 1}. Give more --epochs.")
            process.send_signal(signal.SIGKILL)
        process.wait()
    return lost


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        return train(options.train, options.epochs)
    with tempfile.TemporaryDirectory() as name:
        killed, alone = Path(name) / "killed", Path(name) / "alone"
        killed.mkdir()
        alone.mkdir()
        lost = kill_often(killed, options.kills, options.epochs)
        start(alone, options.epochs).wait()
        same = (killed / "sums.txt").read_text() == (alone / "sums.txt").read_text()
    print(f"{options.kills} kills; whole epochs lost: {lost}; the same weights as undisturbed: {same}")
    sys.exit(0 if same and not lost else 1)


if __name__ == "__main__":
    main()
