"""The tables of the READMEs are those of the committed lines of results, and what they are made of is right."""

import json
import re

import evidence
import pytest
import report
from scipy import stats


@pytest.fixture(scope="module")
def runs():
    found, skipped = report.read(sorted(evidence.RESULTS.glob("confirm*.jsonl")))
    assert not skipped
    return found


@pytest.mark.parametrize("page", evidence.PAGES, ids=["README", "results"])
def test_the_tables_of_the_pages_are_those_of_the_lines(page, runs):
    text = page.read_text(encoding="utf-8")
    assert evidence.TABLE.search(text)
    assert evidence.fill(text, runs) == text, "Run python examples/evidence.py, then read the text around the tables."


def accuracies(name, *methods, **wanted):
    """Test accuracies in % of the lines of one file, in the order of the seeds, a list for each method."""
    found = {method: {} for method in methods}
    for line in (evidence.RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        settings = record["settings"]
        if settings["method"] in found and settings["variant"] == "" and wanted.items() <= settings.items():
            found[settings["method"]][settings["seed"]] = 100 * record["test"]["last"]["accuracy"]
    return [[of_seeds[seed] for seed in sorted(of_seeds)] for of_seeds in found.values()]


def paired(own, other):
    """The bold difference of two lists of accuracies as SciPy has it."""
    low, high = stats.ttest_rel(own, other).confidence_interval()
    assert low > 0
    return f"**{sum(own) / len(own) - sum(other) / len(other):+.1f}** ({low:+.1f} to {high:+.1f})"


def test_a_row_is_what_scipy_makes_of_the_lines(runs):
    plain, own = accuracies("confirm-sizes", "plain", "all_four", network="vgg16", train_size=1000)
    row = next(row for row in evidence.every_setting(runs) if row[:2] == ["1,000 labels, 160 epochs", "VGG-16"])
    assert row[2:5] == [str(len(own)), f"{sum(plain) / len(plain):.1f}", f"{sum(own) / len(own):.1f}"]
    assert row[5] == paired(own, plain)


def test_all_four_is_compared_with_other_methods_in_the_column_of_their_setting(runs):
    head, _, heads, exits, _ = evidence.other_methods(runs)
    setting = {"network": "vgg16", "noise_rate": 0.5}
    [other] = accuracies("confirm-methods", "song_chai_2", **setting)
    [own] = accuracies("confirm", "all_four", **setting)
    column = head.index("VGG-16, 50% redrawn")
    assert heads[0] == "Song & Chai, 2 heads"
    assert heads[column : column + 2] == [f"{sum(other) / len(other):.1f}", paired(own, other)]
    assert exits[column : column + 2] == ["", ""]  # Not run with noise.


def test_a_card_has_the_rows_of_its_term_from_both_tables(runs):
    head, *rows = evidence.card(runs, "kernel_similarity")
    shown = [dict(zip(head, row, strict=True)) for row in rows]
    assert [row.pop("labels") for row in shown] == ["2,000", "2,000", "2,000, 50% redrawn", "2,000, 50% redrawn"]
    tables = (evidence.alone(runs, settings) for settings in ({}, evidence.HALF))
    rows = [dict(zip(titles, row, strict=True)) for titles, *table in tables for row in table]
    rows = [row for row in rows if row["terms"] == "kernel similarity"]
    assert shown == [{title: row[title] for title in head[1:]} for row in rows]


def test_what_foretells_a_gain_is_what_scipy_makes_of_the_settings(runs):
    rows = evidence.every_setting(runs)[1:]
    rows = [row for row in rows if not row[0].startswith("Fashion") and not row[0].endswith(evidence.PLAIN_SHORT)]
    gains = [float(re.search(r"[+−][\d.]+", row[5])[0].replace("−", "-")) for row in rows]
    expected = stats.spearmanr([-float(row[3]) for row in rows], gains).statistic
    head, *found = evidence.foretold(runs)
    assert head[1] == f"all, {len(rows)} settings"
    said = next(row[1] for row in found if row[0] == "test error")
    assert float(said) == pytest.approx(expected, abs=0.03)  # The rows above are rounded.


def test_differences_are_of_the_seeds_that_both_have_and_bold_beyond_chance(runs):
    plain, own = (evidence.select(runs, evidence.RESNET, method, {}) for method in ("plain", "all_four"))
    assert evidence.gain(own.loc[10:12], plain.loc[11:13]).pairs == 2
    assert evidence.difference(own.loc[10:10], plain).startswith("+")
    assert "*" not in evidence.difference(own.loc[10:11], plain)  # Two seeds are not enough.
    assert evidence.difference(own, plain).startswith("**+")
    assert evidence.difference(plain, own).startswith("**−")
    assert evidence.difference(plain.loc[10:11], own.loc[12:13]) == ""


def test_filling_leaves_the_rest_of_a_page_as_it_is(runs):
    stale = "Before.\n\n- Item:\n\n  <!-- table: smoothing -->\n  | stale |\n  <!-- end -->\n\nAfter.\n"
    before, _, after = evidence.fill(stale, runs).partition("  | plain |")
    assert before.startswith("Before.\n\n- Item:\n\n  <!-- table: smoothing -->\n\n  |  | ResNet-10 | NLL |")
    assert after.endswith(" |\n\n  <!-- end -->\n\nAfter.\n")
    assert "stale" not in before + after


def test_the_best_of_a_column_is_bold():
    assert evidence.best(["38.9", "10.2 (1 seed)", "45.3"], max) == ["38.9", "10.2 (1 seed)", "**45.3**"]
    assert evidence.best(["1.47", "1.12"], min) == ["1.47", "**1.12**"]
