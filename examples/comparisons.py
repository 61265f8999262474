"""Paired comparisons of runs: mean differences with Student's 95% interval, and the texts that tables show."""

import dataclasses
import math
import warnings

from methods import is_control
from scipy import stats

ACCURACY, NLL = "test.last.accuracy", "test.last.nll"


@dataclasses.dataclass(frozen=True)
class Difference:
    """The mean of paired differences, and Student's 95% interval of it; NaN where there are too few pairs."""

    pairs: int
    mean: float
    low: float
    high: float

    @property
    def verdict(self):
        """A gain or a loss where the interval leaves out 0; open where it does not, or where there is none."""
        if self.low > 0:
            return "gain"
        if self.high < 0:
            return "loss"
        return "open"

    def text(self, form="+.2f"):
        """The mean, with the interval in brackets."""
        if math.isnan(self.low):
            return show(self.mean, form)
        mean, low, high = show(self.mean, form), show(self.low, form), show(self.high, form)
        return f"{mean} ({low} to {high})"


def difference(own, other):
    """Own less other, of the seeds that both have.

    Args:
        own: a pandas Series by seed.
        other: another one.
    """
    pairs = (own - other).dropna()
    if len(pairs) < 2:
        return Difference(len(pairs), pairs.mean(), math.nan, math.nan)
    with warnings.catch_warnings():
        # SciPy 1.17 warns where all pairs differ alike; the interval is right, of length 0.
        warnings.simplefilter("ignore", RuntimeWarning)
        low, high = stats.ttest_1samp(pairs, 0).confidence_interval()
    return Difference(len(pairs), pairs.mean(), float(low), float(high))


def mean_of(differences):
    """The mean of independent differences, with its 95% interval (Welch & Satterthwaite, 1946).

    Args:
        differences: list of `Difference`, each of two pairs or more.
    """
    count, variances, freedoms = len(differences), [], []
    for one in differences:
        freedom = one.pairs - 1
        error = (one.high - one.low) / 2 / stats.t.ppf(0.975, freedom) / count
        variances.append(error**2)
        freedoms.append(freedom)
    mean, total = sum(one.mean for one in differences) / count, sum(variances)
    freedom = total**2 / sum(variance**2 / own for variance, own in zip(variances, freedoms, strict=True))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(total)
    return Difference(sum(one.pairs for one in differences), mean, float(mean - half), float(mean + half))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A method against a control in one group of runs."""

    title: str
    method: str
    control: str
    control_accuracy: float
    accuracy: Difference
    nll: Difference

    @property
    def error(self):
        """The change of the error, relative to the control's, in %."""
        error = 100 - self.control_accuracy
        if error == 0:
            return math.nan
        return -100 * self.accuracy.mean / error


def by_method(group):
    """The runs of one group by method, each a table by seed."""
    methods = {}
    for name, own in group.groupby("method", sort=False):
        methods[name] = own.set_index("seed").sort_index()
    return methods


def compare(methods, method, control, title=""):
    """The `Comparison` of two methods of `by_method`; None if they have no seed in common."""
    own, other = methods[method], methods[control]
    seeds = own.index.intersection(other.index)
    if not len(seeds):
        return None
    own, other = own.loc[seeds], other.loc[seeds]
    return Comparison(
        title=title,
        method=method,
        control=control,
        control_accuracy=other[ACCURACY].mean(),
        accuracy=difference(own[ACCURACY], other[ACCURACY]),
        nll=difference(own[NLL], other[NLL]),
    )


def against_better_control(methods, method, title=""):
    """The `Comparison` with the control of the highest accuracy: plain training, another loss, or a variant of these.

    A control with one seed counts only where none has more.
    """
    single, several = [], []
    for name in methods:
        if not is_control(name) or name == method:
            continue
        comparison = compare(methods, method, name, title)
        if comparison and comparison.accuracy.pairs > 1:
            several.append(comparison)
        elif comparison:
            single.append(comparison)
    return max(several or single, key=lambda comparison: comparison.control_accuracy, default=None)


def show(value, form="+.2f", unit=""):
    """A number as text, with a minus sign; nothing for NaN."""
    if math.isnan(value):
        return ""
    return f"{value:{form}}{unit}".replace("-", "−")


def markdown(head, rows):
    """A table in Markdown."""
    lines = []
    for cells in (head, ["---"] * len(head), *rows):
        lines.append(f"| {' | '.join(cells)} |")
    return lines
