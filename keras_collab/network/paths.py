"""What follows from what in a network, and which calls no path avoids."""

import collections
from collections.abc import Sequence

import keras

from keras_collab.network.calls import Call
from keras_collab.network.layers import computes


def computed_from(calls: Sequence[Call], starts: Sequence[keras.KerasTensor]) -> set[int]:
    """The tensors, by id, that follow from some inputs and that a layer with trained weights has computed."""
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


def begins(calls: Sequence[Call], starts: Sequence[keras.KerasTensor], computed: set[int]) -> set[int]:
    """The tensors, by id, that follow from some inputs without trained weights and that a layer with such reads first.

    They are data or embeddings. A branch that has yet to begin from one of them avoids the layers before it.
    """
    raw = set(map(id, starts))
    begun: set[int] = set()
    for call in calls:
        inputs = set(map(id, call.inputs))
        if not inputs & raw or inputs & computed:
            continue
        if not computes(call.operation):
            raw |= set(map(id, call.outputs))
        elif id(call.inputs[0]) in raw:  # Another input may be a mask.
            begun.add(id(call.inputs[0]))
    return begun


def alive_after(
    calls: Sequence[Call], start: keras.KerasTensor, output: keras.KerasTensor, counted: set[int]
) -> dict[Call, list[keras.KerasTensor]]:
    """For each call those of the counted tensors that exist by then and that a later call reads.

    Args:
        calls: in topological order.
        start: the input that they start from.
        output: what is read after the last of them.
        counted: the tensors that count, by id.
    """
    uses = collections.Counter([id(output)])
    for call in calls:
        uses.update(map(id, call.inputs))
    alive: dict[int, keras.KerasTensor] = {}
    if id(start) in counted and uses[id(start)]:
        alive[id(start)] = start
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


def factors_of_products(calls: Sequence[Call]) -> dict[int, Call]:
    """Maps each tensor, by id, that is used only to compute one factor of one product to that product.

    A gate is such a tensor, as in squeeze-and-excitation.
    """
    factors: dict[int, tuple[Call, int] | None] = {}
    for call in reversed(calls):
        behind = {factors[id(x)] for x in call.outputs if id(x) in factors}
        through = behind.pop() if len(behind) == 1 else None
        is_product = type(call.operation).__name__ == "Multiply" and len(set(map(id, call.inputs))) > 1
        for x in call.inputs:
            factor = (call, id(x)) if through is None and is_product else through
            factors[id(x)] = factor if factors.get(id(x), factor) == factor else None
    products = {}
    for key, factor in factors.items():
        if factor is not None:
            products[key] = factor[0]
    return products
