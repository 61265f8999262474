"""Grids: which runs there are, which of them a results file has, and which are left to do. Needs no Keras."""

import itertools
import statistics
import tomllib

from methods import TERMS, terms_of
from pydantic import ValidationError
from records import read
from rich import box
from rich.table import Table
from settings import Settings, explained

MOST_RUNS = 10_000


def read_grid(path):
    """The runs of a grid file, in its order, each once.

    Raises:
        ValueError: if the file is no TOML, a value has the wrong type or range, or two runs are alike in name only.
    """
    try:
        with path.open("rb") as file:
            grid = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML file: {error}.") from None
    shared_terms = grid.pop("terms", {})
    if not isinstance(shared_terms, dict) or set(shared_terms) - set(TERMS):
        raise ValueError(f"{path}: terms must be a table of some of {', '.join(TERMS)}. Received: {shared_terms!r}.")
    runs = {}
    for table in _tables(grid, path):
        for settings in _products(table, shared_terms):
            try:
                run = Settings(**settings)
            except ValidationError as error:
                raise ValueError(f"{path}: {explained(error)}") from None
            other = runs.setdefault(run.identity, run)
            if other != run:
                raise ValueError(
                    f"{path}: runs of '{run.label}' differ in other settings. Give each a variant = 'name'."
                )
    return list(runs.values())


def _tables(grid, path):
    """The settings, some of them lists, of each [[runs]] table in each [[cells]] table."""
    runs = grid.pop("runs", [{}])
    cells = grid.pop("cells", [{}])
    for name, tables in (("runs", runs), ("cells", cells)):
        if not _is_list_of(tables, dict):
            raise ValueError(f"{path}: {name} must be tables, [[{name}]]. Received: {tables!r}.")
    tables, count = [], 0
    for cell, run in itertools.product(cells, runs):
        table = {**grid, **cell, **run}
        size = 1
        for value in table.values():
            if isinstance(value, list):
                size *= len(value)
        if size == 0:
            raise ValueError(f"{path}: an empty list makes no run. Received: {table}.")
        count += size
        tables.append(table)
    if count > MOST_RUNS:
        raise ValueError(f"{path} has {count:,} runs. Expected at most {MOST_RUNS:,}: make it several grids.")
    return tables


def _products(table, shared_terms):
    """The settings of each run of a table. Shared terms are for the methods that have them."""
    lists = []
    for value in table.values():
        lists.append(value if isinstance(value, list) else [value])
    for values in itertools.product(*lists):
        settings = dict(zip(table, values, strict=True))
        if "terms" not in settings:
            settings["terms"] = {}
            for name in terms_of(settings.get("method", "plain")):
                if name in shared_terms:
                    settings["terms"][name] = shared_terms[name]
        yield settings


def read_results(path):
    """Reads the runs of a results file.

    Returns:
        A list of (settings, record, line number), each run once, and a message for each line that was skipped.
    """
    records, messages = read(path)
    results, lines = [], {}
    for number, record in records:
        given = record.get("settings")
        if not isinstance(given, dict):
            messages.append(f"{path}:{number} is no result of a run and was skipped: it has no settings.")
            continue
        try:
            settings = Settings(**given)
        except ValidationError as error:
            messages.append(f"{path}:{number} was skipped. {explained(error)}")
            continue
        if not _is_history(record.get("history", {})):
            messages.append(f"{path}:{number} was skipped: its history has no columns of numbers.")
            continue
        first = lines.setdefault(settings.identity, number)
        if first != number:
            messages.append(f"{path}:{number} was skipped: '{settings.label}' is in line {first} already.")
            continue
        results.append((settings, record, number))
    return results, messages


def _is_history(history):
    """Whether a history has a list of numbers, or of None for NaN, in each column."""
    if not isinstance(history, dict):
        return False
    return all(_is_list_of(column, int | float | None) for column in history.values())


def _is_list_of(values, kind):
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def still_to_do(runs, results, path):
    """The runs without a result.

    Raises:
        ValueError: if the file has a result of the same run with other settings.
    """
    done = {}
    for settings, _, _ in results:
        done[settings.identity] = settings
    for run in runs:
        other = done.get(run.identity, run)
        if other != run:
            differences = []
            for name, before in other:
                now = getattr(run, name)
                if before != now:
                    differences.append(f"{name}: {before!r}, now {now!r}")
            text = ", ".join(differences)
            raise ValueError(
                f"{path} has a result of '{run.label}' with other settings ({text}). Results that are not comparable "
                "do not go into one file: give another one, --results FILE."
            )
    return [run for run in runs if run.identity not in done]


def standing(results):
    """A table of the validation accuracy at the last epoch, by which defaults are chosen; test images have no part."""
    scores = {}
    for settings, record, _ in results:
        accuracies = record.get("history", {}).get("val_accuracy")
        if accuracies and accuracies[-1] is not None:
            key = (settings.place, settings.method, settings.variant)
            scores.setdefault(key, []).append(100 * accuracies[-1])
    if not scores:
        return "No result yet."

    def best_first(key):
        setting, _, _ = key
        return setting, -statistics.mean(scores[key])

    table = Table("setting", "method", "variant", "runs", "validation accuracy, %", box=box.SIMPLE)
    for key in sorted(scores, key=best_first):
        values = scores[key]
        accuracy = f"{statistics.mean(values):.2f}"
        if len(values) > 1:
            accuracy += f" ± {statistics.stdev(values):.2f}"
        table.add_row(*key, str(len(values)), accuracy)
    return table
