"""Where the stages of a network end: the taps that `layers="auto"` stands for.

A stage is a run of layers that work at one resolution. Its end is the last tensor of the stage that every path
from the input to the output passes through and that closes a block: the sum or concatenation of a block's branches,
or the normalization and activation right after it. In networks without branches (VGG, MobileNet) every convolution,
followed by its normalization and activation, is a block. The last feature map before global pooling always ends a
stage. Preprocessing, padding, cropping, dropout and pooling close no block, nor do the stem and the expansion of the
next block in a network that has branches.
"""

import math
from collections.abc import Sequence

import keras

from keras_collab.network.channels import channels_first
from keras_collab.network.graph import Call, Graph
from keras_collab.network.layers import kernel_of

# A resolution starts a new stage if it is at most this share of the one before, or half of it, rounded up: 149 and 147
# pixels are one stage, 5, 3 and 2 are three.
_NEW_STAGE = 0.6

# Networks with fewer than two stages (a transformer, a stack of Dense layers) get this many taps, evenly spaced.
_EVEN_TAPS = 4

_REFINING = (
    keras.layers.Activation,
    keras.layers.BatchNormalization,
    keras.layers.ELU,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ReLU,
)
_ENDS_FEATURE_MAPS = (
    keras.layers.Flatten,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
)


def stage_ends(graph: Graph, output: keras.KerasTensor) -> list[Call]:
    """The calls whose outputs end a stage on the way to `output`, the deepest last."""
    calls = graph.ancestors(output)
    first = channels_first(graph)
    crossed = _crossed_by_all_paths(calls, output)
    maps = _feature_maps(graph, calls, crossed)
    merges = [call for call in maps if _merges(graph, call, first)]
    blocks = _closed_by_merge(merges, maps, crossed) if merges else [call for call in maps if _works(call)]
    final = [call for call in maps if call in crossed and (_works(call) or call in blocks)][-1:]
    ends = []
    for stage in _stages(graph, [*blocks, *final], first):
        ends.append(([call for call in stage if call in crossed] or _widest(graph, stage, first))[-1])
    if len(ends) > 1:
        return [call for call in calls if call in ends]  # A decoder's stages come from coarse to fine.
    return _evenly(_block_ends(graph, _before_last_kernel(calls), crossed))


def _crossed_by_all_paths(calls: Sequence[Call], output: keras.KerasTensor) -> set[Call]:
    """The calls after which a single tensor is alive, so that every path passes through it.

    An input is alive from its first use: a second input that joins late does not hide the first one's stages. The
    output itself counts if it is features, not what a last layer with a kernel makes of them.
    """
    ends_in_features = all(kernel_of(call.operation, call.path) is None for call in calls[-1:])
    uses: dict[int, int] = {id(output): 1} if ends_in_features else {}
    for call in calls:
        for x in call.inputs:
            uses[id(x)] = uses.get(id(x), 0) + 1
    alive: set[int] = set()
    crossed = set()
    for call in calls:
        for x in call.inputs:
            uses[id(x)] -= 1
        alive.update(id(x) for x in (*call.inputs, *call.outputs))
        alive = {x for x in alive if uses.get(x)}
        if alive == {id(call.output)}:
            crossed.add(call)
    return crossed


def _feature_maps(graph: Graph, calls: Sequence[Call], crossed: set[Call]) -> list[Call]:
    """The calls whose output has channels and positions, from the first convolution to global pooling."""
    after_convolution: set[int] = set()
    maps = []
    for call in calls:
        if call in crossed and isinstance(call.operation, _ENDS_FEATURE_MAPS):
            break
        if _is_convolution(call) or any(id(x) in after_convolution for x in call.inputs):
            after_convolution.update(id(output) for output in call.outputs)
            if len(graph.shape(call.output)) > 2 and graph.is_per_sample(call.output):
                maps.append(call)
    return maps


def _is_convolution(call: Call) -> bool:
    kernel = kernel_of(call.operation, call.path)
    return kernel is not None and not kernel.dense


def _works(call: Call) -> bool:
    """Whether the call computes features or refines them, rather than moving them about."""
    return kernel_of(call.operation, call.path) is not None or isinstance(call.operation, _REFINING)


def _positions(graph: Graph, tensor: keras.KerasTensor, first: dict[int, bool]) -> tuple[int, ...]:
    return graph.shape(tensor)[2:] if first.get(id(tensor), False) else graph.shape(tensor)[1:-1]


def _merges(graph: Graph, call: Call, first: dict[int, bool]) -> bool:
    """Whether branches of one resolution come together; a product gates and does not count."""
    sizes = {_positions(graph, x, first) for x in call.inputs}
    return len({id(x) for x in call.inputs}) > 1 and len(sizes) == 1 and type(call.operation).__name__ != "Multiply"


def _closed_by_merge(merges: Sequence[Call], maps: Sequence[Call], crossed: set[Call]) -> list[Call]:
    """The merges, and the normalizations and activations right after them that no path goes around."""
    closing = {id(call.output) for call in merges}
    blocks = []
    for call in maps:
        refines = call in crossed and isinstance(call.operation, _REFINING) and id(call.inputs[0]) in closing
        if refines:
            closing.add(id(call.output))
        if refines or call in merges:
            blocks.append(call)
    return blocks


def _widest(graph: Graph, stage: Sequence[Call], first: dict[int, bool]) -> list[Call]:
    """The calls with most channels: cells that skip over each other (NASNet) leave no tensor that all paths cross."""

    def channels(call):
        return graph.shape(call.output)[1 if first[id(call.output)] else -1]

    return [call for call in stage if channels(call) == max(map(channels, stage))]


def _stages(graph: Graph, blocks: Sequence[Call], first: dict[int, bool]) -> list[list[Call]]:
    """The block ends, grouped by resolution from fine to coarse, each group in the order of the network."""

    def resolution(call):
        return max(_positions(graph, call.output, first))

    stages: list[list[Call]] = []
    smallest = 0
    for size in sorted({resolution(call) for call in blocks}, reverse=True):
        if not stages or size <= max(_NEW_STAGE * smallest, math.ceil(smallest / 2)):
            stages.append([])
        smallest = size
        stages[-1].extend(call for call in dict.fromkeys(blocks) if resolution(call) == size)
    order = {call: index for index, call in enumerate(graph.calls)}
    return [sorted(stage, key=order.__getitem__) for stage in stages]


def _before_last_kernel(calls: Sequence[Call]) -> Sequence[Call]:
    last = max((i for i, call in enumerate(calls) if kernel_of(call.operation, call.path)), default=0)
    return calls[:last]


def _block_ends(graph: Graph, calls: Sequence[Call], crossed: set[Call]) -> list[Call]:
    """Of every layer with a kernel, and what refines its output, the last call that all paths cross."""
    ends: list[Call] = []
    for call in calls:
        if call not in crossed or not graph.is_per_sample(call.output) or not (_works(call) or len(call.inputs) > 1):
            continue
        if ends and isinstance(call.operation, _REFINING):
            ends[-1] = call
        else:
            ends.append(call)
    return ends


def _evenly(calls: Sequence[Call]) -> list[Call]:
    count = min(_EVEN_TAPS, len(calls))
    return [calls[(index + 1) * len(calls) // count - 1] for index in range(count)]
