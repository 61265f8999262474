"""A network as a flat list of layer calls. The only file that knows Keras' graph API.

Backbones nested as layers are flattened: their own layers are called again on new symbolic inputs, so
that a tap inside a backbone is connected to the network's input. No variable is made or copied. A nested model that
does more than run its layers, or is called with more than its inputs, is one opaque layer.
"""

import contextlib
import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras
from keras import ops, tree
from keras.src import backend
from keras.src.models.functional import Functional

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
    arguments: Any  # Keras' symbolic arguments of the call.

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
        self.inputs, self.outputs, paths, models = _flatten(network)
        self._state = [(model, _state(model)) for model in models]
        self.calls = _topological_calls(self.inputs, self.outputs, paths)
        self._masks = _masks(self.inputs, self.calls)
        with_masks = [self.outputs, list(self._masks.values())]
        self._sizes = probe(self.inputs, _topological_calls(self.inputs, with_masks, paths))
        self.producer = {id(output): call for call in self.calls for output in call.outputs}

    def shape(self, tensor: keras.KerasTensor) -> tuple[Any, ...]:
        """The shape of a tensor; sizes left open by the network are those for inputs of a size that it accepts."""
        return (None, *self._sizes.shapes[id(tensor)][1:])

    def is_per_sample(self, tensor: keras.KerasTensor) -> bool:
        """Whether the first axis of a tensor counts the samples of the batch, not frames or windows folded into it."""
        return self._sizes.shapes[id(tensor)][:1] == (self._sizes.batch,)

    def mask(self, tensor: keras.KerasTensor) -> keras.KerasTensor | None:
        """Which positions of a tensor Keras counts, `(batch, positions...)` of booleans; None for all of them."""
        mask = self._masks.get(id(tensor))
        if mask is None:
            return None
        sizes = self._sizes.shapes[id(mask)]
        fits = len(sizes) < len(tensor.shape) and sizes == self._sizes.shapes[id(tensor)][: len(sizes)]
        return mask if fits else None

    def ancestors(self, tensor: keras.KerasTensor) -> list[Call]:
        """The calls that `tensor` depends on, its own producer last, in topological order."""
        wanted = {id(tensor)}
        needed = []
        for call in reversed(self.calls):
            if any(id(output) in wanted for output in call.outputs):
                needed.append(call)
                wanted.update(id(x) for x in call.inputs)
        return needed[::-1]

    def tapped(self, taps: Sequence[keras.KerasTensor]) -> keras.Model:
        """The same layers as a model that also returns `taps`: `{"outputs": ..., "taps": [...]}`."""
        outputs = {"outputs": self.outputs, "taps": list(taps)}
        calls = _topological_calls(self.inputs, outputs, {})  # A tap's mask may need calls that the outputs do not.
        with _numbered({call.operation: None for call in calls}):
            return keras.Model(self.inputs, outputs)

    def check_unchanged(self) -> None:
        """Raises if layers of the network were added, removed or quantized after it was read."""
        for model, state in reversed(self._state):  # The innermost is the one that was changed.
            if _state(model) != state:
                raise ValueError(
                    f"Network '{model.name}' was changed after it was wrapped: layers were added, removed or "
                    "quantized, and the wrapped model would go on with the old ones. Wrap the network again, "
                    "keras_collab.wrap(network), and compile that model."
                )


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
    overridden = [name for name in _OVERRIDES if not is_keras_own(type(network), name)]
    if overridden:
        raise ValueError(
            f"Network '{network.name}' ({type(network).__name__}) overrides {', '.join(overridden)}, which training "
            "the wrapped network would pass by. Wrap keras.Model(network.inputs, network.outputs) instead, and do "
            "before training what these do, such as preprocessing the data. Of a keras-hub task wrap that, or a model "
            "made of its backbone."
        )


def is_keras_own(cls: type, method: str) -> bool:
    """Whether a class has the method from Keras, not from a subclass of its own."""
    return getattr(cls, method).__module__.partition(".")[0] == "keras"


def _state(model: keras.Model) -> list[Any]:
    """What changes when layers are added to a Sequential, removed from it, or quantized."""
    ends = [id(x) for x in tree.flatten(symbolic_ends(model))]
    return ends + [layer.dtype_policy.name for layer in model._flatten_layers()]


def _has_graph(operation: Any) -> bool:
    """Whether Keras' own call of a model does no more than run its layers."""
    if not isinstance(operation, Functional | keras.Sequential) or not operation.built:
        return False
    plain = operation.activity_regularizer is None and not operation.supports_masking
    return plain and all(is_keras_own(type(operation), name) for name in ("__call__", "call"))


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


def _flatten(network: keras.Model) -> tuple[Any, Any, dict[int, str], list[keras.Model]]:
    """The network's own symbolic inputs and outputs, or new ones that run through nested models.

    Returns:
        Inputs, outputs, the paths of the layers that made new tensors, and the models whose layers were read.
    """
    inputs, outputs = symbolic_ends(network)
    if not any(_has_graph(layer) for layer in network.layers):
        return inputs, outputs, {}, [network]
    replay = _Replay(models=[network])
    inputs = tree.map_structure(_same_input, inputs)
    return inputs, replay.run(network, inputs, prefix="", training=None), replay.paths, replay.models


@dataclasses.dataclass
class _Replay:
    """Calls layers again on new symbolic tensors, going into nested models.

    What `backbone(x, training=False)` says holds for every layer inside, as far as Keras heeds it: in 3.15 `fit`
    overrides it (keras issue 20285), so that only `trainable = False` freezes BatchNormalization.

    Attributes:
        models: those whose layers were called.
        paths: for every tensor that was made, by id, the path of its layer.
    """

    models: list[keras.Model]
    paths: dict[int, str] = dataclasses.field(default_factory=dict)

    def run(self, model: keras.Model, inputs: Any, prefix: str, training: bool | None) -> Any:
        """Calls all layers of a model on new inputs; returns its outputs."""
        starts, ends = symbolic_ends(model)
        values = dict(zip(map(id, tree.flatten(starts)), tree.flatten(inputs), strict=True))
        for call in _topological_calls(starts, ends, {}):
            outputs = self.call(call, prefix + call.name, training, *call.arguments.fill_in(values))
            values.update(zip(map(id, call.outputs), tree.flatten(outputs), strict=True))
        return tree.map_structure(lambda x: values[id(x)], ends)

    def call(self, call: Call, path: str, training: bool | None, args: Any, kwargs: Any) -> Any:
        """Calls one layer, or all layers of a nested model, on new arguments."""
        layer, parameters = call.operation, inspect.signature(call.operation.call)
        if _has_graph(layer) and _has_plain_arguments(call):
            given = parameters.bind(*args, **kwargs).arguments
            entering = self._entering(layer, given["inputs"], path + "/")
            if entering is not None:
                self.models.append(layer)
                stated = given.get("training")
                return self.run(layer, entering, path + "/", training if stated is None else stated)
        if training is not None and "training" in parameters.parameters and kwargs.get("training") is None:
            kwargs["training"] = training
        outputs = layer(*args, **kwargs)
        self.paths.update((id(output), path) for output in tree.flatten(outputs))
        return outputs

    def _entering(self, model: keras.Model, inputs: Any, prefix: str) -> list[Any] | None:
        """What a nested model is called on as its layers see it: in the order and of the dtype of its own inputs.

        None if Keras adds or removes an axis first.
        """
        expected = tree.flatten(symbolic_ends(model)[0])
        entering = _in_order(symbolic_ends(model)[0], inputs)
        if [_rank(x) for x in entering] != [_rank(x) for x in expected]:
            return None
        for index, (x, original) in enumerate(zip(entering, expected, strict=True)):
            if x is not None and x.dtype != original.dtype:  # None is an optional input.
                entering[index] = ops.cast(x, original.dtype)
                self.paths[id(entering[index])] = prefix + original.name
        return entering


def _has_plain_arguments(call: Call) -> bool:
    """Whether a nested model is called with its inputs alone, and masks at most that these carry themselves.

    Keras 3.15 writes the masks that it finds on the inputs into the arguments of the call.
    """
    given = inspect.signature(call.operation.call).bind(*call.arguments.args, **call.arguments.kwargs).arguments
    masks = tree.flatten(given.get("mask"))
    if all(mask is None for mask in masks):
        return not given.get("kwargs")
    carried = [backend.get_keras_mask(x) for x in tree.flatten(given["inputs"])]
    return not given.get("kwargs") and [id(mask) for mask in masks] == [id(mask) for mask in carried]


def _rank(tensor: Any) -> int | None:
    return None if tensor is None else len(tensor.shape)


def _in_order(structure: Any, inputs: Any) -> list[Any]:
    """What a model is called on in the order of its own inputs; of a dict Keras takes the keys that it needs."""
    if not isinstance(inputs, dict):
        return tree.flatten(inputs)
    if isinstance(structure, dict):
        return tree.flatten({key: inputs.get(key) for key in structure})
    return [inputs.get(x.name) for x in tree.flatten(structure)]


def _same_input(tensor: keras.KerasTensor) -> keras.KerasTensor:
    config = {**tensor._keras_history.operation.get_config(), "batch_shape": tensor.shape}
    return keras.layers.InputLayer.from_config(config).output


def _masks(inputs: Any, calls: Sequence[Call]) -> dict[int, keras.KerasTensor]:
    """The masks that Keras attached to tensors when the layers were called, by the tensors' id."""
    masks = {id(x): backend.get_keras_mask(x) for call in calls for x in call.outputs}
    computable = {id(mask): _is_computable(inputs, mask) for mask in masks.values()}
    return {key: mask for key, mask in masks.items() if computable[id(mask)]}


def _is_computable(inputs: Any, tensor: Any) -> bool:
    """Whether a tensor follows from the inputs; masks of a graph that Keras cloned hang on the graph before."""
    if not isinstance(tensor, keras.KerasTensor):
        return False
    try:
        keras.Function(inputs, tensor)
    except ValueError:
        return False
    return True


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
            tensors = tuple(node.input_tensors), tuple(node.outputs)
            calls.append(Call(node.operation, path, *tensors, node.arguments))
            continue
        stack.append((node, True))
        stack.extend((_node(x), False) for x in reversed(node.input_tensors) if id(x) not in known)
    return calls


def _node(tensor: keras.KerasTensor) -> Any:
    operation, node_index, _ = tensor._keras_history
    return operation._inbound_nodes[node_index]
