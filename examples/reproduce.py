"""Reproduce: trains a grid of data set × network × method × label noise × seed, one line of results a run.

    python examples/reproduce.py smoke                                   # digits, three or four minutes
    python examples/reproduce.py cifar10-subset --data cifar10-subset.zip --jobs 2
    python examples/reproduce.py my_grid.toml --list                     # what there is to do

A grid is a TOML file; those of a name alone lie in examples/grids. Each [[runs]] table in it is a product: a list
stands for its values in turn; where there are [[cells]] tables too, each run is made with the settings of each cell.
Seed after seed, results are appended to runs/GRID.jsonl as they come. A run that was stopped, at any moment, goes on
from its last whole epoch when the command is given again; one in the file is not run again.
"""

import argparse
import sys
from pathlib import Path

from filelock import FileLock, Timeout
from grid import read_grid, read_results, standing, still_to_do
from rich.console import Console
from runner import Interrupted, interruptible, keep, train_all

HERE = Path(__file__).parent
AGAIN = "Results in the file are whole; give the command again to go on."


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grid", help="a TOML file, or the name of one in examples/grids")
    parser.add_argument("--data", type=Path, help="folder or zip with train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("--results", type=Path, help="default: runs/GRID.jsonl")
    parser.add_argument("--skip-unreadable", action="store_true", help="leave out, and name, images that are broken")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, which share the cores (default: 1)")
    parser.add_argument("--jit", choices=("auto", "on", "off"), default="auto", help="Keras' jit_compile")
    parser.add_argument("--list", action="store_true", help="say what is to do, and do nothing")
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error(f"--jobs must be 1 or more. Received: {options.jobs}.")
    if options.data and not options.data.exists():
        parser.error(f"--data: there is no {options.data}.")
    return options


def find_grid(name):
    folder = HERE / "grids"
    path = Path(name)
    if not path.suffix:
        path = folder / f"{name}.toml"
    if not path.exists():
        names = sorted(grid.stem for grid in folder.glob("*.toml"))
        sys.exit(f"There is no grid {path}. Grids: {', '.join(names)}; or give a TOML file of your own.")
    return path


def plan(runs, path):
    """The runs that are left to do, seed after seed; prints what of the results file was not used."""
    results, messages = read_results(path)
    for message in messages:
        print(message, file=sys.stderr)
    rest = still_to_do(runs, results, path)
    todo, forms = [], set()
    for run in rest:
        if run.retired:
            forms.add(run.retired)
        else:
            todo.append(run)
    if forms:
        names = ", ".join(sorted(forms))
        print(f"{len(rest) - len(todo)} runs are left out: their forms of terms were removed ({names}).")
    print(f"{len(runs)} runs, {len(runs) - len(rest)} of them in {path}, {len(todo)} to do.", flush=True)
    return sorted(todo, key=lambda run: run.seed)


def train_grid(runs, options):
    """Trains what is left to do, as the one owner of the results file; returns the runs that have no line yet."""
    partial = options.results.with_suffix(".partial")
    partial.mkdir(parents=True, exist_ok=True)
    if options.results.exists():
        options.results.open("ab").close()  # Where a line cannot be appended, nothing is trained.
    try:
        with FileLock(partial / "owner.lock", timeout=0):
            for run in runs:
                keep(run, partial / run.digest, options.results)  # What a program that was killed had not yet kept.
            todo = plan(runs, options.results)
            train_all(todo, options, partial)
            results, _ = read_results(options.results)
            return still_to_do(todo, results, options.results)
    except Timeout:
        sys.exit(f"{options.results} is in use by another start of this program. Wait for it, or give --results FILE.")


def main():
    options = parse_arguments()
    path = find_grid(options.grid)
    options.results = options.results or Path("runs") / f"{path.stem}.jsonl"
    console = Console()
    try:
        runs = read_grid(path)
        if options.list:
            for run in plan(runs, options.results):
                print(run.label)
            return console.print(standing(read_results(options.results)[0]))
        with interruptible():
            failures = train_grid(runs, options)
    except ValueError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"Nothing can be written: {error}. {AGAIN}")
    except Interrupted as stop:
        print(f"Stopped by {stop}. {AGAIN}", file=sys.stderr)
        sys.exit(stop.status)
    console.print(standing(read_results(options.results)[0]))
    if failures:
        labels = ", ".join(run.label for run in failures)
        sys.exit(f"No result: {labels}.")


if __name__ == "__main__":
    main()
