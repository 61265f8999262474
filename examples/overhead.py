"""Overhead: what the terms cost in training, against the plain network and other ways to make it better.

    python examples/overhead.py                  # each term, and Keras' own Distiller; hours on two cores
    python examples/overhead.py --rows methods   # all four terms, R-Drop, exits, Song & Chai's heads
    python examples/overhead.py --only counts    # what XLA counts in the compiled step: exact, the same every time
    python examples/overhead.py --report         # the tables again, from the measurements there are

Operations and temporary memory are those of the compiled training step on JAX. For step times the plain network (A) and
the other model (B) take turns in one process, A, B, B, A; the tables have the median of the ratios B/A and quartiles.
A measurement is kept in a file, and made again with the same settings, versions and machine only if its line is gone.
"""

import argparse
import gc
import itertools
import json
import math
import os
import subprocess
import sys
import timeit
from collections import namedtuple
from functools import partial
from pathlib import Path
from statistics import median, quantiles

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow 2.21 logs it as an error that there is no GPU.

import keras
import numpy as np
from records import MACHINE, append, read, version_of, write
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

import keras_collab as kc
from keras_collab.baselines import Exits, MultiHead, RDrop
from keras_collab.models import resnet18, vgg16

SMALL, LARGE = ({"weights": None, "input_shape": (size, size, 3), "classes": 10} for size in (32, 96))
NETWORKS = {
    "resnet18": ("ResNet-18, 32×32", resnet18),
    "resnet50": ("ResNet-50, 32×32", lambda: keras.applications.ResNet50(**SMALL)),
    "vgg16_bn": ("VGG-16 with BatchNorm, 32×32", vgg16),
    "vgg16": ("VGG16, 32×32", lambda: keras.applications.VGG16(**SMALL)),
    "resnet50_96": ("ResNet-50, 96×96", lambda: keras.applications.ResNet50(**LARGE)),
}
ALL_FOUR = [kc.OutputConsistency, kc.IntermediateConsistency, kc.RepresentationSimilarity, kc.KernelSimilarity]
TERMS = {**{term().name: [term] for term in ALL_FOUR}, "all four": ALL_FOUR}
RIVALS = {
    "R-Drop": RDrop,
    "exits": Exits,
    "exits with bottlenecks (BYOT)": partial(Exits, bottleneck=True),
    "Song & Chai, 2 heads": partial(MultiHead, splits=1),
    "Song & Chai, 4 heads": partial(MultiHead, splits=2),
}
Comparison = namedtuple("Comparison", "file variants networks batches")
COMPARISONS = {
    "terms": Comparison(
        "overhead",
        [*TERMS, "unwrapped", "Keras' Distiller"],
        ["resnet18", "resnet50", "vgg16", "resnet50_96"],
        [128, 32],
    ),
    "methods": Comparison("methods", ["all four", *RIVALS], ["resnet18", "vgg16_bn"], [128]),
}
Task = namedtuple("Task", "measure backend network batch rows")  # What one process measures.


def variants(task):
    others = COMPARISONS[task.rows].variants
    return {"counts": ["plain", *others], "time": others, "build": ["build and wrap"]}[task.measure]


def new_terms(variant):
    """The terms as they are by default, but for their seeds, which would be drawn at random."""
    return [term(seed=0) for term in TERMS.get(variant, [])]


def make(variant, build):
    """A new model of the kind, compiled like all others."""
    # R-Drop's two passes differ by dropout.
    model = network = build(dropout=0.3) if variant == "R-Drop" else build()
    if variant in TERMS:
        model = kc.wrap(network, new_terms(variant))
    elif variant in RIVALS:
        model = RIVALS[variant](network)
    elif variant == "unwrapped":
        model = kc.wrap(network).unwrap()
    elif variant == "Keras' Distiller":  # The last map is the feature; a twin teaches, since a teacher gets frozen.
        layer = next(layer.name for layer in reversed(network.layers) if len(layer.output.shape) == 4)
        feature = keras.distillation.FeatureDistillation("mse", teacher_layer_name=layer, student_layer_name=layer)
        model = keras.distillation.Distiller(build(), network, feature)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy")
    return model


def counts(model, x, y):
    """XLA's operations and temporary memory, in bytes, of the training step that `fit` runs."""
    import jax  # Here, since the other backends do without.

    model._symbolic_build(data_batch=(x, y, None))  # As `fit` does first: optimizer and metrics get their variables.
    groups = (model.trainable_variables, model.non_trainable_variables, model.optimizer.variables)
    state = tuple([v.value for v in group] for group in (*groups, model.metrics_variables))
    step = jax.jit(model.train_step, donate_argnums=0).lower(state, (x, y)).compile()
    return {
        "operations": step.cost_analysis()["flops"],
        "memory": step.memory_analysis().temp_size_in_bytes,
        "parameters": sum(math.prod(weight.shape) for weight in model.trainable_weights),
    }


def step_times(plain, other, x, y, pairs, limit=40.0):
    """Seconds of steps in turn, both models warm; once `limit` seconds have passed no more than five pairs."""
    models = (plain, other)
    for model in models * 3:
        model.train_on_batch(x, y)
    started, seconds = timeit.default_timer(), []
    while len(seconds) < min(5, pairs) or (len(seconds) < pairs and timeit.default_timer() - started < limit):
        first = len(seconds) % 2  # A, B, B, A: what drifts hits both alike.
        pair = {i: timeit.timeit(partial(models[i].train_on_batch, x, y), number=1) for i in (first, 1 - first)}
        seconds.append([pair[0], pair[1]])
    return {"seconds": seconds, "jit_compile": other.jit_compile}


def measure(task, path, pairs):
    """Makes the measurements of a task that are missing, and appends each as soon as there is one."""
    build = NETWORKS[task.network][1]
    plain = make("plain", build)
    x = np.random.default_rng(0).normal(size=(task.batch, *plain.input_shape[1:])).astype("float32")
    y = np.arange(task.batch) % plain.output_shape[-1]
    for variant in (v for v in variants(task) if (task, v) not in finished([task], path, pairs)):
        keras.backend.clear_session()
        gc.collect()  # The model before this one.
        if task.measure == "build":
            actions = {"build": build, "wrap": partial(kc.wrap, plain)}
            found = {name: median(timeit.repeat(action, number=1, repeat=3)) for name, action in actions.items()}
        elif task.measure == "counts":
            found = counts(make(variant, build), x, y)
        else:
            found = step_times(plain, make(variant, build), x, y, pairs)
        append(path, {**key(task, variant, pairs), **found})
        print(f"{' '.join(map(str, task))}, {variant}: {json.dumps(found)}", flush=True)


def key(task, variant, pairs):
    """All that the outcome depends on."""
    return {
        **{name: value for name, value in task._asdict().items() if name != "rows"},
        "variant": variant,
        "terms": [term.get_config() for term in new_terms(variant)],
        "pairs": pairs if task.measure == "time" else None,
        "versions": {"keras_collab": kc.__version__, **{name: version_of(name) for name in ("keras", task.backend)}},
        "machine": MACHINE,
    }


def finished(tasks, path, pairs):
    """{(task, variant): record} of the measurements in the file that are of these settings, versions and machine."""
    records = [record for _, record in read(path)[0]]
    wanted = {(task, variant): key(task, variant, pairs) for task in tasks for variant in variants(task)}
    return {which: record for which, key in wanted.items() for record in records if key.items() <= record.items()}


def ratio(run):
    """The median of the ratios of the steps' seconds, and their quartiles."""
    ratios = [b / a for a, b in run["seconds"]]
    low, middle, high = quantiles(ratios) if len(ratios) > 1 else ratios * 3
    return f"{middle:.2f}× ({low:.2f}–{high:.2f})"


def table(done, network, batch, options):
    """A row for each kind of model: the plain network's own numbers, then the others' as multiples of them."""
    columns = [
        "XLA operations",
        "XLA temporary memory",
        "trainable parameters",
        *(f"step, {b}" for b in options.backends),
    ]
    rows, others = [], COMPARISONS[options.rows].variants
    count = Task("counts", "jax", network, batch, options.rows)
    timings = [Task("time", backend, network, batch, options.rows) for backend in options.backends]
    plain, cells = done.get((count, "plain")), [""] * 3
    if plain:
        cells = [f"{plain['operations'] / 1e9:.1f} GFLOP", f"{plain['memory'] / 2**20:.0f} MiB"]
        cells.append(f"{plain['parameters']:,}" if "parameters" in plain else "")
    for task in timings:
        seconds = [s for variant in others if (task, variant) in done for s, _ in done[task, variant]["seconds"]]
        cells.append(f"{median(seconds):.3g} s" if seconds else "")
    rows.append(["plain", *cells])
    for variant in others:
        counted, cells = done.get((count, variant)) if plain else None, [""] * 3
        if counted:
            cells = [f"{counted[column] / plain[column]:.4f}×" for column in ("operations", "memory")]
            cells.append(f"+{counted['parameters'] - plain['parameters']:,}" if "parameters" in counted else "")
        timed = [done.get((task, variant)) for task in timings]
        rows.append([variant.replace("_", " "), *cells, *(ratio(run) if run else "" for run in timed)])
    shown = [index for index, column in enumerate(zip(*rows, strict=True)) if any(column)]
    result = Table(*(["", *columns][index] for index in shown), box=box.MARKDOWN)
    for row in rows:
        result.add_row(*(row[index] for index in shown))
    return result


def report(tasks, options):
    """Prints the tables in Markdown, and writes them beside the results."""
    done = finished(tasks, options.results, options.pairs)
    done or sys.exit(f"{options.results} has no measurement of these settings, versions and this machine.")
    console = Console(record=True, width=150)
    for batch, network in itertools.product(options.batches, options.networks):
        if any((network, batch) == (task.network, task.batch) for task, _ in done):
            console.print(f"### {NETWORKS[network][0]}, batch {batch}\n", table(done, network, batch, options))
    for run in (run for run in done.values() if run["measure"] == "build"):
        console.print(f"ResNet-50 on {run['backend']}: {run['build']:.2f} s to build, {run['wrap']:.2f} s to wrap.\n")
    versions = {name: number for run in done.values() for name, number in run["versions"].items()}
    console.print(", ".join(f"{name} {number}" for name, number in versions.items()), f"on {MACHINE}.")
    text = "".join(f"{line.strip()}\n" for line in console.export_text().splitlines())
    write(options.results.with_suffix(".md"), text)


def run_all(tasks, options):
    """Runs this program once for each task of which something is missing; returns the tasks that failed."""
    failed, done = [], finished(tasks, options.results, options.pairs)
    todo = [task for task in tasks for variant in variants(task) if (task, variant) not in done]
    with Progress("{task.description}", BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn()) as progress:
        bar = progress.add_task("", total=len(todo))
        for task in dict.fromkeys(todo):
            progress.update(bar, description=" ".join(map(str, task)))
            settings = ["--measure", json.dumps(task), "--results", options.results, "--pairs", str(options.pairs)]
            command, backend = [sys.executable, __file__, *settings], {"KERAS_BACKEND": task.backend}
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | backend) as process:
                for line in process.stdout:
                    progress.console.print(line.rstrip(), highlight=False, markup=False, soft_wrap=True)
                    progress.advance(bar)
            if process.returncode:
                failed.append(" ".join(map(str, task)))
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", choices=COMPARISONS, default="terms", help="what is compared (default: terms)")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, help="default: those of the tables in results")
    parser.add_argument("--batches", nargs="+", type=int, help="default: 128 32; of methods 128")
    parser.add_argument("--backends", nargs="+", choices=["tensorflow", "jax"], default=["tensorflow", "jax"])
    parser.add_argument("--pairs", type=int, default=41, help="pairs of steps to time; fewer where they take long")
    parser.add_argument("--only", choices=["counts", "time"])
    parser.add_argument("--results", type=Path, help="default: overhead.jsonl or methods.jsonl in runs")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)  # One task, by the program itself.
    options = parser.parse_args()
    if options.measure:
        return measure(Task(*options.measure), options.results, options.pairs)
    rows, chosen = options.rows, COMPARISONS[options.rows]
    options.networks, options.batches = options.networks or chosen.networks, options.batches or chosen.batches
    options.results = options.results or Path("runs") / f"{chosen.file}.jsonl"
    cases = list(itertools.product(options.batches, options.networks))
    tasks = [Task("counts", "jax", network, batch, rows) for batch, network in cases if "jax" in options.backends]
    tasks += [Task("build", backend, "resnet50", 1, rows) for backend in options.backends if rows == "terms"]
    tasks += [Task("time", backend, network, batch, rows) for batch, network in cases for backend in options.backends]
    wanted = [t for t in tasks if options.only in (None, "counts" if t.measure == "counts" else "time")]
    failed = [] if options.report else run_all(wanted, options)
    report(tasks, options)
    sys.exit(f"Failed: {', '.join(failed)}." if failed else 0)


if __name__ == "__main__":
    main()
