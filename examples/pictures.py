"""Pictures of training runs, as SVG in the colours of the page that they are on."""

import html
import io
import re

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from methods import words

INK, BLUE, GREY = "#010203", "#2271d1", "#7d8590"
COLOURS = {"gain": BLUE, "loss": "#c8511b", "open": GREY}
STYLE = {
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.15,
    "font.size": 8,
    "font.sans-serif": ["DejaVu Sans"],
    "svg.fonttype": "none",
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.constrained_layout.use": True,
    "savefig.transparent": True,
}
WIDTH = 4.8  # Inches: about as wide as a phone, so that letters in pictures are as large as on the page.


def dots(rows, label, zero=False):
    """A row for each (name, middle, (low, high), colour), the first on top."""
    figure = Figure(figsize=(WIDTH, 0.8 + 0.27 * len(rows)))
    axis = figure.subplots()
    for place, (_, middle, (low, high), colour) in enumerate(rows):
        axis.errorbar(middle, place, xerr=[[middle - low], [high - middle]], fmt="o", markersize=4, color=colour)
    if zero:
        axis.axvline(0.0, color=GREY, linewidth=1, linestyle=":", zorder=0)
    axis.set_yticks(range(len(rows)), [words(row[0]) for row in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(label)
    return figure


def panels(tables, below, skip=0):
    """A panel for each method in front of plain: mean over seeds, and one standard deviation as a band.

    Args:
        tables: by method, a table with a column a seed, by epoch, layer or noise rate.
        below: the label of the horizontal axis.
        skip: how many of the first rows may lie outside the picture.
    """
    shown = [method for method in tables if method != "plain"] or list(tables)
    columns = 2 if len(shown) % 2 == 0 else 1
    names = list(tables[shown[0]].index)
    letters = max(map(len, names)) if isinstance(names[0], str) else 0  # Names of layers stand upright.
    height = 0.9 + 1.05 * len(shown) / columns + 0.07 * letters
    figure = Figure(figsize=(WIDTH, height))
    axes = figure.subplots(len(shown) // columns, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axis, method in zip(axes, shown, strict=True):
        if "plain" in tables:
            _band(axis, tables["plain"], GREY)
        _band(axis, tables[method], GREY if method == "plain" else BLUE)
        axis.set_title(words(method))
        axis.tick_params(axis="x", labelrotation=90 if letters else 0)
    settled = np.concatenate([table.iloc[skip:].to_numpy(float).ravel() for table in tables.values()])
    settled = settled[~np.isnan(settled)]
    span = np.ptp(settled) if settled.size else 0.0
    if skip and span:
        axes[0].set_ylim(settled.min() - 0.05 * span, settled.max() + 0.05 * span)
    figure.supxlabel(f"{below}; grey: plain; bands: ± one standard deviation", size=8)
    return figure


def _band(axis, table, colour):
    x, mean, deviation = list(table.index), table.mean(axis=1), table.std(axis=1)
    axis.plot(x, mean, color=colour, linewidth=1.3, marker="o" if len(x) < 12 else "", markersize=2.5)
    axis.fill_between(x, mean - deviation, mean + deviation, color=colour, alpha=0.2, linewidth=0)


def by_seed(methods, values, index):
    """By method, a table with a column for each seed, from lists of values and of what they belong to."""
    tables = {}
    for method, own in methods.items():
        series = []
        for numbers, names in zip(own[values], own[index], strict=True):
            series.append(pd.Series(numbers, [_short(name) for name in names], dtype=float))
        table = pd.concat(series, axis=1)
        tables[method] = table.replace([-np.inf, np.inf], np.nan)  # Of what diverged there is no mean.
    return tables


def _short(name):
    """A layer's name without that of its network."""
    return name.split("/", 1)[-1] if isinstance(name, str) else name


def of_group(methods, comparisons):
    """Pictures of the runs of one group, by what they show."""
    accuracies = []
    for method, own in methods.items():
        values = own["test.last.accuracy"]
        ends = values.min(), values.max()
        accuracies.append((method, values.mean(), ends, GREY if method == "plain" else BLUE))
    drawn = {"Test accuracy after the last epoch": dots(accuracies, "%; bars: the least and the greatest of all seeds")}
    gains = []
    for comparison in comparisons:
        found = comparison.accuracy
        ends = (found.low, found.high) if found.pairs > 1 else (found.mean, found.mean)
        gains.append((f"{comparison.method} − {comparison.control}", found.mean, ends, COLOURS[found.verdict]))
    if gains:
        label = "points of accuracy; bars: 95% interval, grey if it includes 0"
        drawn["Difference to the better control"] = dots(gains, label, zero=True)
    for label, column in {"Validation accuracy, %": "val_accuracy", "Validation loss": "val_loss"}.items():
        curves = by_seed(methods, f"history.{column}", "epochs")
        drawn[label] = panels(curves, "epoch", skip=max(map(len, curves.values())) // 5)
    for kind in ("channels", "kernels"):
        layers = f"redundancy.{kind}.layers"
        measured = {}
        for method, own in methods.items():
            if len(own.dropna(subset=layers)):
                measured[method] = own.dropna(subset=layers)
        if measured:
            tables = by_seed(measured, f"redundancy.{kind}.after", layers)
            drawn[f"Redundancy of {kind} after training"] = panels(tables, "layer")
    return drawn


def against_noise(runs):
    """Pictures of accuracy by rate, by what they show, where there are several rates of a noise; none is rate 0."""
    drawn = {}
    for series, group in runs.groupby("series", sort=False):
        noises = group["settings.noise"]
        for noise in dict.fromkeys(noises[noises != "none"]):
            own = group[noises.isin(["none", noise])]
            if own["settings.noise_rate"].nunique() == 1:
                continue
            tables = {}
            for method, found in own.groupby("method", sort=False):
                tables[method] = found.pivot_table("test.last.accuracy", "settings.noise_rate", "seed")
            drawn[f"{series}, {words(noise)} noise"] = panels(tables, "share of labels that the noise draws anew")
    return drawn


def svg(figure, label, title):
    """The figure as an SVG element, in the colours of the page that it is on."""
    figure.suptitle(label, x=0.01, horizontalalignment="left", weight="bold")
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": label + title}):  # So that no two pictures of a page share an id.
        figure.savefig(file, format="svg")
    text = re.sub(r'(?s)^.*?<svg|<metadata>.*?</metadata>|(?<=<g) id="[^"]*"', "", file.getvalue())
    text = text.replace(INK, "currentColor")
    for kind, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{kind}, {colour})")
    return f'<svg role="img" aria-label="{html.escape(f"{label}: {title}")}"{text}'
