"""Blocks and stages of a network between its main input and an output; auto.py has the rules in words."""

import collections
import math
from collections.abc import Sequence

import keras
from keras import tree

from keras_collab.network.calls import Call
from keras_collab.network.channels import channels_first
from keras_collab.network.graph import Graph
from keras_collab.network.layers import computes, is_composite
from keras_collab.network.merging import merges, refines
from keras_collab.network.paths import alive_after, begins, computed_from, factors_of_products
from keras_collab.network.periods import whole_blocks

# A resolution starts a new stage if it is at most this share of the one before, or half of it, rounded up: 149 and 147
# pixels are one stage, 5, 3 and 2 are three.
_NEW_STAGE = 0.6

_ENDS_FEATURE_MAPS = (
    keras.layers.Flatten,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
)


class Stream:
    """The calls between an input and an output, and what is known of them.

    Attributes:
        calls: those whose output is the input's and was computed by trained weights, in topological order.
        on_every_path: those of them whose output every path goes through.
        on_every_path_here: those whose output every path at their resolution goes through; a decoder's skips may not.
        readable: those whose output may be tapped: numbers, one row a sample.
        block_ends: those of the readable that end a block.
        maps: those of the readable before global pooling whose output has positions.
    """

    def __init__(self, graph: Graph, start: keras.KerasTensor, output: keras.KerasTensor):
        self.graph = graph
        self._first = channels_first(graph)
        ancestors = graph.ancestors(output)
        self._of_any_input = computed_from(ancestors, tree.flatten(graph.inputs))
        computed = computed_from(ancestors, [start])
        self.calls = [call for call in ancestors if id(call.output) in computed]
        self.on_every_path: set[Call] = set()
        self.on_every_path_here: set[Call] = set()
        self._beside: dict[Call, set[int]] = {}
        counted = computed | begins(ancestors, [start], computed)
        for call, tensors in alive_after(self.calls, output, counted).items():
            self._beside[call] = set(map(id, tensors)) - {id(call.output)}
            self._note_paths(call, tensors)
        self.readable = list(filter(self._is_readable, self.calls))
        self.block_ends = self._block_ends()
        self.maps = self._maps()

    @property
    def depth(self) -> int:
        """The number of layers with weights and ends of blocks that no path avoids."""
        count = 0
        for call in self.on_every_path:
            count += call in self.block_ends or computes(call.operation)
        return count

    def _note_paths(self, call: Call, alive: Sequence[keras.KerasTensor]) -> None:
        """Notes whether a call is on every path, given what is alive after it."""
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
        is_first = self._first.get(id(tensor), False)
        return math.prod(shape[2:] if is_first else shape[1:-1])

    def _channels(self, call: Call) -> int:
        shape = self.graph.shape(call.output)
        return shape[1] if self._first[id(call.output)] else shape[-1]

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
        """Whether the only computed branch of a sum was computed from another one: the data, or an embedding."""
        read: set[int] = set()
        for ancestor in self.graph.ancestors(branch):
            read.update(map(id, ancestor.inputs))
        others = [x for x in call.inputs if id(x) in read and x.shape == branch.shape]
        return bool(others) and type(call.operation).__name__ != "Concatenate"

    def _block_ends(self) -> set[Call]:
        """The calls that end blocks, and the normalizations and activations right after them that no path avoids.

        Beside longer paths at other resolutions these count if nothing else reads what they refine.
        """
        readers: collections.Counter[int] = collections.Counter()
        for call in self.calls:
            readers.update(map(id, call.inputs))
        closing = set(filter(self._ends_block, self.readable))
        tensors = set()
        for call in self.readable:
            refined = id(call.inputs[0])
            follows = call in self.on_every_path_here and readers[refined] == 1
            if (follows or call in self.on_every_path) and refines(call) and refined in tensors:
                closing.add(call)
            if call in closing:
                tensors.add(id(call.output))
        return closing

    def _maps(self) -> list[Call]:
        """The calls whose output has channels and positions, up to global pooling; gates are left out."""
        maps: list[Call] = []
        products = factors_of_products(self.calls)
        for call in self.calls:
            has_positions = len(call.output.shape) > 2
            ends = isinstance(call.operation, _ENDS_FEATURE_MAPS) or not has_positions
            if ends and call in self.on_every_path and maps:
                break
            if has_positions and call in self.readable and not self._gates(call, products):
                maps.append(call)
        return maps

    def _gates(self, call: Call, products: dict[int, Call]) -> bool:
        """Whether some path avoids a call on one position, or on fewer than the product has that alone reads it."""
        count = self.positions(call.output)
        product = products.get(id(call.output))
        is_coarser = product is not None and count < self.positions(product.output)
        return call not in self.on_every_path and (count == 1 or is_coarser)

    def _works(self, call: Call) -> bool:
        return call in self.block_ends or computes(call.operation) or refines(call)

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

    def _resolutions(self) -> list[list[Call]]:
        """The maps that layers compute, grouped by resolution from fine to coarse."""
        working = list(filter(self._works, self.maps))
        axes = 1
        for call in working:
            axes = max(axes, min(2, len(call.output.shape) - 2))
        of_side: dict[float, list[Call]] = {}
        for call in working:
            # As if the positions were a square, if not a line: 49 tokens are as coarse as 7×7 pixels.
            count = self.positions(call.output)
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
            if call in self.on_every_path and self._works(call):
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
        """The last call of a stage that all paths cross, else its last, else the last of those with most channels.

        Its last only if no other path at its resolution avoids it.
        """
        for call in reversed(stage):
            if call in self.on_every_path:
                return call
        if stage[-1] in self.on_every_path_here:
            return stage[-1]
        widest = stage[0]
        for call in stage:
            if self._channels(call) >= self._channels(widest):
                widest = call
        return widest

    def blocks_of_one_stage(self) -> list[Call]:
        """The ends of blocks in a network that has one resolution, without its last layer that computes."""
        last = 0
        for index, call in enumerate(self.calls):
            if computes(call.operation):
                last = index
        ends: list[Call] = []
        for call in self.calls[:last]:
            if call not in self.on_every_path or call not in self.readable:
                continue
            if refines(call) and ends and call.inputs[0] is ends[-1].output:
                ends[-1] = call
            elif computes(call.operation) or call in self.block_ends:
                ends.append(call)
        blocks = [call for call in ends if call in self.block_ends]
        if 2 * len(blocks) <= len(ends):
            blocks = ends
        return blocks[whole_blocks(self._layers_before(blocks))]

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
    """The number of finest stages without a block: a stem, unless they are half of the network."""
    for index, stage in enumerate(blocks):
        if stage:
            return index if 2 * index < len(blocks) else 0
    return 0
