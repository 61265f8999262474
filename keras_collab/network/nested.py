"""Nested models opened: the layers of a backbone called again, so that a tap inside hangs on the network's input.

A nested model that does more than run its layers, or is called with more than its inputs, stays one opaque layer.
"""

import dataclasses
import inspect
from typing import Any

import keras
from keras import ops, tree
from keras.src import backend
from keras.src.models.functional import Functional

from keras_collab._types import Operation, Structure, Tensor
from keras_collab.network.calls import Call, is_keras_own, symbolic_ends, topological_calls


@dataclasses.dataclass
class Flattened:
    """A network without nested models.

    Attributes:
        inputs: symbolic, in the user's structure: the network's own, or new ones that run through nested models.
        outputs: likewise.
        paths: for every tensor that was made, by id, the path of its layer.
        models: those whose layers were read.
    """

    inputs: Structure
    outputs: Structure
    paths: dict[int, str]
    models: list[keras.Model]


def flatten(network: keras.Model) -> Flattened:
    """A network with the layers of its nested models in their place."""
    inputs, outputs = symbolic_ends(network)
    if not any(map(_has_graph, network.layers)):
        return Flattened(inputs, outputs, {}, [network])
    replay = _Replay(models=[network])
    inputs = tree.map_structure(_same_input, inputs)
    outputs = replay.run(network, inputs, "", None)
    return Flattened(inputs, outputs, replay.paths, replay.models)


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

    def run(self, model: keras.Model, inputs: Structure, prefix: str, training: bool | None) -> Structure:
        """Calls all layers of a model on new inputs; returns its outputs."""
        starts, ends = symbolic_ends(model)
        values: dict[int, Tensor] = {}
        for start, x in zip(tree.flatten(starts), tree.flatten(inputs), strict=True):
            values[id(start)] = x
        for call in topological_calls(starts, ends, {}):
            outputs = tree.flatten(self.call(call, prefix + call.name, training, values))
            for original, output in zip(call.outputs, outputs, strict=True):
                values[id(original)] = output
        return tree.map_structure(lambda x: values[id(x)], ends)

    def call(self, call: Call, path: str, training: bool | None, values: dict[int, Tensor]) -> Structure:
        """Calls one layer, or all layers of a nested model, on new arguments.

        Args:
            values: the new tensors, by the ids of those in whose place they go.
        """
        layer = call.operation
        signature = inspect.signature(layer.call)
        args, kwargs = call.arguments.fill_in(values)
        if _has_graph(layer) and _has_plain_arguments(call):
            given = signature.bind(*args, **kwargs).arguments
            entering = self._entering(layer, given["inputs"], path + "/")
            if entering is not None:
                self.models.append(layer)
                if given.get("training") is not None:
                    training = given["training"]
                return self.run(layer, entering, path + "/", training)
        takes_training = "training" in signature.parameters
        if takes_training and training is not None and kwargs.get("training") is None:
            kwargs["training"] = training
        outputs = layer(*args, **kwargs)
        for output in tree.flatten(outputs):
            self.paths[id(output)] = path
        return outputs

    def _entering(self, model: keras.Model, inputs: Structure, prefix: str) -> list[Any] | None:
        """What a nested model is called on as its layers see it: in the order and of the dtype of its own inputs.

        None if Keras adds or removes an axis first, or an input is a constant: layers called on it would run once, now.
        """
        starts, _ = symbolic_ends(model)
        arriving = _in_order(starts, inputs)
        expected = tree.flatten(starts)
        if list(map(_rank, arriving)) != list(map(_rank, expected)):
            return None
        if not all(x is None or isinstance(x, keras.KerasTensor) for x in arriving):
            return None
        entering = []
        for x, original in zip(arriving, expected, strict=True):
            if x is not None and x.dtype != original.dtype:  # None is an optional input.
                x = ops.cast(x, original.dtype)
                self.paths[id(x)] = prefix + original.name
            entering.append(x)
        return entering


def _has_plain_arguments(call: Call) -> bool:
    """Whether a nested model is called with its inputs alone, and masks at most that these carry themselves.

    Keras 3.15 writes the masks that it finds on the inputs into the arguments of the call.
    """
    arguments = call.arguments
    signature = inspect.signature(call.operation.call)
    given = signature.bind(*arguments.args, **arguments.kwargs).arguments
    if given.get("kwargs"):
        return False
    masks = list(map(id, tree.flatten(given.get("mask"))))
    if set(masks) <= {id(None)}:
        return True
    carried = map(backend.get_keras_mask, tree.flatten(given["inputs"]))
    return masks == list(map(id, carried))


def _rank(tensor: Any) -> int | None:
    return None if tensor is None else len(tensor.shape)


def _in_order(structure: Structure, inputs: Structure) -> list[Any]:
    """What a model is called on in the order of its own inputs; of a dict Keras takes the keys that it needs."""
    if not isinstance(inputs, dict):
        return tree.flatten(inputs)
    if isinstance(structure, dict):
        return tree.flatten({key: inputs.get(key) for key in structure})
    return [inputs.get(x.name) for x in tree.flatten(structure)]


def _same_input(tensor: keras.KerasTensor) -> keras.KerasTensor:
    config = tensor._keras_history.operation.get_config()
    config["batch_shape"] = tensor.shape
    return keras.layers.InputLayer.from_config(config).output


def _has_graph(operation: Operation) -> bool:
    """Whether Keras' own call of a model does no more than run its layers."""
    if not isinstance(operation, Functional | keras.Sequential) or not operation.built:
        return False
    if operation.activity_regularizer is not None or operation.supports_masking:
        return False
    model = type(operation)
    return is_keras_own(model, "__call__") and is_keras_own(model, "call")
