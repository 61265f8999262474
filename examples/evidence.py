"""Evidence: fills the tables of the pages in examples/results from the lines of results beside them.

    python examples/evidence.py      # after new lines have come to examples/results/confirm*.jsonl

A table stands between <!-- table: NAME --> and <!-- end -->. Also draws examples/results/gains.svg. Differences are
paired by seed, with Student's 95% interval; those of three seeds or more whose interval leaves out 0 are bold. Other
numbers of the pages are written by hand: read them again when a table has changed.
"""

import re
import textwrap
from pathlib import Path

import matplotlib
from comparisons import ACCURACY, difference, markdown
from evidence_runs import ENDINGS, RESNET, SHORT, USUAL, VGG, pairs
from evidence_tables import TABLES
from matplotlib.figure import Figure
from pictures import COLOURS, STYLE, WIDTH, dot, file_of, name_rows, zero_line
from records import write
from run_table import read

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGES = [RESULTS / "README.md", RESULTS / "test-images.md", RESULTS / "limits.md"]
TABLE = re.compile(r"(?s)(?P<indent>[ ]*)<!-- table: (?P<name>\w+) -->\n.*?<!-- end -->")


def ahead(runs):
    """How often all four is ahead of plain training of the same seed and as many epochs, on augmented photographs."""
    count, behind = 0, []
    for (network, setting), (plain, four) in pairs(runs).items():
        run = plain.iloc[0]  # The runs of all seeds have the same settings.
        photographs = run["settings.dataset"] == USUAL["dataset"]
        if not photographs or not run["settings.augment"] or run.method == SHORT:
            continue
        gains = four[ACCURACY] - plain[ACCURACY]
        count += len(gains)
        for seed, gain in gains[gains <= 0].items():
            behind.append(f"{network}, {setting}, seed {seed} ({gain:+.2f})")
    exceptions = "; ".join(behind) or "none"
    return f"Augmented photographs: all four is ahead in {count - len(behind)} of {count} pairs, not in {exceptions}."


def least_gains(runs):
    """What all four gain over the better plain training, by column and row of the picture, of three seeds or more."""
    gains = {}
    for (network, setting), (plain, four) in pairs(runs).items():
        gain = difference(four[ACCURACY], plain[ACCURACY])
        if gain.pairs < 3:
            continue
        column = network
        name = setting.removesuffix(ENDINGS[SHORT]).replace(", 40 epochs", "")
        if network not in (RESNET, VGG):  # The deeper ResNets have rows of their own beside those of the ResNet-10.
            column = RESNET
            name += f", {network.split()[0]}"
        if (column, name) not in gains or gain.mean < gains[column, name].mean:
            gains[column, name] = gain
    return gains


def picture(runs):
    """The least gains as dots with their intervals, in a column for the ResNets and one for the VGG-16."""
    gains = least_gains(runs)
    names = []
    for _, name in gains:
        if name not in names:
            names.append(name)
    figure = Figure(figsize=(1.5 * WIDTH, 0.9 + 0.27 * len(names)))
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for axis, network in zip(axes, (RESNET, VGG), strict=True):
        for place, name in enumerate(names):
            if (network, name) in gains:
                gain = gains[network, name]
                dot(axis, place, gain.mean, (gain.low, gain.high), COLOURS[gain.verdict])
        name_rows(axis, names)
        zero_line(axis)
    axes[0].set_title(f"{RESNET} and deeper ResNets")
    axes[1].set_title(VGG)
    figure.supxlabel("points of test accuracy; bars: 95% interval, grey if it includes 0", size=8)
    return figure


def fill(text, runs):
    """The text of a page, with its tables made anew."""
    for match in TABLE.finditer(text):
        head, *rows = TABLES[match["name"]](runs)
        # An empty line on both sides: else Markdown takes the rows for a part of the comment.
        lines = [f"<!-- table: {match['name']} -->", "", *markdown(head, rows), "", "<!-- end -->"]
        block = textwrap.indent("\n".join(lines), match["indent"])
        text = text.replace(match[0], block)
    return text


@matplotlib.rc_context(STYLE)
def main():
    runs, _ = read(sorted(RESULTS.glob("confirm*.jsonl")))
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        new = fill(old, runs)
        if new != old:
            write(page, new)
            print(f"{page.relative_to(HERE.parent)}: tables made anew; read again what the text around them says.")
    print(ahead(runs))
    label, title = "All four less the better plain training", "settings with three seeds or more"
    write(RESULTS / "gains.svg", file_of(picture(runs), label, title))


if __name__ == "__main__":
    main()
