"""The result of `diagnose`: numbers by layer, as tables and as a figure."""

import dataclasses
import math
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table

from keras_collab._checks import require
from keras_collab._types import Array
from keras_collab.tools._printed import Printed

CHANNELS = ("channels", "effective", "dead", "R²", "CKA with the last")
FILTERS = ("filters", "effective", "cos²", "cos² at random")
PARTS = ("features", "agreement", "divergence", "accuracy", "accuracy of a half")


@dataclasses.dataclass(frozen=True)
class Channels:
    """How correlated the channels of a layer are. RepresentationSimilarity lowers this.

    Attributes:
        path: path of the layer.
        count: number of channels.
        similarity: mean squared correlation over pairs of channels, in [0, 1]; pairs with a dead channel count as 0.
        dead: number of dead (nearly constant) channels.
    """

    path: str
    count: int
    similarity: float
    dead: int

    @property
    def effective(self) -> float:
        """Effective number of channels (participation ratio of the correlation matrix).

        (Σλ)² / Σλ², where λ are the eigenvalues of the correlation matrix of the channels that are not dead.
        """
        # Σλ is the trace, one for each channel; Σλ² is the sum of all squared correlations.
        alive = self.count - self.dead
        squares = alive + self.count * (self.count - 1) * self.similarity
        return alive**2 / squares if squares else 0.0


@dataclasses.dataclass(frozen=True)
class Filters:
    """How similar the filters of a layer are to each other. KernelSimilarity lowers this.

    Attributes:
        path: path of the layer.
        count: number of filters in a group.
        size: number of weights in a filter.
        similarity: mean squared cosine over pairs of filters, in [0, 1].
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
        """Effective number of filters, n / (1 + (n − 1) · similarity): n if orthogonal, 1 if parallel."""
        return self.count / (1 + (self.count - 1) * self.similarity)


@dataclasses.dataclass(frozen=True)
class Parts:
    """How well halves of the head's features agree with the whole. OutputConsistency raises this.

    Attributes:
        path: path of the classifier.
        features: number of features that it reads.
        agreement: share of samples for which a random half of the features predicts the same class as all features.
        divergence: mean of T² · KL( softmax(z / T) ‖ softmax(z_p / T) ) over halves p, with T = 2, in nats.
        accuracy: accuracy of the whole head; NaN without labels.
        part_accuracy: mean accuracy of a half; NaN without labels.
    """

    path: str
    features: int
    agreement: float
    divergence: float
    accuracy: float
    part_accuracy: float


@dataclasses.dataclass(frozen=True, eq=False)
class Diagnosis(Printed):
    """What `diagnose` returns; prints as tables.

    Attributes:
        network: name of the network.
        samples: number of samples.
        channels: one row for each tapped layer, from the input to the output.
        alignment: linear CKA of each pair of tapped layers, `(layers, layers)`: 1 if both relate the samples alike, 0
            if their relations are independent, NaN for a layer that does not vary. IntermediateConsistency raises it.
        filters: one row for each layer whose kernels are compared.
        parts: one row for each classifier.
    """

    network: str
    samples: int
    channels: tuple[Channels, ...]
    alignment: Array
    filters: tuple[Filters, ...]
    parts: tuple[Parts, ...]

    def __rich__(self) -> Group:
        channels = _table(f"{self.network}, {self.samples} samples: layers", CHANNELS)
        for row, aligned in zip(self.channels, self.alignment, strict=True):
            cka = "" if math.isnan(aligned[-1]) else f"{aligned[-1]:.2f}"
            channels.add_row(
                row.path,
                str(row.count),
                f"{row.effective:.1f}",
                str(row.dead),
                f"{row.similarity:.3f}",
                cka,
            )
        filters = _table("kernels", FILTERS)
        for kernel in self.filters:
            filters.add_row(
                kernel.path,
                str(kernel.count),
                f"{kernel.effective:.1f}",
                f"{kernel.similarity:.4f}",
                f"{kernel.random:.4f}",
            )
        parts = _table("halves of the head", PARTS)
        for part in self.parts:
            parts.add_row(
                part.path,
                str(part.features),
                _percent(part.agreement),
                f"{part.divergence:.3f}",
                _percent(part.accuracy),
                _percent(part.part_accuracy),
            )
        return Group(*[table for table in (channels, filters, parts) if table.row_count])

    def figure(self) -> Any:
        """Plots the diagnosis; save it with `.savefig("diagnosis.png")`.

        Returns:
            A `matplotlib.figure.Figure`.

        Raises:
            ImportError: if matplotlib is not installed.
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
            image = right.imshow(self.alignment, vmin=0, vmax=1, cmap="viridis")
            figure.colorbar(image, ax=right)
        title = [self.network]
        for part in self.parts:
            title.append(f"halves of '{part.path}' agree with it on {_percent(part.agreement)} of samples")
        figure.suptitle("; ".join(title))
        return figure


def _percent(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.1f}%"


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table("", title=title, box=box.SIMPLE, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _draw_shares(axis: Any, what: str, rows: tuple[Any, ...]) -> None:
    names, shares = [], []
    for row in rows:
        names.append(f"{row.path} ({row.count})")
        shares.append(row.effective / row.count)
    axis.barh(range(len(rows)), shares)
    axis.set_yticks(range(len(rows)), names, size=7)
    axis.invert_yaxis()
    axis.set(xlim=(0, 1), title=f"effective share of {what}")
