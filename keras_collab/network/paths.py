"""What follows from what in a network, and which calls no path avoids."""

import collections
from collections.abc import Sequence

import keras

from keras_collab.network.calls import Call
from keras_collab.network.layers import activation_names, computes


def computed_from(calls: Sequence[Call], starts: Sequence[keras.KerasTensor]) -> set[int]:
    """The tensors, by id, that depend on some inputs and on a layer that computes."""
    following = set(map(id, starts))
    computed: set[int] = set()
    for call in calls:
        inputs = set(map(id, call.inputs))
        if not inputs & following:
            continue
        outputs = set(map(id, call.outputs))
        following |= outputs
        if inputs & computed or computes(call.operation):
            computed |= outputs
    return computed


def first_read(calls: Sequence[Call], start: keras.KerasTensor, computed: set[int]) -> set[int]:
    """The tensors, by id, that follow from an input without a layer that computes, and that such a layer reads first.

    They are data or embeddings. A branch that has yet to begin from one of them avoids the layers before it.
    """
    raw = {id(start)}
    begun: set[int] = set()
    for call in calls:
        inputs = set(map(id, call.inputs))
        if not inputs & raw or inputs & computed:
            if type(call.operation).__name__ == "Add":  # A shortcut of an embedding.
                same = [x for x in call.inputs if id(x) in raw and x.shape == call.output.shape]
                begun.update(map(id, same))
            continue
        if not computes(call.operation):
            raw |= set(map(id, call.outputs))
        elif id(call.inputs[0]) in raw:  # Another input may be a mask.
            begun.add(id(call.inputs[0]))
    return begun


def alive_after(
    calls: Sequence[Call], output: keras.KerasTensor, counted: set[int]
) -> dict[Call, list[keras.KerasTensor]]:
    """For each call those of the counted tensors that exist by then and that a later call reads.

    Args:
        calls: in topological order. What they read and do not make exists from the start.
        output: what is read after the last of them.
        counted: the tensors that count, by id.
    """
    uses = collections.Counter([id(output)])
    alive: dict[int, keras.KerasTensor] = {}
    for call in reversed(calls):
        for x in call.outputs:
            alive.pop(id(x), None)
        for x in call.inputs:
            uses[id(x)] += 1
            if id(x) in counted:
                alive[id(x)] = x
    after = {}
    for call in calls:
        uses.subtract(map(id, call.inputs))
        for x in (*call.inputs, *call.outputs):
            if id(x) in counted and uses[id(x)]:
                alive[id(x)] = x
            else:
                alive.pop(id(x), None)
        after[call] = list(alive.values())
    return after


def longest_path(calls: Sequence[Call]) -> set[Call]:
    """The calls on the path through most layers that compute; it begins behind a softmax, which makes weights."""
    producer: dict[int, Call] = {}
    before: dict[Call, Call | None] = {}
    depth: dict[Call | None, int] = {None: 0}
    for call in calls:
        previous = [producer[id(x)] for x in call.inputs if id(x) in producer]
        if "softmax" in activation_names(call.operation):
            previous = []
        before[call] = max(previous, key=depth.__getitem__, default=None)
        depth[call] = depth[before[call]] + computes(call.operation)
        producer.update(dict.fromkeys(map(id, call.outputs), call))
    read = {id(x) for call in calls for x in call.inputs}
    ends = [call for call in reversed(calls) if read.isdisjoint(map(id, call.outputs))]
    path: set[Call] = set()
    end = max(ends, key=depth.__getitem__, default=None)  # The last of those with most layers before them.
    while end is not None:
        path.add(end)
        end = before[end]
    return path


def factors_of_products(calls: Sequence[Call]) -> dict[int, set[Call]]:
    """Maps each tensor, by id, that is used only to compute factors of products, one of each, to these products.

    A gate is such a tensor, as in squeeze-and-excitation. Another factor has the shape of the product. Attention is a
    product too: its query has the shape of its output.
    """
    uses: dict[int, set[tuple[Call, int] | None]] = {}  # Products with the factor of each; None for any other use.
    for call in reversed(calls):
        through: set[tuple[Call, int] | None] = set()
        for x in call.outputs:
            through |= uses.get(id(x), set())
        if not through or None in through:
            through = {None}
        name = type(call.operation).__name__
        is_product = name == "Multiply" or "Attention" in name
        for x in call.inputs:
            whole = [other for other in call.inputs if other is not x and other.shape == call.output.shape]
            is_factor = is_product and whole and through == {None}
            uses.setdefault(id(x), set()).update({(call, id(x))} if is_factor else through)
    products: dict[int, set[Call]] = {}
    for tensor, factors in uses.items():
        read_by = {factor[0] for factor in factors if factor}
        if len(read_by) == len(factors):
            products[tensor] = read_by
    return products
