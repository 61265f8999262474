"""Search: keras-tuner looks for the weights of the terms, and what they are worth on images nobody chose by.

    python tuning/search.py digits resnet8 weights --trials 10                     # some minutes, no download
    python tuning/search.py cifar10-subset resnet8 plain --data photographs.zip    # the control: the same budget

Stop it at any moment and give the command again: no finished trial is run again. The test images are looked at once,
at the end, by the best trial's model; the outcome is appended to tuning/searches/searches.jsonl, and the trials are
drawn beside it. Several machines share a search by keras-tuner's own chief and workers, see tuning/README.md.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow 2.21 logs it as an error that there is no GPU.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent / "searches" / "compiled"))
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import keras
import keras_tuner
import pandas as pd
from filelock import FileLock
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from methods import NETWORKS
from records import MACHINE, append, read, write
from rich.console import Console
from runner import Interrupted, interruptible
from spaces import BATCH_SIZE, SPACES, Training
from train_run import new_network

from keras_collab import datasets

HERE = Path(__file__).parent
ALGORITHMS = {
    "random": keras_tuner.RandomSearch,
    "bayesian": keras_tuner.BayesianOptimization,
    "grid": keras_tuner.GridSearch,
    "hyperband": keras_tuner.Hyperband,
}
console = Console(highlight=False)


def save_json(path, content):
    """As keras-tuner's own, which writes in place (1.4.8): a kill meanwhile would cost the search."""
    text = json.dumps(content)
    write(Path(path), text)
    return text


def reporting(algorithm, count):
    """The algorithm's tuner, which prints after each trial its score, the best one and how long the rest may take."""

    class Reporting(algorithm):
        start = None  # The time of the first trial of this process.
        first = 0  # Its number.

        def on_trial_begin(self, trial):
            if self.start is None:
                self.start, self.first = time.monotonic(), int(trial.trial_id)
            super().on_trial_begin(trial)

        def on_trial_end(self, trial):
            super().on_trial_end(trial)
            result = self.oracle.get_trial(trial.trial_id)
            if result.status == "COMPLETED":
                outcome = f"{result.score:.4f}"
            else:
                message = str(trial.message or "no number").strip()
                outcome = message.split("\n")[-1]
            best = "none yet"
            for other in self.oracle.get_best_trials(1):
                if other.status == "COMPLETED":
                    best = f"{other.score:.4f}"
            number = int(trial.trial_id) + 1
            line = f"trial {number} of {count or '?'}: {outcome}; best {best}"
            if count:
                seconds = (time.monotonic() - self.start) / max(1, number - self.first)
                line += f", {seconds * (count - number) / 60:.0f} min left"
            console.print(line)

    Reporting.__name__ = algorithm.__name__
    return Reporting


def is_worker():
    name = os.environ.get("KERASTUNER_TUNER_ID", "")
    return bool(os.environ.get("KERASTUNER_ORACLE_IP")) and "chief" not in name


def claim(directory, settings):
    """Exits if the directory holds another search. A worker waits for the chief to make it."""
    path = directory / "settings.json"
    while is_worker() and not path.exists():
        time.sleep(0.5)
    if not path.exists():
        if directory.exists() and any(directory.iterdir()):
            sys.exit(f"{directory} holds something else than a search of this program. Give another --directory.")
        directory.mkdir(parents=True, exist_ok=True)
        write(path, json.dumps(settings, indent=1))
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        sys.exit(f"{path} is no JSON: {error}. Give another --directory, or remove that one.")
    if before != settings:
        differences = []
        for name, value in settings.items():
            if before.get(name) != value:
                differences.append(f"{name}: {before.get(name)!r}, now {value!r}")
        sys.exit(f"{directory} holds another search ({'; '.join(differences)}). Give another --directory.")


def is_done(path, settings):
    """Whether the results file has the outcome of a search; names the lines that it cannot read."""
    records, messages = read(path)
    for message in messages:
        print(message, file=sys.stderr)
    return any(record.get("settings") == settings for _, record in records)


def keep(path, record):
    """Appends the outcome, unless another process has done so by now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not is_done(path, record["settings"]):
            append(path, record)


def frame(tuner):
    """A row for each completed trial: its hyperparameters and its score."""
    rows = []
    for trial in tuner.oracle.trials.values():
        if trial.status == "COMPLETED":
            rows.append({**trial.hyperparameters.values, "score": trial.score})
    return pd.DataFrame(rows).select_dtypes("number")


def picture(trials, path):
    """Every hyperparameter against the score, and all of them as parallel coordinates."""
    names = [name for name in trials if name != "score" and "/" not in name]
    width = 2.4 * max(2, len(names))
    figure = Figure(figsize=(width, 5.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1)
    axes = upper.subplots(1, len(names), sharey=True, squeeze=False)
    for name, axis in zip(names, axes[0], strict=True):
        values = trials[name]
        axis.plot(values, trials.score, "o", markersize=3)
        axis.set_xlabel(name.replace("_", "\n"))
        if (values > 0).all():
            axis.set_xscale("log")
        axis.xaxis.set_minor_formatter(NullFormatter())
    upper.supylabel("validation accuracy", size=9)
    axis = lower.subplots()
    columns = [*names, "score"]
    ranks = trials[columns].rank(pct=True)
    for _, row in ranks.sort_values("score").iterrows():
        color = "tab:blue" if row.score > 0.8 else "grey"
        axis.plot(range(len(row)), row, color=color, alpha=0.2 + 0.7 * row.score, linewidth=1)
    labels = [name.replace("_", "\n") for name in columns]
    axis.set_xticks(range(len(columns)), labels, size=7)
    axis.set_ylabel("rank among trials")
    part = path.with_suffix(".part.png")
    figure.savefig(part, dpi=120)
    part.replace(path)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", help="a data set of keras_collab.datasets, or the name of what --data holds")
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("space", choices=SPACES, help="what is searched, see spaces.py")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="bayesian")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--executions", type=int, default=1, help="trainings a trial (default: 1)")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--width", type=int, help="of the network's first stage (default: the network's own)")
    parser.add_argument("--train-size", type=int, help="training images (default: all)")
    parser.add_argument("--validation", type=float, default=0.1, help="share of training images to choose by")
    parser.add_argument("--learning-rate", type=float, default=0.1, help="where it is not searched")
    parser.add_argument("--weight-decay", type=float, default=5e-4, help="where it is not searched")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="folder or zip with train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("--directory", type=Path, help="where the trials are kept (default: tuning/searches/NAME)")
    parser.add_argument("--results", type=Path, default=HERE / "searches" / "searches.jsonl")
    options = parser.parse_args()
    for name in ("trials", "executions", "epochs", "width", "train_size"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be 1 or more. Received: {value}.")
    for name in ("learning_rate", "weight_decay"):
        value = getattr(options, name)
        if not 0 <= value < math.inf:  # Not NaN either.
            parser.error(f"--{name.replace('_', '-')} must be a finite number of 0 or more. Received: {value}.")
    if not 0 < options.validation < 1:
        parser.error(f"--validation must be above 0 and below 1. Received: {options.validation}.")
    if options.data and not options.data.exists():
        parser.error(f"--data: there is no {options.data}.")
    return options


def search(options):
    settings = dict(vars(options))
    for place in ("data", "directory", "results"):  # Of what a search depends on, these are no part.
        del settings[place]
    settings["backend"] = keras.backend.backend()
    title = f"{options.dataset}-{options.network}-{options.space}-{options.algorithm}"
    directory = options.directory or HERE / "searches" / title
    if is_done(options.results, settings):
        sys.exit(f"{options.results} has the outcome of this search already. Take its line out to look again.")

    keras_tuner.src.utils.save_json = save_json
    keras.utils.set_random_seed(options.seed)
    arguments = {"subset": options.train_size, "validation": options.validation, "seed": options.seed}
    if options.data:
        dataset = datasets.image_folder(options.data, **arguments)
    else:
        dataset = datasets.load(options.dataset, **arguments)
    claim(directory, settings)  # Not before: the data may not fit the arguments.

    def build_network():
        return new_network(dataset, options.network, options.width)

    steps = options.epochs * -(-len(dataset.train) // BATCH_SIZE)
    data = (dataset.train.images, dataset.train.labels)
    train = Training(steps, options.learning_rate, options.weight_decay)
    hypermodel = SPACES[options.space](build_network, data, train)
    if options.algorithm == "hyperband":
        limit, count = {"max_epochs": options.epochs}, None
    else:
        limit, count = {"max_trials": options.trials}, options.trials
    new_tuner = reporting(ALGORITHMS[options.algorithm], count)
    tuner = new_tuner(
        hypermodel,
        objective="val_accuracy",
        executions_per_trial=options.executions,
        seed=options.seed,
        directory=directory,
        project_name="trials",
        **limit,
    )
    tuner.search(
        *data,
        batch_size=BATCH_SIZE,
        epochs=options.epochs,
        validation_data=(dataset.validation.images, dataset.validation.labels),
        verbose=0,
    )
    if is_worker():
        return console.print("No trial is left. The chief tells the outcome.")
    trials = frame(tuner)
    if trials.empty:
        sys.exit(f"No trial of {directory} was completed; see the messages above.")
    (model,) = tuner.get_best_models(1)
    images, labels = dataset.test.images, dataset.test.labels
    scores = model.evaluate(images, labels, batch_size=500, return_dict=True, verbose=0)
    (trial,) = tuner.oracle.get_best_trials(1)
    outcome = {"best": trial.hyperparameters.values, "val_accuracy": trial.score, "test": scores}
    rows = trials.to_dict("records")
    keep(options.results, {"settings": settings, **outcome, "trials": rows, "machine": MACHINE})
    picture(trials, options.results.with_name(f"{title}.png"))
    console.print(outcome)


def main():
    options = parse_arguments()
    try:
        with interruptible():
            search(options)
    except Interrupted as stop:
        print(f"Stopped by {stop}. Finished trials are kept; give the command again to go on.", file=sys.stderr)
        sys.exit(stop.status)
    except OSError as error:
        sys.exit(f"{error}. Finished trials are kept; give the command again to go on.")


if __name__ == "__main__":
    main()
