"""What a term can read of a network: taps, kernels and heads, chosen by name or by rule."""

import dataclasses
import functools

import keras
from keras import ops

from keras_collab._types import Operation, Tensor
from keras_collab.network.auto import auto_kernels, auto_taps
from keras_collab.network.calls import Call
from keras_collab.network.graph import Graph, check_network
from keras_collab.network.head import Head, find_heads
from keras_collab.network.layers import Kernel, all_kernels
from keras_collab.network.names import LAYERS_HELP, Layers, choose, path_of, quoted


@dataclasses.dataclass(frozen=True, eq=False)
class Tap:
    """The output of one call of a layer, read during training.

    Attributes:
        path: names from the network down to the layer.
        tensor: the symbolic output.
        shape: its shape; None for the batch and for sizes that the network leaves open.
        channels_first: whether channels are on axis 1, otherwise on the last.
        mask: symbolic Keras mask, true for valid positions, of the batch and one or more of the axes after it; None if
            all are valid. `valid` gives its values for all positions.
    """

    path: str
    tensor: keras.KerasTensor
    shape: tuple[int | None, ...]
    channels_first: bool
    mask: keras.KerasTensor | None = None

    def made_by(self, graph: Graph) -> list[Operation]:
        """All operations that the tap depends on, its own last."""
        return graph.operations_before(self.tensor)

    def channels_last(self, values: Tensor) -> Tensor:
        """The tap's values, or its symbolic tensor, with the channels on the last axis."""
        return ops.moveaxis(values, 1, -1) if self.channels_first else values

    def valid(self, values: Tensor, mask: Tensor) -> Tensor:
        """The mask's values over all positions, boolean `(batch, positions...)`; None if all are valid.

        Args:
            values: the tap's values with the channels on the last axis.
            mask: the mask's values, or None.
        """
        if mask is None:
            return None
        mask = ops.cast(mask, "bool")
        while len(mask.shape) < len(values.shape) - 1:
            mask = ops.expand_dims(mask, -1)  # A mask of frames holds for all positions of a frame.
        return mask & ops.ones_like(values[..., 0], dtype="bool")

    @property
    def channels(self) -> int:
        axis = 1 if self.channels_first else -1
        return int(self.shape[axis] or 0)

    @property
    def positions(self) -> tuple[int, ...]:
        """Lengths of the axes besides batch and channels, 1 for an open one; empty after global pooling."""
        sizes = self.shape[2:] if self.channels_first else self.shape[1:-1]
        return tuple(int(size or 1) for size in sizes)


Source = Tap | Kernel | Head
"""What a term reads."""


@dataclasses.dataclass(frozen=True)
class Selection:
    """What a term reads of a network; returned by `Term.select`.

    Attributes:
        taps: from `NetworkReader.taps`.
        head: from `NetworkReader.head`, or None.
        kernels: from `NetworkReader.kernels`.
        targets: those of the taps, and the head, that the term gives no gradient to: the others learn from them.
    """

    taps: tuple[Tap, ...] = ()
    head: Head | None = None
    kernels: tuple[Kernel, ...] = ()
    targets: tuple[Tap | Head, ...] = ()

    @property
    def sources(self) -> list[Source]:
        """All taps, kernels and the head."""
        sources: list[Source] = [*self.taps, *self.kernels]
        if self.head is not None:
            sources.append(self.head)
        return sources

    @property
    def is_empty(self) -> bool:
        """Whether there are no taps, no head and no kernels."""
        return not self.sources


class NetworkReader:
    """Finds taps, kernels and heads in a network, for `Term.select`.

    Args:
        network: a Functional or built Sequential model.
    """

    def __init__(self, network: keras.Model):
        check_network(network)
        self.graph = Graph(network)
        self._heads = find_heads(self.graph)

    def taps(self, layers: Layers = "auto", *, at_least: int = 1) -> tuple[Tap, ...]:
        """The outputs of the chosen layers, in the order of the network: the deepest is the last.

        Args:
            layers: names, a regular expression, a function of the layer, or `"auto"`: the last block of each stage, or
                four blocks of a network with one stage. Defaults to `"auto"`.
            at_least: integer, >= 0. Smallest number of taps. Defaults to 1.

        Returns:
            A tuple of `Tap`.

        Raises:
            ValueError: if no layer has a name, there are fewer taps, or a layer folds frames or patches into the batch.
            TypeError: if `layers` is none of these.
        """
        calls = self._tapped_calls(layers)
        if len(calls) < at_least:
            names = quoted(map(path_of, calls)) or "none"
            raise ValueError(
                f"{at_least} layers are needed, network '{self.graph.name}' has {len(calls)} for layers={layers!r}: "
                f"{names}. Name more of them; {LAYERS_HELP}."
            )
        taps = []
        for call in calls:
            if not self.graph.is_per_sample(call.output):
                raise ValueError(
                    f"layer '{call.path}' of network '{self.graph.name}' gives a tensor whose first axis does not "
                    "count the samples of the batch: frames, patches or windows are folded into it. Choose a layer "
                    "before or after."
                )
            taps.append(_tap(self.graph, call))
        return tuple(taps)

    def kernels(self, layers: Layers = "auto", *, at_least: int = 1) -> tuple[Kernel, ...]:
        """The filters of the chosen layers, each layer once, in the order of the network.

        Args:
            layers: names, a regular expression, a function of the layer, or `"auto"`: every convolution but the first
                and the depthwise ones. 1×1 convolutions, and Dense layers over positions, are left out if the other
                convolutions hold a quarter of the weights or more. A network without convolutions gives every Dense
                layer but those that make the outputs. Defaults to `"auto"`.
            at_least: integer, >= 0. Smallest number of kernels. Defaults to 1.

        Returns:
            A tuple of `Kernel`.

        Raises:
            ValueError: if no layer has a name, or fewer layers have two filters to compare.
            TypeError: if `layers` is none of these.
        """
        candidates = all_kernels(self.graph)
        if layers == "auto":
            kernels = auto_kernels(self.graph)
        else:
            kernels = choose(candidates, layers, "a layer with a kernel", self.graph.name)
        comparable = [kernel for kernel in kernels if kernel.filters > 1]
        if len(comparable) < at_least:
            names = ", ".join(map(path_of, candidates)) or "none"
            left_out = ", which leaves out the first convolution and the outputs" if layers == "auto" else ""
            raise ValueError(
                f"network '{self.graph.name}' has {len(comparable)} layers with two or more filters to compare for "
                f"layers={layers!r}{left_out}; {at_least} or more are needed. {LAYERS_HELP}; "
                f"layers with kernels: {names}."
            )
        return tuple(comparable)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The classifiers at the end of the network, one for each output that has one."""
        heads = []
        for head in self._heads:
            if isinstance(head, Head):
                heads.append(head)
        return tuple(heads)

    def head(self, output: str | None = None) -> Head:
        """The classifier at the end of the network.

        Args:
            output: the name of an output, needed if there are several. Defaults to the only one.

        Returns:
            A `Head`.

        Raises:
            ValueError: if no classifier makes this output, or there are several and none is named.
        """
        head = self._only_head() if output is None else self._head_named(output)
        if not isinstance(head, Head):
            raise ValueError(
                f"no classifier ends network '{self.graph.name}': {head}. Expected a Dense layer, or a 1×1 "
                "convolution on one position, that ends in softmax, sigmoid or logits. Leave this term out, "
                "or end the network with such a layer."
            )
        return head

    def _only_head(self) -> Head | str:
        if len(self._heads) > 1:
            raise ValueError(
                f"network '{self.graph.name}' has {len(self._heads)} outputs; choose one with output=. "
                f"Outputs with a classifier: {self._head_names()}."
            )
        return self._heads[0]

    def _head_named(self, name: str) -> Head:
        named = [head for head in self.heads if head.name == name]
        if len(named) > 1:
            raise ValueError(f"several outputs are named {name!r} in network '{self.graph.name}'; name them apart.")
        if not named:
            raise ValueError(
                f"no classifier makes an output named {name!r} in network '{self.graph.name}'. "
                f"Outputs with a classifier: {self._head_names()}."
            )
        return named[0]

    def _head_names(self) -> list[str]:
        names = []
        for head in self.heads:
            names.append(head.name)
        return names

    def _tapped_calls(self, layers: Layers) -> list[Call]:
        if layers == "auto":
            return self._auto_taps
        return choose(self.graph.calls, layers, "a layer", self.graph.name)

    @functools.cached_property
    def _auto_taps(self) -> list[Call]:
        return auto_taps(self.graph)


def _tap(graph: Graph, call: Call) -> Tap:
    tensor = call.output
    channels_first = graph.channels_first(tensor)
    shape = (None, *tensor.shape[1:])
    mask = None if channels_first else graph.mask(tensor)  # Keras masks the axes after the batch: there the channels.
    return Tap(call.path, tensor, shape, channels_first, mask)
