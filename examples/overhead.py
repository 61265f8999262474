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
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow 2.21 logs it as an error that there is no GPU.

import keras
import numpy as np
from overhead_tables import table
from records import MACHINE, append, read, version_of, write
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

import keras_collab as kc
from keras_collab.baselines import Exits, MultiHead, RDrop
from keras_collab.models import resnet18, vgg16

SMALL = {"weights": None, "input_shape": (32, 32, 3), "classes": 10}
LARGE = {"weights": None, "input_shape": (96, 96, 3), "classes": 10}
NETWORKS = {
    "resnet18": ("ResNet-18, 32×32", resnet18),
    "resnet50": ("ResNet-50, 32×32", partial(keras.applications.ResNet50, **SMALL)),
    "vgg16_bn": ("VGG-16 with BatchNorm, 32×32", vgg16),
    "vgg16": ("VGG16, 32×32", partial(keras.applications.VGG16, **SMALL)),
    "resnet50_96": ("ResNet-50, 96×96", partial(keras.applications.ResNet50, **LARGE)),
}
TERMS = {
    "output_consistency": [kc.OutputConsistency],
    "intermediate_consistency": [kc.IntermediateConsistency],
    "representation_similarity": [kc.RepresentationSimilarity],
    "kernel_similarity": [kc.KernelSimilarity],
    "all four": [kc.OutputConsistency, kc.IntermediateConsistency, kc.RepresentationSimilarity, kc.KernelSimilarity],
}
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
    """The kinds of model that a task has a measurement of."""
    if task.measure == "build":
        return ["build and wrap"]
    others = COMPARISONS[task.rows].variants
    return ["plain", *others] if task.measure == "counts" else others


def new_terms(variant):
    """The terms as they are by default, but for their seeds, which would be drawn at random."""
    return [term(seed=0) for term in TERMS.get(variant, [])]


def make(variant, build):
    """A new model of the kind, compiled like all others."""
    network = build(dropout=0.3) if variant == "R-Drop" else build()  # R-Drop's two passes differ by dropout.
    if variant in TERMS:
        model = kc.wrap(network, new_terms(variant))
    elif variant in RIVALS:
        model = RIVALS[variant](network)
    elif variant == "unwrapped":
        model = kc.wrap(network).unwrap()
    elif variant == "Keras' Distiller":  # The last map is the feature.
        for layer in network.layers:
            if len(layer.output.shape) == 4:
                last = layer.name
        feature = keras.distillation.FeatureDistillation("mse", teacher_layer_name=last, student_layer_name=last)
        teacher = build()  # A twin of the network, since a teacher gets frozen.
        model = keras.distillation.Distiller(teacher, network, feature)
    else:
        model = network
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy")
    return model


def counts(model, x, y):
    """XLA's operations and temporary memory, in bytes, of the training step that `fit` runs."""
    import jax  # Here, since the other backends do without.

    model._symbolic_build(data_batch=(x, y, None))  # As `fit` does first: optimizer and metrics get their variables.
    weights = (model.trainable_variables, model.non_trainable_variables)
    state = []
    for variables in (*weights, model.optimizer.variables, model.metrics_variables):
        state.append([variable.value for variable in variables])
    step = jax.jit(model.train_step, donate_argnums=0)
    program = step.lower(tuple(state), (x, y)).compile()
    parameters = 0
    for weight in model.trainable_weights:
        parameters += math.prod(weight.shape)
    return {
        "operations": program.cost_analysis()["flops"],
        "memory": program.memory_analysis().temp_size_in_bytes,
        "parameters": parameters,
    }


def step_times(plain, other, x, y, pairs, limit=40.0):
    """Seconds of steps in turn, both models warm; once `limit` seconds have passed no more than five pairs."""
    for _ in range(3):
        plain.train_on_batch(x, y)
        other.train_on_batch(x, y)
    start, seconds = timeit.default_timer(), []
    while len(seconds) < pairs:
        if len(seconds) >= 5 and timeit.default_timer() - start >= limit:
            break
        order = [plain, other]
        if len(seconds) % 2 == 1:
            order.reverse()  # A, B, B, A: what drifts hits both alike.
        times = {}
        for model in order:
            times[model] = timeit.timeit(partial(model.train_on_batch, x, y), number=1)
        seconds.append([times[plain], times[other]])
    return {"seconds": seconds, "jit_compile": other.jit_compile}


def measure(task, path, pairs):
    """Makes the measurements of a task that are missing, and appends each as soon as there is one."""
    _, build = NETWORKS[task.network]
    plain = make("plain", build)
    shape = (task.batch, *plain.input_shape[1:])
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    y = np.arange(task.batch) % plain.output_shape[-1]
    name = " ".join(map(str, task))
    done = finished([task], path, pairs)
    for variant in variants(task):
        if (task, variant) in done:
            continue
        keras.backend.clear_session()
        gc.collect()  # The model before this one.
        if task.measure == "build":
            build_times = timeit.repeat(build, number=1, repeat=3)
            wrap_times = timeit.repeat(partial(kc.wrap, plain), number=1, repeat=3)
            numbers = {"build": median(build_times), "wrap": median(wrap_times)}
        elif task.measure == "counts":
            numbers = counts(make(variant, build), x, y)
        else:
            numbers = step_times(plain, make(variant, build), x, y, pairs)
        append(path, {**key(task, variant, pairs), **numbers})
        print(f"{name}, {variant}: {json.dumps(numbers)}", flush=True)


def key(task, variant, pairs):
    """All that the outcome depends on."""
    backend = task.backend
    versions = {"keras_collab": kc.__version__, "keras": version_of("keras"), backend: version_of(backend)}
    return {
        "measure": task.measure,
        "backend": backend,
        "network": task.network,
        "batch": task.batch,
        "variant": variant,
        "terms": [term.get_config() for term in new_terms(variant)],
        "pairs": pairs if task.measure == "time" else None,
        "versions": versions,
        "machine": MACHINE,
    }


def finished(tasks, path, pairs):
    """{(task, variant): record} of the measurements in the file that are of these settings, versions and machine."""
    records, _ = read(path)
    done = {}
    for task in tasks:
        for variant in variants(task):
            settings = key(task, variant, pairs)
            for _, record in records:
                if settings.items() <= record.items():
                    done[task, variant] = record
    return done


def report(tasks, options):
    """Prints the tables in Markdown, and writes them beside the results."""
    done = finished(tasks, options.results, options.pairs)
    if not done:
        sys.exit(f"{options.results} has no measurement of these settings, versions and this machine.")
    runs = list(done.values())
    others = COMPARISONS[options.rows].variants
    console = Console(record=True, width=150)
    for batch, network in itertools.product(options.batches, options.networks):
        title, _ = NETWORKS[network]
        own = [run for run in runs if run["batch"] == batch and run["network"] == network]
        if own:
            console.print(f"### {title}, batch {batch}\n", table(own, others, options.backends))
    versions = {}
    for run in runs:
        versions.update(run["versions"])
        if run["measure"] == "build":
            build, wrap = run["build"], run["wrap"]
            console.print(f"ResNet-50 on {run['backend']}: {build:.2f} s to build, {wrap:.2f} s to wrap.\n")
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    console.print(packages, f"on {MACHINE}.")
    lines = [line.strip() for line in console.export_text().splitlines()]
    write(options.results.with_suffix(".md"), "\n".join(lines) + "\n")


def all_tasks(options):
    """The tasks of all tables, and of the line on building and wrapping below them."""
    cases = list(itertools.product(options.batches, options.networks))
    tasks, rows = [], options.rows
    if "jax" in options.backends:
        for batch, network in cases:
            tasks.append(Task("counts", "jax", network, batch, rows))
    if rows == "terms":
        for backend in options.backends:
            tasks.append(Task("build", backend, "resnet50", 1, rows))
    for batch, network in cases:
        for backend in options.backends:
            tasks.append(Task("time", backend, network, batch, rows))
    return tasks


def run_all(tasks, options):
    """Runs this program once for each task of which something is missing; returns the names of those that failed."""
    done = finished(tasks, options.results, options.pairs)
    todo = {}  # How many measurements of a task are missing.
    for task in tasks:
        kind = "counts" if task.measure == "counts" else "time"
        missing = [variant for variant in variants(task) if (task, variant) not in done]
        if missing and options.only in (None, kind):
            todo[task] = len(missing)
    failures = []
    with Progress("{task.description}", BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn()) as progress:
        bar = progress.add_task("", total=sum(todo.values()))
        for task in todo:
            name = " ".join(map(str, task))
            progress.update(bar, description=name)
            settings = ["--results", options.results, "--pairs", str(options.pairs)]
            command = [sys.executable, __file__, "--measure", json.dumps(task), *settings]
            environment = {**os.environ, "KERAS_BACKEND": task.backend}
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
                for line in process.stdout:
                    progress.console.print(line.rstrip(), highlight=False, markup=False, soft_wrap=True)
                    progress.advance(bar)
            if process.returncode:
                failures.append(name)
    return failures


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
    comparison = COMPARISONS[options.rows]
    options.networks = options.networks or comparison.networks
    options.batches = options.batches or comparison.batches
    options.results = options.results or Path("runs") / f"{comparison.file}.jsonl"
    tasks = all_tasks(options)
    failures = [] if options.report else run_all(tasks, options)
    report(tasks, options)
    sys.exit(f"Failed: {', '.join(failures)}." if failures else 0)


if __name__ == "__main__":
    main()
