"""A table of what each term reads in a network, and the time of a training step with and without the terms."""

import dataclasses
import time
from typing import Any

import keras
import numpy as np
from rich.console import Console, Group
from rich.table import Table

from keras_collab._types import Data
from keras_collab.collab_model import CollabModel
from keras_collab.network.graph import Graph
from keras_collab.network.reach import changed_weights, is_trained, trainable_count, unread, unread_remark
from keras_collab.network.select import Selection
from keras_collab.terms.term import Term
from keras_collab.terms.weights import in_words
from keras_collab.tools._batches import first_batches
from keras_collab.tools._copies import check_compiled, check_labels, check_wrapped, compile_like, terms_like, unchanged
from keras_collab.tools._printed import Printed

WARM_UP, STEPS = 2, 5  # Steps that are not timed, since Keras compiles in them; steps that are.


@dataclasses.dataclass(frozen=True)
class TermDescription:
    """What one term reads.

    Attributes:
        name: the term's column in the history.
        weight: its weight, a number or a schedule.
        taps: shape of each tap, by path.
        head: path of the classifier that it reads, or None.
        kernels: paths of the layers whose kernels it reads.
        frozen: paths of the taps, kernels and head among these that depend on no trainable weight.
        reach: share, in [0, 1], of the network's trainable parameters that the term can change: kernels, the head, and
            all layers before its taps. A tap or a head that is only a target counts for nothing.
    """

    name: str
    weight: Any
    taps: dict[str, tuple[int | None, ...]]
    head: str | None
    kernels: tuple[str, ...]
    frozen: tuple[str, ...]
    reach: float


@dataclasses.dataclass(frozen=True)
class Description(Printed):
    """What `describe` returns; prints as a table.

    Attributes:
        network: name of the network.
        trainable: number of its trainable parameters.
        terms: one `TermDescription` for each term.
        unread: number of trainable parameters that no term reads or can change, by path of their layer, the largest
            first.
        plain_seconds: median time of a training step without the terms, in seconds; None without data.
        wrapped_seconds: the same with the terms.
    """

    network: str
    trainable: int
    terms: tuple[TermDescription, ...]
    unread: dict[str, int]
    plain_seconds: float | None = None
    wrapped_seconds: float | None = None

    def __rich__(self) -> Group:
        table = Table(title=f"{self.network}: {self.trainable:,} trainable parameters", show_lines=True)
        for column in ("term", "weight", "reads"):
            table.add_column(column, overflow="fold")
        table.add_column("of the weights", justify="right")
        for term in self.terms:
            reads = "\n".join(_lines(term))
            table.add_row(term.name, in_words(term.weight), reads, f"{100 * term.reach:.1f}%")
        return Group(table, *self._remarks())

    def _remarks(self) -> list[str]:
        remarks = []
        remark = unread_remark(self.unread, self.trainable)
        if remark:
            remarks.append(remark)
        if self.plain_seconds and self.wrapped_seconds:
            plain, wrapped = 1000 * self.plain_seconds, 1000 * self.wrapped_seconds
            remarks.append(f"A step takes {plain:.3g} ms plain, {wrapped:.3g} ms wrapped: {wrapped / plain:.2f} times.")
        return remarks


def describe(model: CollabModel, data: Data = None, *, verbose: bool = True) -> Description:
    """Reports what each term reads in a network, which of it is frozen, and the time of a training step.

    The time is measured only if `data` is given, with and without the terms in turn. Afterwards the network's weights
    and statistics are as before, and the optimizer is not touched.

    Args:
        model: a wrapped network; compiled, if `data` is given.
        data: one batch of training data, `(x, y)` or `(x, y, sample_weight)`, or an iterable of batches, of which the
            first is used. Arrays are one batch: give as many samples as a training batch has. Defaults to None.
        verbose: whether to print the result too. Defaults to True.

    Returns:
        A `Description`.

    Raises:
        TypeError: if the model is not wrapped, or the data are neither arrays nor batches, or lack labels.
        ValueError: if `data` is given and the model is not compiled, or its optimizer cannot be copied, or there is no
            batch.

    >>> description = keras_collab.describe(model, (x_train[:128], y_train[:128]), verbose=False)
    >>> description.terms[0].head
    'predictions'
    """
    check_wrapped(describe, model)
    graph = model._internals.graph
    total = trainable_count(graph)
    terms = []
    for term in model.terms.values():
        selection = term.selection
        reach = sum(changed_weights(selection, graph).values()) / max(1, total)
        terms.append(_describe_term(term, selection, graph, reach))
    selections = [term.selection for term in model.terms.values()]
    description = Description(model.network.name, total, tuple(terms), unread(graph, selections))
    if data is not None:
        plain, wrapped = _measure(model, data)
        description = dataclasses.replace(description, plain_seconds=plain, wrapped_seconds=wrapped)
    if verbose:
        Console().print(description)
    return description


def _describe_term(term: Term, selection: Selection, graph: Graph, reach: float) -> TermDescription:
    frozen = []
    for source in selection.sources:
        if not is_trained(source, graph):
            frozen.append(source.path)
    return TermDescription(
        name=term.name,
        weight=term.weight,
        taps=_tap_shapes(selection),
        head=selection.head.path if selection.head else None,
        kernels=tuple(kernel.path for kernel in selection.kernels),
        frozen=tuple(frozen),
        reach=reach,
    )


def _tap_shapes(selection: Selection) -> dict[str, tuple[int | None, ...]]:
    """Shapes by path. A layer that is called several times has one entry for each call."""
    shapes: dict[str, tuple[int | None, ...]] = {}
    paths: list[str] = []
    for tap in selection.taps:
        paths.append(tap.path)
        call = paths.count(tap.path)
        path = tap.path if call == 1 else f"{tap.path} (call {call})"
        shapes[path] = tap.shape
    return shapes


def _lines(term: TermDescription) -> list[str]:
    lines = []
    for path, shape in term.taps.items():
        sizes = "×".join(str(size) for size in shape[1:])
        lines.append(f"{path} {sizes}")
    if term.head:
        lines.append(f"head {term.head}")
    if len(term.kernels) > 3:
        lines += [f"{len(term.kernels)} kernels", f"from {term.kernels[0]}", f"to {term.kernels[-1]}"]
    else:
        for path in term.kernels:
            lines.append(f"kernel {path}")
    if term.frozen:
        lines.append(f"frozen: {len(term.frozen)} of these")
    return lines


def _measure(model: CollabModel, data: Data) -> tuple[float, float]:
    """Median seconds of a training step of the network alone and of the wrapped network."""
    check_compiled(describe, model)
    batches = list(first_batches(describe, data, count=1, size=None))
    if not batches:
        raise ValueError("`describe` needs data with at least one batch. Received none.")
    x, y, sample_weight = batches[0]
    check_labels(describe, model, y)
    copies = []
    for terms in ([], terms_like(model)):
        copy = CollabModel(model.network, terms)
        compile_like(copy, model, _optimizer_like(model.optimizer))
        copies.append(copy)
    seconds = []
    with unchanged(model.network):
        for _ in range(WARM_UP + STEPS):
            for copy in copies:
                started = time.perf_counter()
                copy.train_on_batch(x, y, sample_weight)
                seconds.append(time.perf_counter() - started)
    plain, wrapped = np.median(np.reshape(seconds, (-1, 2))[WARM_UP:], axis=0)
    return float(plain), float(wrapped)


def _optimizer_like(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    try:
        return type(optimizer).from_config(optimizer.get_config())
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"`describe` measures the time with a copy of the optimizer, and this one cannot be copied: {error} Leave "
            "`data` out, or use a learning rate with get_config()."
        ) from error
