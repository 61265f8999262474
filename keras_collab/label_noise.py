"""Label noise: wrong labels put into a training set on purpose, and how far a network learns them by heart."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

# CIFAR-10: truck to automobile, bird to airplane, deer to horse, cat to dog and dog to cat (Patrini et al., 2017, arXiv
# 1609.03683).
CIFAR10_PAIRS = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}


@dataclasses.dataclass(frozen=True)
class NoisyLabels:
    """Labels some of which are wrong.

    Attributes:
        labels: `(samples,)`, the labels to train with, of the dtype that was given.
        wrong: `(samples,)`, whether a label differs from the true one.
    """

    labels: np.ndarray
    wrong: np.ndarray

    @property
    def rate(self) -> float:
        """The share of labels that are wrong, which need not be the rate that was asked for."""
        return float(np.mean(self.wrong))


def symmetric(labels: Any, rate: float, classes: int, *, inclusive: bool = True, seed: int = 0) -> NoisyLabels:
    """Gives a share of the samples a label drawn uniformly.

    Args:
        labels: `(samples,)`, class indices.
        rate: share of the samples, in [0, 1].
        classes: number of classes.
        inclusive: whether the draw may hit the true class, as in most of the literature: of ten classes a rate of 0.5
            then makes 45% wrong. If not, all that are drawn are wrong.
        seed: of a generator of its own.

    Raises:
        ValueError: if labels are no class indices, or the rate is outside [0, 1].
    """
    labels, rng = _checked(labels, rate, classes), np.random.default_rng(seed)
    drawn = rng.permutation(len(labels))[: round(rate * len(labels))]
    noisy = labels.copy()
    if inclusive:
        noisy[drawn] = rng.integers(0, classes, len(drawn))
    else:
        noisy[drawn] = (labels[drawn] + rng.integers(1, classes, len(drawn))) % classes
    return NoisyLabels(noisy, noisy != labels)


def asymmetric(
    labels: Any, rate: float, classes: int = 10, *, pairs: Mapping[int, int] = CIFAR10_PAIRS, seed: int = 0
) -> NoisyLabels:
    """Turns a share of some classes into the class they are most easily taken for.

    Args:
        labels: `(samples,)`, class indices.
        rate: share of the samples of each class in `pairs`, in [0, 1]; with CIFAR-10's pairs, half of the classes, 0.4
            makes 20% of all labels wrong.
        classes: number of classes.
        pairs: what each class is turned into. Defaults to CIFAR-10's.
        seed: of a generator of its own.

    Raises:
        ValueError: if labels or pairs are no class indices, a class is paired with itself, or the rate is outside
            [0, 1].
    """
    labels, rng = _checked(labels, rate, classes), np.random.default_rng(seed)
    strangers = sorted({c for pair in pairs.items() for c in pair if not 0 <= c < classes})
    if strangers or any(source == target for source, target in pairs.items()):
        raise ValueError(
            f"`pairs` must turn classes 0 to {classes - 1} into other ones. Received: {dict(pairs)}. Give the pairs of "
            "your own classes, pairs={from: to}."
        )
    noisy = labels.copy()
    for source, target in pairs.items():
        of_class = rng.permutation(np.flatnonzero(labels == source))
        noisy[of_class[: round(rate * len(of_class))]] = target
    return NoisyLabels(noisy, noisy != labels)


def pair_flip(labels: Any, rate: float, classes: int, *, seed: int = 0) -> NoisyLabels:
    """Turns a share of each class into the next one (Han et al., 2018, arXiv 1804.06872).

    Args:
        labels: `(samples,)`, class indices.
        rate: share of the samples of each class, in [0, 1].
        classes: number of classes.
        seed: of a generator of its own.
    """
    return asymmetric(labels, rate, classes, pairs={c: (c + 1) % classes for c in range(classes)}, seed=seed)


def memorization(predictions: Any, clean: Any, noisy: Any) -> dict[str, float]:
    """How well a network predicts the true labels of its training set, and how many wrong ones it has learned.

    Args:
        predictions: `(samples, classes)`, scores or probabilities for the training images.
        clean: `(samples,)`, their true labels.
        noisy: `(samples,)`, the labels the network was trained with.

    Returns:
        `clean_accuracy`: share of samples predicted as their true class; `wrong_fit`: share of the samples with a wrong
        label that are predicted as that label (NaN if there is none).
    """
    predicted, clean, noisy = np.argmax(predictions, axis=-1), np.asarray(clean), np.asarray(noisy)
    if not len(predicted) == len(clean) == len(noisy):
        raise ValueError(
            "Predictions, clean and noisy labels must be of the same samples. Received "
            f"{len(predicted)}, {len(clean)} and {len(noisy)}."
        )
    wrong = noisy != clean
    return {
        "clean_accuracy": float(np.mean(predicted == clean)),
        "wrong_fit": float(np.mean(predicted[wrong] == noisy[wrong])) if wrong.any() else float("nan"),
    }


def _checked(labels: Any, rate: float, classes: int) -> np.ndarray:
    labels = np.asarray(labels)
    if not 0 <= rate <= 1:
        raise ValueError(f"`rate` must be a share in [0, 1]. Received: rate={rate!r}.")
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"`labels` must be class indices of shape (samples,). Received: {labels.dtype} of shape {labels.shape}. "
            "Turn one-hot vectors into indices by labels.argmax(axis=-1)."
        )
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise ValueError(
            f"`labels` must lie in 0 to {classes - 1} for classes={classes}. Received: {labels.min()} to "
            f"{labels.max()}."
        )
    return labels
