"""Quickstart: a small residual network learns handwritten digits, plain and wrapped, from the same start.

    KERAS_BACKEND=tensorflow python examples/quickstart.py      # or jax, or torch

Needs no download: the 1,797 digits of 8×8 pixels come with scikit-learn. Only 250 of them are for training, so that
there is something to gain. With each seed both networks begin with the same weights and see the same batches for as
many epochs; nothing but the wrapping differs. All is left at its default but for one weight: that of representation
similarity is 1. Its default of 10 is for augmented images, and these are not: there it differs from plain training by
-0.6 ± 0.9 points of validation accuracy, 3 by +0.2 ± 0.7 and 1 by -0.1 ± 0.3 (mean ± standard deviation of three seeds,
all within chance; 1 is the mildest). Writes quickstart.txt, quickstart.png and network.keras.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from timeit import timeit

import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress
from rich.table import Column, Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_collab

BATCH_SIZE = 50
COLOURS = {"plain": "#6b7785", "wrapped": "#d1495b"}


def digits():
    """(images, labels) for training, validation and test: 250, 350 and 1,197, stratified."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
    train_x, rest_x, train_y, rest_y = train_test_split(images, labels, train_size=250, stratify=labels, random_state=0)
    val_x, test_x, val_y, test_y = train_test_split(rest_x, rest_y, train_size=350, stratify=rest_y, random_state=0)
    return (train_x, train_y), (val_x, val_y), (test_x, test_y)


def residual_network():
    """Three stages of one residual block each, at 8×8, 4×4 and 2×2 positions."""

    def convolve(x, filters, size=3, strides=1):
        x = layers.Conv2D(filters, size, strides=strides, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9)(x)  # 0.99, the default, is too slow for 100 training steps.

    inputs = keras.Input((8, 8, 1))
    x = layers.ReLU()(convolve(inputs, 16))
    for stage, (filters, strides) in enumerate([(16, 1), (32, 2), (64, 2)], start=1):
        branch = layers.ReLU()(convolve(x, filters, strides=strides))
        shortcut = convolve(x, filters, size=1, strides=strides) if strides > 1 else x
        x = layers.ReLU(name=f"stage{stage}")(layers.Add()([convolve(branch, filters), shortcut]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax", name="digit")(x), name="residual_network")


def wrap(network, representation_weight):
    """The network with all four terms at their defaults but for one weight."""
    model = keras_collab.wrap(network)
    model.terms["representation_similarity"].weight = representation_weight
    return model


class Watch(keras.callbacks.Callback):
    """Moves a progress bar and measures the four terms, at the start and after each epoch.

    The terms are measured on a probe, so as to leave no trace: a wrapped twin that takes over the weights and whose own
    learning rate is 0. It sees all training images as one batch, and all channels and filters instead of a sample.
    """

    def __init__(self, network, probe, train, move_bar):
        super().__init__()
        self.network, self.probe, self.train, self.move_bar = network, probe, train, move_bar
        self.measured = []
        self.measure()

    def on_epoch_end(self, epoch, logs=None):
        self.measure()
        self.move_bar(advance=1, said=f", validation accuracy {logs['val_accuracy']:.1%}")

    def measure(self):
        self.probe.unwrap().set_weights(self.network.get_weights())
        self.probe.reset_metrics()
        self.measured.append(self.probe.train_on_batch(*self.train, return_dict=True))


def train_one(kind, seed, data, epochs, representation_weight, probe, move_bar):
    """Trains one network; returns the model and its history, with the measured terms and the test added."""
    train, validation, test = data
    keras.utils.set_random_seed(seed)  # The same initial weights and the same batches for both networks.
    network = residual_network()
    model = wrap(network, representation_weight) if kind == "wrapped" else network
    rate = keras.optimizers.schedules.CosineDecay(3e-3, decay_steps=epochs * len(train[0]) // BATCH_SIZE)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    watch = Watch(network, probe, train, move_bar)
    before = model.evaluate(*test, batch_size=399, verbose=0, return_dict=True)
    fitting = {"validation_data": validation, "validation_batch_size": 350, "callbacks": [watch], "verbose": 0}
    history = model.fit(*train, batch_size=BATCH_SIZE, epochs=epochs, **fitting).history
    after = model.evaluate(*test, batch_size=399, verbose=0, return_dict=True)
    tested = {f"test_{name}": [before[name], after[name]] for name in after}
    terms = {name: [float(values[name]) for values in watch.measured] for name in probe.terms}
    return model, {**history, **terms, **tested}


def milliseconds_a_step(models, train, steps=60):
    """Median time of a training step of each model, taking turns, the first ten left out. Trains them further."""
    batch = [values[:BATCH_SIZE] for values in train]
    times = {kind: [] for kind in models}
    for _ in range(steps):
        for kind, model in models.items():
            times[kind].append(1e3 * timeit(partial(model.train_on_batch, *batch), number=1))
    return {kind: float(np.median(values[10:])) for kind, values in times.items()}


def spread(values, form):
    """Mean ± standard deviation over seeds."""
    mean = f"{np.mean(values):{form}}"
    return f"{mean} ± {np.std(values, ddof=1):{form.lstrip('+')}}" if len(values) > 1 else mean


def results_table(plain, wrapped, terms, step):
    """`plain` and `wrapped` hold (seeds, epochs) a column, whose first and last epochs are compared."""
    headings = [Column(heading, justify="right") for heading in ("at the start", "plain", "wrapped")]
    table = Table("", *headings, title="Mean ± standard deviation over seeds", show_edge=False, pad_edge=False)
    results = [("test accuracy, %", "test_accuracy", 100, ".1f"), ("test neg. log-likelihood", "test_loss", 1, ".3f")]
    for name, column, scale, form in results + [(term, term, 1, ".4f") for term in terms]:
        values = (plain[column][:, 0], plain[column][:, -1], wrapped[column][:, -1])
        cells = [spread(scale * value, form) for value in values]
        table.add_row(name, *cells, end_section=column in ("test_loss", terms[-1]))
    table.add_row("a training step, ms", "", *(f"{ms:.1f} (×{ms / step['plain']:.2f})" for ms in step.values()))
    return table


def picture(curves, terms):
    """Curves by epoch: the mean over seeds as a line, one standard deviation as a band."""
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    axes = figure.subplots(2, 3)
    titles = {"val_accuracy": "validation accuracy", "val_loss": "validation negative log-likelihood"}
    columns = ["val_accuracy", *terms[:2], "val_loss", *terms[2:]]
    for axis, column in zip(axes.flat, columns, strict=True):
        for kind, colour in COLOURS.items():
            values = curves[kind][column]
            mean, deviation = values.mean(axis=0), values.std(axis=0, ddof=min(1, len(values) - 1))
            epochs = np.arange(values.shape[1]) + (column in titles)  # The terms have a value before the first epoch.
            axis.plot(epochs, mean, color=colour, label=kind, linewidth=1.8)
            axis.fill_between(epochs, mean - deviation, mean + deviation, color=colour, alpha=0.2, linewidth=0)
        axis.set_title(titles.get(column, column.replace("_", " ")), loc="left", fontsize=11)
        axis.set_xlabel("epoch")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False, loc="lower right")
    axes[0, 0].set_ylim(bottom=max(0, axes[0, 0].dataLim.ymax - 0.2))  # Leaves out the start, at 0.1, and below at 2.3.
    axes[1, 0].set_ylim(top=axes[1, 0].dataLim.ymin + 0.6)
    figure.suptitle("mean over seeds ± one standard deviation; the terms without their weights", fontsize=10)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20, help="epochs of each training (default: 20)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each network (default: 3; more tell more)")
    parser.add_argument(
        "--representation-weight", type=float, default=1.0, help="of representation similarity (default: 1)"
    )
    parser.add_argument("--output", type=Path, default=Path("quickstart_output"), help="directory for the results")
    options = parser.parse_args()
    started, console, data = time.perf_counter(), Console(record=True), digits()

    keras.utils.set_random_seed(0)
    example = wrap(residual_network(), options.representation_weight)
    console.print(example.describe(BATCH_SIZE, verbose=False))
    terms_in_full = [
        keras_collab.OutputConsistency(parts=32),
        keras_collab.IntermediateConsistency(),
        keras_collab.RepresentationSimilarity(max_positions=64, max_channels=64),
        keras_collab.KernelSimilarity(max_filters=64),
    ]
    probe = keras_collab.wrap(residual_network(), terms_in_full)
    probe.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")

    runs, models, terms = {kind: [] for kind in COLOURS}, {}, list(probe.terms)
    with Progress("{task.description:7}", BarColumn(24), MofNCompleteColumn(), "epochs{task.fields[said]}") as progress:
        bars = {kind: progress.add_task(kind, total=options.seeds * options.epochs, said="") for kind in runs}
        for seed in range(options.seeds):
            for kind, bar in bars.items():
                settings = options.epochs, options.representation_weight
                models[kind], run = train_one(kind, seed, data, *settings, probe, partial(progress.update, bar))
                runs[kind].append(run)
    curves = {kind: {column: np.array([run[column] for run in rs]) for column in rs[0]} for kind, rs in runs.items()}

    options.output.mkdir(parents=True, exist_ok=True)
    network, images = models["wrapped"].unwrap(), data[2][0]
    network.save(options.output / "part.keras")  # Renamed once it is whole.
    loaded = keras.saving.load_model((options.output / "part.keras").replace(options.output / "network.keras"))
    difference = np.abs(loaded.predict(images, 399, 0) - network.predict(images, 399, 0)).max()

    console.print(results_table(**curves, terms=terms, step=milliseconds_a_step(models, data[0])))
    gain = {name: curves["wrapped"][name][:, -1] - values[:, -1] for name, values in curves["plain"].items()}
    console.print(
        f"\nWrapped less plain, seed by seed: test accuracy {spread(100 * gain['test_accuracy'], '+.1f')} points,\n"
        f"test neg. log-likelihood {spread(gain['test_loss'], '+.3f')}; seeds: {options.seeds}.\n"
        f"Validation accuracy, to choose by: {spread(100 * gain['val_accuracy'], '+.1f')} points.\n"
        f"Unwrapped, saved and loaded again: predictions differ by at most {difference:.1g}.\n"
        f"It took {time.perf_counter() - started:.0f} s on {keras.backend.backend()}. Results are in {options.output}."
    )
    picture(curves, terms).savefig(options.output / "quickstart.png", dpi=130)
    console.save_text(options.output / "quickstart.txt")


if __name__ == "__main__":
    main()
