"""What `layers="auto"` stands for: the taps and the kernels that terms read by default.

A layer *computes* if it mixes features by weights, frozen or not; embedding, normalization and spectrogram do not.

**Outputs** are left out: each last layer that computes, and all behind it, if it has no activation, a single unit, or
ends in softmax, sigmoid, tanh or the like. A normalization, another activation, a residual sum or a composite layer
makes features, and so does a layer whose output another layer reads.

**Taps** lie at the last block of each stage. Of several outputs, the one with most calls before it counts. Only tensors
count that depend on the main input and on a layer that computes, so masks, adjacency matrices and second inputs do not
matter. The main input is the one with most layers and blocks on every path from it to the output.

- A block ends at a merge (branches of one resolution are added, averaged, subtracted or concatenated), at a composite
  layer (one that holds layers that compute, or a recurrent one), and after the normalization and activation right
  behind these.
- A stage is the layers at one resolution: the side of a map, or of a square of as many positions. A side of more than
  0.6 of the last one, or of more than its half rounded up, begins no new stage. A composite layer that makes one
  position of several, as an LSTM does, works at the resolution that it reads.
- The tap of a stage is its last block end that is on every path from input to output. Without blocks, it is the last
  layer that computes and is on every path; if none is, the last layer that only paths at other resolutions avoid, as a
  U-Net's skips do; else the last of those with most channels.
- No stages are gates: what some path avoids and what works on one position, or at a lower resolution than the products
  or the attention that alone read it. Neither is what works on channels or heads as positions inside a block, nor what
  follows from global pooling or flattening alone, until it has more positions again and is no factor of a product.
- Stages without blocks that are finer than all stages with blocks are a stem and have no tap, unless they are half of
  the stages and fewer than four blocks follow for each, or a coarser stage has no block either.
- A network with one stage gets four ends, evenly spaced: those of blocks, or of all layers that compute if blocks are
  at most half of them. So does one with two, if one of them has four or more blocks and four fifths of all, and the
  other's come before them or work on one position.
- If the kinds of layers repeat with a period, as attention and perceptron in a transformer, each period is one block;
  without a period ends behind attention do not count if other ends are behind them.
- If fewer than two blocks are on every path, those on the longest path count too, if there are more of them, since each
  block of a WaveNet has a skip to one sum; likewise layers, where no block is on the longest path.

**Kernels** are those of convolutions, and of Dense layers over positions, which are 1×1 convolutions. If the kernels
wider than 1×1 hold a quarter of the weights, only these count. Depthwise kernels are left out, and kernels that read
the data itself, unless all convolutions do. Without such kernels every Dense layer counts.
"""

import collections
import itertools
import math
import operator
from collections.abc import Sequence

import keras
from keras import tree

from keras_collab.network.calls import Call, topological_calls
from keras_collab.network.graph import Graph
from keras_collab.network.layers import Kernel, activation_names, all_kernels, computes, is_composite, kernels_of
from keras_collab.network.paths import alive_after, computed_from, factors_of_products, first_read, longest_path

# Networks of one stage (a transformer, a stack of Dense layers) get this many taps, evenly spaced.
_EVEN_TAPS = 4

# A resolution starts a new stage if it is at most this share of the one before, or half of it, rounded up: 149 and 147
# pixels are one stage, 5, 3 and 2 are three.
_NEW_STAGE = 0.6

# Activations of outputs. Others make features.
_OUTPUT_ACTIVATIONS = {
    "exp",
    "exponential",
    "hardsigmoid",
    "hardtanh",
    "logsigmoid",
    "logsoftmax",
    "sigmoid",
    "softmax",
    "softplus",
    "tanh",
}

# Names of layers and of operations of keras.ops. A product gates, and does not count.
_MERGING = ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Subtract")

_REFINING = (
    keras.layers.Activation,
    keras.layers.BatchNormalization,
    keras.layers.ELU,
    keras.layers.GroupNormalization,
    keras.layers.Lambda,
    keras.layers.LayerNormalization,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.RMSNormalization,
    keras.layers.ReLU,
    keras.layers.UnitNormalization,
)


# Taps.


def auto_taps(graph: Graph) -> list[Call]:
    """The calls whose outputs `layers="auto"` taps, in the order of the network."""
    main = max(tree.flatten(graph.outputs), key=lambda output: len(graph.ancestors(output)))
    makes_output = output_calls(graph)
    streams = [Stream(graph, start, main, makes_output) for start in tree.flatten(graph.inputs)]
    stream = max(streams, key=operator.attrgetter("depth"))
    stages = stream.stages()
    if len(stages) < 2 or stream.is_one_stage(stages):
        return _evenly(stream.blocks_of_one_stage())
    return sorted(map(stream.end, stages), key=graph.calls.index)  # A decoder's stages come from coarse to fine.


def _evenly(calls: list[Call]) -> list[Call]:
    chosen = []
    count = min(_EVEN_TAPS, len(calls))
    for index in range(1, count + 1):
        chosen.append(calls[index * len(calls) // count - 1])
    return chosen


def output_calls(graph: Graph) -> set[Call]:
    """The calls that make the outputs of a network of its last features."""
    calls: set[Call] = set()
    for output in tree.flatten(graph.outputs):
        calls |= _behind_features(graph, output, is_output=False)
    inside: set[int] = set()
    for call in reversed(graph.calls):
        if call in calls and inside.isdisjoint(map(id, call.outputs)):
            continue
        calls.discard(call)  # Its output is read by the rest of the network too.
        inside.update(map(id, call.inputs))
    return calls


def _behind_features(graph: Graph, tensor: keras.KerasTensor, is_output: bool) -> set[Call]:
    """The calls behind a network's last features that lead to a tensor; none if it is features itself.

    Args:
        is_output: whether an activation that ends networks is behind the tensor.
    """
    call = graph.producer.get(id(tensor))
    if call is None:
        return set()
    ends, activates = _activation(call)
    if computes(call.operation):
        kernels = kernels_of(call.operation, call.path)
        ends = ends or not activates or [kernel.filters for kernel in kernels] == [1]
        return {call} if (is_output or ends) and not is_composite(call.operation) else set()
    is_output = is_output or ends
    joins = len(call.inputs) > 1 and (not merges(call) or _is_residual(graph, call))
    if not is_output and (activates or joins):
        return set()
    calls: set[Call] = set()
    for x in call.inputs:
        calls |= _behind_features(graph, x, is_output)
    if calls:
        calls.add(call)
    return calls


def _activation(call: Call) -> tuple[bool, bool]:
    """Whether a call applies an activation that ends networks, and whether it activates or normalizes at all."""
    operation = call.operation
    function = getattr(operation, "activation", None)
    ends = not activation_names(operation).isdisjoint(_OUTPUT_ACTIVATIONS)
    if function is not None:
        return ends, function is not keras.activations.linear
    return ends, ends or (refines(call) and not isinstance(operation, keras.layers.Lambda))


def _is_residual(graph: Graph, call: Call) -> bool:
    """Whether a call adds what layers make of features to these features."""
    for branch in call.inputs:
        shortcut = branch
        while id(shortcut) in graph.producer and _passes_on(graph.producer[id(shortcut)]):
            shortcut = graph.producer[id(shortcut)].inputs[0]
        before = graph.ancestors(shortcut)
        since: list[Call] = []
        for other in call.inputs:
            if other is not branch:
                since += [ancestor for ancestor in graph.ancestors(other) if ancestor not in before]
        read: set[int] = set()
        for ancestor in since:
            read.update(map(id, ancestor.inputs))
        if id(shortcut) in read and _any_computes(before) and _any_computes(since):
            return True
    return False


def _passes_on(call: Call) -> bool:
    """Whether a call scales or reshapes features, or the like, without computing new ones."""
    return len(call.inputs) == 1 and not computes(call.operation)


def _any_computes(calls: list[Call]) -> bool:
    return any(computes(call.operation) for call in calls)


class Stream:
    """The calls between an input and an output, and what is known of them.

    Attributes:
        calls: those that depend on the input and on a layer that computes, in topological order, without
            `output_calls`.
        on_every_path: those of them whose output every path goes through.
        on_every_path_here: those whose output every path at their resolution goes through; a decoder's skips may not.
        readable: those whose output may be tapped: numbers, one row a sample.
        block_ends: those of the readable that end a block.
        maps: those of the readable before global pooling whose output has positions.
    """

    def __init__(self, graph: Graph, start: keras.KerasTensor, output: keras.KerasTensor, makes_output: set[Call]):
        self.graph = graph
        ancestors = graph.ancestors(output)
        self._of_any_input = computed_from(ancestors, tree.flatten(graph.inputs))
        computed = computed_from(ancestors, [start])
        counted = computed | first_read(ancestors, start, computed)
        for call in makes_output:
            counted.difference_update(map(id, call.outputs))
        following = [call for call in ancestors if id(call.output) in computed]
        self.calls = [call for call in following if call not in makes_output]
        reading = [call for call in following if call not in makes_output or computes(call.operation)]
        self.on_every_path: set[Call] = set()
        self.on_every_path_here: set[Call] = set()
        self._beside: dict[Call, set[int]] = {}
        for call, tensors in alive_after(reading, output, counted).items():
            self._beside[call] = set(map(id, tensors)) - {id(call.output)}
            self._note_paths(call, tensors)
        self.readable = list(filter(self._is_readable, self.calls))
        self.block_ends = self._block_ends()
        self.maps = self._maps()
        self._working = self._working_maps()

    @property
    def depth(self) -> int:
        """How many layers that compute, or block ends, are on every path from this input to the output.

        The main input has most: one that only conditions the blocks joins beside them.
        """
        count = 0
        for call in self.on_every_path:
            count += call in self.block_ends or computes(call.operation)
        return count

    def _note_paths(self, call: Call, alive: Sequence[keras.KerasTensor]) -> None:
        """Notes a call whose output alone is needed by later calls, and one that is so among those of its resolution.

        Args:
            call: the call.
            alive: the tensors that are needed after it.
        """
        if id(call.output) not in map(id, alive):
            return
        if len(alive) == 1:
            self.on_every_path.add(call)
        counts = list(map(self.positions, alive))
        if counts.count(self.positions(call.output)) == 1:
            self.on_every_path_here.add(call)

    def _is_readable(self, call: Call) -> bool:
        is_float = keras.backend.is_float_dtype(call.output.dtype)
        return is_float and len(call.output.shape) > 1 and self.graph.is_per_sample(call.output)

    def positions(self, tensor: keras.KerasTensor) -> int:
        """The number of positions of a tensor, 1 where it has none."""
        shape = self.graph.shape(tensor)
        return math.prod(shape[2:] if self.graph.channels_first(tensor) else shape[1:-1])

    def resolution(self, call: Call) -> int:
        """The number of positions at which a call works: those of its output, or those that a composite layer reads."""
        count = self.positions(call.output)
        if count == 1 and is_composite(call.operation):
            return max(map(self.positions, call.inputs), default=1)
        return count

    def _channels(self, call: Call) -> int:
        shape = self.graph.shape(call.output)
        return shape[1] if self.graph.channels_first(call.output) else shape[-1]

    def _ends_block(self, call: Call) -> bool:
        """Whether branches that work at one resolution come together, or a layer of layers is a block of its own."""
        if is_composite(call.operation):
            return True
        branches: dict[int, keras.KerasTensor] = {}
        for x in call.inputs:
            if id(x) in self._of_any_input:
                branches[id(x)] = x
        if not branches or not merges(call):
            return False
        if len(branches) == 1:
            return self._adds_what_was_read(call, *branches.values())
        return len(set(map(self.positions, branches.values()))) == 1

    def _adds_what_was_read(self, call: Call, branch: keras.KerasTensor) -> bool:
        """Whether a sum adds a computed tensor to what it was computed from: the data, or an embedding."""
        read: set[int] = set()
        for ancestor in self.graph.ancestors(branch):
            read.update(map(id, ancestor.inputs))
        others = [x for x in call.inputs if id(x) in read and x.shape == branch.shape]
        return bool(others) and type(call.operation).__name__ != "Concatenate"

    def _block_ends(self) -> set[Call]:
        """The calls that end blocks, and the normalizations and activations right after them that no path avoids."""
        readers: collections.Counter[int] = collections.Counter()
        for call in self.calls:
            readers.update(map(id, call.inputs))
        closing = set(filter(self._ends_block, self.readable))
        tensors: dict[int, Call] = {}
        for call in self.readable:
            refined = id(call.inputs[0])
            is_unavoidable = readers[refined] == 1 or call in self.on_every_path
            if is_unavoidable and refines(call) and refined in tensors:
                closing.add(call)
                closing.discard(tensors[refined])
            if call in closing:
                tensors[id(call.output)] = call
        return closing

    def _maps(self) -> list[Call]:
        """The calls whose output has channels and positions, up to global pooling; gates are left out."""
        maps: list[Call] = []
        products = factors_of_products(self.calls)
        made: set[int] = set()
        pooled: set[int] = set()
        for call in self.calls:
            has_positions = len(call.output.shape) > 2 or self.resolution(call) > 1
            pools = len(maps) > 0 and (self._pools_all(call) or not has_positions)
            if pools or self._follows_from(call, made, pooled, products):
                pooled.update(map(id, call.outputs))
            elif has_positions and call in self.readable and not (self._gates(call, products) or self._is_turned(call)):
                maps.append(call)
            made.update(map(id, call.outputs))
        return maps

    def _follows_from(self, call: Call, made: set[int], pooled: set[int], products: dict[int, set[Call]]) -> bool:
        """Whether a call reads only pooled tensors, among those that layers have made.

        No longer where a layer widens them, unless it serves as a factor.
        """
        inputs = made.intersection(map(id, call.inputs))
        widens = len(call.inputs) == 1 and self.positions(call.output) > self.positions(call.inputs[0])
        is_factor = id(call.output) in products
        return len(inputs) > 0 and inputs <= pooled and (is_factor or not widens)

    def _is_turned(self, call: Call) -> bool:
        """Whether a call works on channels or heads as positions.

        Then it is finer than the last call before it and the first one behind it that are on every path.
        """
        if call in self.on_every_path:
            return False
        index = self.calls.index(call)
        before = [other for other in self.calls[:index] if other in self.on_every_path]
        behind = [other for other in self.calls[index:] if other in self.on_every_path]
        if not before or not behind:
            return False
        count = self.positions(call.output)
        return count > self.positions(before[-1].output) and count > self.positions(behind[0].output)

    def _pools_all(self, call: Call) -> bool:
        """Whether a call without weights makes one position of several, and is no pooling in small windows."""
        window = getattr(call.operation, "pool_size", (math.inf,))
        counts = set(map(self.positions, call.inputs))
        is_pooled = self.positions(call.output) == 1 and counts != {1}
        return is_pooled and not computes(call.operation) and max(window) > 3

    def _gates(self, call: Call, products: dict[int, set[Call]]) -> bool:
        """Whether some path avoids a call on one position, or on fewer than the products that alone read it have."""
        count = self.positions(call.output)
        read_by = products.get(id(call.output), ())
        coarsest = min((self.positions(product.output) for product in read_by), default=0)
        return call not in self.on_every_path and (count == 1 or count < coarsest)

    def _working_maps(self) -> list[Call]:
        """The maps of layers that compute, and of what ends blocks or refines at a resolution of these."""
        making = {call for call in self.maps if call in self.block_ends or computes(call.operation)}
        counts = {self.positions(call.output) for call in making}
        working = []
        for call in self.maps:
            if call in making or (refines(call) and self.positions(call.output) in counts):
                working.append(call)
        return working

    def stages(self) -> list[list[Call]]:
        """The calls that may end a stage, from the finest stage to the coarsest."""
        resolutions = self._resolutions()
        last = self._last_map()
        blocks = []
        for stage in resolutions:
            blocks.append([call for call in stage if call in self.block_ends or call is last])
        begin = _end_of_stem(blocks)
        stages = []
        for block_ends, stage in zip(blocks[begin:], resolutions[begin:], strict=True):
            stages.append(self._ends(block_ends, stage))
        return stages

    def is_one_stage(self, stages: list[list[Call]]) -> bool:
        """Whether one of two stages has four or more blocks and four fifths of all, and the other is not of its kind.

        Its blocks come before the many, as a patch embedding does, or work on one position, as a class token does.
        """
        if len(stages) != 2:
            return False
        few, many = sorted((self._blocks_in(stage) for stage in stages), key=len)
        if len(many) < max(4, 4 * len(few)):
            return False
        is_before = not few or self.calls.index(few[-1]) < self.calls.index(many[0])
        return is_before or self.positions(few[-1].output) == 1

    def _blocks_in(self, stage: list[Call]) -> list[Call]:
        return [call for call in stage if call in self.block_ends]

    def _resolutions(self) -> list[list[Call]]:
        """The maps that layers compute, grouped by resolution from fine to coarse."""
        working = self._working
        axes = 1
        for call in working:
            axes = max(axes, min(2, len(call.output.shape) - 2))
        of_side: dict[float, list[Call]] = {}
        for call in working:
            # As if the positions were a square, if not a line: 49 tokens are as coarse as 7×7 pixels.
            count = self.resolution(call)
            side = round(count ** (1 / axes), 6)
            of_side.setdefault(side, []).append(call)
        stages: list[list[Call]] = []
        smallest = 0.0
        for side in sorted(of_side, reverse=True):
            limit = max(_NEW_STAGE * smallest, math.ceil(smallest / 2))
            if not stages or side <= limit:
                stages.append([])
            smallest = side
            stages[-1].extend(of_side[side])
        for stage in stages:
            stage.sort(key=self.calls.index)
        return stages

    def _last_map(self) -> Call | None:
        """The last layer that works on maps and that no path avoids: it ends a block, whatever it is."""
        for call in reversed(self.maps):
            if call in self.on_every_path and call in self._working:
                return call
        return None

    def _ends(self, blocks: list[Call], stage: list[Call]) -> list[Call]:
        """What may end a stage: its blocks, or the layers behind a block that only other resolutions' paths avoid.

        So a stage ends at the convolution that follows where a decoder joins a skip, and behind a gate's own merges.
        """
        if not blocks:
            return stage
        if not self.on_every_path.isdisjoint(blocks):
            return blocks
        behind: list[Call] = []
        before = self._beside[blocks[-1]]
        for call in stage[stage.index(blocks[-1]) + 1 :]:
            is_alone = call in self.on_every_path_here and self._beside[call] <= before
            if is_alone and (behind or computes(call.operation)):
                behind.append(call)
        return behind or blocks

    def end(self, stage: Sequence[Call]) -> Call:
        """The last call of a stage that is on every path.

        Else the stage's last, if no other path at its resolution avoids it; else the last of those with most channels.
        """
        for call in reversed(stage):
            if call in self.on_every_path:
                return call
        if stage[-1] in self.on_every_path_here:
            return stage[-1]
        return max(reversed(stage), key=self._channels)

    def blocks_of_one_stage(self) -> list[Call]:
        """The ends of blocks in a network that has one resolution."""
        ends = self._ends_among(self.on_every_path)
        count = len(self._blocks_in(ends))
        if count < 2:
            longest = longest_path(self.calls)
            on_longest = (longest & self.block_ends) - self.on_every_path
            if len(on_longest) > count:  # Each block has a skip to one sum, as in a WaveNet.
                ends = self._ends_among(self.on_every_path | on_longest)
            elif len(ends) < _EVEN_TAPS:  # The data have a skip to a late layer.
                more = self._ends_among(self.on_every_path | longest)
                ends = more if len(more) > len(ends) + 1 else ends  # One more is one of several branches.
        blocks = self._blocks_in(ends)
        if 2 * len(blocks) <= len(ends):
            blocks = ends
        return [blocks[index] for index in whole_blocks(self._layers_before(blocks))]

    def _ends_among(self, candidates: set[Call]) -> list[Call]:
        """The candidates that end blocks or compute, each with what refines it."""
        ends: list[Call] = []
        for call in self.calls:
            if call not in candidates or call not in self.readable:
                continue
            if refines(call) and ends and call.inputs[0] is ends[-1].output:
                ends[-1] = call
            elif computes(call.operation) or call in self.block_ends:
                ends.append(call)
        return ends

    def _layers_before(self, ends: Sequence[Call]) -> list[list[str]]:
        """For each end, the class names of the layers that compute since the end before it."""
        names: list[list[str]] = []
        since: list[str] = []
        for call in self.calls:
            if computes(call.operation):
                since.append(type(call.operation).__name__)
            if call in ends:
                names.append(since)
                since = []
        return names


def _end_of_stem(blocks: Sequence[Sequence[Call]]) -> int:
    """The number of finest stages without a block, if they are few beside the others, which all have blocks."""
    for index, stage in enumerate(blocks):
        if stage:
            behind = blocks[index:]
            is_stem = index < len(behind) or 4 * index <= sum(map(len, behind))
            return index if is_stem and all(behind) else 0
    return 0


# Blocks.


def merges(call: Call) -> bool:
    """Whether a call brings branches together; so does a user's layer without weights, if it adds or joins inside."""
    operation = call.operation
    if type(operation).__name__ in _MERGING:
        return True
    is_known = type(operation).__module__.startswith(("keras.src.layers", "keras.src.ops"))
    is_other = isinstance(operation, keras.Layer) and not is_known and not computes(operation)
    return is_other and _merges_inside(call)


def _merges_inside(call: Call) -> bool:
    fresh = {id(x): keras.KerasTensor(x.shape, x.dtype) for x in call.inputs}
    args, kwargs = call.arguments.fill_in(fresh)
    try:
        inside = topological_calls(list(fresh.values()), call.operation.call(*args, **kwargs), {})
    except Exception:  # A backend's own functions, for instance, take no symbolic tensors.
        return True
    return any(type(step.operation).__name__ in _MERGING for step in inside)


def refines(call: Call) -> bool:
    """Whether a call normalizes or activates what one layer has made, or is a Lambda, at the same shape."""
    if len(call.inputs) != 1 or call.inputs[0].shape != call.output.shape:
        return False
    kind = type(call.operation)
    is_activation = kind.__module__ == "keras.src.ops.nn" and "Pool" not in kind.__name__
    return is_activation or isinstance(call.operation, _REFINING)


def whole_blocks(layers: Sequence[list[str]]) -> list[int]:
    """Which ends are those of whole blocks.

    A transformer has an end behind its attention and one behind its Dense layers. Its ends come in periods of two, and
    the second one of each is that of a whole block. Where no period repeats, as with an encoder and a decoder, ends
    behind attention are halves, if others are behind them.

    Args:
        layers: for each end, the class names of the layers that compute since the end before it.

    Returns:
        Indices of ends.

    >>> whole_blocks([["Conv2D", "MultiHeadAttention"], ["Dense"], ["MultiHeadAttention"], ["Dense"]])
    [1, 3]
    """
    count = len(layers)
    for period in range(1, count // 2 + 1):
        if count == 2 or layers[period + 1 :] != layers[1 : count - period]:
            continue
        first = (count - 1) % period
        block = list(itertools.chain(*layers[count - period :]))
        # What comes before the first end includes the stem. With fewer halves than a block has it is a stem alone,
        # unless the block's other halves do not close.
        begin = list(itertools.chain(*layers[: first + 1]))
        if first == period - 1 or begin[-len(block) :] == block:
            return list(range(first, count, period))
        return list(range(first + period, count, period))
    others = [index for index in range(count) if "Attention" not in " ".join(layers[index])]
    return others if count - 1 in others else list(range(count))


# Kernels.


def auto_kernels(graph: Graph) -> list[Kernel]:
    """The kernels that `layers="auto"` compares."""
    outputs = {call.path for call in output_calls(graph)}
    over_positions, first = _paths_over_positions(graph), _paths_on_data(graph)
    dense, convolutions, later = [], [], []
    is_convolutional = False
    for kernel in all_kernels(graph):
        is_convolutional |= not kernel.dense
        if kernel.path in outputs or kernel.depthwise or kernel.filters < 2:
            continue
        if kernel.dense:
            dense.append(kernel)
        if not kernel.dense or kernel.path in over_positions:
            convolutions.append(kernel)
            if kernel.path not in first:
                later.append(kernel)
    if not is_convolutional or not convolutions:
        return dense
    if later:
        return _wide(later)
    return _wide(convolutions) if len(convolutions) > 1 else dense


def _wide(kernels: list[Kernel]) -> list[Kernel]:
    """The kernels that span more than one position, if they hold a quarter of the weights; else all."""
    wide = [kernel for kernel in kernels if kernel.window > 1]
    count = sum(map(operator.attrgetter("parameters"), kernels))
    return wide if 4 * sum(map(operator.attrgetter("parameters"), wide)) >= count else kernels


def _paths_over_positions(graph: Graph) -> set[str]:
    """The paths of kernels that are applied at every position of a map or sequence."""
    paths = set()
    for call in graph.calls:
        ranks = [len(x.shape) for x in call.inputs]
        if max(ranks, default=0) > 2:
            for kernel in kernels_of(call.operation, call.path):
                paths.add(kernel.path)
    return paths


def _paths_on_data(graph: Graph) -> set[str]:
    """The paths of kernels that read the data itself, before any other layer that computes or embeds."""
    paths: set[str] = set()
    computed: set[int] = set()
    for call in graph.calls:
        is_behind = not computed.isdisjoint(map(id, call.inputs))
        for kernel in kernels_of(call.operation, call.path)[:1]:
            if not is_behind:
                paths.add(kernel.path)
        if is_behind or computes(call.operation, embeddings=True):
            computed.update(map(id, call.outputs))
    return paths
