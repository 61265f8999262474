"""What `layers="auto"` stands for: the taps and the kernels that terms read by default.

**Taps** lie at the last block of each stage. Only tensors that depend on the main input and on a layer with weights
count, so masks, adjacency matrices and second inputs do not matter. The main input is the one with most layers and
blocks on every path from it to the output.

- A block ends at a merge (branches with equal position counts are added, averaged, subtracted or concatenated), at a
  composite layer (one that holds layers with weights, or a recurrent one), and after the normalization and activation
  right behind these.
- A stage is the layers that work at one number of positions. Its tap is its last block end that is on every path from
  input to output. Without blocks, it is the last layer with weights that is on every path. If only paths at other
  resolutions bypass it, as a U-Net's skips do, it is the last layer; if no tensor is on every path, the widest. What
  is computed at a lower resolution for one factor of a product alone is a gate, not a stage.
- Stages without blocks that are finer than all stages with blocks are a stem and have no tap, unless they are half of
  the stages.
- A network with one stage gets four block ends, evenly spaced. Two kinds of blocks that alternate, as attention and
  perceptron in a transformer, count as one block.

**Kernels** are those of convolutions, and of Dense layers over positions, which are 1×1 convolutions. If the kernels
wider than 1×1 hold a quarter of the weights, only these count. The head, depthwise kernels and kernels that read the
data itself are left out. A network without convolutions gives every Dense layer but the head.
"""

import keras
from keras import tree

from keras_collab.network.calls import Call
from keras_collab.network.graph import Graph
from keras_collab.network.layers import Kernel, computes, kernels_of
from keras_collab.network.stages import Stream

# Networks with fewer than two stages (a transformer, a stack of Dense layers) get this many taps, evenly spaced.
_EVEN_TAPS = 4


def auto_taps(graph: Graph) -> list[Call]:
    """The calls whose outputs `layers="auto"` taps, in the order of the network."""
    main, most = None, 0
    for output in tree.flatten(graph.outputs):
        count = len(graph.ancestors(output))
        if main is None or count > most:
            main, most = output, count
    stream = _main_stream(graph, main)
    taps = list(map(stream.end, stream.stages()))
    if len(taps) > 1:
        return sorted(taps, key=graph.calls.index)  # A decoder's stages come from coarse to fine.
    return _evenly(stream.blocks_of_one_stage())


def _main_stream(graph: Graph, output: keras.KerasTensor) -> Stream:
    """The calls from the main input; a condition has fewer on every path, since it stays alive beside the blocks."""
    first, *others = tree.flatten(graph.inputs)
    main = Stream(graph, first, output)
    for start in others:
        stream = Stream(graph, start, output)
        if stream.depth > main.depth:
            main = stream
    return main


def _evenly(calls: list[Call]) -> list[Call]:
    chosen = []
    count = min(_EVEN_TAPS, len(calls))
    for index in range(1, count + 1):
        chosen.append(calls[index * len(calls) // count - 1])
    return chosen


def auto_kernels(graph: Graph, heads: set[str]) -> list[Kernel]:
    """The kernels that `layers="auto"` compares.

    Args:
        heads: paths of the layers that make the outputs, which are left out.
    """
    over_positions, first = _paths_over_positions(graph), _paths_on_data(graph)
    dense, convolutions, later = [], [], []
    is_convolutional = False
    for kernel in _all_kernels(graph):
        is_convolutional |= not kernel.dense
        if kernel.path in heads or kernel.depthwise or kernel.filters < 2:
            continue
        if kernel.dense:
            dense.append(kernel)
        if not kernel.dense or kernel.path in over_positions:
            convolutions.append(kernel)
            if kernel.path not in first:
                later.append(kernel)
    if not is_convolutional or not convolutions:
        return dense
    if not later and len(convolutions) > 1:
        later = convolutions
    return _wide(later)


def _wide(kernels: list[Kernel]) -> list[Kernel]:
    """The kernels that span more than one position, if they hold a quarter of the weights; else all."""
    wide = [kernel for kernel in kernels if kernel.window > 1]
    return wide if 4 * _weights(wide) >= _weights(kernels) else kernels


def _weights(kernels: list[Kernel]) -> int:
    count = 0
    for kernel in kernels:
        count += kernel.weights
    return count


def _all_kernels(graph: Graph) -> list[Kernel]:
    """The kernels of all layers, each once, under its first path."""
    kernels: dict[int, Kernel] = {}
    for call in graph.calls:
        for kernel in kernels_of(call.operation, call.path):
            kernels.setdefault(id(kernel.layer), kernel)
    return list(kernels.values())


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
    """The paths of kernels that read the data itself, before any other layer with weights."""
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
