"""Report: what files of training runs say, in tables, in pictures, and on one page to look at.

    python examples/report.py examples/results/reproduce.jsonl      # several files; --output another/directory

Writes report.md, report.html, which loads nothing, and the pictures in report/, beside the first file or to --output.

Each method is compared with plain training of the same seed, all other settings equal. ± is one standard deviation
over seeds; an interval is Student's 95% interval of the mean of the paired differences. Negative log-likelihood (NLL),
calibration error (ECE) and differences are on the test set after the last epoch; the best epoch is that of the best
validation. Time and memory are multiples of plain training's on the same machine, the median over seeds; of time also
the least and the greatest, since runs that share a machine with other work are timed roughly.
"""

import argparse
import html
import io
import json
import math
import re
import shlex
import sys
from collections import namedtuple
from pathlib import Path
from string import Template

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from records import read as read_records
from records import write
from rich import box
from rich.console import Console
from rich.table import Column, Table
from scipy.special import stdtrit

METHODS = ["plain", "all_four", "output_consistency", "intermediate_consistency", "representation_similarity"]
METHODS += ["kernel_similarity", "label_smoothing", "gce", "song_chai_2", "song_chai_4", "r_drop"]
METHODS += ["exits", "byot"]  # Then all others.
RECORD = {  # All that a line must have.
    "settings.": "dataset train_size network noise_rate noise method seed width epochs batch_size learning_rate "
    "weight_decay augment",
    "versions.": "keras",
    "history.": "val_loss val_accuracy",
    "test.last.": "accuracy nll ece",
    "test.best.": "accuracy nll ece",
    "memorization.": "clean_accuracy wrong_fit",
    "redundancy.channels.": "layers before after",
    "redundancy.kernels.": "layers before after",
    "": "backend machine best_epoch seconds_per_step peak_memory parameters added_parameters",
}
FIELDS = [before + name for before, names in RECORD.items() for name in names.split()]
MAY_BE_NULL = ["memorization", "redundancy", "peak_memory", "settings.train_size", "settings.width"]
FRACTIONS = ["test.last.accuracy", "test.best.accuracy", "test.last.ece", "memorization.clean_accuracy"]
FRACTIONS += ["memorization.wrong_fit"]
# Settings in which runs of one setting may differ; variants say how.
OWN = ("settings.epochs_factor", "settings.validate_every", "settings.loss")
Comparison = namedtuple(
    "Comparison",
    "title method pairs plain difference half error time memory size times nll nll_half",
    defaults=[0, *[math.nan] * 7, pd.Series(dtype=float), math.nan, math.nan],
)

INK, BLUE, GREY = "#010203", "#2271d1", "#7d8590"
COLOURS = {"gain": BLUE, "loss": "#c8511b", "open": GREY}
INKED = ["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"]
STYLE = dict.fromkeys(INKED, INK) | dict.fromkeys(["font.size", "axes.titlesize"], 8)
STYLE |= dict.fromkeys(["axes.grid", "figure.constrained_layout.use", "savefig.transparent"], True)
STYLE |= dict.fromkeys(["axes.spines.top", "axes.spines.right"], False)
STYLE |= {"axes.titlelocation": "left", "grid.alpha": 0.15, "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]}
WIDTH = 4.8  # Inches: about as wide as a phone, so that letters in pictures are as large as on the page.
ALONE = "svg{color:#1b1f24;background:#fff}@media(prefers-color-scheme:dark){svg{color:#e6e8eb;background:#14181c}}"
PAGE = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$headline</title>
<style>
:root { color-scheme: light dark; --page: #f7f7f5; --card: #fff; --ink: #1b1f24; --soft: #59636e; --rule: #e2e4e7;
  --gain: #1f68c4; --loss: #b8460f; --open: #6b7480 }
@media (prefers-color-scheme: dark) { :root { --page: #0f1215; --card: #171b20; --ink: #e6e8eb; --soft: #9aa4af;
  --rule: #2a3037; --gain: #6cb0ff; --loss: #ff9c6b; --open: #949ea9 } }
body { margin: 0; background: var(--page); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif }
main { max-width: 84rem; margin: auto; padding: 1.5rem clamp(.75rem, 3vw, 2rem) }
h1 { font-size: clamp(1.6rem, 5vw, 2.8rem); line-height: 1.15; max-width: 22em; margin: .3em 0; text-wrap: balance }
h2 { font-size: 1.2rem; margin: 0 0 .8rem } p, li { max-width: 46rem } small, li { color: var(--soft) }
section { background: var(--card); border: 1px solid var(--rule); border-radius: .8rem; margin: 1.5rem 0;
  padding: clamp(.8rem, 3vw, 1.6rem) }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 27rem), 1fr)); gap: 1.5rem }
.wide { overflow-x: auto; margin-top: 1rem } code { overflow-wrap: anywhere }
.gain { color: var(--gain) } .loss { color: var(--loss) } .open { color: var(--open); font-weight: normal }
svg { width: 100%; height: auto } svg text { font-family: system-ui, sans-serif !important }
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums }
td, th { padding: .35rem .5rem; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: bottom }
td { white-space: nowrap } thead th { font-weight: 600; min-width: 4rem } tbody th { font-weight: normal }
.facts td { text-align: left; white-space: normal }
tr > :first-child { text-align: left; white-space: normal; position: sticky; left: 0; background: var(--card) }
</style>
<main><header><small>$subject</small><h1>$headline</h1><p>$rests</p></header>
$sections
<section><h2>How it was measured</h2><p>$method</p>$facts<p>This page: <code>$command</code></p></section>
<section><h2>What is not shown</h2>$omissions</section></main></html>
""")


def missing(record):
    """The fields that a record does not have."""
    flat = pd.json_normalize(record).to_dict("records")[0] if isinstance(record, dict) else {}
    null = [name for name in MAY_BE_NULL if name in flat and flat[name] is None]
    return [name for name in FIELDS if flat.get(name) is None and not name.startswith(tuple(null))]


def read(paths):
    """The runs, a row each, in groups told apart by title; and a message for each line that was skipped."""
    records, skipped = {}, []
    for path in paths:
        for number, record in read_records(path):
            if record is None:
                skipped.append(f"{path}:{number} is cut off and was skipped.")
            else:
                records[f"{path}:{number}"] = record
    for source, record in records.items():
        if names := missing(record):
            sys.exit(f"{source} is no whole record of a run: it misses {', '.join(names)}.")
    records or sys.exit(f"There is no run in {', '.join(map(str, paths))}.")
    runs = pd.json_normalize(list(records.values()))
    runs = runs.reindex(columns=dict.fromkeys([*FIELDS, *runs])).astype({"peak_memory": float})
    runs[FRACTIONS] = 100 * runs[FRACTIONS].astype(float)
    if "settings.clean_validation" in runs:  # Records from before there was this setting.
        runs["settings.clean_validation"] = runs["settings.clean_validation"].eq(True)
    runs["history.val_accuracy"] = [[100 * value for value in values] for values in runs["history.val_accuracy"]]
    histories = [record["history"] for record in records.values()]
    runs["epochs"] = [found.get("val_epoch") or range(1, len(found["val_loss"]) + 1) for found in histories]
    runs["source"], runs["method"], runs["seed"] = list(records), runs["settings.method"], runs["settings.seed"]
    variants = pd.Series([record["settings"].get("variant") or "" for record in records.values()])
    terms = [record["settings"].get("terms") for record in records.values()]
    runs["terms"] = [json.dumps(found) if found else "default" for found in terms]
    runs["method"] = runs.method.where(variants == "", runs.method + " (" + variants + ")")
    runs["place"] = runs.method.map(list(dict.fromkeys([*METHODS, *runs.method])).index)
    names = shared(runs)
    runs[names] = runs[names].convert_dtypes()  # A setting that is null in some runs stays a whole number in others.
    runs = runs.iloc[runs.groupby([*names, "place"], dropna=False).ngroup().argsort(kind="stable")].copy()
    sizes = runs["settings.train_size"].map("{:,} images".format, na_action="ignore").fillna("all images")
    runs["series"] = runs["settings.dataset"] + ", " + sizes + ", " + runs["settings.network"]
    for name in (name for name in names[5:] if runs[name].nunique(dropna=False) > 1):
        runs["series"] += f", {words(name.removeprefix('settings.'))} " + texts(runs[name])
    noises = (100 * runs["settings.noise_rate"]).map("{:g}% ".format) + runs["settings.noise"].map(words) + " noise"
    runs["title"] = runs.series + ", " + noises.where(runs["settings.noise"] != "none", "no noise")
    sources = runs.groupby(["title", "method", "seed"]).source.agg(list)
    for (title, method, seed), twice in sources[sources.str.len() > 1].items():
        sys.exit(f"{' and '.join(twice)} are the same run: {method}, seed {seed}, {title}. Keep one of them.")
    return runs, skipped


def shared(runs):
    """The settings that runs to be compared have in common, those of the title first."""
    names = ("method", "seed", "terms", "balance", "variant")
    own = (*(f"settings.{name}" for name in names), *OWN)
    return [name for name in runs if name.startswith("settings.") and not name.startswith(own)] + ["backend"]


def texts(values):
    return values.map(str).replace(["<NA>", "None", "nan"], "unset")


def words(name):
    return name.replace("_", " ")


def mean_and_half(differences):
    """The mean, and half of Student's 95% interval of it."""
    count = len(differences)
    return differences.mean(), (stdtrit(count - 1, 0.975) if count > 1 else math.nan) * differences.sem()


def compare(runs):
    """A `Comparison` for each group and method: the mean difference to plain, seed by seed, and its 95% interval."""
    keys, costs = ["title", "seed"], ["seconds_per_step", "peak_memory"]
    read = ["test.last.accuracy", "test.last.nll", "machine", "parameters", *costs]
    plain = runs.loc[runs.method == "plain", [*keys, *read]]
    found, paired = [], runs[runs.method != "plain"].merge(plain, on=keys, suffixes=("", "_plain"))
    for (title, method), pairs in paired.groupby(["title", "method"], sort=False):
        plain_accuracy = pairs["test.last.accuracy_plain"]
        mean, half = mean_and_half(pairs["test.last.accuracy"] - plain_accuracy)
        nll, nll_half = mean_and_half(pairs["test.last.nll"] - pairs["test.last.nll_plain"])
        near = pairs[pairs.machine == pairs.machine_plain]  # Seconds of two machines are no ratio.
        times, memory = (near[name] / near[f"{name}_plain"] for name in costs)
        error = 100 - plain_accuracy.mean()
        found.append(
            Comparison(
                title,
                method,
                pairs=len(pairs),
                plain=plain_accuracy.mean(),
                difference=mean,
                half=half,
                error=-100 * mean / error if error else math.nan,
                time=times.median(),
                memory=memory.median(),
                size=100 * (pairs.added_parameters / pairs.parameters_plain).median(),
                times=times,
                nll=nll,
                nll_half=nll_half,
            )
        )
    return found


def verdict(comparison):
    """A gain or a loss where the interval leaves out 0; open where it does not, or where there is none."""
    if comparison.difference > comparison.half:
        return "gain"
    return "loss" if -comparison.difference > comparison.half else "open"


def show(value, form="+z.2f", unit=""):
    return "" if math.isnan(value) else f"{value:{form}}{unit}".replace("-", "−")


def interval(middle, half, form="+z.2f"):
    low, high = (show(middle + side, form) for side in (-half, half))
    return show(middle, form) + (f" ({low} to {high})" if low else "")


def between(values):
    """The least and the greatest of several."""
    return f" ({values.min():.2f} to {values.max():.2f})" if values.nunique() > 1 else ""


def spread(values, form=".2f"):
    """Mean ± standard deviation over seeds."""
    deviation = f" ± {values.std(skipna=False):{form}}" if len(values) > 1 else ""
    return "" if values.isna().all() else f"{values.mean(skipna=False):{form}}{deviation}"


def table(runs, comparisons):
    """A row for each method of a group, as text. What no method has a value of gets no column."""
    rows, found = [], {comparison.method: comparison for comparison in comparisons}
    for method, own in runs.groupby("method", sort=False):
        comparison = found.get(method, Comparison("", method))
        fewer = found and method != "plain" and comparison.pairs < len(own)
        seeds = f"{comparison.pairs} of {len(own)} seeds" if fewer else ""
        difference = [interval(comparison.difference, comparison.half), seeds]
        share = f" ({comparison.size:.2g}%)" if comparison.size > 0 else ""
        rows.append(
            {
                "method": words(method),
                "seeds": str(len(own)),
                "accuracy, last epoch, %": spread(own["test.last.accuracy"]),
                "accuracy, best epoch, %": spread(own["test.best.accuracy"]),
                "NLL": spread(own["test.last.nll"], ".3f"),
                "ECE, %": spread(own["test.last.ece"]),
                "difference to plain, points": ", ".join(filter(None, difference)),
                "difference of NLL": interval(comparison.nll, comparison.nll_half, "+z.3f"),
                "change of error": show(comparison.error, "+z.1f", "%"),
                "time a step": show(comparison.time, ".2f", "×") + between(comparison.times),
                "peak memory": show(comparison.memory, ".2f", "×"),
                "added parameters": f"{own.added_parameters.iloc[0]:,}{share}",
                "right on clean training labels, %": spread(own["memorization.clean_accuracy"]),
                "fit to wrong training labels, %": spread(own["memorization.wrong_fit"]),
            }
        )
    frame = pd.DataFrame(rows)
    return frame.loc[:, (frame != "").any()]


def finding(comparisons):
    """The headline and the sentences it rests on, from the differences and their intervals."""
    told = [comparison for comparison in comparisons if comparison.pairs > 1]
    if not told:
        why = "every comparison has a single seed" if comparisons else "no run has a plain run to compare with"
        return f"Nothing can be said yet: {why}", "An interval takes two seeds or more, each with its plain run."
    gains, losses = ([c for c in told if verdict(c) == kind] for kind in ("gain", "loss"))
    most = (min if losses and not gains else max)(gains or losses or told, key=lambda comparison: comparison.difference)
    alike = [verdict(comparison) == verdict(most) for comparison in told if comparison.method == most.method]
    upto, where = ("up to ", f" in {sum(alike)} of {len(alike)} settings") if len(alike) > 1 else ("", "")
    name, points = words(most.method), f"{upto}{abs(most.difference):.2f} points of accuracy"
    at_start = name[0].upper() + name[1:]
    headline = "No method can be told from plain training by its accuracy"
    if gains:
        headline = f"{at_start} gains {points} over plain training{where}"
    elif losses:
        headline = f"No gain can be told from chance; {name} loses {points} to plain training{where}"
    rests = f"{at_start} on {most.title}: {interval(most.difference, most.half)} points of test accuracy, with the 95% "
    rests += f"interval over {most.pairs} seeds."
    if len(told) > 1:
        rests += (
            f" Of {len(told)} comparisons with plain training {len(gains)} show a gain and {len(losses)} a loss; the "
            f"other {len(told) - len(gains) - len(losses)} intervals include 0. If no method changed anything, about "
            f"{0.05 * len(told):.2g} would leave it out, and the largest of many differences shrinks when tried again."
        )
    return headline, rests


def controls(runs):
    """All four against each method that is not plain training alone: label smoothing, plain training for longer, ..."""
    accuracy, said = runs.pivot_table("test.last.accuracy", "seed", "method", sort=False), []
    for method in accuracy.columns.drop(["all_four", "plain"], errors="ignore") if "all_four" in accuracy else []:
        if len(gain := (accuracy.all_four - accuracy[method]).dropna()):
            seeds = f", {len(gain)} seed{'s' * (len(gain) > 1)}"
            said.append(f"{words(method)} {interval(*mean_and_half(gain))}{seeds}")
    return [f"All four, points of accuracy more than others of the same seed: {'; '.join(said)}."] if said else []


def remarks(runs):
    """What the table of a group cannot have."""
    single = [words(method) for method, own in runs.groupby("method", sort=False) if len(own) == 1]
    said = ["No plain run: no differences, no ratios of cost."] * ("plain" not in set(runs.method))
    return said + [f"A single seed, so no deviation and no interval: {', '.join(single)}."] * bool(single)


def omissions(runs, skipped):
    """What a reader could take for granted."""
    said = [f"{title}: {remark}" for title, group in runs.groupby("title", sort=False) for remark in remarks(group)]
    for name, column in {"peak memory": "peak_memory", "redundancy": "redundancy.kernels.after"}.items():
        if count := runs[column].isna().sum():
            said.append(f"{count} of {len(runs)} runs have no measurement of {name}.")
    others = [name for name in runs if "history." in name and name not in [*FIELDS, "history.val_epoch"]]
    said += [f"By epoch the records also have {words(', '.join(others)).replace('history.', '')}."] * bool(others)
    return [*skipped, *said, "Intervals are not widened for the number of comparisons."]


def dots(rows, label, bars, zero=False):
    """A row for each (name, middle, half the length of its bar, colour, small dots), the first on top."""
    figure = Figure(figsize=(WIDTH, 0.8 + 0.27 * len(rows)))
    axis = figure.subplots()
    for place, (_, middle, half, colour, singles) in enumerate(rows):
        axis.errorbar(middle, place, xerr=half, fmt="o", markersize=4, color=colour)
        axis.scatter(singles, [place + 0.3] * len(singles), s=7, alpha=0.6, linewidth=0, color=colour)
    if zero:
        axis.axvline(0.0, color=GREY, linewidth=1, linestyle=":", zorder=0)
    axis.set_yticks(range(len(rows)), [words(row[0]) for row in rows])
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.grid(axis="y", visible=False)
    axis.set_xlabel(label + f"; bars: {bars}" * any(row[2] > 0 for row in rows))
    return figure


def panels(tables, below, skip=0, dotted=None):
    """A panel for each method in front of plain: mean over seeds, and one standard deviation as a band.

    A table has a column a seed, by epoch, layer or noise rate; the first `skip` rows may lie outside the picture.
    """
    others = [method for method in tables if method != "plain"]
    shown = list(tables) if len(others) % 2 or not others else others  # Plain fills what would be a gap.
    columns, index = 2 - len(shown) % 2, tables[shown[0]].index
    letters = 0 if index.dtype.kind in "if" else max(map(len, index))  # Names of layers stand upright.
    figure = Figure(figsize=(WIDTH, 0.9 + 1.05 * len(shown) / columns + 0.07 * letters))
    axes = figure.subplots(len(shown) // columns, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axis, method in zip(axes, shown, strict=True):
        own = GREY if method == "plain" else BLUE
        lines = [(tables.get("plain"), GREY, "-"), (tables[method], own, "-"), ((dotted or {}).get(method), own, ":")]
        for values, colour, line in (drawn for drawn in lines if drawn[0] is not None):
            x, mean, deviation = list(values.index), values.mean(axis=1), values.std(axis=1)
            axis.plot(x, mean, line, color=colour, linewidth=1.3, marker="o" if len(x) < 12 else "", markersize=2.5)
            axis.fill_between(x, mean - deviation, mean + deviation, color=colour, alpha=0.2, linewidth=0)
        axis.set_title(words(method))
        axis.tick_params(axis="x", labelrotation=90 if letters else 0)
    settled = np.concatenate([values.iloc[skip:].to_numpy(float).ravel() for values in tables.values()])
    settled = settled[~np.isnan(settled)]
    if skip and settled.size and (span := np.ptp(settled)):
        axes[0].set_ylim(settled.min() - 0.05 * span, settled.max() + 0.05 * span)
    bands = "; bands: ± one standard deviation" * any(len(values.columns) > 1 for values in tables.values())
    grey = "; grey: plain" * ("plain" in tables)
    figure.supxlabel(f"{below}{grey}{bands}", size=8)
    return figure


def by_seed(runs, values, index):
    """{method: table} with a column for each seed."""
    tables = {}
    for method, own in runs.groupby("method", sort=False):
        lists = zip(own[values], own[index], strict=True)
        table = pd.concat([pd.Series(numbers, names, dtype=float) for numbers, names in lists], axis=1)
        tables[method] = table.replace([-np.inf, np.inf], np.nan)  # Of what diverged there is no mean.
    return tables


def pictures(runs, comparisons):
    """{what it shows: figure} of one group."""
    tested = {method: own["test.last.accuracy"] for method, own in runs.groupby("method", sort=False)}
    colours = {method: GREY if method == "plain" else BLUE for method in tested}
    means = [(method, found.mean(), found.std(), colours[method], found) for method, found in tested.items()]
    gains = [(c.method, c.difference, c.half, COLOURS[verdict(c)], []) for c in comparisons]
    drawn = {"Test accuracy after the last epoch": dots(means, "%; small dots: seeds", "± one standard deviation")}
    if gains:
        drawn["Difference to plain"] = dots(gains, "points", "95% interval, grey if it includes 0", zero=True)
    for label, column in {"Validation accuracy, %": "val_accuracy", "Validation loss": "val_loss"}.items():
        curves = by_seed(runs, f"history.{column}", "epochs")
        drawn[label] = panels(curves, "epoch", skip=max(map(len, curves.values())) // 5)
    for kind in ("channels", "kernels"):
        layers, before, after = (f"redundancy.{kind}.{name}" for name in ("layers", "before", "after"))
        if len(measured := runs.dropna(subset=layers)):
            short = measured[layers].map(lambda names: [name.split("/", 1)[-1] for name in names])
            measured = measured.assign(**{layers: short})
            after, before = (by_seed(measured, name, layers) for name in (after, before))
            drawn[f"Redundancy of {kind}"] = panels(after, "layer; dotted: before training", dotted=before)
    return drawn


def against_noise(runs):
    """{what it shows: figure} where there are several rates of a noise; no noise is its rate 0."""
    drawn = {}
    for series, group in runs.groupby("series", sort=False):
        noises = group["settings.noise"]
        for noise in dict.fromkeys(noises[noises != "none"]):
            own, keys = group[noises.isin(["none", noise])], ("test.last.accuracy", "settings.noise_rate", "seed")
            if own["settings.noise_rate"].nunique() > 1:
                rates = {method: runs.pivot_table(*keys) for method, runs in own.groupby("method", sort=False)}
                drawn[f"{series}, {words(noise)} noise"] = panels(rates, "share of wrong labels")
    return drawn


def svg(figure, label, title):
    """The figure as an SVG element, in the colours of the page that it is on."""
    figure.suptitle(label, x=0.01, horizontalalignment="left", weight="bold")
    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": label + title}):  # So that no two pictures of a page share an id.
        figure.savefig(file, format="svg")
    text = re.sub(r'(?s)^.*?<svg|<metadata>.*?</metadata>|(?<=<g) id="[^"]*"', "", file.getvalue())
    for colour, name in {INK: "currentColor", **{c: f"var(--{kind}, {c})" for kind, c in COLOURS.items()}}.items():
        text = text.replace(colour, name)
    return f'<svg role="img" aria-label="{html.escape(f"{label}: {title}")}"{text}'


def write_picture(path, element):
    """A file of an SVG element, with colours of its own."""
    write(path, element.replace(">", f"><style>{ALONE}</style>", 1))


def as_html(frame, **options):
    with pd.option_context("display.max_colwidth", None):
        return f'<div class="wide">{frame.to_html(border=0, **options)}</div>'


def as_markdown(frame):
    rows = Table(*(Column(name, justify="right" if place else "left") for place, name in enumerate(frame)))
    rows.box = box.MARKDOWN
    for cells in frame.itertuples(index=False):
        rows.add_row(*cells)
    return rows


def short_titles(comparisons):
    """{title: what it does not share with all others}"""
    parts = {c.title: c.title.split(", ") for c in comparisons}
    common = set.intersection(*map(set, parts.values())) if len(parts) > 1 else set()
    return {title: ", ".join(part for part in found if part not in common) for title, found in parts.items()}


def at_a_glance(comparisons):
    """All four in every group, a row each, as text; of plain training the mean is that of the paired seeds."""
    names = short_titles(comparisons)
    return pd.DataFrame(
        {
            "setting": names[c.title],
            "seeds": str(c.pairs),
            "plain, %": show(c.plain, ".2f"),
            "all four, %": show(c.plain + c.difference, ".2f"),
            "difference, points": interval(c.difference, c.half),
            "change of error": show(c.error, "+z.1f", "%"),
            "difference of NLL": interval(c.nll, c.nll_half, "+z.3f"),
        }
        for c in comparisons
        if c.method == "all_four"
    )


def overview(comparisons):
    """All differences to plain: a row for each method, a column for each group, named by what groups do not share."""
    names = short_titles(comparisons)
    cells = {name: {} for name in names.values()}
    for c in comparisons:
        cells[names[c.title]][words(c.method)] = f'<b class="{verdict(c)}">{show(c.difference)}</b>'
    frame = pd.DataFrame(cells).fillna("").rename(index=html.escape, columns=html.escape)
    return as_html(frame, escape=False)


@matplotlib.rc_context(STYLE)
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help="JSON lines, one a training run")
    parser.add_argument("--output", type=Path, help="directory of the report (default: that of the first file)")
    options = parser.parse_args()
    runs, skipped = read(options.files)
    for message in skipped:
        print(message, file=sys.stderr)
    comparisons, folder = compare(runs), options.output or options.files[0].parent
    headline, rests = finding(comparisons)
    (folder / "report").mkdir(parents=True, exist_ok=True)
    console = Console(record=True, width=400, markup=False, emoji=False, highlight=False)  # Wide: no cell is folded.
    method = " ".join(__doc__.split("\n\n")[3].split())
    console.print(f"# {headline}\n\n{rests}\n\n{method}")
    sections = [("Differences to plain, in points", overview(comparisons), {})] if comparisons else []
    if len(glance := at_a_glance(comparisons)) > 1:
        console.print("\n## All four at a glance\n", as_markdown(glance), sep="\n")
        sections.append(("All four at a glance", as_html(glance, index=False), {}))
    for title, group in runs.groupby("title", sort=False):
        near = [comparison for comparison in comparisons if comparison.title == title]
        frame, said = table(group, near), controls(group) + remarks(group)
        console.print(f"\n## {title}\n", as_markdown(frame), *(f"\n{sentence}" for sentence in said), sep="\n")
        below = as_html(frame, index=False) + "".join(f"<p>{html.escape(sentence)}</p>" for sentence in said)
        sections.append((title, below, pictures(group, near)))
    noisy = against_noise(runs)
    sections += [("Test accuracy against noise, %", "", noisy)] if noisy else []
    page = ""
    console.print("\n## Pictures\n")
    for title, below, figures in sections:
        elements = {label: svg(figure, label, title) for label, figure in figures.items()}
        for label, element in elements.items():
            name = re.sub(r"\W+", "_", f"{title} {label}".lower())
            write_picture(folder / "report" / f"{name}.svg", element)
            console.print(f"![{label}: {title}](report/{name}.svg)")
        drawn = f'<div class="pictures">{"".join(elements.values())}</div>'
        page += f"<section><h2>{html.escape(title)}</h2>{drawn}{below}</section>"
    versions = [name for name in runs if name.startswith("versions.")]
    names = [*shared(runs), *(name for name in OWN if name in runs), "terms", "seed", "machine", *versions]
    facts = {words(name.rpartition(".")[2]): ", ".join(texts(runs[name].drop_duplicates())) for name in names}
    parts = {
        **{"headline": html.escape(headline), "rests": html.escape(rests), "sections": page},
        "subject": f"{len(runs)} training runs, {runs.method.nunique()} methods, {runs.title.nunique()} settings",
        "method": html.escape(method),
        "facts": as_html(pd.Series(facts).to_frame(), header=False, classes="facts"),
        "command": html.escape(shlex.join(["python", *sys.argv])),
        "omissions": f"<ul>{''.join(f'<li>{html.escape(said)}</li>' for said in omissions(runs, skipped))}</ul>",
    }
    write(folder / "report.html", PAGE.substitute(parts))
    write(folder / "report.md", "".join(f"{line.rstrip()}\n" for line in console.export_text().splitlines()))


if __name__ == "__main__":
    main()
