"""Label noise: wrong labels put into a training set on purpose, and how far a network memorizes them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_collab._checks import check_range

# CIFAR-10: truck to automobile, bird to airplane, deer to horse, cat to dog and dog to cat (Patrini et al., 2017, arXiv
# 1609.03683).
CIFAR10_PAIRS = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}


@dataclasses.dataclass(frozen=True)
class NoisyLabels:
    """Labels of which some are wrong.

    Attributes:
        labels: `(samples,)`, the labels to train with, of the dtype that was given.
        wrong: `(samples,)`, whether a label differs from the true one.
    """

    labels: np.ndarray
    wrong: np.ndarray

    @property
    def rate(self) -> float:
        """The share of labels that are wrong. It can differ from the requested rate."""
        return float(np.mean(self.wrong))


def symmetric(labels: Any, rate: float, classes: int, *, inclusive: bool = True, seed: int = 0) -> NoisyLabels:
    """Gives a share of the samples a label drawn uniformly.

    Args:
        labels: integers `(samples,)`, class indices.
        rate: float in [0, 1], the share of the samples.
        classes: integer, >= 2. Number of classes.
        inclusive: whether the draw includes the true class, as in most of the literature: with ten classes and a rate
            of 0.5, 45% are then wrong. If not, all that are drawn are wrong. Defaults to True.
        seed: integer, of the draws. Defaults to 0.

    Raises:
        ValueError: if labels are no class indices, their dtype cannot hold all classes, or the rate is outside [0, 1].

    >>> keras_collab.label_noise.symmetric([0, 1, 2, 3], 0.5, classes=4, inclusive=False).rate
    0.5
    """
    labels = _check_labels(symmetric, labels, rate, classes)
    random = np.random.default_rng(seed)
    drawn = random.permutation(len(labels))[: round(rate * len(labels))]
    noisy = labels.copy()
    if inclusive:
        noisy[drawn] = random.integers(0, classes, len(drawn))
    else:
        true = labels[drawn].astype("int64")  # A narrow integer would overflow in the sum.
        noisy[drawn] = (true + random.integers(1, classes, len(drawn))) % classes
    return NoisyLabels(noisy, noisy != labels)


def asymmetric(
    labels: Any, rate: float, classes: int = 10, *, pairs: Mapping[int, int] = CIFAR10_PAIRS, seed: int = 0
) -> NoisyLabels:
    """Turns a share of some classes into the class they are most easily confused with.

    Args:
        labels: integers `(samples,)`, class indices.
        rate: float in [0, 1], the share of the samples of each class in `pairs`. CIFAR-10's pairs hold half of the
            classes, so that 0.4 makes 20% of all labels wrong.
        classes: integer, >= 2. Number of classes. Defaults to 10.
        pairs: what each class is turned into. Defaults to CIFAR-10's.
        seed: integer, of the draws. Defaults to 0.

    Raises:
        ValueError: if labels or pairs are no class indices, their dtype cannot hold all classes, a class is paired with
            itself, or the rate is outside [0, 1].
    """
    labels = _check_labels(asymmetric, labels, rate, classes)
    for source, target in pairs.items():
        inside = 0 <= source < classes and 0 <= target < classes
        if not inside or source == target:
            raise ValueError(
                f"`pairs` must turn classes 0 to {classes - 1} into other ones. Received: {dict(pairs)}. Give the "
                "pairs of your own classes, pairs={from: to}."
            )
    random = np.random.default_rng(seed)
    noisy = labels.copy()
    for source, target in pairs.items():
        of_class = random.permutation(np.flatnonzero(labels == source))
        noisy[of_class[: round(rate * len(of_class))]] = target
    return NoisyLabels(noisy, noisy != labels)


def pair_flip(labels: Any, rate: float, classes: int, *, seed: int = 0) -> NoisyLabels:
    """Turns a share of each class into the next one (Han et al., 2018, arXiv 1804.06872).

    Args:
        labels: integers `(samples,)`, class indices.
        rate: float in [0, 1], the share of the samples of each class.
        classes: integer, >= 2. Number of classes.
        seed: integer, of the draws. Defaults to 0.

    Raises:
        ValueError: as `asymmetric`.
    """
    classes = check_range(pair_flip, classes=classes, least=2, whole=True)
    following = {label: (label + 1) % classes for label in range(classes)}
    return asymmetric(labels, rate, classes, pairs=following, seed=seed)


def memorization(predictions: Any, clean: Any, noisy: Any) -> dict[str, float]:
    """Measures how well a network predicts the true labels of its training set, and how many wrong ones it has learned.

    Args:
        predictions: `(samples, classes)`, scores or probabilities for the training images.
        clean: integers `(samples,)`, the true labels.
        noisy: integers `(samples,)`, the labels that the network was trained with.

    Returns:
        A dict. `clean_accuracy`: share of samples predicted as their true class. `wrong_fit`: share of the samples with
        a wrong label that are predicted as that label; NaN if there is none.

    Raises:
        ValueError: if the three do not have the same number of samples.
    """
    predicted = np.argmax(predictions, axis=-1)
    clean, noisy = np.asarray(clean), np.asarray(noisy)
    if not len(predicted) == len(clean) == len(noisy):
        raise ValueError(
            "Predictions, clean and noisy labels must be of the same samples. Received "
            f"{len(predicted)}, {len(clean)} and {len(noisy)}."
        )
    wrong = noisy != clean
    wrong_fit = np.mean(predicted[wrong] == noisy[wrong]) if wrong.any() else np.nan
    return {"clean_accuracy": float(np.mean(predicted == clean)), "wrong_fit": float(wrong_fit)}


def _check_labels(owner: Any, labels: Any, rate: float, classes: int) -> np.ndarray:
    check_range(owner, rate=rate, least=0, most=1)
    check_range(owner, classes=classes, least=2, whole=True)
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"`labels` must be class indices of shape (samples,). Received: {labels.dtype} of shape {labels.shape}. "
            "Turn one-hot vectors into indices by labels.argmax(axis=-1)."
        )
    if classes - 1 > np.iinfo(labels.dtype).max:
        raise ValueError(
            f"`labels` must be of a dtype that holds classes 0 to {classes - 1}. Received: {labels.dtype}, which ends "
            f"at {np.iinfo(labels.dtype).max}. Give labels.astype('int32')."
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(
            f"`labels` must lie in 0 to {classes - 1} for classes={classes}. Received: {labels.min()} to "
            f"{labels.max()}."
        )
    return labels
