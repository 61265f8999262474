"""The tables of report.py, as text: a row for each method, all four at a glance, and what the runs have in common."""

import pandas as pd
from comparisons import against_better_control, compare, show
from methods import is_control, words
from run_table import OWN, shared, texts


def spread(values, form=".2f"):
    """Mean ± standard deviation over seeds."""
    if values.isna().all():
        return ""
    if len(values) == 1:
        return f"{values.mean():{form}}"
    return f"{values.mean():{form}} ± {values.std():{form}}"


def costs(own, plain):
    """Time and memory as multiples of plain training's on the same machine."""
    seeds = own.index.intersection(plain.index)
    own, plain = own.loc[seeds], plain.loc[seeds]
    same_machine = own.machine == plain.machine
    own, plain = own[same_machine], plain[same_machine]
    times = own.seconds_per_step / plain.seconds_per_step
    memory = own.peak_memory / plain.peak_memory
    time = show(times.median(), ".2f", "×")
    if times.nunique() > 1:
        time += f" ({times.min():.2f} to {times.max():.2f})"
    return {"time a step": time, "peak memory": show(memory.median(), ".2f", "×")}


def table(methods):
    """A row for each method of a group, as text. What no method has a value of gets no column."""
    rows = []
    for method, own in methods.items():
        row = {
            "method": words(method),
            "seeds": str(len(own)),
            "accuracy, last epoch, %": spread(own["test.last.accuracy"]),
            "accuracy, best epoch, %": spread(own["test.best.accuracy"]),
            "NLL": spread(own["test.last.nll"].astype(float), ".3f"),
            "ECE, %": spread(own["test.last.ece"]),
        }
        if method != "plain" and "plain" in methods:
            comparison = compare(methods, method, "plain")
            if comparison:
                difference = comparison.accuracy.text()
                if comparison.accuracy.pairs < len(own):
                    difference += f", {comparison.accuracy.pairs} of {len(own)} seeds"
                row["difference to plain, points"] = difference
                row["difference of NLL"] = comparison.nll.text("+.3f")
                row |= costs(own, methods["plain"])
        comparison = against_better_control(methods, method)
        if comparison and not is_control(method):
            difference = comparison.accuracy.text()
            row["difference to the better control"] = f"{difference}, {words(comparison.control)}"
            row["change of its error"] = show(comparison.error, "+.1f", "%")
        row["added parameters"] = f"{own.added_parameters.iloc[0]:,}"
        row["right on clean training labels, %"] = spread(own["memorization.clean_accuracy"])
        row["fit to wrong training labels, %"] = spread(own["memorization.wrong_fit"])
        rows.append(row)
    frame = pd.DataFrame(rows).fillna("")
    return frame.loc[:, (frame != "").any()]


def at_a_glance(comparisons):
    """All four against the better control in every group, a row each, as text."""
    rows = []
    for comparison in comparisons:
        if comparison.method != "all_four":
            continue
        accuracy = comparison.control_accuracy
        row = {
            "setting": comparison.title,
            "seeds": str(comparison.accuracy.pairs),
            "better control": words(comparison.control),
            "its accuracy, %": show(accuracy, ".2f"),
            "all four, %": show(accuracy + comparison.accuracy.mean, ".2f"),
            "difference, points": comparison.accuracy.text(),
            "change of error": show(comparison.error, "+.1f", "%"),
            "difference of NLL": comparison.nll.text("+.3f"),
        }
        rows.append(row)
    return pd.DataFrame(rows)


def facts(runs):
    """What the runs have in common, and the values of what they have not."""
    names = shared(runs)
    for name in OWN:
        if name not in ("method", "terms"):
            names.append(f"settings.{name}")
    names += ["terms", "machine"]
    for name in runs:
        if name.startswith("versions."):
            names.append(name)
    rows = []
    for name in names:
        values = texts(runs[name].drop_duplicates())
        last = name.rpartition(".")[2]
        rows.append([words(last), ", ".join(values)])
    return rows
