"""A network as a flat list of layer calls. The only file that knows Keras' graph API.

Backbones nested as layers are flattened: their own layers are called again on new symbolic inputs, so
that a tap inside a backbone is connected to the network's input. No variable is made or copied.
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
from keras import ops, tree
from keras.src.models.functional import Functional

# Stands for a size that the network leaves open (None) when stages are told apart by their sizes.
NOMINAL_SIZE = 224

# What a user's subclass of a graph model may override; wrapping would silently pass it by.
_OVERRIDES = ("call", "train_step", "test_step", "compute_loss", "compute_metrics")


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of one layer (or keras.ops operation) of the flattened network.

    Attributes:
        operation: the layer or operation that was called.
        path: names from the network down to the layer, `"resnet50/conv1_conv"` inside a backbone.
        inputs: symbolic tensors that went in.
        outputs: symbolic tensors that came out.
    """

    operation: Any
    path: str
    inputs: tuple[keras.KerasTensor, ...]
    outputs: tuple[keras.KerasTensor, ...]

    @property
    def name(self) -> str:
        return self.operation.name

    @property
    def output(self) -> keras.KerasTensor:
        return self.outputs[0]


class Graph:
    """The layer calls of a network in topological order, with the shape of every tensor.

    Args:
        network: a Functional or built Sequential model; `check_network` says what is accepted.
    """

    def __init__(self, network: keras.Model):
        self.name = network.name
        self.output_names = _output_names(symbolic_ends(network)[1])
        self.inputs, self.outputs, paths = _flatten(network)
        self.calls = _topological_calls(self.inputs, self.outputs, paths)
        self._shapes = self._known_shapes(network)
        self.producer = {id(output): call for call in self.calls for output in call.outputs}

    def shape(self, tensor: keras.KerasTensor) -> tuple[Any, ...]:
        """The shape of a tensor; sizes left open by the network are those for a nominal input."""
        return self._shapes[id(tensor)]

    def ancestors(self, tensor: keras.KerasTensor) -> list[Call]:
        """The calls that `tensor` depends on, its own producer last, in topological order."""
        wanted = {id(tensor)}
        found = []
        for call in reversed(self.calls):
            if any(id(output) in wanted for output in call.outputs):
                found.append(call)
                wanted.update(id(x) for x in call.inputs)
        return found[::-1]

    def tapped(self, taps: Sequence[keras.KerasTensor]) -> keras.Model:
        """The same layers as a model that also returns `taps`: `{"outputs": ..., "taps": [...]}`."""
        with _numbered({call.operation: None for call in self.calls}):
            return keras.Model(self.inputs, {"outputs": self.outputs, "taps": list(taps)})

    def _known_shapes(self, network: keras.Model) -> dict[int, tuple[int | None, ...]]:
        tensors = _all_tensors(self.inputs, self.calls)
        shapes = [tuple(x.shape) for x in tensors]
        if any(None in x.shape[1:] for x in tree.flatten(self.inputs)):
            inputs = tree.map_structure(_nominal_input, self.inputs)
            outputs = _replay(network, inputs, prefix="", training=None, paths={})
            twins = _all_tensors(inputs, _topological_calls(inputs, outputs, {}))
            shapes = [tuple(x.shape) for x in twins]
        return {id(x): shape for x, shape in zip(tensors, shapes, strict=True)}


def check_network(network: Any) -> None:
    """Raises one clear error if `network` has no graph of layers that can be read."""
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
            "so there is no graph of layers to read. Build it as keras.Model(inputs, outputs), for instance with "
            "inputs = keras.Input(shape) and outputs = network(inputs) over its parts."
        )
    overridden = [name for name in _OVERRIDES if not _is_keras_own(type(network), name)]
    if overridden:
        raise ValueError(
            f"Network '{network.name}' ({type(network).__name__}) overrides {', '.join(overridden)}, which training "
            "the wrapped network would pass by. Wrap keras.Model(network.inputs, network.outputs) instead."
        )


def _is_keras_own(cls: type, method: str) -> bool:
    return getattr(cls, method).__module__.partition(".")[0] == "keras"


def _has_graph(operation: Any) -> bool:
    return isinstance(operation, Functional | keras.Sequential) and _is_keras_own(type(operation), "call")


def symbolic_ends(model: keras.Model) -> tuple[Any, Any]:
    """The symbolic inputs and outputs of a model, in the structure the user gave them."""
    if isinstance(model, keras.Sequential):  # Keras 3.15: its `input` is that of a call of the whole, if any.
        return model.inputs[0], model.outputs[0]
    return model.input, model.output


def _output_names(outputs: Any) -> list[str]:
    """The names by which Keras knows the outputs: their keys in a dict, else the layers that they come from."""
    return [
        path[-1] if path and isinstance(path[-1], str) else output._keras_history.operation.name
        for path, output in tree.flatten_with_path(outputs)
    ]


@contextlib.contextmanager
def _numbered(operations: Iterable[Any]) -> Iterator[None]:
    """Numbers the operations' names for a while: Keras wants them unique, layers of two backbones may share one."""
    names = [(operation, operation.name) for operation in operations]
    try:
        for number, (operation, name) in enumerate(names):
            operation.name = f"{number}_{name}"
        yield
    finally:
        for operation, name in names:
            operation.name = name


def _flatten(network: keras.Model) -> tuple[Any, Any, dict[int, str]]:
    """The network's own symbolic inputs and outputs, or new ones that run through nested models."""
    inputs, outputs = symbolic_ends(network)
    if not any(_has_graph(layer) for layer in network.layers):
        return inputs, outputs, {}
    paths: dict[int, str] = {}
    inputs = tree.map_structure(_same_input, inputs)
    return inputs, _replay(network, inputs, prefix="", training=None, paths=paths), paths


def _replay(model: keras.Model, inputs: Any, prefix: str, training: bool | None, paths: dict[int, str]) -> Any:
    """Calls the layers of `model` on new symbolic `inputs`, going into nested models.

    What `backbone(x, training=False)` says holds for every layer inside, as far as Keras heeds it: in 3.15 `fit`
    overrides it (keras issue 20285), so that only `trainable = False` freezes BatchNormalization.
    """

    def operation_fn(operation):
        def call(*args, **kwargs):
            stated = kwargs.pop("training", None)
            stated = training if stated is None else stated
            path = prefix + operation.name
            if _has_graph(operation):
                entering = _entering(operation, args[0] if args else kwargs["inputs"], path + "/", paths)
                return _replay(operation, entering, path + "/", stated, paths)
            if stated is not None and "training" in inspect.signature(operation.call).parameters:
                kwargs["training"] = stated
            outputs = operation(*args, **kwargs)
            paths.update((id(output), path) for output in tree.flatten(outputs))
            return outputs

        return call

    return keras.Model(*symbolic_ends(model))._run_through_graph(inputs, operation_fn)


def _entering(model: keras.Model, inputs: Any, prefix: str, paths: dict[int, str]) -> list[Any]:
    """What a nested model is called on as its layers see it: in the order and of the dtype of its own inputs."""
    structure = symbolic_ends(model)[0]
    expected = tree.flatten(structure)
    by_name = isinstance(inputs, dict) and not isinstance(structure, dict)
    entering = [inputs[x.name] for x in expected] if by_name else tree.flatten(inputs)
    for index, (x, own) in enumerate(zip(entering, expected, strict=True)):
        if x is not None and x.dtype != own.dtype:  # None is an optional input.
            entering[index] = ops.cast(x, own.dtype)
            paths[id(entering[index])] = prefix + own.name
    return entering


def _same_input(tensor: keras.KerasTensor) -> keras.KerasTensor:
    return _input_of_shape(tensor, tensor.shape)


def _nominal_input(tensor: keras.KerasTensor) -> keras.KerasTensor:
    batch, *sizes = tensor.shape
    return _input_of_shape(tensor, (batch, *(NOMINAL_SIZE if size is None else size for size in sizes)))


def _input_of_shape(tensor: keras.KerasTensor, shape: tuple[int | None, ...]) -> keras.KerasTensor:
    config = {**tensor._keras_history.operation.get_config(), "batch_shape": shape}
    return keras.layers.InputLayer.from_config(config).output


def _topological_calls(inputs: Any, outputs: Any, paths: dict[int, str]) -> list[Call]:
    """The calls between `inputs` and `outputs`, each after all that it depends on."""
    known = {id(x) for x in tree.flatten(inputs)}
    done: set[int] = set()
    calls: list[Call] = []
    stack = [(_node(x), False) for x in reversed(tree.flatten(outputs)) if id(x) not in known]
    while stack:
        node, dependencies_done = stack.pop()
        if id(node) in done:
            continue
        if dependencies_done:
            done.add(id(node))
            path = paths.get(id(node.outputs[0]), node.operation.name)
            calls.append(Call(node.operation, path, tuple(node.input_tensors), tuple(node.outputs)))
            continue
        stack.append((node, True))
        stack.extend((_node(x), False) for x in reversed(node.input_tensors) if id(x) not in known)
    return calls


def _node(tensor: keras.KerasTensor) -> Any:
    operation, node_index, _ = tensor._keras_history
    return operation._inbound_nodes[node_index]


def _all_tensors(inputs: Any, calls: Sequence[Call]) -> list[keras.KerasTensor]:
    return [*tree.flatten(inputs), *(output for call in calls for output in call.outputs)]
