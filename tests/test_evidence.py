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


def test_a_row_is_what_scipy_makes_of_the_lines(runs):
    tested = {"plain": {}, "all_four": {}}
    for line in (evidence.RESULTS / "confirm-sizes.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if (record["settings"]["network"], record["settings"]["train_size"]) == ("vgg16", 1000):
            tested[record["settings"]["method"]][record["settings"]["seed"]] = 100 * record["test"]["last"]["accuracy"]
    plain, own = ([values[seed] for seed in sorted(values)] for values in tested.values())
    middle = sum(own) / len(own) - sum(plain) / len(plain)
    low, high = stats.ttest_rel(own, plain).confidence_interval()
    row = next(row for row in evidence.every_setting(runs) if row[:2] == ["1,000 labels, 160 epochs", "VGG-16"])
    assert low > 0
    assert row[2:5] == [str(len(own)), f"{sum(plain) / len(plain):.1f}", f"{sum(own) / len(own):.1f}"]
    assert row[5] == f"**{middle:+.1f}** ({low:+.1f} to {high:+.1f})"


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
