"""Report: what files of training runs say, in tables, in pictures, and on one page to look at.

    python examples/report.py runs/smoke.jsonl      # several files; --output another/directory

Writes report.md, and report.html, which loads nothing, beside the first file or to --output.

Each method is compared with controls of the same seed, all other settings equal. The better control is the one with the
highest accuracy among plain training, label smoothing, generalized cross-entropy, and their variants. ± is one standard
deviation over seeds; an interval is Student's 95% interval of the mean of the paired differences. Negative
log-likelihood (NLL), calibration error (ECE) and differences are on the test set after the last epoch; the best epoch
is that of the best validation. Time and memory are multiples of plain training's on the same machine, the median over
seeds; they are rough, since runs share a machine.
"""

import argparse
import shlex
import sys
from pathlib import Path

import jinja2
import matplotlib
import pandas as pd
from comparisons import against_better_control, by_method, compare, markdown, show
from methods import is_control, words
from pictures import STYLE, against_noise, of_group, svg
from records import write
from run_table import FIELDS, OWN, read, shared, texts

HERE = Path(__file__).parent


def spread(values, form=".2f"):
    """Mean ± standard deviation over seeds."""
    if values.isna().all():
        return ""
    deviation = f" ± {values.std():{form}}" if len(values) > 1 else ""
    return f"{values.mean():{form}}{deviation}"


def costs(own, plain):
    """Time and memory as multiples of plain training's on the same machine, and the parameters that were added."""
    seeds = own.index.intersection(plain.index)
    own, plain = own.loc[seeds], plain.loc[seeds]
    near = own.machine == plain.machine
    times = (own.seconds_per_step / plain.seconds_per_step)[near]
    memory = (own.peak_memory / plain.peak_memory)[near].median()
    time = show(times.median(), ".2f", "×")
    if times.nunique() > 1:
        time += f" ({times.min():.2f} to {times.max():.2f})"
    return {"time a step": time, "peak memory": show(memory, ".2f", "×")}


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
                fewer = f", {comparison.accuracy.pairs} of {len(own)} seeds"
                row["difference to plain, points"] = comparison.accuracy.text()
                if comparison.accuracy.pairs < len(own):
                    row["difference to plain, points"] += fewer
                row["difference of NLL"] = comparison.nll.text("+z.3f")
                row |= costs(own, methods["plain"])
        better = against_better_control(methods, method)
        if better and not is_control(method):
            row["difference to the better control"] = f"{better.accuracy.text()}, {words(better.control)}"
            row["change of its error"] = show(better.error, "+z.1f", "%")
        row["added parameters"] = f"{own.added_parameters.iloc[0]:,}"
        row["right on clean training labels, %"] = spread(own["memorization.clean_accuracy"])
        row["fit to wrong training labels, %"] = spread(own["memorization.wrong_fit"])
        rows.append(row)
    frame = pd.DataFrame(rows).fillna("")
    return frame.loc[:, (frame != "").any()]


def finding(comparisons):
    """The headline and the sentences it rests on, from the differences to the better control and their intervals."""
    several = [comparison for comparison in comparisons if comparison.accuracy.pairs > 1]
    if not several:
        why = "every comparison has a single seed" if comparisons else "no run has a control to be compared with"
        return f"Nothing can be said yet: {why}", "An interval takes two seeds or more, each with its control."
    gains = [comparison for comparison in several if comparison.accuracy.verdict == "gain"]
    losses = [comparison for comparison in several if comparison.accuracy.verdict == "loss"]
    choose = min if losses and not gains else max
    most = choose(gains or losses or several, key=lambda comparison: comparison.accuracy.mean)
    name = words(most.method).capitalize()
    points, control = f"{abs(most.accuracy.mean):.2f} points of accuracy", words(most.control)
    same = [comparison for comparison in several if comparison.method == most.method]
    alike = [comparison for comparison in same if comparison.accuracy.verdict == most.accuracy.verdict]
    where = f" in {len(alike)} of {len(same)} settings" if len(same) > 1 else ""
    upto = "up to " if len(alike) > 1 else ""
    if gains:
        headline = f"{name} gains {upto}{points} over the better control{where}"
    elif losses:
        headline = f"No gain can be told from chance; {words(most.method)} loses {upto}{points}{where}"
    else:
        headline = "No method can be told from the better control by its accuracy"
    rests = (
        f"{name} less {control} on {most.title}: {most.accuracy.text()} points of test accuracy, with the 95% interval "
        f"over {most.accuracy.pairs} seeds. Of {len(several)} comparisons with the better control {len(gains)} show a "
        f"gain and {len(losses)} a loss. If no method changed anything, about {0.05 * len(several):.2g} would; the "
        "largest of many differences shrinks when tried again."
    )
    return headline, rests


def at_a_glance(comparisons):
    """All four against the better control in every group, a row each, as text."""
    rows = []
    for comparison in comparisons:
        if comparison.method == "all_four":
            accuracy = comparison.control_accuracy
            rows.append(
                {
                    "setting": comparison.title,
                    "seeds": str(comparison.accuracy.pairs),
                    "better control": words(comparison.control),
                    "its accuracy, %": show(accuracy, ".2f"),
                    "all four, %": show(accuracy + comparison.accuracy.mean, ".2f"),
                    "difference, points": comparison.accuracy.text(),
                    "change of error": show(comparison.error, "+z.1f", "%"),
                    "difference of NLL": comparison.nll.text("+z.3f"),
                }
            )
    return pd.DataFrame(rows)


def remarks(methods):
    """All four against each other method, and what the table of a group cannot have."""
    said, differences = [], []
    for method in methods:
        comparison = compare(methods, "all_four", method) if "all_four" in methods else None
        if comparison and method not in ("all_four", "plain"):
            differences.append(f"{words(method)} {comparison.accuracy.text()}, {comparison.accuracy.pairs} seeds")
    if differences:
        said.append(f"All four, points of accuracy more than others of the same seed: {'; '.join(differences)}.")
    if "plain" not in methods:
        said.append("No plain run: no differences to it, no ratios of cost.")
    single = [words(method) for method, own in methods.items() if len(own) == 1]
    if single:
        said.append(f"A single seed, so no deviation and no interval: {', '.join(single)}.")
    return said


def omissions(runs, skipped):
    """What a reader could take for granted."""
    said = list(skipped)
    for name, column in {"peak memory": "peak_memory", "redundancy": "redundancy.kernels.after"}.items():
        count = runs[column].isna().sum()
        if count:
            said.append(f"{count} of {len(runs)} runs have no measurement of {name}.")
    others = [name.removeprefix("history.") for name in runs if name.startswith("history.") and name not in FIELDS]
    if others:
        said.append(f"By epoch the records also have {words(', '.join(others))}.")
    return [*said, "Intervals are not widened for the number of comparisons."]


def facts(runs):
    """What the runs have in common, and the values of what they have not."""
    names = [
        *shared(runs),
        *(f"settings.{name}" for name in OWN if name not in ("method", "terms")),
        "terms",
        "machine",
    ]
    names += [name for name in runs if name.startswith("versions.")]
    rows = []
    for name in names:
        rows.append([words(name.rpartition(".")[2]), ", ".join(texts(runs[name].drop_duplicates()))])
    return rows


def sections_of(runs):
    """A section for each group of runs, and all comparisons with the better control."""
    sections, comparisons = [], []
    for title, group in runs.groupby("title", sort=False):
        methods = by_method(group)
        near = []
        for method in methods:
            comparison = against_better_control(methods, method, title)
            if comparison and not is_control(method):
                near.append(comparison)
        comparisons += near
        sections.append(section(title, table(methods), remarks(methods), of_group(methods, near)))
    return sections, comparisons


def section(title, frame, said=(), figures=()):
    drawn = {label: svg(figures[label], label, title) for label in figures}
    rows = frame.to_numpy().tolist()
    return {"title": title, "head": list(frame), "rows": rows, "remarks": said, "pictures": drawn}


def in_markdown(headline, rests, method, sections):
    lines = [f"# {headline}", "", rests, "", method]
    for part in sections:
        if part["rows"]:
            lines += ["", f"## {part['title']}", "", *markdown(part["head"], part["rows"])]
        for sentence in part["remarks"]:
            lines += ["", sentence]
    return "\n".join([*lines, ""])


@matplotlib.rc_context(STYLE)
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help="JSON lines, one a training run")
    parser.add_argument("--output", type=Path, help="directory of the report (default: that of the first file)")
    options = parser.parse_args()
    try:
        runs, skipped = read(options.files)
    except ValueError as error:
        sys.exit(str(error))
    for message in skipped:
        print(message, file=sys.stderr)
    sections, comparisons = sections_of(runs)
    headline, rests = finding(comparisons)
    glance = at_a_glance(comparisons)
    if len(glance) > 1:
        sections.insert(0, section("All four at a glance", glance))
    noisy = against_noise(runs)
    if noisy:
        sections.append(section("Test accuracy against noise, %", pd.DataFrame(), figures=noisy))
    method = " ".join(__doc__.split("\n\n")[3].split())
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        (HERE / "report.html.jinja").read_text(encoding="utf-8")
    )
    page = template.render(
        headline=headline,
        rests=rests,
        method=method,
        sections=sections,
        subject=f"{len(runs)} training runs, {runs.method.nunique()} methods, {runs.title.nunique()} settings",
        facts=facts(runs),
        omissions=omissions(runs, skipped),
        command=shlex.join(["python", *sys.argv]),
    )
    folder = options.output or options.files[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    text = in_markdown(headline, rests, method, sections)
    write(folder / "report.html", page)
    write(folder / "report.md", text)
    print(text)


if __name__ == "__main__":
    main()
