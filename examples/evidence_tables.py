"""The tables of evidence.py, from runs on test images: what all four gain, each term alone, the controls."""

import functools
import itertools

import numpy as np
import pandas as pd
from comparisons import ACCURACY, NLL, show
from comparisons import difference as paired
from methods import TERMS, words

ECE = "test.last.ece"
RESNET, VGG = "ResNet-10", "VGG-16"
NETWORKS = {RESNET: "resnet10", VGG: "vgg16", "ResNet-14": "resnet14", "ResNet-18 of width 16": "resnet18"}
USUAL = {"dataset": "cifar10-subset", "train_size": 2000, "epochs": 40, "augment": True, "noise": "none"}
USUAL |= {"noise_rate": 0.0}
HALF = {"noise": "symmetric", "noise_rate": 0.5}
SHORT, PLAIN_SHORT = "plain (20 epochs)", ", plain 20 epochs"
SETTINGS = {  # What a row is called, and what its runs are trained with where that is not usual.
    "1,000 labels, 160 epochs": {"train_size": 1000, "epochs": 160},
    "2,000 labels, 40 epochs": {},
    "2,000 labels, 80 epochs": {"epochs": 80},
    "5,000 labels, 40 epochs": {"train_size": 5000},
    "8,000 labels, 40 epochs": {"train_size": 8000},
    "2,000 labels, 20% redrawn": {"noise": "symmetric", "noise_rate": 0.2},
    "2,000 labels, 40% redrawn": {"noise": "symmetric", "noise_rate": 0.4},
    "2,000 labels, 50% redrawn": HALF,
    "2,000 labels, 40% asymmetric noise": {"noise": "asymmetric", "noise_rate": 0.4},
    "2,000 labels, no augmentation": {"augment": False},
    "Fashion-MNIST, 2,000 labels": {"dataset": "fashion_mnist"},
}


def select(runs, network, method, settings):
    """The runs of one method in one setting, by seed."""
    wanted = {"network": NETWORKS[network]} | USUAL | settings
    kept = runs.method == method
    for name, value in wanted.items():
        kept &= runs[f"settings.{name}"] == value
    return runs[kept].set_index("seed").sort_index()


def both(own, other):
    """The runs of seeds that both have."""
    seeds = own.index.intersection(other.index)
    return own.loc[seeds], other.loc[seeds]


def gain(own, other):
    """The `Difference` of own less other in accuracy, paired by seed."""
    return paired(own[ACCURACY], other[ACCURACY])


def difference(own, other, bold=True):
    found = gain(own, other)
    said, space, rest = found.text("+z.1f").partition(" ")
    if bold and found.pairs > 2 and found.verdict != "open":
        said = f"**{said}**"
    return said + space + rest


def mean(own, column=ACCURACY, form=".1f"):
    return f"{own[column].mean():{form}}" if len(own) else ""


def from_to(own, other, column, form):
    return f"{mean(other, column, form)} → {mean(own, column, form)}"


def rows_of(runs, network):
    """(setting, plain training, all four), with the same seeds, also with plain training's other number of epochs."""
    for name, settings in SETTINGS.items():
        for method in ("plain", SHORT):
            plain, own = both(select(runs, network, method, settings), select(runs, network, "all_four", settings))
            # After 20 epochs the one VGG-16 that was tried had not begun to learn: no baseline.
            if len(own) and not (method == SHORT and network == VGG):
                yield name + PLAIN_SHORT * (method == SHORT), plain, own


def gains(runs):
    """The table of the README: both networks side by side."""
    found = {network: {name: pair for name, *pair in rows_of(runs, network)} for network in (RESNET, VGG)}
    rows = [["CIFAR-10 photographs", "seeds", RESNET, "difference", "VGG-16 of width 13", "difference"]]
    for name, pair in found[RESNET].items():
        pairs = [pair, *([found[VGG][name]] if name in found[VGG] else [])]
        cells = []
        for plain, own in pairs:
            cells += [from_to(own, plain, ACCURACY, ".1f"), difference(own, plain)]
        seeds = dict.fromkeys(str(len(own)) for _, own in pairs)
        rows.append([name, ", ".join(seeds), *cells, *[""] * (4 - len(cells))])
    return rows


def every_setting(runs):
    """Every setting and network, with likelihood and calibration."""
    rows = [["setting", "network", "seeds", "plain", "all four", "difference", "error", "NLL", "ECE"]]
    found = {(name, network): pair for network in NETWORKS for name, *pair in rows_of(runs, network)}
    order = list(dict.fromkeys(name for name, _ in found))
    for (name, network), (plain, own) in sorted(found.items(), key=lambda item: order.index(item[0][0])):
        error = -100 * gain(own, plain).mean / (100 - plain[ACCURACY].mean())
        figures = [mean(plain), mean(own), difference(own, plain), show(error, "+z.1f", "%")]
        likelihood = from_to(own, plain, NLL, ".2f"), from_to(own, plain, ECE, ".0f")
        rows.append([name, network, str(len(own)), *figures, *likelihood])
    return rows


def in_common(found):
    """The runs of those seeds that all of them have."""
    seeds = sorted(set.intersection(*(set(own.index) for own in found.values())))
    return {name: own.loc[seeds] for name, own in found.items()}


def alone(runs, settings):
    """Each term alone, and how far all four is ahead of it."""
    rows = []
    for network in (RESNET, VGG):
        short = select(runs, network, SHORT, settings)
        found = in_common({name: select(runs, network, name, settings) for name in ("plain", *TERMS, "all_four")})
        plain, four = found["plain"], found["all_four"]
        for name, own in found.items():
            row = {"network": network, "seeds": str(len(own)), "terms": words(name), "accuracy": mean(own)}
            row["− plain"] = "" if own is plain else difference(own, plain)
            if settings == HALF:
                row["− plain, 20 epochs"] = difference(own, short) if network == RESNET else ""
            row["all four −"] = "" if own is four else difference(four, own)
            rows.append(row | {"NLL": mean(own, NLL, ".2f"), "ECE, %": mean(own, ECE)})
    return [list(rows[0]), *(list(row.values()) for row in rows)]


def smoothing(runs):
    """Label smoothing, beside the terms and without them, with the seeds that all of these have."""
    methods = {"plain": "plain", "label smoothing": "label_smoothing", "all four": "all_four"}
    methods |= {"all four with label smoothing": "all_four (with label smoothing)"}
    head, columns = [""], []
    for network in (RESNET, VGG):
        found = in_common({name: select(runs, network, method, {}) for name, method in methods.items()}).values()
        head += [titled(network, found), "NLL", "ECE, %"]
        columns += [
            best([mean(own) for own in found], max),
            best([mean(own, NLL, ".2f") for own in found], min),
            best([mean(own, ECE) for own in found], min),
        ]
    return [head, *map(list, zip(methods, *columns, strict=True))]


def titled(network, found):
    """A column's title, with how many seeds it has."""
    return f"{network}, {len(next(iter(found)))} seeds"


def best(texts, which):
    """The best of a column in bold."""
    found = which(texts, key=lambda text: float(text.split()[0]))
    return [f"**{text}**" if text == found else text for text in texts]


def wrong_labels(runs):
    """50% of the labels redrawn: the controls and the terms beside another loss, each with all its seeds."""
    methods = {
        "plain, 40 epochs": "plain",
        "plain, 20 epochs": SHORT,
        "label smoothing, 40 epochs": "label_smoothing",
        "label smoothing, 20 epochs": "label_smoothing (20 epochs)",
        "generalized cross-entropy": "gce",
        "all four": "all_four",
        "all four, with generalized cross-entropy": "all_four (with GCE)",
    }
    columns = []
    for network in (RESNET, VGG):
        found = {name: select(runs, network, method, HALF) for name, method in methods.items()}
        plain = max((found["plain, 40 epochs"], found["plain, 20 epochs"]), key=lambda own: own[ACCURACY].mean())
        texts = best([mean(own) + " (1 seed)" * (len(own) == 1) for own in found.values()], max)
        column = dict(zip(found, texts, strict=True))
        gce, four, with_gce = list(found.values())[-3:]
        for name, own in {"all four": four, "all four with GCE": with_gce}.items():
            column[f"{name} − the better plain training"] = difference(own, plain, bold=False)
            column[f"{name} − generalized cross-entropy"] = difference(own, gce, bold=False)
        columns.append(column)
    return [["", RESNET, VGG], *([name, *(column[name] for column in columns)] for name in columns[0])]


def other_methods(runs):
    """Other ways of teaching one network."""
    methods = {"plain": "plain", "Song & Chai, 2 heads": "song_chai_2", "exits, one Dense layer a stage": "exits"}
    methods |= {"all four": "all_four"}
    head, columns = [""], []
    for network, (case, settings) in itertools.product((RESNET, VGG), {"": {}, ", 50% redrawn": HALF}.items()):
        found = {name: select(runs, network, method, settings) for name, method in methods.items()}
        found = in_common({name: own for name, own in found.items() if len(own)})
        head += [titled(network + case, found.values()), "all four −"]
        columns += [{name: mean(own) for name, own in found.items()}]
        columns += [{name: difference(found["all four"], own) for name, own in found.items() if name != "all four"}]
    return [head, *([name, *(column.get(name, "") for column in columns)] for name in methods)]


def foretold(runs):
    """Rank correlations, over the settings of photographs, of what all four gain with what plain training shows."""
    settings = []
    for network in NETWORKS:
        for name, plain, own in rows_of(runs, network):
            if name.endswith(PLAIN_SHORT) or plain["settings.dataset"].iloc[0] != USUAL["dataset"]:
                continue
            test_error, train_error = 100 - plain[ACCURACY], 100 - 100 * plain["history.accuracy"].str[-1]
            channels = plain["redundancy.channels.after"]
            shown = {
                "R² of channels, first stage": channels.str[0],
                "R² of channels, mean of stages": channels.map(np.mean),
                "R² of channels, last stage": channels.str[-1],
                "R² of channels, first stage, before training": plain["redundancy.channels.before"].str[0],
                "cos² of kernels, mean": plain["redundancy.kernels.after"].map(np.mean),
                "test error": test_error,
                "training error": train_error,
                "test error − training error": test_error - train_error,
            }
            clean = (plain["settings.noise"] == "none").all()
            settings.append({name: of_seeds.mean() for name, of_seeds in shown.items()} | {"clean": clean})
            settings[-1]["gain"] = gain(own, plain).mean
    found = pd.DataFrame(settings)
    head, columns = ["of plain training"], []
    for name, group in {"all": found, "no noise": found[found.clean]}.items():
        head.append(f"{name}, {len(group)} settings")
        columns.append(group.drop(columns=["clean", "gain"]).corrwith(group.gain, method="spearman"))
    return [head, *([name, *(show(column[name], "+z.2f") for column in columns)] for name in columns[0].index)]


TABLES = {
    "gains": gains,
    "settings": every_setting,
    "alone": functools.partial(alone, settings={}),
    "alone_with_noise": functools.partial(alone, settings=HALF),
    "smoothing": smoothing,
    "wrong_labels": wrong_labels,
    "other_methods": other_methods,
    "foretold": foretold,
}
