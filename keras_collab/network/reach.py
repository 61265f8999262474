"""Which weights of a network the terms can change, and which layers no term reads."""

import math
import operator
from collections.abc import Sequence

import keras

from keras_collab.network.calls import Call
from keras_collab.network.graph import Graph
from keras_collab.network.select import Selection


def trainable_weights(calls: Sequence[Call]) -> dict[int, int]:
    """Sizes of the trainable weights of the layers called, by the weight's id, since layers may share weights."""
    sizes = {}
    for call in calls:
        if isinstance(call.operation, keras.Layer):  # Calls of keras.ops have no weights.
            for weight in call.operation.trainable_weights:
                sizes[id(weight)] = math.prod(weight.shape)
    return sizes


def calls_reached(selection: Selection, graph: Graph) -> list[Call]:
    """The calls of layers that a term reads, and of all that come before its taps and the features of its head."""
    layers = [kernel.layer for kernel in selection.kernels]
    calls = []
    for tap in selection.taps:
        calls += graph.ancestors(tap.tensor)
    if selection.head:
        layers.append(selection.head.layer)
        calls += graph.ancestors(selection.head.features)
    for call in graph.calls:
        if call.operation in layers:
            calls.append(call)
    return calls


def unread(graph: Graph, selections: Sequence[Selection]) -> dict[str, int]:
    """Number of trainable parameters in each layer, by path, that no term can change; the largest first."""
    counted: set[int] = set()
    for selection in selections:
        counted.update(trainable_weights(calls_reached(selection, graph)))
    sizes: dict[str, int] = {}
    for call in graph.calls:
        for weight, size in trainable_weights([call]).items():
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
