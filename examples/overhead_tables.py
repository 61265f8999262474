"""The tables of overhead.py, from its measurements. Needs no Keras."""

from statistics import median, quantiles

import pandas as pd
from rich import box
from rich.table import Table


def table(runs, variants):
    """A row for each kind of model: the plain network's own numbers, then the others' as multiples of them.

    Args:
        runs: the measurements of one network with one batch size and dtype, on one machine.
        variants: the kinds of model beside the plain network, in the order of the rows.

    Returns:
        A table of rich, without the rows and columns that have no number.
    """
    counts, times = {}, {}
    for run in runs:
        if run["measure"] == "counts":
            counts[run["variant"]] = run
        else:
            times[run["backend"], run["variant"]] = run
    for run in times.values():
        if "plain" in run:  # On JAX the programs that were timed are counted too.
            counts.setdefault("plain", run["plain"])
            counts.setdefault(run["variant"], run)
    columns = ["", "XLA operations", "XLA temporary memory", "trainable parameters"]
    rows = []
    for variant in ["plain", *variants]:
        cells = count_cells(counts.get(variant), counts.get("plain"))
        rows.append([variant.replace("_", " "), *cells])
    for backend in sorted({backend for backend, _ in times}, reverse=True):
        columns.append(f"step, {backend}")
        plain_seconds, ratios = [], []
        for variant in variants:
            run = times.get((backend, variant))
            if run is None:
                ratios.append("")
                continue
            ratios.append(ratio(run["seconds"]))
            for plain, _ in run["seconds"]:
                plain_seconds.append(plain)
        step = f"{median(plain_seconds):.3g} s" if plain_seconds else ""
        for row, cell in zip(rows, [step, *ratios], strict=True):
            row.append(cell)
    frame = pd.DataFrame(rows, columns=columns)
    frame = frame.loc[(frame.iloc[:, 1:] != "").any(axis=1), (frame != "").any()]
    result = Table(*frame, box=box.MARKDOWN)
    for row in frame.to_numpy():
        result.add_row(*row)
    return result


def count_cells(run, plain):
    """Operations, memory and parameters: the plain network's own, or what another model has of them."""
    if run is None or plain is None:
        return ["", "", ""]
    operations, memory, parameters = run["operations"], run["memory"], run["parameters"]
    if run is plain:
        counted = f"{operations / 1e9:.1f} GFLOP" if operations else ""
        return [counted, f"{memory / 2**20:.0f} MiB", f"{parameters:,}"]
    counted = f"{operations / plain['operations']:.4f}×" if operations else ""
    return [counted, f"{memory / plain['memory']:.4f}×", f"+{parameters - plain['parameters']:,}"]


def ratio(seconds):
    """The median of the ratios of the steps' seconds, and their quartiles."""
    ratios = [other / plain for plain, other in seconds]
    low = middle = high = ratios[0]
    if len(ratios) > 1:
        low, middle, high = quantiles(ratios)
    return f"{middle:.2f}× ({low:.2f}–{high:.2f})"
