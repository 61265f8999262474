"""What a term may ask of a network when it is wrapped: taps, kernels and heads, by name or by rule."""

import dataclasses
import difflib
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_collab.network.auto import auto_kernels, auto_taps
from keras_collab.network.channels import channels_first
from keras_collab.network.graph import Call, Graph
from keras_collab.network.head import Head, find_heads
from keras_collab.network.layers import Kernel, kernels_of

Layers = str | Sequence[str] | Callable[[keras.Layer], bool]

_LAYERS_HELP = (
    "`layers` takes a list of names, a regular expression, a function of the layer that says yes or no, "
    'or "auto" for the default choice'
)


@dataclasses.dataclass(frozen=True, eq=False)
class Tap:
    """The output of one call of a layer, read during training.

    Attributes:
        path: names from the network down to the layer.
        tensor: the symbolic output.
        shape: its shape; None for the batch and for sizes that the network leaves open.
        channels_first: channels are on axis 1, not on the last.
        mask: symbolic, which positions count, `(batch, positions...)` of booleans; None for all of them.
    """

    path: str
    tensor: keras.KerasTensor
    shape: tuple[int | None, ...]
    channels_first: bool
    mask: keras.KerasTensor | None = None

    def channels_last(self, values: Any) -> Any:
        """The tap's values, or its symbolic tensor, with the channels on the last axis."""
        return ops.moveaxis(values, 1, -1) if self.channels_first else values

    @property
    def channels(self) -> int:
        return int(self.shape[1 if self.channels_first else -1] or 0)

    @property
    def position_count(self) -> int:
        return math.prod(self.positions)

    @property
    def positions(self) -> tuple[int, ...]:
        """Sizes of the axes that are neither batch nor channels, 1 for an open one; empty after global pooling."""
        return tuple(int(size or 1) for size in (self.shape[2:] if self.channels_first else self.shape[1:-1]))


@dataclasses.dataclass(frozen=True)
class Selection:
    """What a term reads of one network, settled when the network is wrapped."""

    taps: tuple[Tap, ...] = ()
    head: Any = None  # a Head
    kernels: tuple[Kernel, ...] = ()

    @property
    def paths(self) -> list[str]:
        """The layers that `layers=` came to stand for, each once."""
        return list(dict.fromkeys([*(tap.path for tap in self.taps), *(kernel.path for kernel in self.kernels)]))

    @property
    def is_empty(self) -> bool:
        """Whether nothing of the network is read but its outputs."""
        return not (self.taps or self.kernels) and self.head is None


class NetworkReader:
    """Finds taps, kernels and heads in a network; every miss is one clear error."""

    def __init__(self, network: keras.Model):
        self.graph = Graph(network)
        self._heads = find_heads(self.graph)

    def taps(self, layers: Layers = "auto", *, at_least: int = 1) -> tuple[Tap, ...]:
        """The outputs of the chosen layers, in the order of the network, the deepest last.

        Args:
            layers: names, a regular expression, a function of the layer, or `"auto"`: the end of each stage.
            at_least: how many are needed.
        """
        calls = self._auto_taps if layers == "auto" else self._select(self.graph.calls, layers, "a layer")
        if len(calls) < at_least:
            found = ", ".join(f"'{call.path}'" for call in calls) or "none"
            raise ValueError(
                f"{at_least} layers are needed, {len(calls)} found in network '{self.graph.name}' for "
                f"layers={layers!r}: {found}. Name more of them; {_LAYERS_HELP}."
            )
        folded = [call.path for call in calls if not self.graph.is_per_sample(call.output)]
        if folded:
            raise ValueError(
                f"layers {folded} of network '{self.graph.name}' give tensors whose first axis does not count the "
                "samples of the batch: frames, patches or windows are folded into it. Choose layers before or after."
            )
        first = channels_first(self.graph)
        return tuple(_tap(self.graph, call, first[id(call.output)]) for call in calls)

    def kernels(self, layers: Layers = "auto", *, at_least: int = 1) -> tuple[Kernel, ...]:
        """The filters of the chosen layers, each layer once, in the order of the network.

        Args:
            layers: names, a regular expression, a function of the layer, or `"auto"`: every convolution but the
                first and the depthwise ones, and without the 1×1 ones where the others hold a quarter of the weights or
                more; in a network without convolutions every Dense layer but the head.
            at_least: how many are needed, 1 or none.
        """
        calls = self._calls_with_kernels()
        if layers == "auto":
            kernels = auto_kernels(self.graph, {head.path for head in self.heads})
        else:
            chosen = self._select(calls, layers, "a layer with a kernel")
            kernels = [kernel for call in chosen for kernel in kernels_of(call.operation, call.path)]
        comparable = [kernel for kernel in kernels if kernel.filters > 1]
        if len(comparable) < at_least:
            raise ValueError(
                f"no layer with two or more filters to compare in network '{self.graph.name}' for layers={layers!r}. "
                f"{_LAYERS_HELP}; layers with kernels: {', '.join(call.path for call in calls) or 'none'}."
            )
        return tuple(comparable)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The classifiers at the end of the network, one an output that has one."""
        return tuple(head for head in self._heads if isinstance(head, Head))

    def head(self, name: str | None = None) -> Head:
        """The classifier at the end of the network; `name` chooses among several outputs."""
        names = [head.name if isinstance(head, Head) else None for head in self._heads]
        if name is None and len(self._heads) > 1:
            raise ValueError(
                f"network '{self.graph.name}' has {len(names)} outputs; choose one with head=. "
                f"Outputs with a classifier: {[n for n in names if n]}."
            )
        if name is not None and names.count(name) > 1:
            raise ValueError(f"several outputs are named {name!r} in network '{self.graph.name}'; name them apart.")
        if name is not None and name not in names:
            raise ValueError(
                f"no classifier makes an output named {name!r} in network '{self.graph.name}'. "
                f"Outputs with a classifier: {[n for n in names if n]}."
            )
        head = self._heads[0] if name is None else self._heads[names.index(name)]
        if not isinstance(head, Head):
            raise ValueError(
                f"no classifier found in network '{self.graph.name}': {head}. Expected a Dense layer, or a 1×1 "
                "convolution on one position, that ends in softmax, sigmoid or logits. Leave this term out, "
                "or end the network with such a layer."
            )
        return head

    @functools.cached_property
    def _auto_taps(self) -> list[Call]:
        return auto_taps(self.graph)

    def _calls_with_kernels(self) -> list[Call]:
        """One call for each layer that has a kernel; of layers inside another, that of the outer one."""
        calls: dict[int, Call] = {}
        for call in self.graph.calls:
            for kernel in kernels_of(call.operation, call.path):
                inner = dataclasses.replace(call, operation=kernel.layer, path=kernel.path)
                calls.setdefault(id(kernel.layer), inner)
        return list(calls.values())

    def _select(self, calls: Sequence[Call], layers: Layers, kind: str) -> list[Call]:
        if isinstance(layers, str):
            named = [call for call in calls if layers in (call.name, call.path)]
            pattern = _compile(layers)
            found = named or [c for c in calls if pattern.fullmatch(c.name) or pattern.fullmatch(c.path)]
            if not found:
                raise ValueError(self._no_layer(calls, layers, kind))
            return found
        if callable(layers):
            found = [call for call in calls if layers(call.operation)]
            if not found:
                raise ValueError(
                    f"the function given as layers= says yes to {kind} nowhere in network '{self.graph.name}'. "
                    f"{_LAYERS_HELP}."
                )
            return found
        if not isinstance(layers, Sequence) or not all(isinstance(name, str) for name in layers) or not layers:
            raise TypeError(f"{_LAYERS_HELP}. Received: layers={layers!r}.")
        for name in layers:
            paths = {call.path for call in calls if name in (call.name, call.path)}
            if not paths:
                raise ValueError(self._no_layer(calls, name, kind))
            if len(paths) > 1:
                raise ValueError(
                    f"several layers are named {name!r} in network '{self.graph.name}'; give one path of "
                    f"{sorted(paths)}."
                )
        return [call for call in calls if call.name in layers or call.path in layers]

    def _no_layer(self, calls: Sequence[Call], asked: str, kind: str) -> str:
        names = list(dict.fromkeys([c.name for c in calls] + [c.path for c in calls]))
        close = difflib.get_close_matches(asked, names, n=3)
        hint = f"Close matches: {', '.join(repr(name) for name in close)}. " if close else ""
        return f"no name of {kind} matches {asked!r} in network '{self.graph.name}'. {hint}{_LAYERS_HELP}."


def _tap(graph: Graph, call: Call, channels_first: bool) -> Tap:
    tensor = call.output
    return Tap(call.path, tensor, (None, *tensor.shape[1:]), channels_first, graph.mask(tensor))


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"layers={pattern!r} is not a regular expression: {error}. {_LAYERS_HELP}.") from error


def trained_part(selection: Selection, graph: Graph) -> Selection:
    """What training can change of a selection: frozen kernels, and taps behind frozen layers only, are left out.

    A term that reads taps reads nothing where none of them can change.
    """
    kernels = tuple(kernel for kernel in selection.kernels if kernel.trainable)
    taps = tuple(tap for tap in selection.taps if _is_trained(tap.tensor, graph))
    if selection.taps and not taps:
        return Selection()
    head = selection.head
    if head is not None and not taps and not head.layer.trainable_weights and not _is_trained(head.features, graph):
        head = None
    return Selection(taps=taps, head=head, kernels=kernels)


def _is_trained(tensor: keras.KerasTensor, graph: Graph) -> bool:
    for call in graph.ancestors(tensor):
        if isinstance(call.operation, keras.Layer) and call.operation.trainable_weights:
            return True
    return False
