"""How far the parts of a network repeat each other, and how far they agree, as numbers and as a figure."""

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
from keras_collab.tools._batches import check_batches, first_batches

MASKS = 8  # Halves of the head's features that are tried on each batch.


@dataclasses.dataclass(frozen=True)
class Channels:
    """How far the channels of a layer repeat each other. RepresentationSimilarity lowers this.

    Attributes:
        path: path of the layer.
        count: number of channels.
        similarity: mean squared correlation of two different channels, in [0, 1]; 0 for those of a dead one.
        dead: number of channels that hardly vary.
    """

    path: str
    count: int
    similarity: float
    dead: int

    @property
    def effective(self) -> float:
        """Effective number of channels (participation ratio of the correlation matrix).

        (Σλ)² / Σλ² with the eigenvalues λ of the correlations of the channels that are not dead.
        """
        # Σλ is the trace, one for each channel; Σλ² is the sum of all squared correlations.
        alive = self.count - self.dead
        squares = alive + self.count * (self.count - 1) * self.similarity
        return alive**2 / squares if squares else 0.0


@dataclasses.dataclass(frozen=True)
class Filters:
    """How far the filters of a layer repeat each other. KernelSimilarity lowers this.

    Attributes:
        path: path of the layer.
        count: number of filters in a group.
        size: number of weights in a filter.
        similarity: mean squared cosine between two different filters, in [0, 1].
    """

    path: str
    count: int
    size: int
    similarity: float

    @property
    def random(self) -> float:
        """Expected similarity of filters drawn at random: 1 / size."""
        return 1 / self.size

    @property
    def effective(self) -> float:
        """Effective number of filters: n / (1 + (n − 1) · similarity), n if they are orthogonal, 1 if parallel."""
        return self.count / (1 + (self.count - 1) * self.similarity)


@dataclasses.dataclass(frozen=True)
class Parts:
    """How well halves of the head's features agree with the whole. OutputConsistency raises this.

    Attributes:
        path: path of the classifier.
        features: number of features that it reads.
        agreement: share of samples for which a random half of the features, doubled, predicts the same class as all of
            them.
        divergence: T² · KL( softmax(z/T) ‖ softmax(z_p/T) ) of the halves with T = 2, in nats.
        accuracy: accuracy of the whole; NaN without labels.
        part_accuracy: accuracy of a half; NaN without labels.
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
        network: name of the network.
        samples: number of samples.
        channels: one row for each tapped layer, from the input to the output.
        alignment: linear CKA of each two tapped layers, `(layers, layers)`: 1 if samples have the same relations in
            both, 0 if unrelated ones. IntermediateConsistency raises it. NaN for a layer that does not vary.
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
        layers = _table(f"{self.network}, {self.samples} samples: layers", "channels", "effective", "dead", "R²")
        layers.add_column("CKA with the last", justify="right")
        for row, aligned in zip(self.channels, self.alignment[:, -1:].ravel(), strict=True):
            effective, similarity = f"{row.effective:.1f}", f"{row.similarity:.3f}"
            cka = "" if math.isnan(aligned) else f"{aligned:.2f}"
            layers.add_row(row.path, str(row.count), effective, str(row.dead), similarity, cka)
        kernels = _table("kernels", "filters", "effective", "cos²", "cos² at random")
        for kernel in self.filters:
            effective, similarity = f"{kernel.effective:.1f}", f"{kernel.similarity:.4f}"
            kernels.add_row(kernel.path, str(kernel.count), effective, similarity, f"{kernel.random:.4f}")
        heads = _table("halves of the head", "features", "agreement", "divergence", "accuracy", "accuracy of a half")
        for part in self.parts:
            agreement, divergence = f"{100 * part.agreement:.1f}%", f"{part.divergence:.3f}"
            accuracies = [_percent(part.accuracy), _percent(part.part_accuracy)]
            heads.add_row(part.path, str(part.features), agreement, divergence, *accuracies)
        return Group(*(table for table in (layers, kernels, heads) if table.row_count))

    def figure(self) -> Any:
        """The tables as a matplotlib figure, to be saved by `.savefig("diagnosis.png")`.

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
        halves = [f"halves of '{p.path}' agree with it on {100 * p.agreement:.0f}% of samples" for p in self.parts]
        figure.suptitle("; ".join([self.network, *halves]))
        return figure


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.1f}%"


def _table(title: str, *columns: str) -> Table:
    table = Table("", title=title, box=box.SIMPLE, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _draw_shares(axis: Any, what: str, rows: Sequence[Any]) -> None:
    axis.barh(range(len(rows)), [row.effective / row.count for row in rows])
    axis.set_yticks(range(len(rows)), [f"{row.path} ({row.count})" for row in rows], size=7)
    axis.invert_yaxis()
    axis.set(xlim=(0, 1), title=f"effective share of {what}")


def diagnose(
    model: keras.Model,
    data: Any,
    batches: int = 16,
    *,
    layers: Layers = "auto",
    batch_size: int = 32,
    verbose: bool = True,
) -> Diagnosis:
    """Measures how far the parts of a network repeat each other, and how far they agree.

    Runs a few batches through the network, as `predict` does. Nothing is trained and nothing changes. Alignment is the
    unbiased linear CKA of globally averaged layers (Nguyen, Raghu & Kornblith, 2021, arXiv 2010.15327).

    With few samples, averaged features correlate by chance: the expected R² of independent channels without positions
    is 1 / (samples − 1).

    Args:
        model: a network, or a wrapped one.
        data: arrays `x`, `(x, y)` or `(x, y, sample_weight)`, or batches of these. Labels are needed for accuracies
            only.
        batches: integer, >= 1. Number of batches; fewer if the data end before. Alignment takes memory for the square
            of the number of samples. Defaults to 16.
        layers: layers to tap: names, a regular expression, or a function of the layer. Defaults to `"auto"`, the end of
            each stage.
        batch_size: integer, >= 1. Samples in a batch, for arrays. Defaults to 32.
        verbose: whether to print the tables, or only to return them. Defaults to True.

    Returns:
        A `Diagnosis`.

    Raises:
        TypeError: if the network has no graph of layers, or the data are no arrays or batches.
        ValueError: if the network has no layer of such a name, the data have fewer than four samples, or labels do not
            fit.

    >>> diagnosis = keras_collab.diagnose(network, (x_val, y_val))
    >>> diagnosis.channels[-1].effective
    11.3
    >>> diagnosis.figure().savefig("diagnosis.png")
    """
    batches = check_batches(diagnose, batches)
    batch_size = check_range(diagnose, batch_size=batch_size, least=1, whole=True)
    network = model.network if isinstance(model, CollabModel) else model
    check_network(network)
    reader = NetworkReader(network)
    taps, heads = reader.taps(layers, at_least=0), reader.heads
    maps = [_Maps(tap) for tap in taps]
    halves = [_Halves(head) for head in heads]
    tapped = reader.graph.tapped([tap.tensor for tap in taps] + [head.features for head in heads])
    samples = 0
    for x, y, _ in first_batches(diagnose, data, batches, batch_size):
        samples += len(tree.flatten(x)[0])
        tensors = tapped.predict_on_batch(x)["taps"]
        for moments, values in zip(maps, tensors[: len(taps)], strict=True):
            moments.add(values)
        for half, features in zip(halves, tensors[len(taps) :], strict=True):
            half.add(features, y)
    if samples < 4:
        raise ValueError(f"`diagnose` compares samples with each other and needs four or more. Received: {samples}.")
    diagnosis = Diagnosis(
        network=network.name,
        samples=samples,
        channels=tuple(moments.channels() for moments in maps),
        alignment=alignment([np.concatenate(moments.pooled) for moments in maps]),
        filters=tuple(_filters(kernel) for kernel in reader.kernels(at_least=0)),
        parts=tuple(half.parts() for half in halves),
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
    """Predictions of a head and of halves of its features, batch by batch."""

    def __init__(self, head: Head):
        self.head = head
        self.rng = np.random.default_rng(0)
        self.sizes: list[int] = []
        self.means: list[list[float]] = []

    def add(self, features: Any, y: Any) -> None:
        values = read_head(self.head, features)
        logits = values.logits
        half_logits = values.logits_of(values.features * ops.convert_to_tensor(self._masks()))
        predicted = ops.convert_to_numpy(ops.argmax(logits, axis=-1))
        by_halves = ops.convert_to_numpy(ops.argmax(half_logits, axis=-1))
        accuracies = [math.nan, math.nan]
        if y is not None:
            labels = pick_output(y, self.head)
            check_labels(self.head, labels.shape)
            true = ops.convert_to_numpy(ops.argmax(self.head.label_distributions(labels), axis=-1))
            accuracies = [float(np.mean(predicted == true)), float(np.mean(by_halves == true))]
        divergence = float(ops.convert_to_numpy(ops.mean(consistency_divergence(logits, half_logits, 2.0))))
        self.means.append([float(np.mean(by_halves == predicted)), divergence, *accuracies])
        self.sizes.append(len(predicted))

    def _masks(self) -> NDArray[Any]:
        """Masks `(MASKS, 1, features)`, each of which keeps a random half of the features and doubles it."""
        size, kept = self.head.size, max(1, self.head.size // 2)
        orders = self.rng.permuted(np.tile(np.arange(size), (MASKS, 1, 1)), axis=-1)
        return ((orders < kept) * (size / kept)).astype("float32")

    def parts(self) -> Parts:
        agreement, divergence, accuracy, part_accuracy = np.average(self.means, axis=0, weights=self.sizes).tolist()
        return Parts(self.head.path, self.head.size, agreement, divergence, accuracy, part_accuracy)


def _filters(kernel: Kernel) -> Filters:
    groups = _float32(kernel.read()).astype("float64").reshape(-1, kernel.size, kernel.filters)
    similarities = []
    for filters in groups:
        lengths = np.linalg.norm(filters, axis=0)
        directions = filters / np.maximum(lengths, 1e-6 * lengths.mean() + 1e-30)
        squares = np.square(directions.T @ directions)
        count = kernel.filters
        similarities.append((squares.sum() - np.trace(squares)) / (count * (count - 1)))
    return Filters(kernel.path, kernel.filters, kernel.size, float(np.mean(similarities)))


def alignment(features: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Unbiased linear CKA of each two of several layers' features.

    HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)) with K = XXᵀ without its diagonal and the unbiased estimate of HSIC (Nguyen,
    Raghu & Kornblith, 2021, arXiv 2010.15327). Unlike the biased one it does not grow with the number of features.

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


def _gram(features: NDArray[Any]) -> NDArray[Any]:
    """The products of centred samples without the diagonal, scaled to at most 1."""
    centred = features.astype("float64") - features.mean(axis=0, dtype="float64")
    gram = centred @ centred.T
    np.fill_diagonal(gram, 0.0)
    size = np.abs(gram).max()
    return gram / size if size > 0 else gram


def _independence(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Unbiased Hilbert-Schmidt independence criterion of two Gram matrices with a diagonal of zeros."""
    n = len(one)
    crossed = one.sum(axis=0) @ other.sum(axis=0)
    whole = one.sum() * other.sum() / ((n - 1) * (n - 2))
    return float((np.sum(one * other) + whole - 2 * crossed / (n - 2)) / (n * (n - 3)))


def _float32(array: Any) -> NDArray[Any]:
    return ops.convert_to_numpy(ops.cast(array, "float32"))
