"""Which weights of a network the terms can change, and which layers no term reads."""

import dataclasses
import math
import operator
from collections.abc import Iterable, Sequence

import keras

from keras_collab._types import Operation
from keras_collab.network.graph import Graph
from keras_collab.network.select import Selection, Source


def trainable_weights(operations: Iterable[Operation]) -> dict[int, int]:
    """Sizes of the trainable weights of layers, by the weight's id, since layers may share weights."""
    sizes = {}
    for operation in operations:
        if isinstance(operation, keras.Layer):  # Calls of keras.ops have no weights.
            for weight in operation.trainable_weights:
                sizes[id(weight)] = math.prod(weight.shape)
    return sizes


def trainable_count(graph: Graph) -> int:
    """Number of trainable parameters of a network."""
    operations = [call.operation for call in graph.calls]
    return sum(trainable_weights(operations).values())


def is_trained(source: Source, graph: Graph) -> bool:
    """Whether training changes what a tap, a kernel or a head hands to a term."""
    return bool(trainable_weights(source.made_by(graph)))


def changed_weights(selection: Selection, graph: Graph) -> dict[int, int]:
    """Sizes of the trainable weights that a term can change, by the weight's id.

    These are those of the layers whose kernels or head it reads, and of all layers before its taps and its head. What
    is only a target counts for nothing.
    """
    sizes: dict[int, int] = {}
    for source in _learning(selection):
        sizes.update(trainable_weights(source.made_by(graph)))
    return sizes


def trained_selection(selection: Selection, graph: Graph) -> Selection:
    """What a term is handed in training: without frozen taps, unless all are frozen, and likewise for kernels.

    Targets stay. It is empty if the term can change nothing of what it reads.
    """
    learning = _learning(selection)
    trained = [source for source in learning if is_trained(source, graph)]
    if learning and not trained:
        return Selection()
    taps, kernels = selection.taps, selection.kernels
    if any(tap in trained for tap in taps):
        taps = tuple(tap for tap in taps if tap in trained or tap in selection.targets)
    if any(kernel in trained for kernel in kernels):
        kernels = tuple(kernel for kernel in kernels if kernel in trained)
    return dataclasses.replace(selection, taps=taps, kernels=kernels)


def unread(graph: Graph, selections: Sequence[Selection]) -> dict[str, int]:
    """Number of trainable parameters in each layer, by path, that no term reads or can change; the largest first."""
    counted: set[int] = set()
    for selection in selections:
        counted.update(changed_weights(selection, graph))
        for target in selection.targets:
            counted.update(trainable_weights(target.made_by(graph)[-1:]))
    sizes: dict[str, int] = {}
    for call in graph.calls:
        for weight, size in trainable_weights([call.operation]).items():
            if weight not in counted:
                counted.add(weight)
                sizes[call.path] = sizes.get(call.path, 0) + size
    largest_first = sorted(sizes.items(), key=operator.itemgetter(1), reverse=True)
    return dict(largest_first)


def unread_remark(sizes: dict[str, int], total: int) -> str:
    """A sentence on unread layers that hold most of the parameters; empty if they hold less than half.

    Args:
        sizes: from `unread`.
        total: number of trainable parameters of the network.
    """
    count = sum(sizes.values())
    if 2 * count <= total:
        return ""
    layers = [f"{path} ({sizes[path]:,})" for path in list(sizes)[:3]]
    return (
        f"{100 * count // total}% of the trainable parameters lie in layers that no term can change: "
        f"{', '.join(layers)}. Name layers with `layers=` to change that."
    )


def _learning(selection: Selection) -> list[Source]:
    """The sources that a term gives a gradient to."""
    return [source for source in selection.sources if source not in selection.targets]
