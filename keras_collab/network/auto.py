"""What `layers="auto"` stands for: the taps and the kernels that terms read by default.

**Taps** lie where a block ends and a stage is over. Only what the main input feeds, and a layer with trained weights
has computed, counts: masks, adjacency and second inputs hide nothing.

- A block ends at a merge (branches with as many positions each are added, averaged, subtracted or concatenated), at a
  composite layer (one that holds layers with weights, or a recurrent one), and after the normalization and activation
  right behind these.
- A stage is what works at one number of positions. Its tap is its last block end that every path crosses; where it has
  no block, its last layer that computes and every path crosses; where no tensor is on every path, its widest.
- Stages without blocks that are finer than all with blocks are a stem, unless they are half of the network.
- With one stage only there are four block ends, evenly spaced. Where two kinds of blocks alternate, as attention and
  perceptron do in a transformer, they are one.

**Kernels** are those of convolutions, and of Dense layers over positions, which are 1×1 convolutions: the wider ones
where these hold a quarter of the weights, else all. Left out are the head, the depthwise ones, and those that read the
data itself. A network that has none of these is compared by its other Dense layers.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import tree

from keras_collab.network.channels import channels_first
from keras_collab.network.graph import Call, Graph
from keras_collab.network.layers import Kernel, computes, is_composite, kernels_of

# A resolution starts a new stage if it is at most this share of the one before, or half of it, rounded up: 149 and 147
# pixels are one stage, 5, 3 and 2 are three.
_NEW_STAGE = 0.6

# Networks with fewer than two stages (a transformer, a stack of Dense layers) get this many taps, evenly spaced.
_EVEN_TAPS = 4

# Names of layers and of operations of keras.ops. A product gates, and does not count.
_MERGING = ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Subtract")

_REFINING = (
    keras.layers.Activation,
    keras.layers.BatchNormalization,
    keras.layers.ELU,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.RMSNormalization,
    keras.layers.ReLU,
    keras.layers.UnitNormalization,
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


def auto_taps(graph: Graph) -> list[Call]:
    """The calls whose outputs `layers="auto"` taps, in the order of the network."""
    outputs = tree.flatten(graph.outputs)
    stream = _Stream(graph, max(outputs, key=lambda output: len(graph.ancestors(output))))
    taps = [stream.end(stage) for stage in stream.stages()]
    if len(taps) > 1:
        return [call for call in graph.calls if call in taps]  # A decoder's stages come from coarse to fine.
    return _evenly(stream.blocks_of_one_stage())


class _Stream:
    """The calls between the main input and an output, and what is known of them.

    Attributes:
        calls: those whose output is the main input's and was computed by trained weights, in topological order.
        crossed: those of them whose output is on every path.
        maps: those of them before global pooling whose output has positions.
        closing: those of the maps and vectors that end a block.
    """

    def __init__(self, graph: Graph, output: keras.KerasTensor):
        self.graph = graph
        self.first = channels_first(graph)
        ancestors = graph.ancestors(output)
        self.computed_of_any = _computed(ancestors, tree.flatten(graph.inputs))
        self.computed = _computed(ancestors, [_main_input(graph, ancestors)])
        self.calls = [call for call in ancestors if id(call.output) in self.computed]
        self.crossed = _crossed_by_all_paths(self.calls, output, self.computed)
        readable = [call for call in self.calls if self._is_readable(call)]
        self.readable = readable
        self.closing = self._refined([call for call in readable if self._closes(call)])
        self.maps = self._maps(readable)

    def _is_readable(self, call: Call) -> bool:
        is_float = keras.backend.is_float_dtype(call.output.dtype)
        return is_float and len(call.output.shape) > 1 and self.graph.is_per_sample(call.output)

    def positions(self, call_or_tensor: keras.KerasTensor) -> int:
        shape = self.graph.shape(call_or_tensor)
        return math.prod(shape[2:] if self.first.get(id(call_or_tensor), False) else shape[1:-1])

    def _closes(self, call: Call) -> bool:
        """Whether branches that work at one resolution come together, or a layer of layers is a block of its own."""
        if is_composite(call.operation):
            return True
        merged = {id(x): x for x in call.inputs if id(x) in self.computed_of_any}
        counts = {self.positions(x) for x in merged.values()}
        return merges(call.operation) and len(merged) > 1 and len(counts) == 1

    def _refined(self, closing: Sequence[Call]) -> set[Call]:
        """The calls that end blocks, and the normalizations and activations right after them that no path avoids."""
        tensors = {id(call.output) for call in closing}
        refined = set(closing)
        for call in self.readable:
            if call in self.crossed and refines(call) and id(call.inputs[0]) in tensors:
                tensors.add(id(call.output))
                refined.add(call)
        return refined

    def _maps(self, readable: Sequence[Call]) -> list[Call]:
        """The calls whose output has channels and positions, up to global pooling; gates on one position left out."""
        maps: list[Call] = []
        for call in self.calls:
            ends = isinstance(call.operation, _ENDS_FEATURE_MAPS) or len(call.output.shape) < 3
            if ends and call in self.crossed and maps:
                break
            is_gate = call not in self.crossed and self.positions(call.output) == 1
            if call in readable and len(call.output.shape) > 2 and not is_gate:
                maps.append(call)
        return maps

    def _works(self, call: Call) -> bool:
        return computes(call.operation) or refines(call)

    def stages(self) -> list[list[Call]]:
        """The maps that may end a stage, grouped by resolution from fine to coarse."""
        axes = max((len(call.output.shape) - 2 for call in self.maps), default=1)

        def side(call):  # As if the positions were a square, a cube: 49 tokens are as coarse as 7×7 pixels.
            return round(self.positions(call.output) ** (1 / axes), 6)

        maps = [call for call in self.maps if call in self.closing or self._works(call)]
        final = [call for call in maps if call in self.crossed][-1:]
        stages: list[list[Call]] = []
        smallest = 0.0
        for size in sorted({side(call) for call in maps}, reverse=True):
            if not stages or size <= max(_NEW_STAGE * smallest, math.ceil(smallest / 2)):
                stages.append([])
            smallest = size
            stages[-1].extend(call for call in maps if side(call) == size)
        blocks = [[call for call in stage if call in self.closing or call in final] for stage in stages]
        stem = next((index for index, stage in enumerate(blocks) if stage), 0)
        begin = stem if 2 * stem < len(stages) else 0
        chosen = [self._ends(*pair) for pair in zip(blocks, stages, strict=True)][begin:]
        order = {call: index for index, call in enumerate(self.calls)}
        return [sorted(stage, key=order.__getitem__) for stage in chosen]

    def _ends(self, blocks: list[Call], stage: list[Call]) -> list[Call]:
        """What may end a stage: blocks, but not those beside the path that another layer behind them is on."""
        if not blocks or any(call in self.crossed for call in blocks):
            return blocks or stage
        behind = self.calls[self.calls.index(blocks[-1]) :]
        return stage if any(call in self.crossed and call in behind for call in stage) else blocks

    def end(self, stage: Sequence[Call]) -> Call:
        """The call that ends a stage: the last that all paths cross, else the last of those with most channels."""
        crossed = [call for call in stage if call in self.crossed]
        if crossed:
            return crossed[-1]
        most = max(self._channels(call) for call in stage)
        return [call for call in stage if self._channels(call) == most][-1]

    def _channels(self, call: Call) -> int:
        return self.graph.shape(call.output)[1 if self.first[id(call.output)] else -1]

    def blocks_of_one_stage(self) -> list[Call]:
        """The ends of blocks in a network that has one resolution, without its last layer that computes."""
        last = max((index for index, call in enumerate(self.calls) if computes(call.operation)), default=0)
        ends: list[Call] = []
        for call in self.calls[:last]:
            if call not in self.crossed or call not in self.readable:
                continue
            if refines(call) and ends and call.inputs[0] is ends[-1].output:
                ends[-1] = call
            elif computes(call.operation) or call in self.closing:
                ends.append(call)
        blocks = [call for call in ends if call in self.closing]
        return self._whole(blocks) if 2 * len(blocks) >= len(ends) else ends

    def _whole(self, ends: Sequence[Call]) -> list[Call]:
        """The ends of whole blocks, where two or more kinds of halves follow each other in turn."""
        kinds: list[list[str]] = [[]]
        for call in self.calls:
            if computes(call.operation):
                kinds[-1].append(type(call.operation).__name__)
            if call in ends:
                kinds.append([])
        for period in range(1, len(ends)):
            # What comes before the first end includes the stem, and is like no other.
            if all(kinds[i] == kinds[i - period] for i in range(period + 1, len(ends))):
                return list(ends[(len(ends) - 1) % period :: period])
        return list(ends)


def merges(operation: Any) -> bool:
    """Whether an operation brings branches together; so does a layer without weights that is not Keras' own."""
    module = type(operation).__module__
    is_known = module.startswith(("keras.src.layers", "keras.src.ops"))
    is_other = isinstance(operation, keras.Layer) and not is_known and not computes(operation)
    return type(operation).__name__ in _MERGING or is_other


def refines(call: Call) -> bool:
    """Whether a call normalizes or activates what one layer has made, at the same shape."""
    if len(call.inputs) != 1 or call.inputs[0].shape != call.output.shape:
        return False
    activates = type(call.operation).__module__ == "keras.src.ops.nn"
    return activates or isinstance(call.operation, (*_REFINING, keras.layers.Lambda))


def _main_input(graph: Graph, calls: Sequence[Call]) -> keras.KerasTensor:
    """The input from which most layers with weights follow one after the other."""

    def depth(start):
        depths = {id(start): 0}
        for call in calls:
            before = [depths[id(x)] for x in call.inputs if id(x) in depths]
            if before:
                depths.update((id(x), max(before) + computes(call.operation)) for x in call.outputs)
        return max(depths.values())

    return max(tree.flatten(graph.inputs), key=depth)


def _computed(calls: Sequence[Call], starts: Sequence[keras.KerasTensor]) -> set[int]:
    """The tensors, by id, that follow from some inputs and that a layer with trained weights has computed."""
    following, computed = {id(x) for x in starts}, set()
    for call in calls:
        if any(id(x) in following for x in call.inputs):
            outputs = {id(x) for x in call.outputs}
            following |= outputs
            if computes(call.operation) or any(id(x) in computed for x in call.inputs):
                computed |= outputs
    return computed


def _crossed_by_all_paths(calls: Sequence[Call], output: keras.KerasTensor, counted: set[int]) -> set[Call]:
    """The calls after which a single tensor of those that are counted is alive, so that every path crosses it.

    The output itself counts if it is features, not what a last layer with weights makes of them.
    """
    ends_in_features = not any(computes(call.operation) for call in calls[-1:])
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
        alive = {x for x in alive & counted if uses.get(x)}
        if alive == {id(call.output)}:
            crossed.add(call)
    return crossed


def _evenly(calls: Sequence[Call]) -> list[Call]:
    count = min(_EVEN_TAPS, len(calls))
    return [calls[(index + 1) * len(calls) // count - 1] for index in range(count)]


def auto_kernels(graph: Graph, heads: set[str]) -> list[Kernel]:
    """The kernels that `layers="auto"` compares.

    Args:
        heads: paths of the classifiers, which are left out.
    """
    kernels: dict[int, Kernel] = {}
    over_positions, after, first = set(), set(), set()
    for call in graph.calls:
        behind = any(id(x) in after for x in call.inputs)
        for index, kernel in enumerate(kernels_of(call.operation, call.path)):
            kernels.setdefault(id(kernel.layer), kernel)
            if any(len(x.shape) > 2 for x in call.inputs):
                over_positions.add(kernel.path)
            if index == 0 and not behind:
                first.add(kernel.path)
        if behind or computes(call.operation, embeddings=True):
            after.update(id(x) for x in call.outputs)
    rest = [k for k in kernels.values() if k.path not in heads and not k.depthwise and k.filters > 1]
    convolutions = [k for k in rest if not k.dense or k.path in over_positions]
    later = [k for k in convolutions if k.path not in first]
    if not any(not k.dense for k in kernels.values()) or not convolutions:
        return [k for k in rest if k.dense]
    chosen = later or (convolutions if len(convolutions) > 1 else [])
    wide = [k for k in chosen if k.window > 1]
    return wide if 4 * sum(k.weights for k in wide) >= sum(k.weights for k in chosen) else chosen
