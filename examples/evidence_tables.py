"""The tables of evidence.py, from runs on test images: what all four gain, each term alone, the controls."""

import functools

import numpy as np
import pandas as pd
from comparisons import ACCURACY, NLL, difference, show
from evidence_runs import HALF, RESNET, SHORT, USUAL, VGG, in_common, pairs, select
from methods import TERMS, words

ECE = "test.last.ece"


def lead(own, other, bold=True):
    """How far own is ahead of other in accuracy, in bold where the interval of three seeds or more leaves out 0."""
    gain = difference(own, other)
    mean, space, interval = gain.text("+.1f").partition(" ")
    if bold and gain.pairs > 2 and gain.verdict != "open":
        mean = f"**{mean}**"
    return mean + space + interval


def change(plain, four, form):
    """The mean of plain training, an arrow, and the mean of all four."""
    return f"{plain.mean():{form}} → {four.mean():{form}}"


def with_bold(texts, best):
    """The texts of a column by name, with that of the best, and those that read like it, in bold."""
    return texts.mask(texts == texts[best], "**" + texts + "**")


def gains(runs):
    """The table of the README has both networks side by side."""
    rows = [["CIFAR-10 photographs", "seeds", RESNET, "difference", "VGG-16 of width 13", "difference"]]
    tables = pairs(runs)
    for network, setting in tables:
        if network != RESNET:
            continue
        seeds, cells = [], []
        for side in (RESNET, VGG):
            if (side, setting) not in tables:
                cells += ["", ""]
                continue
            plain, four = tables[side, setting]
            cells.append(change(plain[ACCURACY], four[ACCURACY], ".1f"))
            cells.append(lead(four[ACCURACY], plain[ACCURACY]))
            count = str(len(four))
            if count not in seeds:
                seeds.append(count)
        rows.append([setting, ", ".join(seeds), *cells])
    return rows


def every_setting(runs):
    """Every setting has a row for each of its networks, with likelihood and calibration."""
    rows_of_settings = {}
    for (network, setting), (plain, four) in pairs(runs).items():
        before, after = plain[ACCURACY].mean(), four[ACCURACY].mean()
        gain = difference(four[ACCURACY], plain[ACCURACY]).mean
        row = [
            setting,
            network,
            str(len(four)),
            f"{before:.1f}",
            f"{after:.1f}",
            lead(four[ACCURACY], plain[ACCURACY]),
            show(-100 * gain / (100 - before), "+.1f", "%"),
            change(plain[NLL], four[NLL], ".2f"),
            change(plain[ECE], four[ECE], ".0f"),
        ]
        rows_of_settings.setdefault(setting, []).append(row)
    rows = [["setting", "network", "seeds", "plain", "all four", "difference", "error", "NLL", "ECE"]]
    for rows_of_setting in rows_of_settings.values():
        rows += rows_of_setting
    return rows


def alone(runs, settings):
    """Each term has a row of its own, with how far all four is ahead of it."""
    methods = ["plain", *TERMS, "all_four"]
    rows = []
    for network in (RESNET, VGG):
        group = select(runs, network, settings)
        table = in_common(group, methods)
        accuracy = table[ACCURACY]
        short = group[group.method == SHORT].set_index("seed")
        for method in methods:
            row = {
                "network": network,
                "seeds": str(len(table)),
                "terms": words(method),
                "accuracy": f"{accuracy[method].mean():.1f}",
                "− plain": "",
                "− plain, 20 epochs": "",
                "all four −": "",
                "NLL": f"{table[NLL][method].mean():.2f}",
                "ECE, %": f"{table[ECE][method].mean():.1f}",
            }
            if method != "plain":
                row["− plain"] = lead(accuracy[method], accuracy["plain"])
            if network == RESNET and settings == HALF:
                row["− plain, 20 epochs"] = lead(accuracy[method], short[ACCURACY])
            if method != "all_four":
                row["all four −"] = lead(accuracy["all_four"], accuracy[method])
            rows.append(row)
    frame = pd.DataFrame(rows)
    if settings != HALF:
        frame = frame.drop(columns="− plain, 20 epochs")
    return [list(frame), *frame.to_numpy().tolist()]


def smoothing(runs):
    """Label smoothing, beside the terms and without them, in the seeds that all these methods have."""
    methods = {
        "plain": "plain",
        "label_smoothing": "label smoothing",
        "all_four": "all four",
        "all_four (with label smoothing)": "all four with label smoothing",
    }
    columns = [["", *methods.values()]]
    for network in (RESNET, VGG):
        table = in_common(select(runs, network, {}), methods)
        accuracy = table[ACCURACY].mean()[list(methods)]
        nll = table[NLL].mean()[list(methods)]
        ece = table[ECE].mean()[list(methods)]
        title = f"{network}, {len(table)} seeds"
        columns.append([title, *with_bold(accuracy.map("{:.1f}".format), accuracy.idxmax())])
        columns.append(["NLL", *with_bold(nll.map("{:.2f}".format), nll.idxmin())])
        columns.append(["ECE, %", *with_bold(ece.map("{:.1f}".format), ece.idxmin())])
    return np.transpose(columns).tolist()


def wrong_labels(runs):
    """The controls and the terms beside another loss with 50% of the labels redrawn, each with all its seeds."""
    methods = {
        "plain": "plain, 40 epochs",
        SHORT: "plain, 20 epochs",
        "label_smoothing": "label smoothing, 40 epochs",
        "label_smoothing (20 epochs)": "label smoothing, 20 epochs",
        "gce": "generalized cross-entropy",
        "all_four": "all four",
        "all_four (with GCE)": "all four, with generalized cross-entropy",
    }
    differences = [
        "all four − the better plain training",
        "all four − generalized cross-entropy",
        "all four with GCE − the better plain training",
        "all four with GCE − generalized cross-entropy",
    ]
    columns = [["", *methods.values(), *differences]]
    for network in (RESNET, VGG):
        group = select(runs, network, HALF)
        accuracy = group.pivot(index="seed", columns="method", values=ACCURACY)[list(methods)]
        means = accuracy.mean()
        texts = means.map("{:.1f}".format)
        texts[accuracy.count() == 1] += " (1 seed)"
        column = [network, *with_bold(texts, means.idxmax())]
        better_plain = means[["plain", SHORT]].idxmax()
        for method in ("all_four", "all_four (with GCE)"):
            column.append(lead(accuracy[method], accuracy[better_plain], bold=False))
            column.append(lead(accuracy[method], accuracy["gce"], bold=False))
        columns.append(column)
    return np.transpose(columns).tolist()


def other_methods(runs):
    """Other ways of teaching one network, in the seeds that all of them have."""
    methods = {
        "plain": "plain",
        "song_chai_2": "Song & Chai, 2 heads",
        "exits": "exits, one Dense layer a stage",
        "all_four": "all four",
    }
    cases = {"": {}, ", 50% redrawn": HALF}
    columns = [["", *methods.values()]]
    for network in (RESNET, VGG):
        for case, settings in cases.items():
            accuracy = in_common(select(runs, network, settings), methods)[ACCURACY]
            means = [f"{network}{case}, {len(accuracy)} seeds"]
            leads = ["all four −"]
            for method in methods:
                mean, ahead = "", ""
                if method in accuracy:
                    mean = f"{accuracy[method].mean():.1f}"
                    if method != "all_four":
                        ahead = lead(accuracy["all_four"], accuracy[method])
                means.append(mean)
                leads.append(ahead)
            columns += [means, leads]
    return np.transpose(columns).tolist()


def foretold(runs):
    """Rank correlations, over the settings of photographs, of what all four gain with what plain training shows."""
    measures, points, noises = [], [], []
    for plain, four in pairs(runs).values():
        run = plain.iloc[0]  # The runs of all seeds have the same settings.
        if run["settings.dataset"] != USUAL["dataset"] or run.method == SHORT:
            continue
        channels = plain["redundancy.channels.after"]
        channels_before = plain["redundancy.channels.before"]
        kernels = plain["redundancy.kernels.after"]
        test_error = 100 - plain[ACCURACY].mean()
        train_error = 100 - 100 * plain["history.accuracy"].str[-1].mean()
        measure = {
            "R² of channels, first stage": channels.str[0].mean(),
            "R² of channels, mean of stages": channels.map(np.mean).mean(),
            "R² of channels, last stage": channels.str[-1].mean(),
            "R² of channels, first stage, before training": channels_before.str[0].mean(),
            "cos² of kernels, mean": kernels.map(np.mean).mean(),
            "test error": test_error,
            "training error": train_error,
            "test error − training error": test_error - train_error,
        }
        measures.append(measure)
        points.append(difference(four[ACCURACY], plain[ACCURACY]).mean)
        noises.append(run["settings.noise"])
    table, gain = pd.DataFrame(measures), pd.Series(points)
    clean = pd.Series(noises) == "none"
    all_settings = table.corrwith(gain, method="spearman")
    no_noise = table[clean].corrwith(gain[clean], method="spearman")
    rows = [["of plain training", f"all, {len(gain)} settings", f"no noise, {clean.sum()} settings"]]
    for name in table:
        rows.append([name, show(all_settings[name], "+.2f"), show(no_noise[name], "+.2f")])
    return rows


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
