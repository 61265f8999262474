"""How redundant the channels and filters of a network are, and how far its layers and parts agree."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree
from rich.console import Console

from keras_collab._checks import check_range
from keras_collab._types import Array, Data, Structure, Tensor
from keras_collab.collab_model import CollabModel
from keras_collab.network.head import Head, check_indices, pick_output, read_head
from keras_collab.network.layers import Kernel
from keras_collab.network.names import Layers
from keras_collab.network.select import NetworkReader, Tap
from keras_collab.terms.output_consistency import consistency_divergence
from keras_collab.terms.relations import pool
from keras_collab.tools._batches import check_batches, first_batches
from keras_collab.tools.diagnosis import Channels, Diagnosis, Filters, Parts

MASKS = 8  # Halves of the head's features that are tried on each batch.


def diagnose(
    model: keras.Model,
    data: Data,
    batches: int = 16,
    *,
    layers: Layers = "auto",
    batch_size: int = 32,
    verbose: bool = True,
) -> Diagnosis:
    """Measures how redundant the channels and filters of a network are, and how far its layers and parts agree.

    Runs a few batches through the network, as `predict` does; nothing is trained. Alignment is the unbiased linear CKA
    of layers, averaged over positions (Nguyen, Raghu & Kornblith, 2021, arXiv 2010.15327).

    With few samples, channels correlate by chance: in layers without positions, the expected R² of independent channels
    is 1 / (samples − 1).

    Args:
        model: a network, wrapped or not.
        data: arrays `x`, `(x, y)` or `(x, y, sample_weight)`, or an iterable of such batches. Labels are needed for
            accuracies only.
        batches: integer, >= 1. Largest number of batches. Alignment takes memory for the square of the number of
            samples. Defaults to 16.
        layers: layers to tap: names, a regular expression, or a function of the layer. Defaults to `"auto"`, the last
            block of each stage, or four blocks of a network with one stage.
        batch_size: integer, >= 1. Batch size of arrays. Defaults to 32.
        verbose: whether to print the result too. Defaults to True.

    Returns:
        A `Diagnosis`.

    Raises:
        TypeError: if `model` is not a model, or the data are neither arrays nor batches.
        ValueError: if the network is subclassed or not built, no layer matches `layers`, the data have fewer than four
            samples, or labels do not fit the head.

    >>> diagnosis = keras_collab.diagnose(network, (x_val, y_val))
    >>> diagnosis.channels[-1].effective
    11.3
    >>> diagnosis.figure().savefig("diagnosis.png")
    """
    batches = check_batches(diagnose, batches)
    batch_size = check_range(diagnose, batch_size=batch_size, least=1, whole=True)
    network = model.network if isinstance(model, CollabModel) else model
    reader = NetworkReader(network)
    tensors, maps, halves = [], [], []
    for tap in reader.taps(layers, at_least=0):
        tensors.append(tap.tensor)
        if tap.mask is not None:
            tensors.append(tap.mask)
        maps.append(_Maps(tap))
    for head in reader.heads:
        tensors.append(head.features)
        halves.append(_Halves(head))
    tapped = reader.graph.tapped(tensors)
    samples = 0
    for x, y, _ in first_batches(diagnose, data, batches, batch_size):
        samples += len(tree.flatten(x)[0])
        outputs = tapped.predict_on_batch(x)["taps"]
        values = dict(zip(map(id, tensors), outputs, strict=True))
        for moments in maps:
            moments.add(values[id(moments.tap.tensor)], values.get(id(moments.tap.mask)))
        for half in halves:
            half.add(values[id(half.head.features)], y)
    if samples < 4:
        raise ValueError(f"`diagnose` compares samples with each other and needs four or more. Received: {samples}.")
    diagnosis = Diagnosis(
        network=network.name,
        samples=samples,
        channels=tuple(moments.channels() for moments in maps),
        alignment=alignment([np.concatenate(moments.pooled) for moments in maps]),
        filters=tuple(map(_filters, reader.kernels(at_least=0))),
        parts=tuple(half.parts() for half in halves),
    )
    if verbose:
        Console().print(diagnosis)
    return diagnosis


class _Maps:
    """Accumulates, for one tap, moments over all valid positions and the average of each sample."""

    def __init__(self, tap: Tap):
        self.tap = tap
        self.pooled: list[Array] = []
        self.positions = 0
        self.shift: Array = np.zeros(())  # Subtracted from all, so that large means cost no digits.
        self.sums: Array = np.zeros(())
        self.products: Array = np.zeros(())

    def add(self, values: Tensor, mask: Tensor) -> None:
        values = _float32(self.tap.channels_last(values))
        mask = self.tap.valid(values, mask)
        flat = values.reshape(-1, values.shape[-1])
        if mask is not None:
            flat = values[ops.convert_to_numpy(mask)]
        if not self.positions and len(flat):
            self.shift = flat.mean(axis=0)
        self.pooled.append(_float32(pool(values, mask)))
        flat = flat - self.shift
        self.positions += len(flat)
        self.sums = self.sums + flat.sum(axis=0, dtype="float64")
        self.products = self.products + (flat.T @ flat).astype("float64")

    def channels(self) -> Channels:
        positions = max(1, self.positions)  # All may be masked.
        means = self.sums / positions
        covariance = self.products / positions - np.outer(means, means)
        variances = np.diag(covariance)
        size = np.mean((means + self.shift) ** 2)
        alive = variances > 1e-6 * variances.mean() + 1e-12 * size
        spread = np.sqrt(variances[alive])
        correlation = covariance[alive][:, alive] / np.outer(spread, spread)
        count, living = len(means), int(alive.sum())
        others = np.square(correlation).sum() - living  # Without the diagonal, where it is 1.
        similarity = float(others) / max(1, count * (count - 1))
        return Channels(self.tap.path, count, similarity, count - living)


class _Halves:
    """Accumulates how far halves of a head's features agree with the whole head."""

    def __init__(self, head: Head):
        self.head = head
        self.rng = np.random.default_rng(0)
        self.sizes: list[int] = []
        self.means: list[list[float]] = []

    def add(self, features: Tensor, y: Structure) -> None:
        values = read_head(self.head, features)
        logits = values.logits
        masks = ops.convert_to_tensor(self._masks())
        half_logits = values.logits_of(values.features * masks)
        predicted = ops.convert_to_numpy(ops.argmax(logits, axis=-1))
        by_halves = ops.convert_to_numpy(ops.argmax(half_logits, axis=-1))
        accuracy = part_accuracy = math.nan
        if y is not None and not (isinstance(y, dict) and self.head.name not in y):
            labels = pick_output(y, self.head)
            check_indices(self.head, labels)
            distributions = self.head.label_distributions(labels)
            true = ops.convert_to_numpy(ops.argmax(distributions, axis=-1))
            accuracy = float(np.mean(predicted == true))
            part_accuracy = float(np.mean(by_halves == true))
        agreement = float(np.mean(by_halves == predicted))
        divergence = float(ops.convert_to_numpy(ops.mean(consistency_divergence(logits, half_logits, 2.0))))
        self.means.append([agreement, divergence, accuracy, part_accuracy])
        self.sizes.append(len(predicted))

    def _masks(self) -> Array:
        """Masks `(MASKS, 1, features)`, each of which keeps a random half of the features and doubles it."""
        size = self.head.size
        kept = max(1, size // 2)
        orders = np.tile(np.arange(size), (MASKS, 1, 1))
        orders = self.rng.permuted(orders, axis=-1)
        masks = (orders < kept) * (size / kept)
        return masks.astype("float32")

    def parts(self) -> Parts:
        means = np.average(self.means, axis=0, weights=self.sizes).tolist()
        return Parts(self.head.path, self.head.size, *means)


def _filters(kernel: Kernel) -> Filters:
    groups = _float32(kernel.read()).astype("float64")
    count, similarities = kernel.filters, []
    for filters in groups.reshape(-1, kernel.size, count):
        lengths = np.linalg.norm(filters, axis=0)
        least = 1e-6 * lengths.mean() + 1e-30
        directions = filters / np.maximum(lengths, least)
        squares = np.square(directions.T @ directions)
        others = squares.sum() - np.trace(squares)
        similarities.append(others / (count * (count - 1)))
    similarity = float(np.mean(similarities))
    return Filters(kernel.path, count, kernel.size, similarity)


def alignment(features: Sequence[Array]) -> Array:
    """Unbiased linear CKA of each pair of layers.

    HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)) with the unbiased estimate of HSIC and K = XXᵀ without its diagonal (Nguyen,
    Raghu & Kornblith, 2021, arXiv 2010.15327). The biased estimate would grow with the number of features.

    Args:
        features: arrays `(samples, features)`, with the same samples.

    Returns:
        `(layers, layers)`; NaN for a layer that does not vary.
    """
    grams = [_gram(layer) for layer in features]
    shared = np.zeros((len(grams), len(grams)))
    for row, one in enumerate(grams):
        for column, other in enumerate(grams):
            shared[row, column] = _independence(one, other)
    variances = np.diag(shared)
    variances = np.where(variances > 1e-12, variances, np.nan)
    return shared / np.sqrt(np.outer(variances, variances))


def _gram(features: Array) -> Array:
    """The products of centered samples without the diagonal, scaled to at most 1."""
    features = features.astype("float64")
    centred = features - features.mean(axis=0)
    gram = centred @ centred.T
    np.fill_diagonal(gram, 0.0)
    size = np.abs(gram).max()
    return gram / size if size > 0 else gram


def _independence(one: Array, other: Array) -> float:
    """Unbiased Hilbert-Schmidt independence criterion of two Gram matrices with a diagonal of zeros."""
    n = len(one)
    product = np.sum(one * other)
    whole = one.sum() * other.sum() / ((n - 1) * (n - 2))
    crossed = one.sum(axis=0) @ other.sum(axis=0) / (n - 2)
    return float((product + whole - 2 * crossed) / (n * (n - 3)))


def _float32(array: Any) -> Array:
    return ops.convert_to_numpy(ops.cast(array, "float32"))
