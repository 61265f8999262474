"""Start weights for the terms, measured on a few batches: each term's gradient gets a share of the task's."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from keras_collab._checks import check_range
from keras_collab.collab_model import CollabModel
from keras_collab.tools._batches import first_batches

RANGE = 10.0  # A search goes from a tenth of the start weight to ten times it.


@dataclasses.dataclass(frozen=True)
class TermBalance:
    """What `balance` found out about one term.

    Attributes:
        name: the term's name.
        before: its weight before.
        weight: its start weight; NaN if the term has no gradient, or the task has none on the weights it reaches.
        low: where a search begins, a tenth of `weight`.
        high: where a search ends, ten times `weight`.
        norm: norm of the gradient of the term's value (weight 1), the mean over batches.
        task_norm: norm of the task's gradient on the weights that the term reaches, the mean over batches.
        deviation: standard deviation over batches of the ratio of the two, relative to its mean.
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
        """The share that the term's gradient had of the task's with its weight before."""
        return self.before * self.norm / self.task_norm if self.task_norm else math.nan


@dataclasses.dataclass(frozen=True)
class Balance:
    """What `balance` returns; prints as a table.

    Attributes:
        share: the norm of each term's weighted gradient as a share of the task's.
        batches: how many were measured.
        terms: one row a term.
    """

    share: float
    batches: int
    terms: tuple[TermBalance, ...]

    @property
    def weights(self) -> dict[str, float]:
        """The start weight of each term that has one."""
        return {term.name: term.weight for term in self.terms if not math.isnan(term.weight)}

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """The search range of each term that has one, to be searched on a logarithmic scale."""
        return {term.name: (term.low, term.high) for term in self.terms if not math.isnan(term.weight)}

    def __rich__(self) -> Table:
        title = f"gradients of {self.batches} batches, each term's at {self.share:g} of the task's"
        table = Table(title=title, box=box.SIMPLE)
        for name in ("term", "was", "share", "weight", "±", "search"):
            table.add_column(name, justify="left" if name == "term" else "right", no_wrap=True)
        for term in self.terms:
            none = math.isnan(term.weight)
            table.add_row(
                term.name,
                f"{term.before:g}",
                "" if none else f"{term.share_before:.2g}",
                "kept" if none else f"{term.weight:.3g}",
                "" if none else f"{100 * term.deviation:.0f}%",
                "no gradient" if none else f"{term.low:.2g}–{term.high:.2g}",
            )
        return table


def balance(
    model: CollabModel,
    data: Any,
    batches: int = 8,
    *,
    share: float = 0.25,
    batch_size: int = 32,
    verbose: bool = True,
) -> Balance:
    """Sets the weight of each term so that its gradient has a stated share of the task's.

    A few batches are run as in training, each once for the task and once for every term; the norms are those on the
    weights that the term reaches. Nothing else changes: not the network, nor the optimizer. Measure where training
    is to begin: with fresh weights, or where another training ended.

    Gradient norms as the common scale of losses are those of GradNorm (Chen et al., 2018, arXiv 1711.02257). With the
    default share a VGG-16 on 2,000 photographs did as well as with weights that a search of eight trials found (both
    with `form="relational"` of intermediate consistency), in which terms with a share above 1 kept the network from
    learning at all (tuning/README.md). A small network that does not memorize its training images wants less.

    Args:
        model: a wrapped network, compiled.
        data: arrays `(x, y)` or `(x, y, sample_weight)`, or whatever gives batches of these, such as a
            `tf.data.Dataset`, a `keras.utils.PyDataset` or a torch `DataLoader`.
        batches: how many batches to measure, >= 1; fewer if the data end before.
        share: norm of each weighted gradient as a share of the norm of the task's, > 0.
        batch_size: samples in a batch, for arrays.
        verbose: whether to print the table, or only to return it.

    Raises:
        TypeError: if the model is not wrapped.
        ValueError: if it is not compiled, has a scheduled weight, or the data have no batch.

    >>> model.compile("adam", "sparse_categorical_crossentropy")
    >>> found = keras_collab.balance(model, (x_train, y_train))
    >>> found.ranges["kernel_similarity"]
    (0.6, 60.0)
    """
    if not isinstance(model, CollabModel):
        raise TypeError(
            f"`balance` takes a wrapped network. Received: {model!r}. Make one: keras_collab.wrap(network)."
        )
    if not model.compiled:
        raise ValueError("`balance` measures the task's loss: call model.compile(optimizer, loss) before.")
    scheduled = [term.name for term in model.terms.values() if term.scheduled]
    if scheduled:
        raise ValueError(
            f"`balance` sets numbers, but {scheduled} have a schedule as their weight. Balance a model whose terms "
            "have numbers, then give the schedule the weight that it found."
        )
    share = check_range(balance, share=share, above=0)
    batches = check_range(balance, batches=batches, least=1, whole=True)
    batch_size = check_range(balance, batch_size=batch_size, least=1, whole=True)
    squares = _measure(model, first_batches(data, batches, batch_size))
    rows = [
        _row(term.name, term.weight, squares[:, 0], squares[:, 1 + index], share)
        for index, term in enumerate(model.terms.values())
    ]
    for row in rows:
        if not math.isnan(row.weight):
            model.terms[row.name].weight = row.weight
    result = Balance(share, len(squares), tuple(rows))
    if verbose:
        Console().print(result)
    return result


def _row(name: str, before: Any, task: NDArray[Any], term: NDArray[Any], share: float) -> TermBalance:
    """From squared norms of the gradients by batch and trainable weight."""
    reached = term.any(axis=0)
    norms, task_norms = np.sqrt(term.sum(axis=1)), np.sqrt(task[:, reached].sum(axis=1))
    norm, task_norm = float(norms.mean()), float(task_norms.mean())
    weight = share * task_norm / norm if norm > 0 and task_norm > 0 else math.nan
    if not math.isfinite(weight):
        return TermBalance(name, before, math.nan, math.nan, math.nan, norm, task_norm, math.nan)
    ratios = norms / np.maximum(task_norms, np.finfo("float32").tiny)
    deviation = float(ratios.std() / ratios.mean())
    return TermBalance(name, before, weight, weight / RANGE, weight * RANGE, norm, task_norm, deviation)


class _Norms(keras.optimizers.Optimizer):
    """An optimizer that changes nothing, and keeps the squared norm of each weight's gradient."""

    def __init__(self):
        # Scaling keeps small gradients above the smallest number of float16.
        super().__init__(learning_rate=0.0, loss_scale_factor=1024.0, name="norms")

    def build(self, variables):
        super().build(variables)
        self.squares = self.add_variable((len(variables),), dtype="float32", name="squares")

    def update_step(self, gradient, variable, learning_rate):
        at = ops.one_hot(self._get_variable_index(variable), self.squares.shape[0])
        square = ops.sum(ops.square(ops.cast(gradient, "float32")))
        self.squares.assign(ops.where(at > 0, square, ops.convert_to_tensor(self.squares)))


class _Parts(CollabModel):
    """Its loss is the task's, times a variable, and the terms' of another model of the same network."""

    def __init__(self, model: CollabModel):
        terms = [type(term).from_config(term.get_config()) for term in model.terms.values()]
        super().__init__(model.network, terms)
        self.task_weight = self.add_weight(shape=(), initializer="ones", trainable=False, name="task_weight")

    def task_total(self, *args: Any) -> Any:
        return ops.convert_to_tensor(self.task_weight) * super().task_total(*args)

    def choose(self, part: int) -> None:
        """0 for the task, 1 for the first term, and so on."""
        self.task_weight.assign(float(part == 0))
        for index, term in enumerate(self.terms.values(), start=1):
            term.weight = float(index == part)


def _measure(model: CollabModel, batches: Iterator[Any]) -> NDArray[Any]:
    """Squared norms of the gradients, `(batches, 1 + terms, trainable weights)`."""
    parts = _Parts(model)
    parts.compile(
        _Norms(),
        model.loss,
        loss_weights=model.get_compile_config()["loss_weights"],
        jit_compile=model.jit_compile,
        run_eagerly=model.run_eagerly,
        auto_scale_loss=False,
    )
    network = model.network.variables  # A step changes statistics and draws, and constraints change weights.
    kept = [(variable, ops.convert_to_numpy(variable)) for variable in network]
    found: list[list[NDArray[Any]]] = []
    try:
        for x, y, sample_weight in batches:
            found.append([])
            for part in range(1 + len(parts.terms)):
                parts.choose(part)
                parts.train_on_batch(x, y, sample_weight)
                found[-1].append(ops.convert_to_numpy(parts.optimizer.squares))
    finally:
        for variable, value in kept:
            variable.assign(value)
    if not found:
        raise ValueError("`balance` needs data with at least one batch. Received none.")
    return np.array(found)
