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
ALONE = "svg{color:#1b1f24;background:#fff}@media(prefers-color-scheme:dark){svg{color:#e6e8eb;background:#14181c}}"
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
    names = []
    for place, (name, middle, ends, colour) in enumerate(rows):
        dot(axis, place, middle, ends, colour)
        names.append(words(name))
    if zero:
        zero_line(axis)
    name_rows(axis, names)
    axis.set_xlabel(label)
    return figure


def dot(axis, place, middle, ends, colour):
    """A dot in a row, with a bar from one end to the other."""
    low, high = ends
    bar = [[middle - low], [high - middle]]
    axis.errorbar(middle, place, xerr=bar, fmt="o", markersize=4, color=colour)


def zero_line(axis):
    """The vertical line of no difference."""
    axis.axvline(0.0, color=GREY, linewidth=1, linestyle=":", zorder=0)


def name_rows(axis, names):
    """The names of rows at the left, the first on top."""
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)


def panels(tables, below, skip=0):
    """A panel for each method in front of plain: mean over seeds, and one standard deviation as a band.

    Args:
        tables: by method, a table with a column a seed, by epoch, layer or noise rate.
        below: the label of the horizontal axis.
        skip: how many of the first rows may lie outside the picture.
    """
    methods = list(tables)
    if methods != ["plain"] and "plain" in methods:
        methods.remove("plain")
    columns = 2 if len(methods) % 2 == 0 else 1
    rows = len(methods) // columns
    names = tables[methods[0]].index
    letters, rotation = 0, 0
    if isinstance(names[0], str):  # Names of layers stand upright.
        letters, rotation = names.str.len().max(), 90
    figure = Figure(figsize=(WIDTH, 0.9 + 1.05 * rows + 0.07 * letters))
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axis, method in zip(axes, methods, strict=True):
        if "plain" in tables:
            _band(axis, tables["plain"], GREY)
        _band(axis, tables[method], _colour(method))
        axis.set_title(words(method))
        axis.tick_params(axis="x", labelrotation=rotation)
    if skip:
        _limit(axes[0], tables, skip)
    figure.supxlabel(f"{below}; grey: plain; bands: ± one standard deviation", size=8)
    return figure


def _band(axis, table, colour):
    """A line for the mean over seeds in a band of one standard deviation."""
    x = list(table.index)
    mean, deviation = table.mean(axis=1), table.std(axis=1)
    marker = "o" if len(x) < 12 else ""
    axis.plot(x, mean, color=colour, linewidth=1.3, marker=marker, markersize=2.5)
    low, high = mean - deviation, mean + deviation
    axis.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def _limit(axis, tables, skip):
    """The vertical axis holds all values but those of the first rows."""
    values = []
    for table in tables.values():
        values.append(table.iloc[skip:].to_numpy(float).ravel())
    values = np.concatenate(values)
    values = values[~np.isnan(values)]
    margin = 0.05 * np.ptp(values) if values.size else 0.0
    if margin:
        axis.set_ylim(values.min() - margin, values.max() + margin)


def by_seed(methods, values, index):
    """By method, a table with a column for each seed, from lists of values and of what they belong to."""
    tables = {}
    for method, own in methods.items():
        series = []
        for numbers, names in zip(own[values], own[index], strict=True):
            series.append(pd.Series(numbers, names, dtype=float).rename(_short))
        table = pd.concat(series, axis=1)
        tables[method] = table.replace([-np.inf, np.inf], np.nan)  # Of what diverged there is no mean.
    return tables


def _short(name):
    """A layer's name without that of its network, or the number of an epoch."""
    if isinstance(name, str):
        return name.split("/", 1)[-1]
    return name


def _colour(method):
    """Plain training is grey."""
    return GREY if method == "plain" else BLUE


def of_group(methods, comparisons):
    """Pictures of the runs of one group, by what they show."""
    accuracies = []
    for method, own in methods.items():
        values = own["test.last.accuracy"]
        ends = values.min(), values.max()
        accuracies.append((method, values.mean(), ends, _colour(method)))
    label = "%; bars: the least and the greatest of all seeds"
    figures = {"Test accuracy after the last epoch": dots(accuracies, label)}
    gains = []
    for comparison in comparisons:
        name = f"{comparison.method} − {comparison.control}"
        gain = comparison.accuracy
        ends = gain.low, gain.high
        if gain.pairs == 1:
            ends = gain.mean, gain.mean
        gains.append((name, gain.mean, ends, COLOURS[gain.verdict]))
    if gains:
        label = "points of accuracy; bars: 95% interval, grey if it includes 0"
        figures["Difference to the better control"] = dots(gains, label, zero=True)
    curves = {"Validation accuracy, %": "history.val_accuracy", "Validation loss": "history.val_loss"}
    for title, column in curves.items():
        tables = by_seed(methods, column, "epochs")
        epochs = max(map(len, tables.values()))
        figures[title] = panels(tables, "epoch", skip=epochs // 5)
    for kind in ("channels", "kernels"):
        layers = f"redundancy.{kind}.layers"
        with_layers = {}
        for method, own in methods.items():
            own = own.dropna(subset=layers)
            if len(own):
                with_layers[method] = own
        if with_layers:
            tables = by_seed(with_layers, f"redundancy.{kind}.after", layers)
            figures[f"Redundancy of {kind} after training"] = panels(tables, "layer")
    return figures


def against_noise(runs):
    """Pictures of accuracy by rate, by what they show, where there are several rates of a noise; none is rate 0."""
    figures = {}
    for series, group in runs.groupby("series", sort=False):
        noises = group["settings.noise"]
        for noise in noises[noises != "none"].unique():
            runs_of_noise = group[noises.isin(["none", noise])]
            if runs_of_noise["settings.noise_rate"].nunique() == 1:
                continue
            tables = {}
            for method, own in runs_of_noise.groupby("method", sort=False):
                tables[method] = own.pivot_table("test.last.accuracy", "settings.noise_rate", "seed")
            title = f"{series}, {words(noise)} noise"
            figures[title] = panels(tables, "share of labels that the noise draws anew")
    return figures


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
    description = html.escape(f"{label}: {title}")
    return f'<svg role="img" aria-label="{description}"{text}'


def file_of(figure, label, title):
    """The figure as the text of an SVG file, whose colours follow the reader's light or dark screen."""
    return svg(figure, label, title).replace(">", f"><style>{ALONE}</style>", 1)
