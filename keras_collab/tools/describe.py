"""A table of what each term found in a network and what it costs, before any training."""

import dataclasses
import math
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from keras_collab.network.graph import Call, Graph
from keras_collab.network.layers import kernel_of
from keras_collab.network.select import Selection
from keras_collab.terms.term import Term

if TYPE_CHECKING:
    from keras_collab.collab_model import CollabModel


@dataclasses.dataclass(frozen=True)
class TermDescription:
    """What one term reads, and its cost.

    Attributes:
        name: column in the history.
        weight: the number or schedule it is multiplied by.
        taps: for each tapped layer its path and shape.
        head: path of the classifier it reads, or None.
        kernels: paths of the layers whose kernels it reads.
        operations: floating-point operations it adds to a training step; NaN if the term does not say.
        share: those as a share of the network's own training step.
    """

    name: str
    weight: object
    taps: dict[str, tuple[int | None, ...]]
    head: str | None
    kernels: list[str]
    operations: float
    share: float


@dataclasses.dataclass(frozen=True)
class Description:
    """What `CollabModel.describe` returns; prints as a table.

    Attributes:
        network: name of the network.
        batch_size: samples in the training step that costs are counted for.
        operations: floating-point operations of the network's own training step, counted from its kernels: two for
            each weight and position it is applied to, three times over for the forward and the backward pass.
        parameters: the network's parameters.
        parameters_added: parameters that training with the terms adds to be trained; 0.
        terms: one description a term.
    """

    network: str
    batch_size: int
    operations: float
    parameters: int
    parameters_added: int
    terms: tuple[TermDescription, ...]

    def __rich__(self) -> Table:
        table = Table(
            title=f"{self.network}: {self.operations / 1e9:.3g} GFLOP a training step of {self.batch_size}, "
            f"{self.parameters:,} parameters, {self.parameters_added} added",
            show_lines=True,
        )
        table.add_column("term", no_wrap=True)
        table.add_column("weight")
        table.add_column("reads", overflow="fold")
        table.add_column("operations", no_wrap=True)
        for term in self.terms:
            weight = f"{term.weight:g}" if isinstance(term.weight, float) else type(term.weight).__name__
            cost = "not stated" if math.isnan(term.share) else f"{100 * term.share:.3f}%"
            table.add_row(term.name, weight, "\n".join(_reads(term)), cost)
        return table


def describe(model: "CollabModel", graph: Graph, batch_size: int, *, verbose: bool) -> Description:
    """Makes the description of a wrapped network, and prints it if `verbose`."""
    step = 3.0 * batch_size * sum(_forward_operations(graph, call) for call in graph.calls)
    description = Description(
        network=model.network.name,
        batch_size=batch_size,
        operations=step,
        parameters=model.network.count_params(),
        parameters_added=sum(math.prod(v.shape) for v in model.trainable_weights)
        - sum(math.prod(v.shape) for v in model.network.trainable_weights),
        terms=tuple(_describe_term(term, batch_size, step) for term in model.terms.values()),
    )
    if verbose:
        Console().print(description)
    return description


def _describe_term(term: Term, batch_size: int, step: float) -> TermDescription:
    selection = term.selection or Selection()
    operations = term.operations(selection, batch_size)
    return TermDescription(
        name=term.name,
        weight=term.weight,
        taps=_tap_shapes(selection),
        head=selection.head.path if selection.head else None,
        kernels=[kernel.path for kernel in selection.kernels],
        operations=operations,
        share=operations / step if step else math.nan,
    )


def _tap_shapes(selection: Selection) -> dict[str, tuple[int | None, ...]]:
    """Shapes by path; a layer that is called several times has one entry a call."""
    shapes: dict[str, tuple[int | None, ...]] = {}
    for tap in selection.taps:
        calls = sum(other == tap.path or other.startswith(f"{tap.path} (call ") for other in shapes)
        shapes[f"{tap.path} (call {calls + 1})" if calls else tap.path] = tap.shape
    return shapes


def _reads(term: TermDescription) -> list[str]:
    lines = [f"{path} {'×'.join(str(size) for size in shape[1:])}" for path, shape in term.taps.items()]
    if term.head:
        lines.append(f"head {term.head}")
    if len(term.kernels) > 3:
        lines += [f"{len(term.kernels)} kernels", f"from {term.kernels[0]}", f"to {term.kernels[-1]}"]
    else:
        lines += [f"kernel {path}" for path in term.kernels]
    return lines


def _forward_operations(graph: Graph, call: Call) -> float:
    """Two operations for each weight of each kernel and each position it is applied to, for one sample."""
    kernel = kernel_of(call.operation, call.path)
    if kernel is None:
        return 0.0
    # A transposed convolution applies its kernel once an input position, all others once an output position.
    shape = graph.shape(call.inputs[0] if kernel.filter_axis == -2 else call.output)
    positions = math.prod(shape[2:] if kernel.channels_first else shape[1:-1])
    weights = sum(math.prod(weight.shape) for weight in call.operation.weights if len(weight.shape) > 1)
    return 2.0 * positions * weights
