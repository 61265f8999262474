"""Diagnose: what repeats itself and what agrees in the quickstart's network: untrained, trained plainly, and wrapped.

    KERAS_BACKEND=tensorflow python examples/diagnose.py      # or jax, or torch

Needs no download. Writes diagnosis.txt, and a picture of each of the three.
"""

import argparse
from pathlib import Path

import keras
from quickstart import BATCH_SIZE, build_network, digits
from rich.console import Console

import keras_collab


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each training (default: 20)")
    parser.add_argument("--output", type=Path, default=Path("quickstart_output"), help="directory for the results")
    options = parser.parse_args()
    console, (train, validation, _) = Console(record=True, width=100), digits()
    options.output.mkdir(parents=True, exist_ok=True)

    for kind in ("untrained", "plain", "wrapped"):
        keras.utils.clear_session()  # So that the layers of all three are called alike.
        keras.utils.set_random_seed(0)  # The same initial weights and the same batches.
        network = build_network()
        if kind != "untrained":
            model = keras_collab.wrap(network) if kind == "wrapped" else network
            model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
            model.fit(*train, batch_size=BATCH_SIZE, epochs=options.epochs, verbose=0)
        console.rule(kind)
        found = keras_collab.diagnose(network, validation, verbose=False)
        console.print(found)
        figure = found.figure()
        figure.suptitle(f"{kind}: {figure.get_suptitle()}")
        figure.savefig(options.output / f"diagnosis-{kind}.png", dpi=110)
    console.save_text(options.output / "diagnosis.txt")


if __name__ == "__main__":
    main()
