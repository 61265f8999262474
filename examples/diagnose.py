"""Diagnose: what repeats itself and what agrees in a small ResNet on digits: untrained, trained plainly, and wrapped.

    python examples/diagnose.py

Needs no download. Prints the tables, and writes a picture of each of the three to runs/.
"""

import argparse
from pathlib import Path

import keras
from rich.console import Console
from train_run import new_network

import keras_collab


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each training (default: 20)")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="directory of the pictures (default: runs)")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    console = Console()
    dataset = keras_collab.datasets.load("digits", subset=250, validation=0.2, seed=0)
    for kind in ("untrained", "plain", "wrapped"):
        keras.utils.clear_session()  # So that the layers of all three have the same names.
        keras.utils.set_random_seed(0)  # The same initial weights and the same batches.
        network = new_network(dataset, "resnet8")
        if kind != "untrained":
            model = keras_collab.wrap(network) if kind == "wrapped" else network
            model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
            model.fit(dataset.train.images, dataset.train.labels, batch_size=50, epochs=options.epochs, verbose=0)
        console.rule(kind)
        diagnosis = keras_collab.diagnose(network, (dataset.validation.images, dataset.validation.labels))
        diagnosis.figure().savefig(options.output / f"diagnosis-{kind}.png", dpi=110)


if __name__ == "__main__":
    main()
