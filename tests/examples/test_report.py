"""The report's numbers against NumPy and SciPy, what it skips, and a page that says what the data say."""

import copy
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import comparisons
import numpy as np
import pytest
import report
import run_table
from scipy import stats

RUN = {
    "settings": {
        **{"dataset": "cifar10-subset", "train_size": 2000, "network": "resnet8", "width": 16, "method": "plain"},
        **{"noise": "none", "noise_rate": 0.0, "seed": 0, "epochs": 5, "batch_size": 128, "learning_rate": 0.1},
        **{"weight_decay": 0.0005, "augment": True},
    },
    "versions": {"keras_collab": "0.1.0", "keras": "3.15.1", "tensorflow": "2.21.0"},
    "backend": "tensorflow",
    "machine": "Linux x86_64, 2 cores",
    "history": {"loss": [9.0, 2.0, 1.5, 1.2, 1.0], "val_loss": [8.0, 1.9, 1.6, 1.4, 1.3], "val_accuracy": [0.1] * 5},
    "best_epoch": 4,
    "test": {"last": {"accuracy": 0.6, "nll": 1.2, "ece": 0.08}, "best": {"accuracy": 0.61, "nll": 1.1, "ece": 0.07}},
    "memorization": None,
    "seconds_per_step": 0.2,
    "peak_memory": 1000,
    "parameters": 78000,
    "added_parameters": 0,
    "redundancy": None,
}
SERIES = "cifar10-subset, 2,000 images, resnet8"
ALL = "cifar10-subset, all images, resnet8, width unset"
GAIN = {"plain": [0.600, 0.612, 0.590], "all_four": [0.622, 0.630, 0.614]}
LOSS = {"plain": GAIN["all_four"], "all_four": GAIN["plain"]}
OPEN = {"plain": [0.600, 0.612, 0.590], "all_four": [0.610, 0.603, 0.596]}
DOWN = {"plain": OPEN["all_four"], "all_four": OPEN["plain"]}


def run(method="plain", seed=0, accuracy=0.6, settings=(), **changes):
    record = copy.deepcopy(RUN | changes)
    record["settings"] |= {"method": method, "seed": seed, **dict(settings)}
    record["test"]["last"]["accuracy"] = accuracy
    return record


def runs_of(accuracies, **changes):
    return [run(method, s, value, **changes) for method, values in accuracies.items() for s, value in enumerate(values)]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(*records, path="runs.jsonl"):
    Path(path).write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return Path(path)


def read(*records):
    runs, _ = run_table.read([write(*records)])
    return runs


def groups(runs):
    """{title: {method: its runs by seed}}"""
    return {title: comparisons.by_method(group) for title, group in runs.groupby("title", sort=False)}


def tables(*records):
    """{title: {method: row}} of the records."""
    found = {}
    for title, methods in groups(read(*records)).items():
        found[title] = report.table(methods).set_index("method").to_dict("index")
    return found


def page(monkeypatch, *records):
    write(*records)
    monkeypatch.setattr(sys, "argv", ["report.py", "runs.jsonl"])
    report.main()
    return Path("report.html").read_text(encoding="utf-8")


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(report, "of_group", lambda methods, comparisons: {})


def test_numbers_of_the_table():
    accuracy = {"plain": np.array([0.60, 0.63, 0.58, 0.61]), "all_four": np.array([0.63, 0.64, 0.62, 0.61])}
    records = runs_of(accuracy)
    nlls = [1.0, 1.1, 1.2, 1.3, 1.4, 1.6, 1.5, 1.7]
    for record, nll in zip(records, nlls, strict=True):
        record["test"]["last"] |= {"nll": nll, "ece": nll / 10}
        record["test"]["best"]["accuracy"] = nll / 2
    for record, seconds in zip(records, [0.2, 0.2, 0.2, 0.2, 0.21, 0.22, 0.24, 0.30], strict=True):
        record |= {"seconds_per_step": seconds, "peak_memory": int(1e6 * seconds)}
    for record in records[4:]:
        record["added_parameters"] = 7800
    (found,) = tables(*records).values()
    gain = 100 * (accuracy["all_four"] - accuracy["plain"])
    low, high = stats.ttest_rel(100 * accuracy["all_four"], 100 * accuracy["plain"]).confidence_interval(0.95)
    expected = f"+{gain.mean():.2f} ({low:+.2f} to {high:+.2f})".replace("-", "−")
    plain, row = found["plain"], found["all four"]
    assert plain["accuracy, last epoch, %"] == f"60.50 ± {np.std([60, 63, 58, 61], ddof=1):.2f}"
    assert plain["accuracy, best epoch, %"] == f"57.50 ± {np.std([50, 55, 60, 65], ddof=1):.2f}"
    assert plain["NLL"] == f"1.150 ± {np.std([1.0, 1.1, 1.2, 1.3], ddof=1):.3f}"
    assert plain["ECE, %"] == f"11.50 ± {np.std([10, 11, 12, 13], ddof=1):.2f}"
    assert plain["difference to plain, points"] == ""
    assert row["difference to plain, points"] == expected
    assert row["difference to the better control"] == f"{expected}, plain"
    assert row["change of its error"] == f"−{100 * 2.0 / 39.5:.1f}%"
    low, high = stats.ttest_rel(nlls[4:], nlls[:4]).confidence_interval(0.95)
    assert row["difference of NLL"] == f"+0.400 ({low:+.3f} to {high:+.3f})"
    assert row["peak memory"] == f"{np.median([1.05, 1.10, 1.20, 1.50]):.2f}×"
    assert row["time a step"] == f"{row['peak memory']} (1.05 to 1.50)"
    assert row["added parameters"] == "7,800"


def test_pairs_are_of_one_seed_and_otherwise_equal_settings():
    plain, other = [0.50, 0.60, 0.70], {0: 0.51, 1: 0.62, 2: 0.73, 9: 0.99}
    records = [run("exits", seed, value) for seed, value in reversed(other.items())] + runs_of({"plain": plain})
    records += [run("exits", seed, 0.9, {"width": 32}) for seed in range(3)]
    records += [run("r_drop", seed, 0.9, machine="another") for seed in range(3)]
    found = tables(*records)
    narrow, wide = found.values()
    assert list(found) == [f"{SERIES}, width {width}, no noise" for width in (16, 32)]
    assert list(narrow) == ["plain", "r drop", "exits"]
    half = stats.t.ppf(0.975, 2) * 1.0 / 3**0.5  # The differences are 1, 2 and 3 points.
    assert narrow["exits"]["difference to plain, points"] == f"+2.00 (−{half - 2:.2f} to +{2 + half:.2f}), 3 of 4 seeds"
    assert narrow["exits"]["seeds"] == "4"
    assert narrow["r drop"]["time a step"] == "" != narrow["exits"]["time a step"]
    assert "difference to plain, points" not in wide["exits"]


def test_all_four_is_compared_with_the_better_control():
    accuracy = {"plain": [0.50, 0.51, 0.52], "all_four": [0.60, 0.63, 0.65], "label_smoothing": [0.58, 0.59, 0.62]}
    records = [*runs_of(accuracy), run("gce", 0, 0.99), run("plain", 1, 0.6, {"variant": "longer"})]
    records += [run("exits", seed, 0.7) for seed in range(3)]
    runs = read(*records)
    (methods,) = groups(runs).values()
    found = comparisons.against_better_control(methods, "all_four")
    low, high = stats.ttest_rel([60, 63, 65], [58, 59, 62]).confidence_interval(0.95)
    assert (found.control, found.accuracy.pairs) == ("label_smoothing", 3)  # Exits are no control; one seed is too few.
    assert (found.accuracy.low, found.accuracy.high) == pytest.approx((low, high))
    headline, rests = report.finding([found])
    assert headline == "All four gains 3.00 points of accuracy over the better control"
    assert rests.startswith("All four less label smoothing on ")
    (glance,) = report.at_a_glance([found]).to_dict("records")
    assert (glance["better control"], glance["its accuracy, %"], glance["all four, %"]) == (
        "label smoothing",
        "59.67",
        "62.67",
    )
    (said,) = [sentence for sentence in report.remarks(methods) if "more than others" in sentence]
    assert f"label smoothing +3.00 (+{low:.2f} to +{high:.2f}), 3 seeds" in said


def test_pairs_that_all_differ_alike_have_an_interval_of_no_length():
    pairs = comparisons.difference(
        *(
            read(*runs_of({"plain": values})).set_index("seed")["test.last.accuracy"]
            for values in ([0.75, 0.75], [0.5, 0.5])
        )
    )
    assert (pairs.mean, pairs.low, pairs.high) == (25.0, 25.0, 25.0)
    assert pairs.verdict == "gain"


@pytest.mark.parametrize(
    ("accuracies", "headline", "tally"),
    [
        (GAIN, "All four gains 2.13 points of accuracy over the better control", "1 show a gain and 0 a loss"),
        (LOSS, "No gain can be told from chance; all four loses 2.13 points of accuracy", "0 show a gain and 1 a loss"),
        (OPEN, "No method can be told from the better control by its accuracy", "0 show a gain and 0 a loss"),
        (DOWN, "No method can be told from the better control by its accuracy", "0 show a gain and 0 a loss"),
    ],
)
def test_headline_is_what_the_intervals_say(monkeypatch, no_pictures, accuracies, headline, tally):
    records = runs_of(accuracies) + [run("exits", seed, value) for seed, value in enumerate(accuracies["plain"])]
    text = page(monkeypatch, *records)
    assert f"<h1>{headline}" in text
    assert f"Of 2 comparisons with the better control {tally}" in text
    assert f"# {headline}" in Path("report.md").read_text(encoding="utf-8")


def test_settings_may_be_null_and_variants_are_methods_of_their_own():
    """Null stands for all images, or a network's own width. Plain training has no terms, so none to agree in."""
    whole = {"train_size": None, "width": None, "terms": {}, "balance": 0.0, "variant": ""}
    weights = {"terms": {"kernel_similarity": {"weight": 5.0}}, "balance": 0.2, "variant": "kernels at 5"}
    records = [run("plain", seed, 0.6 + seed / 100, whole) for seed in range(2)]
    records += [run("all_four", seed, 0.7 + seed / 50, whole | weights) for seed in range(2)]
    ((title, found),) = tables(*records, run("r_drop", 0, 0.6, whole)).items()
    assert title == "cifar10-subset, all images, resnet8, no noise"
    assert found["all four (kernels at 5)"]["difference to plain, points"].startswith("+10.50 (")


def test_runs_that_are_longer_and_validated_now_and_then_stay_in_their_group():
    history = {**RUN["history"], "val_accuracy": [0.1, 0.2], "val_loss": [2.0, 1.0], "val_epoch": [3, 6]}
    longer = {"variant": "longer", "epochs_factor": 1.2, "validate_every": 3}
    runs = read(run("plain"), run("plain", settings=longer) | {"history": history})
    assert runs.title.nunique() == 1
    assert [list(epochs) for epochs in runs.epochs] == [[1, 2, 3, 4, 5], [3, 6]]


def test_a_group_without_plain_and_a_single_seed_say_so(monkeypatch, no_pictures):
    text = page(monkeypatch, *runs_of({"all_four": [0.6, 0.7]}))
    assert "Nothing can be said yet: no run has a control to be compared with" in text
    assert "No plain run: no differences to it, no ratios of cost." in text
    text = page(monkeypatch, run(), run("exits", accuracy=0.65))
    assert "Nothing can be said yet: every comparison has a single seed" in text
    assert "A single seed, so no deviation and no interval: plain, exits." in text
    (found,) = tables(run(), run("exits", accuracy=0.65)).values()
    assert found["exits"]["difference to plain, points"] == "+5.00"
    assert found["exits"]["accuracy, last epoch, %"] == "65.00"


def test_noisy_runs_say_what_was_memorized():
    noisy = {"noise": "pair_flip", "noise_rate": 0.4}
    records = [run()]
    for method in ("plain", "all_four"):
        for seed in range(2):
            memorized = {"clean_accuracy": 0.9 + seed / 10, "wrong_fit": 0.3}
            records.append(run(method, seed, settings=noisy, memorization=memorized))
    found = tables(*records)
    noisy, clean = found[f"{SERIES}, 40% pair flip noise"], found[f"{SERIES}, no noise"]
    assert noisy["all four"]["right on clean training labels, %"] == f"95.00 ± {np.std([90, 100], ddof=1):.2f}"
    assert noisy["all four"]["fit to wrong training labels, %"] == "30.00 ± 0.00"
    assert not any("labels" in name for name in clean["plain"])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda record: record.pop("machine"), "is no whole record of a run and was skipped: it misses machine."),
        (lambda record: record["test"].pop("best"), "it misses test.best.accuracy, test.best.nll, test.best.ece."),
        (lambda record: record.pop("redundancy"), "it misses redundancy.channels.layers, redundancy.channels.before"),
        (lambda record: record.update(memorization={"clean_accuracy": 0.9}), "it misses memorization.wrong_fit."),
        (lambda record: record.update(settings=None), "was skipped: it has no settings."),
        (lambda record: record["settings"].update(colour="red"), "was skipped. There is no setting 'colour'."),
        (lambda record: record["settings"].update(seed=0), "was skipped: 'cifar10-subset 2000 resnet8 plain seed 0'"),
    ],
)
def test_lines_that_cannot_be_used_are_named_and_the_rest_is_used(damage, says):
    broken = run(seed=1)
    damage(broken)
    runs, messages = run_table.read([write(run(), broken, run(seed=2))])
    assert list(runs.seed) == [0, 2]
    (message,) = messages
    assert message.startswith("runs.jsonl:2 ")
    assert says in message


def test_the_same_run_in_two_files_is_not_two_seeds():
    files = [write(run(), run(seed=1)), write(run("all_four"), run(seed=1, accuracy=0.7), path="more.jsonl")]
    runs, messages = run_table.read(files)
    assert len(runs) == 3
    assert messages == [
        "more.jsonl:2 was skipped: 'cifar10-subset 2000 resnet8 plain seed 1' is in runs.jsonl:2 already."
    ]


def test_a_run_that_diverged_has_an_accuracy_and_no_likelihood(monkeypatch, no_pictures):
    records = runs_of(GAIN)
    records[4]["test"]["last"] |= {"nll": None, "ece": None}
    records[4]["history"]["val_loss"][-1] = None
    page(monkeypatch, *records)
    (found,) = tables(*records).values()
    assert found["all four"]["seeds"] == "3"
    assert found["all four"]["NLL"] == "1.200 ± 0.000"  # Of the other two.


def test_no_run_at_all_is_one_line(monkeypatch):
    write([1, 2])
    monkeypatch.setattr(sys, "argv", ["report.py", "runs.jsonl"])
    with pytest.raises(SystemExit, match=r"^There is no run in runs\.jsonl. runs.jsonl:1 is no JSON object"):
        report.main()


def test_a_line_cut_off_is_skipped_with_a_message(monkeypatch, no_pictures, capsys):
    whole = "".join(f"{json.dumps(record)}\n" for record in runs_of(GAIN))
    Path("runs.jsonl").write_text(whole + json.dumps(run(seed=3))[:-20])
    monkeypatch.setattr(sys, "argv", ["report.py", "runs.jsonl", "--output", "new/place"])
    report.main()
    assert capsys.readouterr().err == "runs.jsonl:7 is cut off or no JSON and was skipped.\n"
    text = Path("new/place/report.html").read_text(encoding="utf-8")
    assert "<li>runs.jsonl:7 is cut off or no JSON and was skipped.</li>" in text
    assert "6 training runs" in text


class Loads(HTMLParser):
    """Collects what a browser would load, ids, and tags."""

    def __init__(self, text):
        super().__init__()
        self.urls, self.ids, self.tags = re.findall(r"url\(([^)]*)\)|@import", text), [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "srcset", "href", "xlink:href", "data", "poster"):
                self.urls.append(value)


def test_the_page_is_whole_in_itself(monkeypatch):
    layers = {"layers": ["resnet8/stem", "resnet8/stage2"], "before": [0.1, 0.2], "after": [0.2, 0.3]}
    measured = {"redundancy": {"channels": layers, "kernels": layers}}
    records = [*runs_of(GAIN, **measured), run("all_four", 0, 0.6, {"variant": "<b>&new"}, **measured)]
    noise = {"noise": "symmetric", "noise_rate": 0.2}
    memorized = {"clean_accuracy": 0.9, "wrong_fit": 0.3}
    records += [run(method, 0, 0.5, noise, memorization=memorized) for method in ("plain", "all_four")]
    text = page(monkeypatch, *records)
    loads = Loads(text)
    assert [url for url in loads.urls if not url.startswith("#")] == []
    assert not {"img", "script", "link", "iframe", "object", "image"} & set(loads.tags)
    assert len(loads.ids) == len(set(loads.ids))
    assert {url[1:] for url in loads.urls} <= set(loads.ids)
    # Of the clean group six, of the noisy one, which has no redundancy, four, and accuracy against noise.
    assert loads.tags.count("svg") == 6 + 4 + 1
    assert "prefers-color-scheme: dark" in text
    assert "&lt;b&gt;&amp;new" in text
    assert "<b>&new" not in text
    assert ">stage2</text>" in text
    for said in ("python report.py runs.jsonl", "3.15.1", "Linux x86_64, 2 cores", "2 of 9 runs have no measurement"):
        assert said in text
    assert {path.name for path in Path().iterdir()} == {"runs.jsonl", "report.html", "report.md"}
