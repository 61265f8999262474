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


def main_input(inputs: Sequence[keras.KerasTensor], calls: Sequence[Call]) -> keras.KerasTensor:
    """The input from which most layers with weights follow one after the other."""
    main, most = inputs[0], -1
    for start in inputs:
        depth = _depth(calls, start)
        if depth > most:
            main, most = start, depth
    return main


def _depth(calls: Sequence[Call], start: keras.KerasTensor) -> int:
    """The largest number of layers with weights on a path that begins at `start`."""
    depths = {id(start): 0}
    for call in calls:
        depth = -1
        for x in call.inputs:
            depth = max(depth, depths.get(id(x), -1))
        if depth < 0:
            continue
        depth += computes(call.operation)
        depths.update(dict.fromkeys(map(id, call.outputs), depth))
    return max(depths.values())


def alive_after(
    calls: Sequence[Call], output: keras.KerasTensor, counted: set[int]
) -> dict[Call, list[keras.KerasTensor]]:
    """For each call those of the counted tensors that exist by then and that a later call reads.

    The output itself counts if it is features, not what a last layer with weights makes of them.
    """
    uses: collections.Counter[int] = collections.Counter()
    if calls and not computes(calls[-1].operation):
        uses[id(output)] = 1
    for call in calls:
        uses.update(map(id, call.inputs))
    alive: dict[int, keras.KerasTensor] = {}
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
