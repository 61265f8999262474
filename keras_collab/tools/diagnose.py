"""What the terms would see in a network, as numbers and pictures: which parts repeat each other, and which disagree."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree
from numpy.typing import NDArray
from rich import box
from rich.console import Console, Group
from rich.table import Table

from keras_collab._checks import check_range, require
from keras_collab.collab_model import CollabModel
from keras_collab.network.graph import check_network
from keras_collab.network.head import Head, check_labels, pick_output, read_head
from keras_collab.network.layers import Kernel
from keras_collab.network.select import Layers, NetworkReader, Tap
from keras_collab.terms.output_consistency import consistency_divergence
from keras_collab.tools._batches import first_batches

MASKS = 8  # Halves of the head's features that are tried on each batch.


@dataclasses.dataclass(frozen=True)
class Channels:
    """How far the channels of a layer's output repeat each other: what RepresentationSimilarity lowers.

    Attributes:
        path: the layer.
        count: its channels.
        similarity: mean squared correlation of two different channels, in [0, 1]; 0 for a dead one with the others.
        dead: how many channels hardly vary.
    """

    path: str
    count: int
    similarity: float
    dead: int

    @property
    def effective(self) -> float:
        """Uncorrelated channels that vary in as many ways: C / (1 + (C − 1) · similarity) of those that are not dead.

        The participation ratio of the correlation matrix, (Σλ)² / Σλ².
        """
        alive = self.count - self.dead
        squares = alive + self.count * (self.count - 1) * self.similarity
        return alive**2 / squares if squares else 0.0


@dataclasses.dataclass(frozen=True)
class Filters:
    """How far the filters of a layer repeat each other: what KernelSimilarity lowers.

    Attributes:
        path: the layer.
        count: its filters, in one group.
        size: weights in a filter.
        similarity: mean squared cosine between two different filters, in [0, 1].
    """

    path: str
    count: int
    size: int
    similarity: float

    @property
    def random(self) -> float:
        """The similarity of filters drawn at random, 1 / size."""
        return 1 / self.size

    @property
    def effective(self) -> float:
        """Orthogonal filters that point in as many ways: n / (1 + (n − 1) · similarity)."""
        return self.count / (1 + (self.count - 1) * self.similarity)


@dataclasses.dataclass(frozen=True)
class Parts:
    """How well halves of the head's features agree with the whole: what OutputConsistency raises.

    Attributes:
        path: the classifier.
        features: how many it reads.
        agreement: share of decisions that a random half of the features, doubled, makes as the whole does.
        divergence: T² · KL( softmax(z/T) ‖ softmax(z_p/T) ) of the halves with T = 2, in nats.
        accuracy: of the whole; NaN without labels.
        part_accuracy: of a half; NaN without labels.
    """

    path: str
    features: int
    agreement: float
    divergence: float
    accuracy: float
    part_accuracy: float


@dataclasses.dataclass(frozen=True, eq=False)
class Diagnosis:
    """What `diagnose` returns; prints as tables.

    Attributes:
        network: its name.
        samples: how many were looked at.
        channels: one row for each tapped layer, from the input to the output.
        alignment: linear CKA of each two tapped layers, `(layers, layers)`: 1 if they see the same relations between
            samples, 0 if unrelated ones; IntermediateConsistency brings relations together. NaN for a layer that does
            not vary.
        filters: one row for each layer whose kernels are compared.
        parts: one row for each classifier.
    """

    network: str
    samples: int
    channels: tuple[Channels, ...]
    alignment: NDArray[Any]
    filters: tuple[Filters, ...]
    parts: tuple[Parts, ...]

    def __rich__(self) -> Group:
        layers = _table(f"{self.network}, {self.samples} samples: layers", "channels", "do the work of", "dead", "R²")
        layers.add_column("CKA with the last", justify="right")
        for row, aligned in zip(self.channels, self.alignment[:, -1:].ravel(), strict=True):
            layers.add_row(
                *(row.path, str(row.count), f"{row.effective:.1f}", str(row.dead)),
                *(f"{row.similarity:.3f}", "" if math.isnan(aligned) else f"{aligned:.2f}"),
            )
        kernels = _table("kernels", "filters", "do the work of", "cos²", "at random")
        for kernel in self.filters:
            kernels.add_row(
                *(kernel.path, str(kernel.count), f"{kernel.effective:.1f}"),
                *(f"{kernel.similarity:.4f}", f"{kernel.random:.4f}"),
            )
        heads = _table("halves of the head", "features", "agree", "divergence", "accuracy", "of a half")
        for part in self.parts:
            heads.add_row(
                *(part.path, str(part.features), f"{100 * part.agreement:.1f}%", f"{part.divergence:.3f}"),
                *("" if math.isnan(v) else f"{100 * v:.1f}%" for v in (part.accuracy, part.part_accuracy)),
            )
        return Group(*(table for table in (layers, kernels, heads) if table.row_count))

    def figure(self) -> Any:
        """The same as a matplotlib figure; `.savefig("diagnosis.png")` keeps it.

        Raises:
            ImportError: without matplotlib.
        """
        module = require("matplotlib.figure", "`figure` needs matplotlib: `pip install matplotlib`")
        figure = module.Figure(figsize=(12, 3.6), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        _draw_shares(left, "channels", self.channels)
        _draw_shares(middle, "filters", self.filters)
        right.set_title("alignment of layers (CKA)")
        names = [row.path for row in self.channels]
        right.set_xticks(range(len(names)), names, rotation=90, size=7)
        right.set_yticks(range(len(names)), names, size=7)
        if names:
            figure.colorbar(right.imshow(self.alignment, vmin=0, vmax=1, cmap="viridis"), ax=right)
        halves = [f"halves of '{p.path}' agree with it on {100 * p.agreement:.0f}% of decisions" for p in self.parts]
        figure.suptitle("; ".join([self.network, *halves]))
        return figure


def _table(title: str, *columns: str) -> Table:
    table = Table("", title=title, box=box.SIMPLE, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _draw_shares(axis: Any, what: str, rows: Sequence[Any]) -> None:
    axis.barh(range(len(rows)), [row.effective / row.count for row in rows])
    axis.set_yticks(range(len(rows)), [f"{row.path} ({row.count})" for row in rows], size=7)
    axis.invert_yaxis()
    axis.set(xlim=(0, 1), title=f"{what} that do the work, of all")


def diagnose(
    model: keras.Model,
    data: Any,
    batches: int = 16,
    *,
    layers: Layers = "auto",
    batch_size: int = 32,
    verbose: bool = True,
) -> Diagnosis:
    """Tells how far the parts of a network repeat each other, and how far they agree.

    Nothing is trained and nothing changes: the network runs a few batches as in `predict`, once. Alignment is the
    unbiased linear CKA of globally averaged layers (Nguyen, Raghu & Kornblith, 2021, arXiv 2010.15327).

    Args:
        model: a network, or a wrapped one.
        data: arrays `x`, `(x, y)` or `(x, y, sample_weight)`, or whatever gives batches of these. Labels are needed for
            accuracies only.
        batches: how many batches to look at, >= 1; fewer if the data end before. Alignment takes memory for the square
            of the number of samples. Few samples make averaged features correlate by chance: R² is 1 / (samples − 1)
            among channels without positions that have nothing to do with each other.
        layers: layers to look at (names, a regular expression, a function of the layer), or `"auto"`: the end of each
            stage.
        batch_size: samples in a batch, for arrays.
        verbose: whether to print the tables, or only to return them.

    Raises:
        TypeError, ValueError: if the network has no graph of layers, or has no layer of such a name.
        ValueError: if the data have fewer than four samples, or labels that do not fit.

    >>> found = keras_collab.diagnose(network, (x_val, y_val))
    >>> found.channels[-1].effective
    11.3
    >>> found.figure().savefig("diagnosis.png")
    """
    batches = check_range(diagnose, batches=batches, least=1, whole=True)
    batch_size = check_range(diagnose, batch_size=batch_size, least=1, whole=True)
    network = model.network if isinstance(model, CollabModel) else model
    check_network(network)
    reader = NetworkReader(network)
    taps, heads = reader.taps(layers, at_least=0), reader.heads
    maps, halves = [_Maps(tap) for tap in taps], [_Halves(head) for head in heads]
    tapped = reader.graph.tapped([tap.tensor for tap in taps] + [head.features for head in heads])
    samples = 0
    for x, y, _ in first_batches(data, batches, batch_size):
        samples += len(tree.flatten(x)[0])
        tensors = tapped.predict_on_batch(x)["taps"]
        for whole, values in zip(maps, tensors[: len(taps)], strict=True):
            whole.add(values)
        for head, features in zip(halves, tensors[len(taps) :], strict=True):
            head.add(features, y)
    if samples < 4:
        raise ValueError(f"`diagnose` relates samples to each other and needs four or more. Received: {samples}.")
    diagnosis = Diagnosis(
        network=network.name,
        samples=samples,
        channels=tuple(found.channels() for found in maps),
        alignment=alignment([np.concatenate(found.pooled) for found in maps]),
        filters=tuple(_filters(kernel) for kernel in reader.kernels(at_least=0)),
        parts=tuple(found.parts() for found in halves),
    )
    if verbose:
        Console().print(diagnosis)
    return diagnosis


class _Maps:
    """Moments over all positions, and the averages of each sample, of one tap, batch by batch."""

    def __init__(self, tap: Tap):
        self.tap = tap
        self.pooled: list[NDArray[Any]] = []
        self.positions = 0
        self.shift: Any = None  # Subtracted from all, so that large means cost no digits.
        self.sums: Any = 0.0
        self.products: Any = 0.0

    def add(self, values: Any) -> None:
        values = _float32(self.tap.channels_last(values))
        self.pooled.append(values.mean(axis=tuple(range(1, values.ndim - 1))))
        flat = values.reshape(-1, values.shape[-1])
        self.shift = flat.mean(axis=0) if self.shift is None else self.shift
        flat = flat - self.shift
        self.positions += len(flat)
        self.sums = self.sums + flat.sum(axis=0, dtype="float64")
        self.products = self.products + (flat.T @ flat).astype("float64")

    def channels(self) -> Channels:
        means = self.sums / self.positions
        covariance = self.products / self.positions - np.outer(means, means)
        variances = np.diag(covariance)
        alive = variances > 1e-6 * variances.mean() + 1e-12 * np.mean((means + self.shift) ** 2)
        squares = np.square(covariance[alive][:, alive]) / np.outer(variances[alive], variances[alive])
        count = len(means)
        similarity = (squares.sum() - alive.sum()) / max(1, count * (count - 1))
        return Channels(self.tap.path, count, float(similarity), int(count - alive.sum()))


class _Halves:
    """Decisions of a head and of halves of its features, batch by batch."""

    def __init__(self, head: Head):
        self.head = head
        self.rng = np.random.default_rng(0)
        self.weights: list[int] = []
        self.selection: list[list[float]] = []

    def add(self, features: Any, y: Any) -> None:
        read = read_head(self.head, features)
        logits, halves = read.logits, read.logits_of(read.features * ops.convert_to_tensor(self._masks()))
        decided, by_halves = (ops.convert_to_numpy(ops.argmax(values, axis=-1)) for values in (logits, halves))
        accuracies = [math.nan, math.nan]
        if y is not None:
            labels = pick_output(y, self.head)
            check_labels(self.head, labels.shape)
            right = ops.convert_to_numpy(ops.argmax(self.head.label_distributions(labels), axis=-1))
            accuracies = [float(np.mean(decided == right)), float(np.mean(by_halves == right))]
        divergence = float(ops.convert_to_numpy(ops.mean(consistency_divergence(logits, halves, 2.0))))
        self.selection.append([float(np.mean(by_halves == decided)), divergence, *accuracies])
        self.weights.append(len(decided))

    def _masks(self) -> NDArray[Any]:
        """`(MASKS, 1, features)`, which keep every second feature of a random order, doubled."""
        size, kept = self.head.size, max(1, self.head.size // 2)
        orders = self.rng.permuted(np.tile(np.arange(size), (MASKS, 1, 1)), axis=-1)
        return ((orders < kept) * (size / kept)).astype("float32")

    def parts(self) -> Parts:
        means = np.average(self.selection, axis=0, weights=self.weights)
        return Parts(self.head.path, self.head.size, *(float(mean) for mean in means))


def _filters(kernel: Kernel) -> Filters:
    similarities = []
    for filters in np.reshape(_float32(kernel.read()), (kernel.groups, kernel.size, kernel.filters)).astype("float64"):
        lengths = np.linalg.norm(filters, axis=0)
        directions = filters / np.maximum(lengths, 1e-6 * lengths.mean() + 1e-30)
        squares = np.square(directions.T @ directions)
        count = kernel.filters
        similarities.append((squares.sum() - np.trace(squares)) / (count * (count - 1)))
    return Filters(kernel.path, kernel.filters, kernel.size, float(np.mean(similarities)))


def alignment(features: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Unbiased linear CKA of each two of several layers' features.

    HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)) with K = XXᵀ without its diagonal and the unbiased estimate of HSIC (Nguyen,
    Raghu & Kornblith, 2021, arXiv 2010.15327): unrelated layers give 0 on average, however wide they are.

    Args:
        features: `(samples, channels)` of each layer, of the same four or more samples.

    Returns:
        `(layers, layers)`, NaN for a layer that does not vary.
    """
    grams = []
    for layer in features:
        centred = layer.astype("float64") - layer.mean(axis=0, dtype="float64")
        gram = centred @ centred.T
        np.fill_diagonal(gram, 0.0)
        size = np.abs(gram).max()
        grams.append(gram / size if size > 0 else gram)
    shared = np.array([[_independence(one, other) for other in grams] for one in grams]).reshape(2 * (len(grams),))
    own = np.where(np.diag(shared) > 1e-12, np.diag(shared), np.nan)
    return shared / np.sqrt(np.outer(own, own))


def _independence(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Unbiased Hilbert-Schmidt independence criterion of two Gram matrices with a diagonal of zeros."""
    n = len(one)
    crossed = one.sum(axis=0) @ other.sum(axis=0)
    whole = one.sum() * other.sum() / ((n - 1) * (n - 2))
    return float((np.sum(one * other) + whole - 2 * crossed / (n - 2)) / (n * (n - 3)))


def _float32(array: Any) -> NDArray[Any]:
    return ops.convert_to_numpy(ops.cast(array, "float32"))
