"""A network as a flat list of layer calls. This file, calls.py and nested.py alone know Keras' graph API.

Backbones nested as layers are flattened, see nested.py. No variable is made or copied.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
from keras import tree
from keras.src import backend
from keras.src.models.functional import Functional

from keras_collab._types import Operation, Structure, Tensor
from keras_collab.network.calls import Call, is_keras_own, symbolic_ends, topological_calls
from keras_collab.network.channels import channels_first
from keras_collab.network.nested import flatten
from keras_collab.network.sizes import probe

# What a user's subclass of a graph model may override; wrapping would silently pass it by.
_OVERRIDES = (
    "__call__",
    "call",
    "compile",
    "compute_loss",
    "compute_metrics",
    "evaluate",
    "fit",
    "get_metrics_result",
    "losses",
    "make_predict_function",
    "make_test_function",
    "make_train_function",
    "predict",
    "predict_on_batch",
    "predict_step",
    "test_on_batch",
    "test_step",
    "train_on_batch",
    "train_step",
)


class Graph:
    """The layer calls of a network in topological order, with the shape of every tensor.

    Args:
        network: a Functional or built Sequential model; `check_network` says what is accepted.
    """

    def __init__(self, network: keras.Model):
        self.name = network.name
        self.output_names = _output_names(symbolic_ends(network)[1])
        flat = flatten(network)
        self.inputs, self.outputs = flat.inputs, flat.outputs
        self._states = list(zip(flat.models, map(_state, flat.models), strict=True))
        self.calls = topological_calls(self.inputs, self.outputs, flat.paths)
        self._channels_first = channels_first(self.calls)
        self._masks = _masks(self.inputs, self.calls)
        with_masks = [self.outputs, list(self._masks.values())]
        self._sizes = probe(self.inputs, topological_calls(self.inputs, with_masks, flat.paths))
        self.producer: dict[int, Call] = {}
        for call in self.calls:
            self.producer.update(dict.fromkeys(map(id, call.outputs), call))

    def shape(self, tensor: keras.KerasTensor) -> tuple[Any, ...]:
        """The shape of a tensor; for sizes that the network leaves open, those from inputs of a size it accepts."""
        return (None, *self._sizes.shapes[id(tensor)][1:])

    def channels_first(self, tensor: keras.KerasTensor) -> bool:
        """Whether a tensor has its channels on axis 1, otherwise on the last."""
        return id(tensor) in self._channels_first

    def is_per_sample(self, tensor: keras.KerasTensor) -> bool:
        """Whether the first axis of a tensor is the batch, without frames or windows folded into it."""
        return self._sizes.shapes[id(tensor)][:1] == (self._sizes.batch,)

    def mask(self, tensor: keras.KerasTensor) -> keras.KerasTensor | None:
        """The Keras mask of a tensor, over the batch and one or more axes after it; None if it has none."""
        mask = self._masks.get(id(tensor))
        if mask is None:
            return None
        sizes = self._sizes.shapes[id(mask)]
        shape = self._sizes.shapes[id(tensor)]
        return mask if len(sizes) < len(shape) and sizes == shape[: len(sizes)] else None

    def ancestors(self, tensor: keras.KerasTensor) -> list[Call]:
        """The calls that `tensor` depends on, its own producer last, in topological order."""
        wanted = {id(tensor)}
        needed = []
        for call in reversed(self.calls):
            if not wanted.isdisjoint(map(id, call.outputs)):
                needed.append(call)
                wanted.update(map(id, call.inputs))
        return needed[::-1]

    def operations_before(self, tensor: keras.KerasTensor) -> list[Operation]:
        """The layers and functions that `tensor` depends on, its own last, in topological order."""
        return [call.operation for call in self.ancestors(tensor)]

    def tapped(self, taps: Sequence[keras.KerasTensor]) -> keras.Model:
        """The same layers as a model that also returns `taps`: `{"outputs": ..., "taps": [...]}`."""
        outputs = {"outputs": self.outputs, "taps": list(taps)}
        calls = topological_calls(self.inputs, outputs, {})  # A tap's mask may need calls that the outputs do not.
        operations = {id(call.operation): call.operation for call in calls}
        with _numbered(operations.values()):
            return keras.Model(self.inputs, outputs)

    def check_unchanged(self) -> None:
        """Raises if layers of the network were added, removed or quantized after it was read."""
        for model, state in reversed(self._states):  # The innermost is the one that was changed.
            if _state(model) != state:
                raise ValueError(
                    f"Network '{model.name}' was changed after it was wrapped: layers were added, removed or "
                    "quantized, and the wrapped model would go on with the old ones. To train, wrap the network again, "
                    "keras_collab.wrap(network), and compile that model; to save, save the network: "
                    "model.unwrap().save(...)."
                )


def check_network(network: Any) -> None:
    """Raises an error if `network` has no graph of layers that can be read."""
    if not isinstance(network, keras.Model):
        raise TypeError(
            f"`network` must be a Functional or Sequential keras.Model. Received: {network!r} (of type "
            f"{type(network).__name__})."
        )
    if isinstance(network, keras.Sequential) and not network.built:
        raise ValueError(
            f"Network '{network.name}' was never built, so it has no layers to read yet. Start it with "
            "keras.Input(shape), or call network.build((None, ...)) before wrapping it."
        )
    if not isinstance(network, Functional | keras.Sequential):
        raise ValueError(
            f"Network '{network.name}' is a subclassed model ({type(network).__name__}): its call() is Python code, "
            "so there is no graph of layers to read. Build it as keras.Model(inputs, outputs): begin with "
            "inputs = keras.Input(shape) and call its layers in turn."
        )
    overridden = [name for name in _OVERRIDES if name in vars(network) or not is_keras_own(type(network), name)]
    if overridden:
        raise ValueError(
            f"Network '{network.name}' ({type(network).__name__}) overrides {', '.join(overridden)}, which the "
            "wrapped model would not call. Wrap keras.Model(network.inputs, network.outputs) instead, and before "
            "training do what the override does, such as preprocessing the data. The same holds for a keras-hub task; "
            "or wrap a model made of its backbone."
        )


def _state(model: keras.Model) -> list[Any]:
    """What changes when layers are added to a Sequential, removed from it, or quantized."""
    state: list[Any] = list(map(id, tree.flatten(symbolic_ends(model))))
    for layer in model._flatten_layers():
        state.append(layer.dtype_policy.name)
    return state


def _output_names(outputs: Structure) -> list[str]:
    """The names by which Keras knows the outputs: their keys in a dict, else the layers that they come from."""
    names = []
    for path, output in tree.flatten_with_path(outputs):
        has_key = path and isinstance(path[-1], str)
        names.append(path[-1] if has_key else output._keras_history.operation.name)
    return names


@contextlib.contextmanager
def _numbered(operations: Iterable[Any]) -> Iterator[None]:
    """Numbers the operations' names for a while, since Keras needs unique ones and two backbones may share names."""
    names = [(operation, operation.name) for operation in operations]
    try:
        for number, (operation, name) in enumerate(names):
            operation.name = f"{number}_{name}"
        yield
    finally:
        for operation, name in names:
            operation.name = name


def _masks(inputs: Structure, calls: Sequence[Call]) -> dict[int, keras.KerasTensor]:
    """The masks that Keras attached to tensors when the layers were called, by the tensors' id."""
    masks: dict[int, keras.KerasTensor] = {}
    computable: dict[int, bool] = {}
    for call in calls:
        for x in call.outputs:
            mask = backend.get_keras_mask(x)
            if id(mask) not in computable:
                computable[id(mask)] = _is_computable(inputs, mask)
            if computable[id(mask)]:
                masks[id(x)] = mask
    return masks


def _is_computable(inputs: Structure, tensor: Tensor) -> bool:
    """Whether a tensor depends on the inputs; a mask in a graph that Keras cloned depends on the original graph."""
    if not isinstance(tensor, keras.KerasTensor):
        return False
    try:
        keras.Function(inputs, tensor)
    except ValueError:
        return False
    return True
