"""The runs that the tables of evidence.py compare: networks, settings, and pairs of plain training and all four."""

from comparisons import ACCURACY, by_method

RESNET, VGG = "ResNet-10", "VGG-16"
NETWORKS = {RESNET: "resnet10", VGG: "vgg16", "ResNet-14": "resnet14", "ResNet-18 of width 16": "resnet18"}
USUAL = {
    "dataset": "cifar10-subset",
    "train_size": 2000,
    "epochs": 40,
    "augment": True,
    "noise": "none",
    "noise_rate": 0.0,
}
HALF = {"noise": "symmetric", "noise_rate": 0.5}
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
SHORT = "plain (20 epochs)"
ENDINGS = {"plain": "", SHORT: ", plain 20 epochs"}  # Of the names of rows, by the plain training in them.


def select(runs, network, settings):
    """The runs of a network that were trained as usual but for these settings."""
    wanted = USUAL | settings | {"network": NETWORKS[network]}
    for name, value in wanted.items():
        runs = runs[runs[f"settings.{name}"] == value]
    return runs


def in_common(runs, methods):
    """The runs of those seeds that all methods have: `table[name]` has a row for each seed, a column a method."""
    table = runs[runs.method.isin(methods)].pivot(index="seed", columns="method")
    complete = table[ACCURACY].notna().all(axis="columns")
    return table[complete]


def pairs(runs):
    """The runs of plain training and of all four with the same seeds: two tables by seed for each (network, row)."""
    tables = {}
    for network in NETWORKS:
        for setting, settings in SETTINGS.items():
            methods = by_method(select(runs, network, settings))
            if "all_four" not in methods:
                continue
            for control, ending in ENDINGS.items():
                # After 20 epochs the one VGG-16 that was tried had not begun to learn: no baseline.
                if control not in methods or (network == VGG and control == SHORT):
                    continue
                plain, four = methods[control], methods["all_four"]
                seeds = plain.index.intersection(four.index)
                if len(seeds):
                    tables[network, setting + ending] = plain.loc[seeds], four.loc[seeds]
    return tables
