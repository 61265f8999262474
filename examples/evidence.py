"""Evidence: fills the tables of the pages in examples/results from the lines of results beside them.

    python examples/evidence.py      # after new lines have come to examples/results/confirm*.jsonl

A table stands between <!-- table: NAME --> and <!-- end -->. Also draws examples/results/gains.svg. Differences are
paired by seed, with Student's 95% interval; those of three seeds or more whose interval leaves out 0 are bold. Other
numbers of the pages are written by hand: read them again when a table has changed.
"""

import re
from pathlib import Path

import matplotlib
from comparisons import ACCURACY, markdown
from evidence_tables import NETWORKS, PLAIN_SHORT, RESNET, TABLES, USUAL, VGG, gain, rows_of
from matplotlib.figure import Figure
from pictures import COLOURS, GREY, STYLE, WIDTH, svg
from records import write
from run_table import read

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGES = [RESULTS / "README.md", RESULTS / "test-images.md", RESULTS / "limits.md"]
ALONE = "svg{color:#1b1f24;background:#fff}@media(prefers-color-scheme:dark){svg{color:#e6e8eb;background:#14181c}}"
TABLE = re.compile(r"(?s)(?P<indent>[ ]*)<!-- table: (?P<name>\w+) -->\n.*?<!-- end -->")


def ahead(runs):
    """How often all four is ahead of plain training of the same seed and as many epochs, on augmented photographs."""
    pairs, behind = 0, []
    for network in NETWORKS:
        for name, plain, own in rows_of(runs, network):
            usual = all((own[f"settings.{setting}"] == USUAL[setting]).all() for setting in ("dataset", "augment"))
            if usual and not name.endswith(PLAIN_SHORT):
                found = own[ACCURACY] - plain[ACCURACY]
                pairs += len(found)
                behind += [f"{network}, {name}, seed {seed} ({found[seed]:+.2f})" for seed in found.index[found <= 0]]
    ahead = f"all four is ahead in {pairs - len(behind)} of {pairs} pairs"
    return f"Augmented photographs: {ahead}, not in {'; '.join(behind) or 'none'}."


def picture(runs):
    """What all four gain over the better plain training of every setting with three seeds or more."""
    better, names = {}, {}
    for network in NETWORKS:
        for name, plain, own in rows_of(runs, network):
            deep = network not in (RESNET, VGG)  # These have a row of their own beside those of the ResNet-10.
            name = name.removesuffix(PLAIN_SHORT).replace(", 40 epochs", "") + f", {network.split()[0]}" * deep
            row, found = (RESNET if deep else network, name), gain(own, plain)
            if found.pairs > 2 and (row not in better or found.mean < better[row].mean):
                better[row] = found
                names[name] = None
    figure = Figure(figsize=(1.5 * WIDTH, 0.9 + 0.27 * len(names)))
    axes = figure.subplots(1, 2, sharex=True, sharey=True)
    for axis, network in zip(axes, (RESNET, VGG), strict=True):
        for place, name in enumerate(names):
            if found := better.get((network, name)):
                colour = COLOURS[found.verdict]
                bar = [[found.mean - found.low], [found.high - found.mean]]
                axis.errorbar(found.mean, place, xerr=bar, fmt="o", markersize=4, color=colour)
        axis.axvline(0.0, color=GREY, linewidth=1, linestyle=":", zorder=0)
        axis.set_title(f"{network} and deeper ResNets" if network == RESNET else network)
        axis.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(names)), list(names))
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    figure.supxlabel("points of test accuracy; bars: 95% interval, grey if it includes 0", size=8)
    return figure


def fill(text, runs):
    """The text of a page, with its tables made anew."""

    def one(match):
        head, *rows = TABLES[match["name"]](runs)
        lines = markdown(head, rows)
        # An empty line on both sides: else Markdown takes the rows for a part of the comment.
        lines = [f"<!-- table: {match['name']} -->", "", *lines, "", "<!-- end -->"]
        return "\n".join(f"{match['indent']}{line}".rstrip() for line in lines)

    return TABLE.sub(one, text)


@matplotlib.rc_context(STYLE)
def main():
    runs, _ = read(sorted(RESULTS.glob("confirm*.jsonl")))
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        if (new := fill(old, runs)) != old:
            write(page, new)
            print(f"{page.relative_to(HERE.parent)}: tables made anew; read again what the text around them says.")
    print(ahead(runs))
    drawn = svg(picture(runs), "All four less the better plain training", "settings with three seeds or more")
    write(RESULTS / "gains.svg", drawn.replace(">", f"><style>{ALONE}</style>", 1))  # With colours of its own.


if __name__ == "__main__":
    main()
