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
import operator
import shlex
import sys
from pathlib import Path

import jinja2
import matplotlib
import pandas as pd
from comparisons import against_better_control, by_method, compare, markdown
from methods import is_control, words
from pictures import STYLE, against_noise, of_group, svg
from records import write
from report_tables import at_a_glance, facts, table
from run_table import FIELDS, read

HERE = Path(__file__).parent


def finding(comparisons):
    """The headline and the sentences it rests on, from the differences to the better control and their intervals."""
    several, gains, losses = [], [], []
    for comparison in comparisons:
        if comparison.accuracy.pairs > 1:
            several.append(comparison)
            if comparison.accuracy.verdict == "gain":
                gains.append(comparison)
            elif comparison.accuracy.verdict == "loss":
                losses.append(comparison)
    if not several:
        why = "every comparison has a single seed" if comparisons else "no run has a control to be compared with"
        return f"Nothing can be said yet: {why}", "An interval takes two seeds or more, each with its control."
    mean = operator.attrgetter("accuracy.mean")
    if gains:
        most = max(gains, key=mean)
    elif losses:
        most = min(losses, key=mean)
    else:
        most = max(several, key=mean)
    name = words(most.method).capitalize()
    points, where = extent(most, several)
    if gains:
        headline = f"{name} gains {points} over the better control{where}"
    elif losses:
        headline = f"No gain can be told from chance; {words(most.method)} loses {points}{where}"
    else:
        headline = "No method can be told from the better control by its accuracy"
    rests = (
        f"{name} less {words(most.control)} on {most.title}: {most.accuracy.text()} points of test accuracy, with the "
        f"95% interval over {most.accuracy.pairs} seeds. Of {len(several)} comparisons with the better control "
        f"{len(gains)} show a gain and {len(losses)} a loss. If no method changed anything, about "
        f"{0.05 * len(several):.2g} would; the largest of many differences shrinks when tried again."
    )
    return headline, rests


def extent(most, comparisons):
    """The points of a method's largest difference, and in how many of its settings the verdict is the same."""
    settings, alike = 0, 0
    for comparison in comparisons:
        if comparison.method == most.method:
            settings += 1
            if comparison.accuracy.verdict == most.accuracy.verdict:
                alike += 1
    points = f"{abs(most.accuracy.mean):.2f} points of accuracy"
    if alike > 1:
        points = f"up to {points}"
    if settings == 1:
        return points, ""
    return points, f" in {alike} of {settings} settings"


def remarks(methods):
    """All four against each other method, and what the table of a group cannot have."""
    sentences, differences, single = [], [], []
    for method, own in methods.items():
        if len(own) == 1:
            single.append(words(method))
        if "all_four" in methods and method not in ("all_four", "plain"):
            comparison = compare(methods, "all_four", method)
            if comparison:
                gain = comparison.accuracy
                differences.append(f"{words(method)} {gain.text()}, {gain.pairs} seeds")
    if differences:
        text = "; ".join(differences)
        sentences.append(f"All four, points of accuracy more than others of the same seed: {text}.")
    if "plain" not in methods:
        sentences.append("No plain run: no differences to it, no ratios of cost.")
    if single:
        sentences.append(f"A single seed, so no deviation and no interval: {', '.join(single)}.")
    return sentences


def omissions(runs, skipped):
    """What a reader could take for granted."""
    sentences = list(skipped)
    for name, column in {"peak memory": "peak_memory", "redundancy": "redundancy.kernels.after"}.items():
        count = runs[column].isna().sum()
        if count:
            sentences.append(f"{count} of {len(runs)} runs have no measurement of {name}.")
    others = []
    for name in runs:
        if name.startswith("history.") and name not in FIELDS:
            others.append(words(name.removeprefix("history.")))
    if others:
        sentences.append(f"By epoch the records also have {', '.join(others)}.")
    sentences.append("Intervals are not widened for the number of comparisons.")
    return sentences


def sections_of(runs):
    """A section for each group of runs, and all comparisons with the better control."""
    sections, comparisons = [], []
    for title, group in runs.groupby("title", sort=False):
        methods = by_method(group)
        comparisons_of_group = []
        for method in methods:
            comparison = against_better_control(methods, method, title)
            if comparison and not is_control(method):
                comparisons_of_group.append(comparison)
        comparisons += comparisons_of_group
        figures = of_group(methods, comparisons_of_group)
        sections.append(section(title, table(methods), figures, remarks(methods)))
    return sections, comparisons


def section(title, frame, figures, sentences):
    """The parts of one section of the page."""
    pictures = {}
    for label, figure in figures.items():
        pictures[label] = svg(figure, label, title)
    rows = frame.to_numpy().tolist()
    return {"title": title, "head": list(frame), "rows": rows, "remarks": sentences, "pictures": pictures}


def in_markdown(headline, rests, method, sections):
    """The report without its pictures."""
    lines = [f"# {headline}", "", rests, "", method]
    for part in sections:
        if part["rows"]:
            lines += ["", f"## {part['title']}", "", *markdown(part["head"], part["rows"])]
        for sentence in part["remarks"]:
            lines += ["", sentence]
    lines.append("")
    return "\n".join(lines)


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
        sections.insert(0, section("All four at a glance", glance, {}, []))
    figures = against_noise(runs)
    if figures:
        sections.append(section("Test accuracy against noise, %", pd.DataFrame(), figures, []))
    method = " ".join(__doc__.split("\n\n")[3].split())
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((HERE / "report.html.jinja").read_text(encoding="utf-8"))
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
