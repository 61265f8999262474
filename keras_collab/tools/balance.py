"""Initial weights for the terms, from gradient norms measured on a few batches."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from rich import box
from rich.console import Console
from rich.table import Table

from keras_collab._checks import check_range
from keras_collab._types import Array, Data
from keras_collab.collab_model import CollabModel
from keras_collab.terms.weights import height
from keras_collab.tools._batches import Batch, check_batches, first_batches
from keras_collab.tools._copies import check_compiled, check_labels, compile_like, terms_like, unchanged
from keras_collab.tools._printed import Printed

RANGE = 10.0  # A search goes from a tenth of the start weight to ten times it.
# Of a loss while its gradient is measured. The first keeps small gradients above the smallest number of float16.
_SCALES = (1024.0, 1.0, 1.0 / 1024.0)
# A gradient is rounding below this share of the task's: terms at their minimum had 1e-6 and less, others 1e-5 and more.
_ROUNDING = 3e-6


@dataclasses.dataclass(frozen=True)
class TermBalance:
    """The measured gradient of one term, and the weight that follows from it.

    Attributes:
        name: the term's name.
        before: its weight before; for a ramp, its `value`.
        weight: its new weight; NaN if its gradient is 0, or the task's is 0 on the weights that the term can change.
        low: lower end of a search, a tenth of `weight`.
        high: upper end of a search, ten times `weight`.
        norm: gradient norm of the term's value (weight 1), the mean over batches.
        task_norm: gradient norm of the task on the weights that the term can change, the mean over batches.
        deviation: coefficient of variation over batches of the ratio of the two.
    """

    name: str
    before: float
    weight: float
    low: float
    high: float
    norm: float
    task_norm: float
    deviation: float

    @property
    def share_before(self) -> float:
        """Gradient norm of the term at its weight before, as a share of the task's; NaN if the task has no gradient."""
        return self.before * self.norm / self.task_norm if self.task_norm else math.nan


@dataclasses.dataclass(frozen=True)
class Balance(Printed):
    """What `balance` returns; prints as a table.

    Attributes:
        share: gradient norm of each weighted term as a share of the task's.
        batches: number of batches that were measured.
        terms: one `TermBalance` for each term.
    """

    share: float
    batches: int
    terms: tuple[TermBalance, ...]

    @property
    def weights(self) -> dict[str, float]:
        """The new weight of each term that has a gradient."""
        return {term.name: term.weight for term in self._measured()}

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The range `(low, high)` of each term that has a gradient, for a search on a logarithmic scale."""
        return {term.name: (term.low, term.high) for term in self._measured()}

    def _measured(self) -> list[TermBalance]:
        return [term for term in self.terms if math.isfinite(term.weight)]

    def __rich__(self) -> Table:
        title = f"gradients of {self.batches} batches, each term's at {self.share:g} of the task's"
        table = Table(title=title, box=box.SIMPLE)
        table.add_column("term", no_wrap=True)
        for name in ("was", "share", "weight", "±", "search"):
            table.add_column(name, justify="right", no_wrap=True)
        for term in self.terms:
            before = f"{term.before:g}"
            if math.isnan(term.weight):
                table.add_row(term.name, before, "", "kept", "", "no gradient")
                continue
            share, deviation = f"{term.share_before:.2g}", f"{100 * term.deviation:.0f}%"
            table.add_row(term.name, before, share, f"{term.weight:.3g}", deviation, f"{term.low:.2g}–{term.high:.2g}")
        return table


def balance(
    model: CollabModel,
    data: Data,
    batches: int = 8,
    *,
    share: float = 0.25,
    batch_size: int = 32,
    verbose: bool = True,
) -> Balance:
    """Sets the weight of each term so that its gradient norm is a given share of the task's.

    Measures the gradients of the task and of each term on a few training batches, and compares their norms on the
    network's weights that the term can change. Only the weights of the terms are set; a term whose gradient is 0 keeps
    its weight. Call it right before `fit`, with the network's weights that training starts from. For a `Ramp` or
    `RampDown`, its `value` is set, so the share holds at the ramp's full height.

    Gradient norms as the scale of losses come from GradNorm (Chen et al., 2018, arXiv 1711.02257), which adjusts the
    weights throughout training; here they are set once.

    Args:
        model: a wrapped network, compiled. What a subclass makes of the loss is not measured.
        data: arrays `(x, y)` or `(x, y, sample_weight)`, or batches of these, such as a `tf.data.Dataset`, a
            `keras.utils.PyDataset` or a torch `DataLoader`.
        batches: integer, >= 1. Largest number of batches to measure. Defaults to 8.
        share: float, > 0. Gradient norm of each weighted term as a share of the task's. Defaults to 0.25.
        batch_size: integer, >= 1. Batch size of arrays. Defaults to 32.
        verbose: whether to print the result too. Defaults to True.

    Returns:
        A `Balance`.

    Raises:
        TypeError: if the model is not wrapped, or the data are neither arrays nor batches, or lack labels.
        ValueError: if the model is not compiled, or a weight follows another schedule, or the data have no batch, or a
            gradient is not finite.

    >>> model = keras_collab.wrap(network, keras_collab.recipes.strong())
    >>> model.compile("adam", "sparse_categorical_crossentropy")
    >>> balanced = keras_collab.balance(model, (x_train, y_train))
    >>> balanced.ranges["kernel_similarity"]
    (0.6, 60.0)
    """
    check_compiled(balance, model)
    before = {term.name: height(term.name, term.weight) for term in model.terms.values()}
    share = check_range(balance, share=share, above=0)
    batches = check_batches(balance, batches)
    batch_size = check_range(balance, batch_size=batch_size, least=1, whole=True)
    squares = _measure(model, first_batches(balance, data, batches, batch_size))
    task, *by_term = squares.swapaxes(0, 1)
    rows = []
    for term, gradient in zip(model.terms.values(), by_term, strict=True):
        row = _row(term.name, before[term.name], task, gradient, share)
        rows.append(row)
        if math.isfinite(row.weight):
            term._set_height(row.weight)
    model.train_function = None  # It has the old heights of ramps compiled in; `fit` makes it anew.
    result = Balance(share, len(squares), tuple(rows))
    if verbose:
        Console().print(result)
    return result


def _row(
    name: str,
    before: float,
    task: Array,
    term: Array,
    share: float,
) -> TermBalance:
    """One row of the table.

    Args:
        name: the term's name.
        before: its weight before.
        task: squared norms of the task's gradient, `(batches, trainable weights)`.
        term: those of the term's gradient.
        share: the share that the term's gradient is to have.
    """
    reached = term.any(axis=0)
    norms = np.sqrt(term.sum(axis=1))
    task_norms = np.sqrt(task[:, reached].sum(axis=1))
    norm, task_norm = float(norms.mean()), float(task_norms.mean())
    weight = deviation = math.nan
    if norm > _ROUNDING * task_norm > 0:
        weight = share * task_norm / norm
        ratios = norms / np.maximum(task_norms, np.finfo("float32").tiny)
        deviation = float(ratios.std() / ratios.mean())
    return TermBalance(
        name=name,
        before=before,
        weight=weight,
        low=weight / RANGE,
        high=weight * RANGE,
        norm=norm,
        task_norm=task_norm,
        deviation=deviation,
    )


class _Norms(keras.optimizers.Optimizer):
    """Stores the squared gradient norm of each weight, and changes no weight."""

    def __init__(self):
        super().__init__(learning_rate=0.0, name="norms")

    def build(self, variables):
        super().build(variables)
        shape = (len(variables),)
        self.squares = self.add_variable(shape, dtype="float32", name="squares")

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        here = ops.one_hot(index, self.squares.shape[0]) > 0
        # That of an Embedding has an entry for each token on TensorFlow; the sum with zeros has one for each weight.
        zeros = ops.zeros(variable.shape, "float32")
        gradient = ops.add(ops.cast(gradient, "float32"), zeros)
        square = ops.sum(ops.square(gradient))
        self.squares.assign(ops.where(here, square, self.squares.value))


class _OneLossModel(CollabModel):
    """A model whose loss is that of another model's task alone, or one of its terms alone."""

    def __init__(self, model: CollabModel):
        super().__init__(model.network, terms_like(model))
        self.task_weight = self.add_weight(shape=(), initializer="ones", trainable=False, name="task_weight")

    def task_total(self, *args: Any) -> Any:
        return ops.convert_to_tensor(self.task_weight) * super().task_total(*args)

    def choose(self, index: int, scale: float) -> None:
        """Chooses the loss, which is multiplied by `scale`: 0 for the task, 1 for the first term, and so on."""
        self.task_weight.assign(scale * (index == 0))
        for number, term in enumerate(self.terms.values(), start=1):
            term.weight = scale * (number == index)

    def squares(self, index: int, batch: Batch) -> Array:
        """Squared norms of the gradient of a loss, by trainable weight."""
        for scale in _SCALES:
            self.choose(index, scale)
            self.train_on_batch(*batch)
            squares = ops.convert_to_numpy(self.optimizer.squares) / scale**2
            if np.isfinite(squares).all():
                return squares
        name = ["the task", *self.terms][index]
        raise ValueError(
            f"`balance` needs finite gradients. Received: NaN or infinity in the gradient of {name}. Look for it in "
            "the data, the network's outputs and the loss."
        )


def _measure(model: CollabModel, batches: Iterator[Batch]) -> Array:
    """Squared norms of the gradients, `(batches, 1 + terms, trainable weights)`."""
    copy = _OneLossModel(model)
    losses = 1 + len(copy.terms)
    compile_like(copy, model, _Norms(), auto_scale_loss=False)
    squares = []
    with unchanged(model.network):
        for x, y, sample_weight in batches:
            check_labels(balance, model, y)
            for index in range(losses):
                squares.append(copy.squares(index, (x, y, sample_weight)))
    if not squares:
        raise ValueError("`balance` needs data with at least one batch. Received none.")
    return np.reshape(squares, (-1, losses, len(squares[0])))
