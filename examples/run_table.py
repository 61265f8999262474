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
FIELDS = [before + name for before, names in RECORD.items() for name in names.split()]
MAY_BE_NULL = ["memorization", "redundancy", "peak_memory", "settings.train_size", "settings.width"]
# Of a run that diverged: NaN is null in a line.
MAY_BE_NULL += ["test.last.nll", "test.last.ece", "test.best.nll", "test.best.ece"]
PERCENT = ["test.last.accuracy", "test.best.accuracy", "test.last.ece"]
PERCENT += ["memorization.clean_accuracy", "memorization.wrong_fit"]
# Settings that runs of one group do not share; variants say how they differ.
OWN = ("method", "seed", "terms", "balance", "variant", "epochs_factor", "validate_every", "loss")
TITLE = ("dataset", "train_size", "network", "noise_rate", "noise")


def missing(record):
    """The fields that a record does not have."""
    names = []
    for name in FIELDS:
        value, place = record, ""
        for part in name.split("."):
            if not isinstance(value, dict) or part not in value:
                names.append(name)
                break
            value, place = value[part], f"{place}.{part}"
            if value is None:
                if place[1:] not in MAY_BE_NULL:
                    names.append(name)
                break
    return names


def read(paths):
    """Reads files of results.

    Returns:
        A table of the runs in groups told apart by `title`, and a message for each line that was skipped.

    Raises:
        ValueError: if there is no run at all.
    """
    records, messages, lines = [], [], {}
    for path in paths:
        results, skipped = read_results(path)
        messages += skipped
        for settings, record, number in results:
            source, names = f"{path}:{number}", missing(record)
            key = json.dumps({**settings.model_dump(), "backend": record.get("backend")}, sort_keys=True)
            if names:
                messages.append(f"{source} is no whole record of a run and was skipped: it misses {', '.join(names)}.")
            elif lines.setdefault(key, source) != source:
                messages.append(f"{source} was skipped: '{settings.label}' is in {lines[key]} already.")
            else:
                # In the words of today: a setting that is newer than the line has its default.
                records.append({**record, "settings": settings.model_dump()})
    if not records:
        raise ValueError(f"There is no run in {', '.join(map(str, paths))}. {' '.join(messages)}")
    return _grouped(pd.json_normalize(records, max_level=3), records), messages


def _grouped(runs, records):
    runs = runs.reindex(columns=dict.fromkeys([*FIELDS, *runs]))
    runs = runs.astype({"peak_memory": float, "test.last.nll": float, "test.best.nll": float})
    runs[PERCENT] = 100 * runs[PERCENT].astype(float)
    runs["history.val_accuracy"] = [[100 * value for value in record["history"]["val_accuracy"]] for record in records]
    epochs, methods = [], []
    for record in records:
        history, settings = record["history"], record["settings"]
        epochs.append(history.get("val_epoch") or list(range(1, len(history["val_loss"]) + 1)))
        variant = f" ({settings['variant']})" if settings["variant"] else ""
        methods.append(settings["method"] + variant)
    runs["epochs"], runs["method"], runs["seed"] = epochs, methods, runs["settings.seed"]
    runs["terms"] = [json.dumps(record["settings"]["terms"]) for record in records]
    names = shared(runs)
    runs[names] = runs[names].convert_dtypes()  # A setting that is null in some runs stays a whole number in others.
    order = list(dict.fromkeys([*METHODS, *methods]))
    runs["place"] = runs["method"].map(order.index)
    groups = runs.groupby([*names, "place"], dropna=False, sort=True).ngroup()
    runs = runs.iloc[groups.argsort(kind="stable")].copy()
    runs["title"], runs["series"] = _titles(runs, names)
    return runs


def shared(runs):
    """The settings that runs to be compared have in common, those of the title first."""
    first = [f"settings.{name}" for name in TITLE]
    own = tuple(f"settings.{name}" for name in OWN)
    names = [name for name in runs if name.startswith("settings.") and not name.startswith(own)]
    return [*first, *(name for name in names if name not in first), "backend"]


def _titles(runs, names):
    sizes = runs["settings.train_size"].map("{:,} images".format, na_action="ignore").fillna("all images")
    series = runs["settings.dataset"] + ", " + sizes + ", " + runs["settings.network"]
    for name in names[len(TITLE) :]:
        if runs[name].nunique(dropna=False) > 1:
            series += f", {words(name.removeprefix('settings.'))} " + texts(runs[name])
    rates = (100 * runs["settings.noise_rate"]).map("{:g}% ".format)
    noises = rates + runs["settings.noise"].map(words) + " noise"
    return series + ", " + noises.where(runs["settings.noise"] != "none", "no noise"), series


def texts(values):
    return values.map(str).replace(["<NA>", "None", "nan"], "unset")
