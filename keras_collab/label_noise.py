"""Label noise: puts wrong labels into a training set, and measures how many of them a network memorizes."""

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_collab._checks import check_range

__all__ = ["CIFAR10_PAIRS", "NoisyLabels", "asymmetric", "memorization", "pair_flip", "symmetric"]

# CIFAR-10: truck to automobile, bird to airplane, deer to horse, cat to dog and dog to cat (Patrini et al., 2017, arXiv
# 1609.03683).
CIFAR10_PAIRS = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}


@dataclasses.dataclass(frozen=True)
class NoisyLabels:
    """Labels of which some are wrong.

    Attributes:
        labels: `(samples,)`, the labels to train with, in the dtype of the true ones.
        wrong: boolean `(samples,)`, true where a label differs from the true one.
    """

    labels: np.ndarray
    wrong: np.ndarray

    @property
    def rate(self) -> float:
        """The share of labels that are wrong, NaN without labels. It can differ from the requested rate."""
        return float(np.mean(self.wrong)) if len(self.wrong) else math.nan


def symmetric(
    labels: ArrayLike,
    rate: float,
    classes: int,
    *,
    inclusive: bool = True,
    seed: int = 0,
) -> NoisyLabels:
    """Adds symmetric label noise: replaces the labels of a random share of the samples by uniformly drawn ones.

    Args:
        labels: integers `(samples,)`, class indices.
        rate: float in [0, 1]. Share of the samples that get a new label.
        classes: integer, >= 2. Number of classes.
        inclusive: whether a new label may be the true one, as in most of the literature: with ten classes and a rate
            of 0.5, about 45% of all labels are then wrong. Otherwise every new label is wrong. Defaults to True.
        seed: integer seed of the draws. Defaults to 0.

    Returns:
        A `NoisyLabels`.

    Raises:
        ValueError: if labels are not class indices, their dtype cannot hold all classes, or the rate is outside [0, 1].

    >>> keras_collab.label_noise.symmetric([0, 1, 2, 3], 0.5, classes=4, inclusive=False).rate
    0.5
    """
    check_range(symmetric, rate=rate, least=0, most=1)
    labels = _check_labels(symmetric, labels, classes)
    random = np.random.default_rng(check_range(symmetric, seed=seed, least=0, whole=True))
    count = round(rate * len(labels))
    drawn = random.permutation(len(labels))[:count]
    noisy = labels.copy()
    if inclusive:
        noisy[drawn] = random.integers(0, classes, count)
    else:
        true = labels[drawn].astype("int64")  # A narrow integer would overflow in the sum.
        steps = random.integers(1, classes, count)
        noisy[drawn] = (true + steps) % classes
    return NoisyLabels(noisy, noisy != labels)


def asymmetric(
    labels: ArrayLike,
    rate: float,
    classes: int = 10,
    *,
    pairs: Mapping[int, int] | None = None,
    seed: int = 0,
) -> NoisyLabels:
    """Adds asymmetric label noise: relabels a share of some classes as a class that is easily confused with them.

    Args:
        labels: integers `(samples,)`, class indices.
        rate: float in [0, 1]. Share of each class in `pairs` that is relabelled. CIFAR-10's pairs have half of the
            classes, so 0.4 makes 20% of all labels wrong.
        classes: integer, >= 2. Number of classes. Defaults to 10.
        pairs: dict from a class to its wrong label. Defaults to None, which is `CIFAR10_PAIRS` (Patrini et al., 2017,
            arXiv 1609.03683).
        seed: integer seed of the draws. Defaults to 0.

    Returns:
        A `NoisyLabels`.

    Raises:
        ValueError: if labels or pairs are not class indices, their dtype cannot hold all classes, a class is paired
            with itself, the number of classes is not 10 and no pairs are given, or the rate is outside [0, 1].
    """
    check_range(asymmetric, rate=rate, least=0, most=1)
    labels = _check_labels(asymmetric, labels, classes)
    if pairs is None and classes != 10:
        raise ValueError(
            "asymmetric: the pairs of CIFAR-10 turn its ten classes into other ones. "
            f"Received: classes={classes}. Give the pairs of your classes, pairs={{class: wrong label, ...}}."
        )
    pairs = CIFAR10_PAIRS if pairs is None else pairs
    _check_pairs(pairs, classes)
    random = np.random.default_rng(check_range(asymmetric, seed=seed, least=0, whole=True))
    noisy = labels.copy()
    for source, target in pairs.items():
        of_class = random.permutation(np.flatnonzero(labels == source))
        noisy[of_class[: round(rate * len(of_class))]] = target
    return NoisyLabels(noisy, noisy != labels)


def pair_flip(
    labels: ArrayLike,
    rate: float,
    classes: int,
    *,
    seed: int = 0,
) -> NoisyLabels:
    """Adds pair-flip label noise: relabels a share of each class as the next one (Han et al., 2018, arXiv 1804.06872).

    The last class becomes class 0. Arguments, result and errors are as for `asymmetric`, without `pairs`;
    `classes` has no default.
    """
    classes = check_range(pair_flip, classes=classes, least=2, whole=True)
    pairs = {label: label + 1 for label in range(classes - 1)}
    pairs[classes - 1] = 0
    return asymmetric(labels, rate, classes, pairs=pairs, seed=seed)


def memorization(predictions: ArrayLike, clean: ArrayLike, noisy: ArrayLike) -> dict[str, float]:
    """Measures how many true labels of its training set a network predicts, and how many wrong ones it has memorized.

    Args:
        predictions: `(samples, classes)`, scores or probabilities for the training samples.
        clean: integers `(samples,)`, the true labels.
        noisy: integers `(samples,)`, the labels that the network was trained with.

    Returns:
        A dict. `clean_accuracy`: accuracy on the true labels, NaN without samples. `wrong_fit`: share of the samples
        with a wrong label that are predicted as that label; NaN if there are none.

    Raises:
        ValueError: if the three do not have the same number of samples, predictions are not finite scores of two or
            more classes, or labels are not class indices.
    """
    predictions = np.asarray(predictions)
    if predictions.dtype.name == "bfloat16":
        predictions = predictions.astype("float32")
    if predictions.ndim != 2 or predictions.dtype.kind not in "iuf" or not np.isfinite(predictions).all():
        raise ValueError(
            "`predictions` must be finite scores of shape (samples, classes). Received: "
            f"{predictions.dtype} of shape {predictions.shape}."
        )
    classes = predictions.shape[1]
    if classes < 2:
        raise ValueError("`predictions` must have a column for each class. Received one: give [1 - p, p] for each p.")
    clean = _check_labels(memorization, clean, classes)
    noisy = _check_labels(memorization, noisy, classes)
    predicted = predictions.argmax(axis=-1)
    if not len(predicted) == len(clean) == len(noisy):
        raise ValueError(
            "Predictions, clean and noisy labels must be of the same samples. Received "
            f"{len(predicted)}, {len(clean)} and {len(noisy)}."
        )
    wrong = noisy != clean
    clean_accuracy = float(np.mean(predicted == clean)) if len(clean) else math.nan
    wrong_fit = math.nan
    if wrong.any():
        wrong_fit = float(np.mean(predicted[wrong] == noisy[wrong]))
    return {"clean_accuracy": clean_accuracy, "wrong_fit": wrong_fit}


def _check_pairs(pairs: Any, classes: int) -> None:
    good = isinstance(pairs, Mapping)
    for source, target in pairs.items() if good else ():
        whole = isinstance(source, numbers.Integral) and isinstance(target, numbers.Integral)
        good = good and whole and 0 <= source < classes and 0 <= target < classes and source != target
    if not good:
        raise ValueError(
            f"`pairs` must turn classes 0 to {classes - 1} into other ones. Received: {pairs!r}. Give the pairs of "
            "your own classes, pairs={from: to}."
        )


def _check_labels(owner: Any, labels: ArrayLike, classes: int) -> np.ndarray:
    check_range(owner, classes=classes, least=2, whole=True)
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        if labels.ndim == 2 and labels.shape[1] > 1:
            mend = "Turn one-hot vectors into indices by labels.argmax(axis=-1)."
        else:
            mend = "Give labels.reshape(-1).astype('int32')."
        raise ValueError(
            f"`labels` must be class indices, integers of shape (samples,). Received: {labels.dtype} of shape "
            f"{labels.shape}. {mend}"
        )
    if classes - 1 > np.iinfo(labels.dtype).max:
        raise ValueError(
            f"`labels` must be of a dtype that holds classes 0 to {classes - 1}. Received: {labels.dtype}, which ends "
            f"at {np.iinfo(labels.dtype).max}. Give labels.astype('int32')."
        )
    least, most = labels.min(initial=0), labels.max(initial=0)
    if least < 0 or most >= classes:
        raise ValueError(f"`labels` must lie in 0 to {classes - 1} for classes={classes}. Received: {least} to {most}.")
    return labels
