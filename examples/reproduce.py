"""Reproduce: trains a grid of data set × network × method × label noise × seed, one line of results a run.

    python examples/reproduce.py smoke                                   # digits, three or four minutes
    python examples/reproduce.py cifar10-subset --data cifar10-subset.zip --jobs 2
    python examples/reproduce.py my_grid.toml --list                     # what there is to do

A grid is a TOML file; those of a name alone lie in examples/grids. Each [[runs]] table in it is a product: a list
stands for its values in turn; where there are [[cells]] tables too, each run is made with the settings of each cell.
Seed after seed, results are appended to examples/results/GRID.jsonl as they come. A run that was stopped, at any
moment, goes on from its last whole epoch when the command is given again; one in the file is not run again.
"""

import argparse
import dataclasses
import hashlib
import itertools
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow 2.21 logs it as an error that there is no GPU.

from records import MACHINE, append, read, write
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

HERE = Path(__file__).parent
TERMS = ("output_consistency", "intermediate_consistency", "representation_similarity", "kernel_similarity")
METHODS = ("plain", "label_smoothing", "gce", *TERMS, "all_four", "terms")
METHODS += ("song_chai_2", "song_chai_4", "r_drop", "exits", "byot")
NETWORKS = ("resnet8", "resnet10", "resnet14", "resnet18", "resnet20", "vgg16")
JIT = {"auto": "auto", "on": True, "off": False}
NOISES = ("none", "symmetric", "asymmetric", "pair_flip")
LOSSES = (None, "label_smoothing", "gce")


def terms_of(method):
    """The terms that a method may have."""
    return TERMS if method in ("terms", "all_four") else (method,) if method in TERMS else ()


@dataclasses.dataclass(frozen=True)
class Settings:
    """All that a run depends on.

    The first ones tell runs apart; two runs that differ in the others only are not to be compared, and not kept in one
    file.
    """

    dataset: str
    network: str
    method: str = "plain"
    train_size: int | None = None  # None for all.
    width: int | None = None  # None for the network's own.
    noise: str = "none"
    noise_rate: float = 0.0
    seed: int = 0
    epochs: int = 40
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    dropout: float = 0.0
    augment: bool = True
    validation: float = 0.1
    clean_validation: bool = False  # True labels to validate with; they are at hand only where defaults are chosen.
    validate_every: int = 1  # In epochs, counted back from the last one.
    loss: str | None = None  # None for cross-entropy, or what the method says.
    epochs_factor: float = 1.0  # Multiplies epochs, for a control that trains longer or shorter than the others.
    # Arguments of terms, {"kernel_similarity": {"weight": 5.0}}; a weight may be one of keras_collab.schedules, with
    # epochs for its steps, {"Ramp": {"value": 5.0, "epochs": 10}}.
    terms: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict, hash=False)
    balance: float = 0.0  # The share that keras_collab.balance gives each term before training; 0 to leave the weights.
    variant: str = ""  # A name for what differs from other runs of the same method.

    IDENTITY = ("dataset", "network", "method", "variant", "train_size", "width", "noise", "noise_rate", "seed")

    def __post_init__(self):
        choices = {"network": NETWORKS, "method": METHODS, "noise": NOISES, "loss": LOSSES}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                known = ", ".join(filter(None, known))
                raise ValueError(f"{name} must be one of {known}. Received: {getattr(self, name)!r}.")
        if not 0 <= self.noise_rate <= 1 or (self.noise == "none") != (self.noise_rate == 0):
            raise ValueError(
                "noise_rate must lie in [0, 1], and be 0 with noise = 'none' only. Received: "
                f"noise={self.noise!r}, noise_rate={self.noise_rate!r}."
            )
        if self.validate_every < 1 or self.all_epochs < 1:
            raise ValueError(
                "There must be an epoch, and validate_every be at least 1. Received: "
                f"epochs={self.epochs!r}, epochs_factor={self.epochs_factor!r}, validate_every={self.validate_every!r}."
            )
        if self.balance and not terms_of(self.method):
            raise ValueError(f"balance sets weights of terms, which {self.method!r} has none of.")
        if self.terms.keys() - set(terms_of(self.method)) or (self.method == "terms" and not self.terms):
            raise ValueError(
                f"terms of method {self.method!r} must be some of {', '.join(terms_of(self.method)) or 'none'}. "
                f"Received: {list(self.terms)}."
            )

    @property
    def all_epochs(self):
        return round(self.epochs * self.epochs_factor)

    @property
    def identity(self):
        return tuple(getattr(self, name) for name in self.IDENTITY)

    @property
    def candidate(self):
        return self.method, self.variant

    @property
    def place(self):
        noise = "" if self.noise == "none" else f" {self.noise} {self.noise_rate:.0%}"
        return f"{self.dataset} {self.train_size or 'all'} {self.network}{noise}"

    @property
    def label(self):
        method = f"{self.method} ({self.variant})" if self.variant else self.method
        return f"{self.place} {method} seed {self.seed}"

    @property
    def digest(self):
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def read_grid(path):
    """The runs of a grid file, in its order, each once. `terms` above all tables are for the methods that have them."""
    with path.open("rb") as file:
        grid = tomllib.load(file)
    tables, cells, terms, shared = grid.pop("runs", [{}]), grid.pop("cells", [{}]), grid.pop("terms", {}), grid
    if terms.keys() - set(TERMS):
        raise ValueError(f"{path}: terms must be some of {', '.join(TERMS)}. Received: {list(terms)}.")
    runs = []
    for cell, table in itertools.product(cells, tables):
        given = {**shared, **cell, **table}
        values = {key: value if isinstance(value, list) else [value] for key, value in given.items()}
        unknown = sorted(values.keys() - {field.name for field in dataclasses.fields(Settings)})
        if unknown:
            known = ", ".join(field.name for field in dataclasses.fields(Settings))
            raise ValueError(f"{path}: there is no setting {unknown[0]!r}. Settings: {known}.")
        for chosen in itertools.product(*values.values()):
            settings = dict(zip(values, chosen, strict=True))
            names = terms_of(settings.get("method", Settings.method))
            runs.append(Settings(**{"terms": {name: terms[name] for name in names if name in terms}, **settings}))
    alone = {run.digest: run for run in runs}.values()
    twice = [one for one, other in itertools.combinations(alone, 2) if one.identity == other.identity]
    if twice:
        raise ValueError(f"{path}: runs of '{twice[0].label}' differ in other settings. Give each a variant = 'name'.")
    return list(alone)


def read_results(path):
    """The whole lines of a results file; one that was cut off, as by a full disk, is left out and run again."""
    found = read(path)
    if any(record is None for _, record in found):
        print(f"{path}: a line that was cut off is left out, its run is done again.", file=sys.stderr)
    return [record for _, record in found if record is not None]


def still_to_do(runs, records, path):
    """The runs without a result; raises if the file has one of the same run with other settings."""
    done = {}
    for record in records:
        settings = Settings(**record["settings"])
        done[settings.identity] = settings
    for run in runs:
        other = done.get(run.identity)
        if other and other != run:
            old, new = dataclasses.asdict(other), dataclasses.asdict(run)
            differing = ", ".join(f"{key}: {old[key]!r}, now {new[key]!r}" for key in old if old[key] != new[key])
            raise ValueError(
                f"{path} has a result of '{run.label}' with other settings ({differing}). Results that are not "
                "comparable do not go into one file: give another one, --results FILE."
            )
    return [run for run in runs if run.identity not in done]


def next_round(runs, records):
    """The runs of successive halving that are next: those of the first seed that is not done, of what is still tried.

    After each seed, of the candidates with the same terms the half with the lower validation accuracy at the last
    epoch, mean over all their runs so far, is given up. Plain training and label smoothing stay, to compare with.
    """
    scores = {Settings(**record["settings"]).identity: record["history"]["val_accuracy"][-1] for record in records}
    counts = Counter((run.candidate, run.seed) for run in runs)
    if len(set(counts.values())) > 1 or len(counts) < len({c for c, _ in counts}) * len({s for _, s in counts}):
        raise ValueError("Halving compares means: all methods and variants of its grid need the same runs.")
    rivals = {run.candidate: tuple(run.terms) or run.candidate for run in runs}
    tried = list(rivals)
    for seed in sorted({run.seed for run in runs}):
        todo = [run for run in runs if run.seed == seed and run.candidate in tried and run.identity not in scores]
        if todo:
            return todo
        means = {
            candidate: statistics.mean(scores[r.identity] for r in runs if r.candidate == candidate and r.seed <= seed)
            for candidate in tried
        }
        alike = {}  # Only forms of the same terms compete.
        for candidate in sorted(tried, key=means.get, reverse=True):
            alike.setdefault(rivals[candidate], []).append(candidate)
        tried = [candidate for ranked in alike.values() for candidate in ranked[: -(-len(ranked) // 2)]]
    return []


def print_standing(records):
    """Validation accuracy at the last epoch, by which forms are chosen; the test images have no part in it."""
    found = {}
    for record in records:
        settings = Settings(**record["settings"])
        key = settings.place, *settings.candidate
        found.setdefault(key, []).append(100 * record["history"]["val_accuracy"][-1])
    table = Table("setting", "method", "variant", "runs", "validation accuracy, %", box=box.SIMPLE)
    for key, scores in sorted(found.items(), key=lambda item: (item[0][0], -statistics.mean(item[1]))):
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        table.add_row(*key, str(len(scores)), f"{statistics.mean(scores):.2f}{spread}")
    Console().print(table if found else "No result yet.")


# What follows runs in a process of its own, one a run: so memory is measured, and nothing is left from the run before.


def load_data(settings, options):
    """The data set with the labels to train with, and the true labels of its training images."""
    from keras_collab import datasets, label_noise

    arguments = {"subset": settings.train_size, "validation": settings.validation, "seed": settings.seed}
    if options.data:
        dataset = datasets.image_folder(options.data, skip_unreadable=options.skip_unreadable, **arguments)
    else:
        dataset = datasets.load(settings.dataset, **arguments)
    clean = dataset.train.labels
    if settings.noise != "none":  # Where labels are wrong, so are those to choose by, unless asked for.
        make = getattr(label_noise, settings.noise)
        splits = ["train"] if settings.clean_validation else ["train", "validation"]
        for index, name in enumerate(splits):
            split = getattr(dataset, name)
            noisy = make(split.labels, settings.noise_rate, len(dataset.classes), seed=2 * settings.seed + index)
            dataset = dataclasses.replace(dataset, **{name: datasets.Split(split.images, noisy.labels)})
    return dataset, clean


def new_network(dataset, name, width=None, *, dropout=0.0, augment=True):
    """A network of keras_collab.models behind the layers that the data set asks for; None for its own width."""
    import keras

    from keras_collab import models

    size = {} if width is None else {"width": width}
    inner = getattr(models, name)(dataset.input_shape, len(dataset.classes), dropout=dropout, **size)
    before = [keras.Input(dataset.input_shape), *dataset.preprocessing(augment=augment)]
    return keras.Sequential([*before, inner], name=f"{name}_classifier")


def new_optimizer(learning_rate, weight_decay, steps):
    """SGD with Nesterov momentum; the learning rate warms up for a fifth of the steps, then falls as a cosine to 0."""
    import keras

    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - steps // 5, warmup_target=learning_rate, warmup_steps=max(1, steps // 5)
    )
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def build(settings, dataset):
    """The network, and the model that trains it."""
    import keras_collab
    from keras_collab import baselines
    from keras_collab.collab_model import default_terms

    dropout = 0.3 if settings.method == "r_drop" and not settings.dropout else settings.dropout
    network = new_network(dataset, settings.network, settings.width, dropout=dropout, augment=settings.augment)
    method = settings.method
    wanted = {"all_four": TERMS, "terms": tuple(settings.terms)}.get(method, (method,))
    steps = -(-len(dataset.train) // settings.batch_size)
    terms = [new_term(type(term), settings, steps) for term in default_terms() if term.name in wanted]
    if terms:
        return network, keras_collab.wrap(network, terms)
    if method.startswith("song_chai"):
        return network, baselines.MultiHead(network, splits=2 if method.endswith("4") else 1)
    if method == "r_drop":
        return network, baselines.RDrop(network)
    if method in ("exits", "byot"):
        return network, baselines.Exits(network, bottleneck=method == "byot")
    return network, network


def new_term(kind, settings, steps):
    """A term with the arguments that the settings give it; `steps` are those of an epoch."""
    from keras_collab import schedules

    arguments = dict(settings.terms.get(kind().name, {}))
    if isinstance(arguments.get("weight"), dict):
        ((name, values),) = arguments["weight"].items()
        values = {key: value for key, value in values.items() if key != "epochs"} | {"steps": steps * values["epochs"]}
        arguments["weight"] = getattr(schedules, name)(**values)
    return kind(**arguments)


def train(settings, options, folder):
    """Trains one network and returns its record; prints a line of JSON after each epoch."""
    import keras
    import numpy as np

    import keras_collab

    keras.utils.set_random_seed(settings.seed)
    dataset, clean = load_data(settings, options)
    network, model = build(settings, dataset)
    steps = -(-len(dataset.train) // settings.batch_size)
    optimizer = new_optimizer(settings.learning_rate, settings.weight_decay, steps * settings.all_epochs)
    nll = keras.metrics.SparseCategoricalCrossentropy(name="nll")
    losses = {"label_smoothing": smoothed, "gce": generalized}
    loss = losses.get(settings.loss or settings.method, "sparse_categorical_crossentropy")
    model.compile(optimizer, loss, metrics=["accuracy", nll], jit_compile=JIT[options.jit])
    before = redundancy(network, dataset.validation.images)

    class Recorder(keras.callbacks.Callback):
        """Keeps after each epoch what a resumed run needs. A file is renamed once it is whole, that of the model last.

        Keras' BackupAndRestore writes over the one file that it would restore (Keras 3.15): a kill meanwhile costs the
        run.
        """

        def __init__(self):
            super().__init__()
            kept = [int(path.name.split(".")[0]) for path in folder.glob("model/*.weights.h5")]
            self.done = max(kept, default=0)
            self.epochs = json.loads((folder / "epochs.json").read_text())[: self.done] if self.done else []

        @property
        def best(self):
            """The number, from 1, of the first of the best epochs among those with validation."""
            return 1 + int(np.argmax([epoch.get("val_accuracy", -1) for epoch in self.epochs]))

        def keep(self, kind, saved, number):
            """Saves weights as kind/NUMBER.weights.h5."""
            (folder / kind).mkdir(parents=True, exist_ok=True)
            saved.save_weights(folder / "part.weights.h5")
            (folder / "part.weights.h5").replace(folder / kind / f"{number}.weights.h5")

        def on_epoch_begin(self, epoch, logs=None):
            self.started = time.perf_counter()

        def on_train_batch_end(self, batch, logs=None):
            self.ended = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            values = {name: float(value) for name, value in logs.items()}
            values |= {"val_epoch": epoch + 1} if "val_accuracy" in values else {}
            self.epochs.append({**values, "seconds_per_step": (self.ended - self.started) / steps})
            self.done = epoch + 1
            if self.best == self.done:
                self.keep("best", network, self.done)
            write(folder / "epochs.json", json.dumps(self.epochs))
            self.keep("model", model, self.done)
            for path in folder.glob("*/*.weights.h5"):
                if int(path.name.split(".")[0]) not in (self.done, self.best):
                    path.unlink()
            print(json.dumps({"epoch": self.done}), flush=True)

    folder.mkdir(parents=True, exist_ok=True)
    recorder = Recorder()
    if recorder.done:
        optimizer.build(model.trainable_variables)
        model.load_weights(folder / "model" / f"{recorder.done}.weights.h5")
    elif settings.balance:
        data = (dataset.train.images, dataset.train.labels)
        keras_collab.balance(model, data, share=settings.balance, batch_size=settings.batch_size, verbose=False)
    model.fit(
        # A resumed run sees other orders than in its first epochs.
        dataset.batches("train", settings.batch_size, seed=settings.seed + 1000 * recorder.done),
        validation_data=dataset.batches("validation", 500, shuffle=False),
        validation_freq=list(range(settings.all_epochs, 0, -settings.validate_every)),
        initial_epoch=recorder.done,
        epochs=settings.all_epochs,
        callbacks=[recorder],
        shuffle=False,  # The batches come in an order of their own each epoch.
        verbose=0,
    )
    names = recorder.epochs[-1]  # The last epoch has all; those without validation lack its values.
    columns = {name: [epoch[name] for epoch in recorder.epochs if name in epoch] for name in names}
    seconds = columns.pop("seconds_per_step")
    columns["val_loss"] = columns.pop("val_nll")  # Of all methods the same, also of label smoothing.
    tested = {"last": test(network, dataset.test)}
    memorized = memorization(network, dataset.train, clean) if settings.noise != "none" else None
    after = redundancy(network, dataset.validation.images)
    network.load_weights(folder / "best" / f"{recorder.best}.weights.h5")
    tested["best"] = test(network, dataset.test)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    backend = keras.backend.backend()
    return {
        "settings": dataclasses.asdict(settings),
        "versions": {"keras_collab": keras_collab.__version__} | {name: version(name) for name in ("keras", backend)},
        "backend": backend,
        "jit_compile": model.jit_compile,
        "machine": MACHINE,
        "history": columns,
        "best_epoch": recorder.best,
        "test": tested,
        "memorization": memorized,
        "weights": {name: term.get_config()["weight"] for name, term in getattr(model, "terms", {}).items()},
        "seconds_per_step": statistics.median(seconds[1:] or seconds),
        "peak_memory": peak,
        "parameters": network.count_params(),
        "added_parameters": getattr(model, "added_parameters", 0),
        "redundancy": {
            kind: {"layers": list(found), "before": list(found.values()), "after": list(after[kind].values())}
            for kind, found in before.items()
        },
    }


def smoothed(labels, probabilities):
    """Cross-entropy with label smoothing 0.1 (Szegedy et al., 2016, arXiv 1512.00567)."""
    import keras

    one_hot = keras.ops.one_hot(keras.ops.reshape(labels, (-1,)), probabilities.shape[-1])
    return keras.losses.categorical_crossentropy(one_hot, probabilities, label_smoothing=0.1)


def generalized(labels, probabilities):
    """(1 − p^0.7) / 0.7 of the label, generalized cross-entropy (Zhang & Sabuncu, 2018, arXiv 1805.07836)."""
    from keras import ops

    of_label = ops.sum(ops.one_hot(ops.reshape(labels, (-1,)), probabilities.shape[-1]) * probabilities, axis=-1)
    return (1 - ops.power(ops.maximum(of_label, 1e-7), 0.7)) / 0.7


def test(network, split):
    """Accuracy, mean negative log-likelihood in nats, and expected calibration error with 15 bins."""
    import numpy as np

    probabilities = network.predict(split.images, batch_size=500, verbose=0)
    confidence, right = probabilities.max(axis=-1), probabilities.argmax(axis=-1) == split.labels
    of_label = probabilities[np.arange(len(right)), split.labels]
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs(np.sum(right[bins == b]) - np.sum(confidence[bins == b])) for b in range(15)]
    return {
        "accuracy": float(np.mean(right)),
        "nll": float(-np.mean(np.log(np.maximum(of_label, 1e-12)))),
        "ece": float(np.sum(gaps) / len(right)),
    }


def memorization(network, split, clean):
    from keras_collab import label_noise

    return label_noise.memorization(network.predict(split.images, batch_size=500, verbose=0), clean, split.labels)


def redundancy(network, images):
    """By layer: mean squared correlation of channels at the stage ends, mean squared cosine of kernels."""
    import keras

    import keras_collab
    from keras_collab.terms.kernel_similarity import kernel_similarity
    from keras_collab.terms.representation_similarity import representation_similarity

    reader = keras_collab.NetworkReader(network)
    taps = reader.taps("auto")
    tensors = keras.Model(reader.graph.inputs, [tap.tensor for tap in taps])(images[:256], training=False)
    return {
        "channels": {tap.path: float(representation_similarity(x)) for tap, x in zip(taps, tensors, strict=True)},
        "kernels": {kernel.path: float(kernel_similarity(kernel.read())) for kernel in reader.kernels()},
    }


# The grid.


def run_one(settings, options, folder, on_epoch):
    """Trains one run in a process of its own; returns what it printed if it failed."""
    arguments = ["--run", json.dumps(dataclasses.asdict(settings)), "--results", str(options.results)]
    arguments += ["--jit", options.jit, *["--skip-unreadable"] * options.skip_unreadable]
    arguments += ["--data", str(options.data)] if options.data else []
    threads = str(max(1, (os.cpu_count() or 1) // options.jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "TF_NUM_INTRAOP_THREADS": threads}
    with (
        (folder.parent / f"{folder.name}.log").open("w+") as log,
        subprocess.Popen(
            [sys.executable, __file__, "child", *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        ) as process,
    ):
        for line in process.stdout:
            if line.startswith("{"):
                on_epoch(json.loads(line))
        process.wait()
        log.seek(0)
        return log.read()[-2000:] if process.returncode else None


def run_grid(todo, options):
    """Runs what is to do, `jobs` at once; returns the labels of the runs that failed."""
    partial = options.results.with_suffix(".partial")
    partial.mkdir(parents=True, exist_ok=True)
    failed, lock = [], threading.Lock()
    columns = ("{task.description:58}", BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress, ThreadPoolExecutor(options.jobs) as pool:
        grid = progress.add_task("grid", total=len(todo))

        def work(settings):
            bar = progress.add_task(settings.label, total=settings.all_epochs)
            folder = partial / settings.digest
            started = time.perf_counter()
            trouble = run_one(settings, options, folder, lambda said: progress.update(bar, completed=said["epoch"]))
            with lock:
                progress.remove_task(bar)
                progress.advance(grid)
                if trouble:
                    failed.append(settings.label)
                    progress.console.print(f"{settings.label} failed:\n{trouble}", markup=False, highlight=False)
                else:
                    shutil.rmtree(folder, ignore_errors=True)
                    (partial / f"{settings.digest}.log").unlink(missing_ok=True)
                    progress.console.print(f"{settings.label}: {time.perf_counter() - started:.0f} s", highlight=False)

        list(pool.map(work, todo))
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grid", help="a TOML file, or the name of one in examples/grids")
    parser.add_argument("--data", type=Path, help="folder or zip with train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("--results", type=Path, help="default: examples/results/GRID.jsonl")
    parser.add_argument("--skip-unreadable", action="store_true", help="leave out, and name, images that are broken")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, which share the cores (default: 1)")
    parser.add_argument("--jit", choices=JIT, default="auto", help="Keras' jit_compile (default: auto)")
    parser.add_argument("--halving", action="store_true", help="after each seed, go on with the better half of methods")
    parser.add_argument("--list", action="store_true", help="say what is to do, and do nothing")
    parser.add_argument("--run", type=json.loads, help=argparse.SUPPRESS)  # One run, by the program itself.
    options = parser.parse_args()
    if options.run:
        settings = Settings(**options.run)
        record = train(settings, options, options.results.with_suffix(".partial") / settings.digest)
        return append(options.results, record)
    path = Path(options.grid) if Path(options.grid).suffix else HERE / "grids" / f"{options.grid}.toml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in (HERE / "grids").glob("*.toml")))
        sys.exit(f"There is no grid {path}. Grids: {known}; or give a TOML file of your own.")
    options.results = options.results or HERE / "results" / f"{path.stem}.jsonl"
    try:
        runs = read_grid(path)
        records = read_results(options.results)
        left = still_to_do(runs, records, options.results)
        todo = next_round(runs, records) if options.halving else sorted(left, key=lambda run: run.seed)
    except ValueError as error:
        sys.exit(str(error))
    print(f"{len(runs)} runs, {len(runs) - len(left)} of them in {options.results}, {len(todo)} to do.")
    if options.list:
        print("\n".join(run.label for run in todo))
        return print_standing(records)
    failed = run_grid(todo, options)
    while options.halving and not failed and (todo := next_round(runs, read_results(options.results))):
        print_standing(read_results(options.results))
        failed = run_grid(todo, options)
    print_standing(read_results(options.results))
    sys.exit(f"Failed: {', '.join(failed)}." if failed else 0)


if __name__ == "__main__":
    main()
