"""The result of `compare`: the runs, conclusions from them, a table and a figure."""

import dataclasses
import math
import re
import statistics
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table
from scipy.special import stdtrit

from keras_collab._checks import require
from keras_collab.tools._printed import Printed

# Metrics whose last words say that larger is better, whatever their output is called.
_LARGER = re.compile(r"(accuracy|auc|precision|recall|f1_score|r2_score|similarity|iou)(_\d+)?$")
# Metrics that are better when they are smaller: losses and errors, and short names of some of them.
_SMALLER = re.compile(
    "loss|error|entropy|diverg|hinge|poisson|perplexity|huber|cosh|brier|distance|false_|miss_rate|misclass|devia|"
    "bits_per|neg(ative)?_?log|(^|_)(nll|ppl|err|n?r?mse|r?msle|[sw]?ma?p?e|wape|mase|wer|cer|eer|fpr|fnr|fid|ece|"
    "[bcs]?ce|cce|scce|xent|kld?|crps|pinball|mre)(_|$)"
)


def is_larger_better(metric: str, metric_class: str = "") -> bool:
    """Whether a larger value of a metric is better: by the name of its class, else by its own; true for others.

    Args:
        metric: its column in the history.
        metric_class: name of the class, such as `"BinaryCrossentropy"`.
    """
    by_class = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", metric_class).lower()
    for name in (by_class, metric.removeprefix("val_").lower()):
        if _LARGER.search(name) or _SMALLER.search(name):
            return bool(_LARGER.search(name))
    return True


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        arm: name of its arm.
        seed: seed of its initial weights and of the order of its batches.
        history: history of `fit`: a list for each column, with one value for each epoch.
        seconds_per_step: mean time of a training step in an epoch, the median over epochs.
        risen: share of their heights that scheduled weights have reached at the end, from 0 to 1.
    """

    arm: str
    seed: int
    history: dict[str, list[float]]
    seconds_per_step: float
    risen: float = 1.0


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference between an arm and the first one, paired by seed.

    Attributes:
        mean: mean difference over the seeds that both have.
        low: lower end of its 95% interval (Student's t); NaN with one seed, or if the differences do not differ.
        high: upper end of the interval.
        seeds: number of seeds.
    """

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


class Comparison(Printed):
    """The result of `compare`; prints as a table and a sentence for each arm.

    Attributes:
        runs: all runs, as `Run` objects.
        arms: names of the arms; the others are compared with the first.
        metric: column of the history by which arms are compared, at the last epoch.
        larger_is_better: whether a larger value of the metric is better.
        stopped_early: whether it stopped because all intervals excluded 0.
    """

    def __init__(
        self,
        runs: list[Run],
        arms: list[str],
        metric: str,
        load: Callable[[str, int], keras.Model],
        *,
        larger_is_better: bool | None = None,
        stopped_early: bool = False,
    ):
        self.runs = runs
        self.arms = arms
        self.metric = metric
        self.larger_is_better = is_larger_better(metric) if larger_is_better is None else larger_is_better
        self.stopped_early = stopped_early
        self._load = load

    @property
    def scale(self) -> float:
        """The factor of printed values: 100 for an accuracy, printed in percent, else 1."""
        return 100.0 if "accuracy" in self.metric else 1.0

    def values(self, arm: str) -> dict[int, float]:
        """Returns the metric of an arm after the last epoch, by seed; a ValueError if there is no such arm."""
        values = {run.seed: run.history[self.metric][-1] for run in self._runs_of(arm)}
        if not values:
            raise ValueError(f"There is no arm {arm!r}. There are: {list(self.arms)}.")
        return values

    def difference(self, arm: str) -> Difference:
        """Returns the difference between an arm and the first one, paired by seed."""
        first, other = self.values(self.arms[0]), self.values(arm)
        largest = max(abs(value) for value in [*first.values(), *other.values()])
        return paired_difference([other[seed] - first[seed] for seed in first if seed in other], largest)

    def network(self, arm: str, seed: int) -> keras.Model:
        """Returns the trained network of a run, unwrapped and not compiled; a new one at each call."""
        if seed not in self.values(arm):
            runs = [(run.arm, run.seed) for run in self.runs]
            raise ValueError(f"There is no run of arm {arm!r} and seed {seed!r}. There are: {runs}.")
        return self._load(arm, seed)

    def best(self) -> keras.Model:
        """Returns the trained network, unwrapped, from the best run of the arm with the best mean."""
        arm = max(self.arms, key=lambda name: self._merit(statistics.mean(self.values(name).values())))
        values = self.values(arm)
        return self.network(arm, max(values, key=lambda seed: self._merit(values[seed])))

    def conclusion(self, arm: str) -> str:
        """Returns one sentence that says whether an arm is better than the first."""
        difference = self.difference(arm)
        mean, seeds = self._signed(difference.mean), difference.seeds
        interval = f"{self._signed(difference.low)} to {self._signed(difference.high)}"
        if math.isnan(difference.mean):
            return f"{arm}: no answer, since a training ended with NaN."
        if seeds < 2:
            return f"{arm}: {mean} with one seed, which can be chance: run more seeds."
        if math.isnan(difference.low):
            return f"{arm}: {mean} with each of {seeds} seeds, too alike for an interval: run more seeds."
        if not difference.clear:
            return f"{arm}: no difference that {seeds} seeds can show, {mean} ({interval})."
        if (difference.mean > 0) == self.larger_is_better:
            return f"{arm}: better by {mean} ({interval})."
        return f"{arm}: worse by {mean} ({interval}): train {self.arms[0]}."

    def __rich__(self) -> Group:
        table = Table(box=box.SIMPLE, title=self._title())
        for name in ("", "mean ± std", f"to {self.arms[0]}", "95% interval", "best epoch", "time a step", "seeds"):
            table.add_column(escape(name), justify="right" if name else "left", overflow="fold")
        for arm in self.arms:
            table.add_row(*map(escape, self._row(arm)))
        sentences = [self.conclusion(arm) for arm in self.arms[1:]]
        for arm in self.arms:
            runs = self._runs_of(arm)
            if any(math.isnan(run.history.get("loss", [0.0])[-1]) for run in runs):
                sentences.append(f"{arm}: the loss of a training ended with NaN.")
            risen = min(run.risen for run in runs)
            if risen < 0.99:
                sentences.append(f"{arm}: its weights rose to {risen:.0%} only; a longer training may differ.")
        return Group(table, *map(escape, sentences), self._limits())

    def figure(self) -> Any:
        """Plots the metric by epoch: a thin line for each run, a thick one for the mean of each arm.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: if matplotlib is not installed.
        """
        module = require("matplotlib.figure", "`figure` needs matplotlib: `pip install matplotlib`")
        figure = module.Figure(figsize=(7, 4.2), layout="constrained")
        axis = figure.subplots()
        for index, arm in enumerate(self.arms):
            curves = self._curves(arm)
            epochs = range(1, len(curves[0]) + 1)
            for curve in curves:
                axis.plot(epochs, curve, ".-", color=f"C{index}", alpha=0.3, linewidth=0.8)
            mean = [statistics.mean(values) for values in zip(*curves, strict=True)]
            axis.plot(epochs, mean, color=f"C{index}", marker=".", linewidth=2, label=arm)
        axis.set_xlabel("epoch")
        axis.set_title(f"{self._metric_in_words()} on validation data", loc="left")
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
        return figure

    def _runs_of(self, arm: str) -> list[Run]:
        return [run for run in self.runs if run.arm == arm]

    def _curves(self, arm: str) -> list[list[float]]:
        return [run.history[self.metric] for run in self._runs_of(arm)]

    def _metric_in_words(self) -> str:
        return self.metric.removeprefix("val_").replace("_", " ")

    def _title(self) -> str:
        better = "larger" if self.larger_is_better else "smaller"
        unit = ", %" if self.scale == 100 else ""
        return f"{self._metric_in_words()}{unit} on validation data after the last epoch ({better} is better)"

    def _limits(self) -> str:
        text = "The intervals cover other seeds on the same data. Confirm a choice on a separate test set."
        if len(self.arms) > 2:
            text += " One interval in twenty excludes 0 by chance."
        if self.stopped_early:
            text += " Stopping at the first clear difference finds more of them by chance."
        return text

    def _merit(self, value: float) -> float:
        if math.isnan(value):
            return -math.inf
        return value if self.larger_is_better else -value

    def _row(self, arm: str) -> list[str]:
        values = list(self.values(arm).values())
        spread = f" ± {self._plain(float(np.std(values, ddof=1)))}" if len(values) > 1 else ""
        cells = [arm, f"{self._plain(statistics.mean(values))}{spread}", "", ""]
        if arm != self.arms[0]:
            difference = self.difference(arm)
            cells[2] = self._signed(difference.mean)
            if not math.isnan(difference.low):
                cells[3] = f"{self._signed(difference.low)} to {self._signed(difference.high)}"
        time = f"×{self._seconds(arm) / self._seconds(self.arms[0]):.2f}"
        return [*cells, self._best_epoch(arm), time, str(len(values))]

    def _best_epoch(self, arm: str) -> str:
        """The epoch, from 1, at which the mean of the metric was best."""
        merits = [self._merit(statistics.mean(values)) for values in zip(*self._curves(arm), strict=True)]
        return str(merits.index(max(merits)) + 1)

    def _seconds(self, arm: str) -> float:
        return statistics.median(run.seconds_per_step for run in self._runs_of(arm))

    def _plain(self, value: float) -> str:
        return f"{self.scale * value:.1f}" if self.scale == 100 else f"{value:.4g}"

    def _signed(self, value: float) -> str:
        return f"{self.scale * value:+.1f}" if self.scale == 100 else f"{value:+.3g}"


def paired_difference(differences: list[float], largest: float = 0.0) -> Difference:
    """Mean and 95% interval of differences: mean ± t · s/√n, with Student's t of n − 1 degrees of freedom.

    Args:
        differences: one for each pair.
        largest: largest size of the compared values, by which rounding is told from a difference.
    """
    count, mean = len(differences), statistics.mean(differences)
    if count < 2 or math.isnan(mean):
        return Difference(mean, math.nan, math.nan, count)
    deviation = statistics.stdev(differences)
    # A coarse metric, as accuracy on few images, has no interval of width 0.
    if deviation <= 1e-6 * max(largest, abs(mean)):
        return Difference(mean, math.nan, math.nan, count)
    half = float(stdtrit(count - 1, 0.975)) * deviation / math.sqrt(count)
    return Difference(mean, mean - half, mean + half, count)
