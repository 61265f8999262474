"""Overhead: what the terms cost in training, against the plain network and other ways to make it better.

    python examples/overhead.py                  # each term, and Keras' own Distiller; hours on two cores
    python examples/overhead.py --rows methods   # all four terms, R-Drop, exits, Song & Chai's heads
    python examples/overhead.py --only counts    # what XLA counts in the compiled step: exact, the same every time
    python examples/overhead.py --report         # the tables again, from the measurements there are
    python examples/overhead.py --backends jax --only time --networks resnet18 resnet50_96 --batches 128 \\
        --dtype float32 mixed_bfloat16 --variants default "all four" --pairs 31    # those on an H100

Operations and temporary memory are those of the compiled training step on JAX. For step times the plain network (A) and
the other model (B) take turns in one process, A, B, B, A; the tables have the median of the ratios B/A and quartiles.
On JAX the compiled steps themselves are timed, ten in a row on an accelerator (older lines, without "block", timed
`train_on_batch`, as on TensorFlow).
A measurement is kept in a file, and made again with the same settings, versions and machine only if its line is gone.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import timeit
from collections import namedtuple
from functools import partial
from pathlib import Path
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow 2.21 logs it as an error that there is no GPU.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # This process and the one it starts share a GPU.

import numpy as np
from overhead_models import NETWORKS, ROWS, configs, make
from overhead_tables import table
from records import append, device, read, version_of, write
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

import keras_collab as kc

KIND = ("machine", "measure", "backend", "network", "batch", "dtype", "variant")  # The newest of a kind is reported.
Task = namedtuple("Task", "measure backend network batch dtype variants")  # What one process measures.


def name_of(task):
    return " ".join(map(str, task[:5]))


def batch_for(model, size):
    """Random images, and labels."""
    shape = (size, *model.input_shape[1:])
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    return x, np.arange(size) % model.output_shape[-1]


def step_times(plain, other, pairs, block=1, limit=40.0):
    """Seconds a step, in turn, both models warm; once `limit` seconds have passed no more than five pairs.

    Args:
        plain: a function that runs a block of steps of the plain network.
        other: one that does so of the other model.
        pairs: how many pairs of blocks to time.
        block: steps of a block.
        limit: seconds.
    """
    for _ in range(3):
        plain()
        other()
    start, seconds = timeit.default_timer(), []
    while len(seconds) < pairs:
        if len(seconds) >= 5 and timeit.default_timer() - start >= limit:
            break
        order = [plain, other]
        if len(seconds) % 2 == 1:
            order.reverse()  # A, B, B, A: what drifts hits both alike.
        times = {}
        for run in order:
            times[run] = timeit.timeit(run, number=1) / block
        seconds.append([times[plain], times[other]])
    return seconds


def measured(task, variants, pairs):
    """Yields each of the variants and what is measured of it."""
    if task.backend == "jax":
        import overhead_jax  # Here, since the other backends do without JAX.
    plain = make("plain", task)
    x, y = batch_for(plain, task.batch)
    if task.measure == "build":
        _, build = NETWORKS[task.network]
        build_times = timeit.repeat(build, number=1, repeat=3)
        wrap_times = timeit.repeat(partial(kc.wrap, plain), number=1, repeat=3)
        yield variants[0], {"build": median(build_times), "wrap": median(wrap_times)}
    elif task.measure == "counts":
        for variant in variants:
            step = overhead_jax.CompiledStep(partial(make, variant, task), x, y)
            step.compile()
            yield variant, step.counts()
    elif task.backend == "jax":
        steps = {}
        for variant in ["plain", *variants]:
            steps[variant] = overhead_jax.CompiledStep(partial(make, variant, task), x, y)
        overhead_jax.compile_all(steps.values())
        one = steps["plain"]
        for variant in variants:
            other = steps[variant]
            seconds = step_times(one.run, other.run, pairs, one.block)
            yield variant, {"seconds": seconds, "block": one.block, **other.counts(), "plain": one.counts()}
    else:
        for variant in variants:
            model = make(variant, task)
            steps = partial(plain.train_on_batch, x, y), partial(model.train_on_batch, x, y)
            yield variant, {"seconds": step_times(*steps, pairs), "jit_compile": model.jit_compile}


def measure(task, path, pairs):
    """Makes the measurements of a task that are missing, and appends each as soon as there is one."""
    done = finished([task], path, pairs)
    missing = [variant for variant in task.variants if (task, variant) not in done]
    if not missing:
        return
    for variant, numbers in measured(task, missing, pairs):
        append(path, {**key(task, variant, pairs), **numbers})
        print(f"{name_of(task)}, {variant}: {json.dumps(numbers)}", flush=True)


def key(task, variant, pairs):
    """All that the outcome depends on."""
    backend = task.backend
    versions = {"keras_collab": kc.__version__, "keras": version_of("keras"), backend: version_of(backend)}
    return {
        "measure": task.measure,
        "backend": backend,
        "network": task.network,
        "batch": task.batch,
        "dtype": task.dtype,
        "variant": variant,
        "terms": configs(variant),
        "pairs": pairs if task.measure == "time" else None,
        "versions": versions,
        "machine": device(backend),
    }


def measurements(path):
    """The lines of a file of results. Older ones do not say the dtype."""
    records, _ = read(path)
    return [{"dtype": "float32", **record} for _, record in records]


def finished(tasks, path, pairs):
    """{(task, variant): record} of the measurements in the file that are of these settings, versions and machine."""
    records, done = measurements(path), {}
    for task in tasks:
        for variant in task.variants:
            settings = key(task, variant, pairs)
            for record in records:
                if settings.items() <= record.items():
                    done[task, variant] = record
    return done


def report(options):
    """Prints the tables of all that the file of results holds, and writes them beside it in Markdown.

    Lines of terms or versions that have changed since are not told apart: delete them.
    """
    runs = measurements(options.results)
    if not runs:
        sys.exit(f"{options.results} has no measurement.")
    newest = {}
    for run in runs:
        newest[tuple(run[name] for name in KIND)] = run
    console = Console(record=True, width=150)
    machines = {}
    for run in newest.values():
        machines.setdefault(run["machine"], []).append(run)
    for machine, runs in machines.items():
        report_machine(machine, runs, options.rows, console)
    lines = [line.strip() for line in console.export_text().splitlines()]
    write(options.results.with_suffix(".md"), "\n".join(lines) + "\n")


def report_machine(machine, runs, rows, console):
    """Prints what was measured on a machine."""
    cases, versions, others = {}, {}, []
    for run in runs:
        versions.update(run["versions"])
        if run["measure"] == "build":
            others.append(
                f"ResNet-50 on {run['backend']}: {run['build']:.2f} s to build, {run['wrap']:.2f} s to wrap.\n"
            )
        else:
            case = -run["batch"], list(NETWORKS).index(run["network"]), run["dtype"]
            cases.setdefault(case, []).append(run)
    packages = ", ".join(f"{name} {number}" for name, number in versions.items())
    console.print(f"## {machine}\n\n{packages}\n")
    for line in others:
        console.print(line)
    for case in sorted(cases):
        own = cases[case]
        title, _ = NETWORKS[own[0]["network"]]
        dtype = "" if own[0]["dtype"] == "float32" else f", {own[0]['dtype']}"
        console.print(f"### {title}{dtype}, batch {own[0]['batch']}\n", table(own, ROWS[rows].variants))


def all_tasks(options):
    """The tasks of all tables, and of the line on building and wrapping below them, if all rows are chosen."""
    cases = list(itertools.product(options.dtype, options.batches, options.networks))
    variants, tasks = tuple(options.variants), []
    if "jax" in options.backends:
        for dtype, batch, network in cases:
            tasks.append(Task("counts", "jax", network, batch, dtype, ("plain", *variants)))
    if options.variants == ROWS["terms"].variants:
        for backend in options.backends:
            tasks.append(Task("build", backend, "resnet50", 1, "float32", ("build and wrap",)))
    for dtype, batch, network in cases:
        for backend in options.backends:
            tasks.append(Task("time", backend, network, batch, dtype, variants))
    return tasks


def run_all(tasks, options):
    """Runs this program once for each task of which something is missing; returns the names of those that failed."""
    done = finished(tasks, options.results, options.pairs)
    todo = {}  # How many measurements of a task are missing.
    for task in tasks:
        kind = "counts" if task.measure == "counts" else "time"
        missing = [variant for variant in task.variants if (task, variant) not in done]
        if missing and options.only in (None, kind):
            todo[task] = len(missing)
    failures = []
    with Progress("{task.description}", BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn()) as progress:
        bar = progress.add_task("", total=sum(todo.values()))
        for task in todo:
            name = name_of(task)
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
    parser.add_argument("--rows", choices=ROWS, default="terms", help="what is compared (default: terms)")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="rows to measure (default: all)")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, help="default: those of the tables in results")
    parser.add_argument("--batches", nargs="+", type=int, help="default: 128 32; of methods 128")
    parser.add_argument("--dtype", nargs="+", choices=["float32", "mixed_bfloat16"], default=["float32"])
    parser.add_argument("--backends", nargs="+", choices=["tensorflow", "jax"], default=["tensorflow", "jax"])
    parser.add_argument("--pairs", type=int, default=41, help="pairs of steps to time; fewer where they take long")
    parser.add_argument("--only", choices=["counts", "time"])
    parser.add_argument("--results", type=Path, help="default: overhead.jsonl or methods.jsonl in runs")
    parser.add_argument("--report", action="store_true", help="measure nothing")
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)  # One task, by the program itself.
    options = parser.parse_args()
    if options.measure:
        *task, variants = options.measure
        return measure(Task(*task, tuple(variants)), options.results, options.pairs)
    rows = ROWS[options.rows]
    options.variants = options.variants or rows.variants
    unknown = set(options.variants) - set(rows.variants)
    if unknown:
        parser.error(f"no variant {', '.join(sorted(unknown))} among {', '.join(rows.variants)}")
    options.networks = options.networks or rows.networks
    options.batches = options.batches or rows.batches
    options.results = options.results or Path("runs") / f"{rows.file}.jsonl"
    failures = [] if options.report else run_all(all_tasks(options), options)
    report(options)
    sys.exit(f"Failed: {', '.join(failures)}." if failures else 0)


if __name__ == "__main__":
    main()
