"""The tables of the READMEs are those of the committed lines of results, and what they are made of is right."""

import json

import comparisons
import evidence
import evidence_runs
import evidence_tables
import pandas as pd
import pytest
import run_table
from scipy import stats


@pytest.fixture(scope="module")
def runs():
    found, skipped = run_table.read(sorted(evidence.RESULTS.glob("confirm*.jsonl")))
    assert not skipped
    return found


@pytest.mark.parametrize("page", evidence.PAGES, ids=lambda page: page.stem)
def test_the_tables_of_the_pages_are_those_of_the_lines(page, runs):
    text = page.read_text(encoding="utf-8")
    assert evidence.TABLE.search(text)
    assert evidence.fill(text, runs) == text, "Run python examples/evidence.py, then read the text around the tables."


def records(name, **wanted):
    """The lines of one file with these settings and without a variant, by method and seed."""
    found = {}
    for line in (evidence.RESULTS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        settings = record["settings"]
        if settings["variant"] == "" and wanted.items() <= settings.items():
            found.setdefault(settings["method"], {})[settings["seed"]] = record
    return found


def accuracies(own, other):
    """Test accuracies in % of the seeds that both have, of records by seed."""
    seeds = sorted(own.keys() & other.keys())
    return [[100 * found[seed]["test"]["last"]["accuracy"] for seed in seeds] for found in (own, other)]


def paired(own, other):
    """The bold difference of two lists of accuracies as SciPy has it."""
    low, high = stats.ttest_rel(own, other).confidence_interval()
    assert low > 0
    return f"**{sum(own) / len(own) - sum(other) / len(other):+.1f}** ({low:+.1f} to {high:+.1f})"


def test_a_row_is_what_scipy_makes_of_the_lines(runs):
    found = records("confirm-sizes", network="vgg16", train_size=1000)
    own, plain = accuracies(found["all_four"], found["plain"])
    row = next(row for row in evidence_tables.every_setting(runs) if row[:2] == ["1,000 labels, 160 epochs", "VGG-16"])
    assert row[2:5] == [str(len(own)), f"{sum(plain) / len(plain):.1f}", f"{sum(own) / len(own):.1f}"]
    assert row[5] == paired(own, plain)


def test_all_four_is_compared_with_other_methods_in_the_column_of_their_setting(runs):
    found = records("confirm", network="vgg16", noise_rate=0.5)
    own, other = accuracies(found["all_four"], found["song_chai_2"])
    head, _, row, *_ = evidence_tables.other_methods(runs)
    column = head.index(f"VGG-16, 50% redrawn, {len(own)} seeds")
    assert row[0] == "Song & Chai, 2 heads"
    assert row[column : column + 2] == [f"{sum(other) / len(other):.1f}", paired(own, other)]


def test_a_term_alone_is_compared_with_all_four_and_the_shorter_plain_training(runs):
    found = records("confirm", network="resnet10", noise_rate=0.5)
    head, *rows = evidence_tables.alone(runs, evidence_tables.HALF)
    row = dict(zip(head, next(row for row in rows if row[2] == "output consistency"), strict=True))
    four, own = accuracies(found["all_four"], found["output_consistency"])
    assert (row["seeds"], row["accuracy"]) == (str(len(own)), f"{sum(own) / len(own):.1f}")
    assert row["all four −"] == paired(four, own)
    assert row["− plain, 20 epochs"].startswith("**−")  # 39.0% where output consistency has about 36.
    assert "− plain, 20 epochs" not in evidence_tables.alone(runs, {})[0]


def test_what_foretells_a_gain_is_what_scipy_makes_of_the_lines(runs):
    settings = ("network", "train_size", "noise", "noise_rate", "epochs", "augment")
    pairs = {}
    for path in evidence.RESULTS.glob("confirm*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            own = record["settings"]
            if own["dataset"] == "cifar10-subset" and own["variant"] == "" and own["method"] in ("plain", "all_four"):
                by_seed = pairs.setdefault(tuple(own[name] for name in settings), {})
                by_seed.setdefault(own["seed"], {})[own["method"]] = record
    redundancies, gains = [], []
    for by_seed in pairs.values():
        both = [found for found in by_seed.values() if len(found) == 2]
        redundancies.append(sum(found["plain"]["redundancy"]["channels"]["after"][0] for found in both) / len(both))
        tested = [[found[name]["test"]["last"]["accuracy"] for found in both] for name in ("all_four", "plain")]
        gains.append((sum(tested[0]) - sum(tested[1])) / len(both))
    expected = stats.spearmanr(redundancies, gains).statistic
    head, first, *_ = evidence_tables.foretold(runs)
    assert head[1] == f"all, {len(pairs)} settings"
    assert first[:2] == ["R² of channels, first stage", f"{expected:+.2f}"]


def test_differences_are_of_the_seeds_that_both_have_and_bold_beyond_chance(runs):
    plain, own = evidence_runs.pairs(runs)[evidence_runs.RESNET, "2,000 labels, 40 epochs"]
    plain, own = plain[comparisons.ACCURACY], own[comparisons.ACCURACY]
    assert comparisons.difference(own.loc[10:12], plain.loc[11:13]).pairs == 2
    assert evidence_tables.lead(own.loc[10:10], plain).startswith("+")
    assert "*" not in evidence_tables.lead(own.loc[10:11], plain)  # Two seeds are not enough.
    assert evidence_tables.lead(own, plain).startswith("**+")
    assert evidence_tables.lead(plain, own).startswith("**−")
    assert evidence_tables.lead(plain.loc[10:11], own.loc[12:13]) == ""


def test_filling_leaves_the_rest_of_a_page_as_it_is(runs):
    stale = "Before.\n\n- Item:\n\n  <!-- table: smoothing -->\n  | stale |\n  <!-- end -->\n\nAfter.\n"
    before, _, after = evidence.fill(stale, runs).partition("  | plain |")
    assert before.startswith("Before.\n\n- Item:\n\n  <!-- table: smoothing -->\n\n  |  | ResNet-10, 5 seeds | NLL |")
    assert after.endswith(" |\n\n  <!-- end -->\n\nAfter.\n")
    assert "stale" not in before + after


def test_the_best_of_a_column_is_bold():
    texts = pd.Series({"plain": "38.9", "gce": "10.2 (1 seed)", "all_four": "45.3"})
    assert list(evidence_tables.with_bold(texts, "all_four")) == ["38.9", "10.2 (1 seed)", "**45.3**"]
    texts = pd.Series({"plain": "1.12", "gce": "1.47", "all_four": "1.12"})
    assert list(evidence_tables.with_bold(texts, "all_four")) == ["**1.12**", "1.47", "**1.12**"]


def test_the_mean_of_two_differences_is_that_of_welch():
    one, other = pd.Series([1.0, 2.5, 0.5, 1.5]), pd.Series([-0.2, 0.1, 0.4])
    mean = comparisons.mean_of([comparisons.difference(values, 0 * values) for values in (one, other)])
    expected = stats.ttest_ind(one, -other, equal_var=False).confidence_interval()  # Of their sum.
    assert (2 * mean.low, 2 * mean.high) == pytest.approx(tuple(expected))
    assert mean.mean == pytest.approx((one.mean() + other.mean()) / 2)
