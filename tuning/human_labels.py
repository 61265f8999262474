"""Search on labels that people got wrong (CIFAR-10N worst): what the found weights are worth on test images.

    python tuning/human_labels.py --data FOLDER        # as for examples/panel.py: cifar10.zip and cifar10n.csv

Two searches have the same number of trials: `plain` over learning rate and epochs, `terms` over which terms there are,
their weights and epochs, so that plain training is among its candidates. The best of each, chosen on validation images
with true labels, then trains with three other seeds and is measured on test images. Results are appended to
tuning/results/human-labels.jsonl; give the command again to go on where it stopped.
"""

import argparse
import dataclasses
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow 2.21 logs it as an error that there is no GPU.
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import keras
import keras_tuner
from methods import TERMS
from panel import Cell, train_missing
from panel_data import load
from panel_networks import NETWORKS
from panel_training import augmented, optimizer_of
from records import write

from keras_collab import recipes
from keras_collab.tuner import CollabHyperModel

HERE = Path(__file__).parent
CELL = Cell("human labels", "cifar10", 2000, "resnet10", "sgd", 0.2, 30, "flip", human="worst", batch=128)
EPOCHS = [10, 20, 30]


class HyperModel(CollabHyperModel):
    """The hypermodel of a search, which also chooses the number of epochs."""

    def fit(self, hp, model, *args, **kwargs):
        return super().fit(hp, model, *args, epochs=epochs(hp), **kwargs)


def epochs(hp):
    return hp.Choice("epochs", EPOCHS, default=EPOCHS[-1])


def compile_model(hp, model):
    rate = CELL.rate if model.terms else hp.Float("rate", 0.02, 0.5, sampling="log", default=CELL.rate)
    steps = epochs(hp) * -(-CELL.labels // CELL.batch)
    optimizer = optimizer_of(dataclasses.replace(CELL, rate=rate), steps)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"], jit_compile=False)


def search(space, options):
    """The best hyperparameters of a search, and all its trials."""
    x, y, x_validation, y_validation = load(CELL, 0, options.data, validation=True)
    terms = recipes.strong() if space == "terms" else []

    def build_network():
        return augmented(CELL, NETWORKS[CELL.network](x.shape[1:], 10))

    hypermodel = HyperModel(build_network, terms, balance=False, choose_terms=True, compile=compile_model)
    tuner = keras_tuner.RandomSearch(
        hypermodel,
        objective="val_accuracy",
        max_trials=options.trials,
        seed=0,
        directory=HERE / "searches",
        project_name=f"human-labels-{space}",
    )
    validation = x_validation, keras.utils.to_categorical(y_validation, 10)
    labels = keras.utils.to_categorical(y, 10)
    tuner.search(x, labels, validation_data=validation, batch_size=CELL.batch, verbose=0)
    trials = []
    for trial in tuner.oracle.get_best_trials(options.trials):
        trials.append({"score": trial.score, **trial.hyperparameters.values})
    return trials


def arm_of(best):
    """The weights that a search found, as the name of an arm of the panel."""
    weights = []
    for name in TERMS:
        weights.append(f"{best[f'{name}_weight']:.3g}" if best.get(name) else "0")
    return " ".join(weights) + " at once"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of cifar10.zip and cifar10n.csv")
    parser.add_argument("--trials", type=int, default=8, help="of each search")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--results", type=Path, default=HERE / "results" / "human-labels.jsonl")
    options = parser.parse_args()
    options.validation = False
    found = {}
    for space in ("plain", "terms"):
        found[space] = search(space, options)
        print(space, found[space][0], flush=True)
        path = options.results.with_name(f"human-labels-{space}.json")
        write(path, json.dumps(found[space], indent=1) + "\n")
    plain, terms = found["plain"][0], found["terms"][0]
    tuned = dataclasses.replace(CELL, rate=plain["rate"], epochs=plain["epochs"])
    weighed = dataclasses.replace(CELL, epochs=terms["epochs"])
    # The name holds what was found, so that lines of an earlier search are not taken for those of this one.
    tuned = dataclasses.replace(tuned, name=f"plain, searched: rate {tuned.rate:.3g}, {tuned.epochs} epochs")
    weighed = dataclasses.replace(weighed, name=f"terms, searched: {weighed.epochs} epochs")
    runs = [(tuned, "plain"), (weighed, arm_of(terms)), (weighed, "plain"), (weighed, "default"), (weighed, "strong")]
    train_missing([(cell, arm, seed) for seed in options.seeds for cell, arm in runs], options)


if __name__ == "__main__":
    main()
