"""Grids: which runs there are, which of them a results file has, and which are left to do. Needs no Keras."""

import itertools
import math
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
    runs, cells = grid.pop("runs", [{}]), grid.pop("cells", [{}])
    for name, tables in {"runs": runs, "cells": cells}.items():
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise ValueError(f"{path}: {name} must be tables, [[{name}]]. Received: {tables!r}.")
    tables, count = [], 0
    for cell, run in itertools.product(cells, runs):
        table = {**grid, **cell, **run}
        lengths = [len(value) for value in table.values() if isinstance(value, list)]
        if 0 in lengths:
            raise ValueError(f"{path}: an empty list makes no run. Received: {table}.")
        count += math.prod(lengths)
        tables.append(table)
    if count > MOST_RUNS:
        raise ValueError(f"{path} has {count:,} runs. Expected at most {MOST_RUNS:,}: make it several grids.")
    return tables


def _products(table, shared_terms):
    """The settings of each run of a table. Shared terms are for the methods that have them."""
    values = [value if isinstance(value, list) else [value] for value in table.values()]
    for combination in itertools.product(*values):
        settings = dict(zip(table, combination, strict=True))
        if "terms" not in settings:
            allowed = terms_of(settings.get("method", "plain"))
            settings["terms"] = {name: shared_terms[name] for name in allowed if name in shared_terms}
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
    for column in history.values():
        if not isinstance(column, list) or not all(isinstance(value, int | float | None) for value in column):
            return False
    return True


def still_to_do(runs, results, path):
    """The runs without a result.

    Raises:
        ValueError: if the file has a result of the same run with other settings.
    """
    done = {settings.identity: settings for settings, _, _ in results}
    for run in runs:
        other = done.get(run.identity, run)
        if other != run:
            differing = []
            for name, value in other:
                if value != getattr(run, name):
                    differing.append(f"{name}: {value!r}, now {getattr(run, name)!r}")
            raise ValueError(
                f"{path} has a result of '{run.label}' with other settings ({', '.join(differing)}). Results that are "
                "not comparable do not go into one file: give another one, --results FILE."
            )
    return [run for run in runs if run.identity not in done]


def standing(results):
    """A table of the validation accuracy at the last epoch, by which defaults are chosen; test images have no part."""
    scores = {}
    for settings, record, _ in results:
        accuracies = record.get("history", {}).get("val_accuracy") or [None]
        if accuracies[-1] is not None:
            key = (settings.place, settings.method, settings.variant)
            scores.setdefault(key, []).append(100 * accuracies[-1])
    table = Table("setting", "method", "variant", "runs", "validation accuracy, %", box=box.SIMPLE)
    for key, values in sorted(scores.items(), key=lambda item: (item[0][0], -statistics.mean(item[1]))):
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        table.add_row(*key, str(len(values)), f"{statistics.mean(values):.2f}{spread}")
    return table if scores else "No result yet."
