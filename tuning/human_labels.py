"""Search on labels that people got wrong (CIFAR-10N worst): what the found weights are worth on test images.

    python tuning/human_labels.py --data FOLDER        # as for examples/panel.py: cifar10.zip and cifar10n.csv

Two searches have the same number of trials: `plain` over learning rate and epochs, `terms` over which terms there are,
their weights and epochs, so that plain training is among its candidates. The best of each, chosen on validation images
with true labels, then trains with three other seeds and is measured on test images. Results are appended to
tuning/results/human-labels.jsonl; give the command again to go on where it stopped.
"""

import argparse
import dataclasses
import functools
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow 2.21 logs it as an error that there is no GPU.
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import keras
import keras_tuner
from methods import TERMS
from panel import Job, train_missing
from panel_data import load
from panel_networks import NETWORKS
from panel_training import augmented, optimizer_of
from records import write

from keras_collab import recipes
from keras_collab.tuner import CollabHyperModel

HERE = Path(__file__).parent
JOB = Job(
    name="human labels",
    data="cifar10",
    human="worst",
    labels=2000,
    network="resnet10",
    optimizer="sgd",
    rate=0.2,
    epochs=30,
    augment="flip",
    batch=128,
)
EPOCHS = [10, 20, 30]


class HyperModel(CollabHyperModel):
    """The hypermodel of a search, which also chooses the number of epochs."""

    def fit(self, hp, model, *args, **kwargs):
        return super().fit(hp, model, *args, epochs=epochs(hp), **kwargs)


def epochs(hp):
    return hp.Choice("epochs", EPOCHS, default=EPOCHS[-1])


def compile_model(hp, model, search_rate):
    rate = JOB.rate
    if search_rate:
        rate = hp.Float("rate", 0.02, 0.5, sampling="log", default=rate)
    steps = epochs(hp) * -(-JOB.labels // JOB.batch)
    optimizer = optimizer_of(dataclasses.replace(JOB, rate=rate), steps)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"], jit_compile=False)


def search(space, options):
    """The trials of a search, the best first: their scores and hyperparameters."""
    x, y, x_validation, y_validation = load(JOB, 0, options.data, validation=True)
    validation = x_validation[:2000], keras.utils.to_categorical(y_validation[:2000], 10)  # Measured each epoch.
    terms = recipes.strong() if space == "terms" else []

    def build_network():
        build_inner = NETWORKS[JOB.network]
        return augmented(JOB, build_inner(x.shape[1:], 10))

    compile_space = functools.partial(compile_model, search_rate=space == "plain")
    hypermodel = HyperModel(build_network, terms, balance=False, choose_terms=True, compile=compile_space)
    tuner = keras_tuner.RandomSearch(
        hypermodel,
        objective="val_accuracy",
        max_trials=options.trials,
        seed=0,
        directory=HERE / "searches",
        project_name=f"human-labels-{space}",
    )
    labels = keras.utils.to_categorical(y, 10)
    tuner.search(x, labels, validation_data=validation, batch_size=JOB.batch, verbose=0)
    trials = []
    for trial in tuner.oracle.get_best_trials(options.trials):
        values = trial.hyperparameters.values
        trials.append({"score": trial.score, **values})
    return trials


def arm_of(best):
    """The weights that a search found, as the name of an arm of the panel."""
    weights = []
    for name in TERMS:
        weight = best[f"{name}_weight"] if best.get(name) else 0
        weights.append(f"{weight:.3g}")
    return " ".join(weights) + " at once"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of cifar10.zip and cifar10n.csv")
    parser.add_argument("--trials", type=int, default=8, help="of each search")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--results", type=Path, default=HERE / "results" / "human-labels.jsonl")
    options = parser.parse_args()
    options.validation = False
    best = {}
    for space in ("plain", "terms"):
        trials = search(space, options)
        best[space] = trials[0]
        print(space, best[space], flush=True)
        path = options.results.with_name(f"human-labels-{space}.json")
        write(path, json.dumps(trials, indent=1) + "\n")
    # The names of the jobs hold the outcome, so that lines of an earlier search are not taken for those of this one.
    plain, terms = best["plain"], best["terms"]
    plain_name = f"plain, searched: rate {plain['rate']:.3g}, {plain['epochs']} epochs"
    plain_job = dataclasses.replace(JOB, name=plain_name, rate=plain["rate"], epochs=plain["epochs"])
    terms_name = f"terms, searched: {terms['epochs']} epochs"
    terms_job = dataclasses.replace(JOB, name=terms_name, epochs=terms["epochs"])
    arms = [arm_of(terms), "plain", "default", "strong"]
    runs = []
    for seed in options.seeds:
        runs.append((plain_job, "plain", seed))
        for arm in arms:
            runs.append((terms_job, arm, seed))
    train_missing(runs, options)


if __name__ == "__main__":
    main()
