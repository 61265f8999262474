"""Lines of results as a table, a row a run, in groups of runs that are comparable. Needs no Keras."""

import json

import pandas as pd
from grid import read_results
from methods import METHODS, words

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
FIELDS = []
for place, names in RECORD.items():
    for name in names.split():
        FIELDS.append(place + name)
MAY_BE_NULL = ["memorization", "redundancy", "peak_memory", "settings.train_size", "settings.width"]
# Of a run that diverged: NaN is null in a line.
MAY_BE_NULL += ["test.last.nll", "test.last.ece", "test.best.nll", "test.best.ece"]
PERCENT = ["test.last.accuracy", "test.best.accuracy", "test.last.ece"]
PERCENT += ["memorization.clean_accuracy", "memorization.wrong_fit"]
# Settings that runs of one group do not share; variants say how they differ.
OWN = ("method", "seed", "terms", "balance", "variant", "epochs_factor", "validate_every", "loss")
TITLE = ("dataset", "train_size", "network", "noise_rate", "noise")


def has(record, field):
    """Whether a record has a field, or null where that may be."""
    value, path = record, []
    for part in field.split("."):
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
        path.append(part)
        if value is None:
            return ".".join(path) in MAY_BE_NULL
    return True


def read(paths):
    """Reads files of results.

    Returns:
        A table of the runs in groups told apart by `title`, and a message for each line that was skipped.

    Raises:
        ValueError: if there is no run at all.
    """
    records, messages, lines = [], [], {}
    for path in paths:
        results, notes = read_results(path)
        messages += notes
        for settings, record, number in results:
            source = f"{path}:{number}"
            gaps = [field for field in FIELDS if not has(record, field)]
            identity = {**settings.model_dump(), "backend": record.get("backend")}
            key = json.dumps(identity, sort_keys=True)
            if gaps:
                messages.append(f"{source} is no whole record of a run and was skipped: it misses {', '.join(gaps)}.")
            elif lines.setdefault(key, source) != source:
                messages.append(f"{source} was skipped: '{settings.label}' is in {lines[key]} already.")
            else:
                # In the words of today: a setting that is newer than the line has its default.
                records.append({**record, "settings": settings.model_dump()})
    if not records:
        raise ValueError(f"There is no run in {', '.join(map(str, paths))}. {' '.join(messages)}")
    return _grouped(pd.json_normalize(records, max_level=3), records), messages


def _grouped(runs, records):
    columns = dict.fromkeys([*FIELDS, *runs])
    runs = runs.reindex(columns=columns)
    for name in ("peak_memory", "test.last.nll", "test.best.nll"):
        runs[name] = runs[name].astype(float)
    runs[PERCENT] = 100 * runs[PERCENT].astype(float)
    accuracies, epochs, methods, terms = [], [], [], []
    for record in records:
        history, settings = record["history"], record["settings"]
        accuracies.append([100 * value for value in history["val_accuracy"]])
        every_epoch = list(range(1, len(history["val_loss"]) + 1))
        epochs.append(history.get("val_epoch") or every_epoch)
        method = settings["method"]
        if settings["variant"]:
            method += f" ({settings['variant']})"
        methods.append(method)
        terms.append(json.dumps(settings["terms"]))
    runs["history.val_accuracy"] = accuracies
    runs["epochs"] = epochs
    runs["method"] = methods
    runs["seed"] = runs["settings.seed"]
    runs["terms"] = terms
    names = shared(runs)
    runs[names] = runs[names].convert_dtypes()  # A setting that is null in some runs stays a whole number in others.
    order = list(dict.fromkeys([*METHODS, *methods]))
    runs["place"] = runs["method"].map(order.index)
    groups = runs.groupby([*names, "place"], dropna=False, sort=True).ngroup()
    positions = groups.argsort(kind="stable")
    runs = runs.iloc[positions].copy()
    runs["title"], runs["series"] = _titles(runs, names)
    return runs


def shared(runs):
    """The settings that runs to be compared have in common, those of the title first."""
    names = [f"settings.{name}" for name in TITLE]
    for name in runs:
        setting = name.removeprefix("settings.")
        if setting != name and name not in names and not setting.startswith(OWN):
            names.append(name)
    return [*names, "backend"]


def _titles(runs, names):
    sizes = runs["settings.train_size"].map("{:,} images".format, na_action="ignore")
    sizes = sizes.fillna("all images")
    series = runs["settings.dataset"] + ", " + sizes + ", " + runs["settings.network"]
    for name in names[len(TITLE) :]:
        if runs[name].nunique(dropna=False) > 1:
            series += f", {words(name.removeprefix('settings.'))} " + texts(runs[name])
    rates = (100 * runs["settings.noise_rate"]).map("{:g}% ".format)
    noises = rates + runs["settings.noise"].map(words) + " noise"
    noises = noises.where(runs["settings.noise"] != "none", "no noise")
    return series + ", " + noises, series


def texts(values):
    return values.map(str).replace(["<NA>", "None", "nan"], "unset")
