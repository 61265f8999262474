"""The calls of layers in a graph of Keras, as its nodes have them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import tree

from keras_collab._types import Operation, Structure, SymbolicArguments


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of one layer (or keras.ops operation) of the flattened network.

    Attributes:
        operation: the layer or operation that was called.
        path: names from the network down to the layer, `"resnet50/conv1_conv"` inside a backbone.
        inputs: symbolic tensors that went in.
        outputs: symbolic tensors that came out.
        arguments: what Keras has stored of the call.
    """

    operation: Operation
    path: str
    inputs: tuple[keras.KerasTensor, ...]
    outputs: tuple[keras.KerasTensor, ...]
    arguments: SymbolicArguments

    @property
    def name(self) -> str:
        return self.operation.name

    @property
    def output(self) -> keras.KerasTensor:
        return self.outputs[0]


def symbolic_ends(model: keras.Model) -> tuple[Structure, Structure]:
    """The symbolic inputs and outputs of a model, in the structure the user gave them."""
    if isinstance(model, keras.Sequential):  # Keras 3.15: its `input` is that of a call of the whole, if any.
        return model.inputs[0], model.outputs[0]
    outputs = model.output
    if isinstance(outputs, list | tuple) and len(outputs) == 1:
        outputs = outputs[0]  # As Keras' own call returns it.
    return model.input, outputs


def is_keras_own(cls: type, method: str) -> bool:
    """Whether a class has the method, or property, from Keras, not from a subclass of its own."""
    for kind in cls.__mro__:
        if method in vars(kind):
            return kind.__module__.partition(".")[0] == "keras"
    return True


def topological_calls(inputs: Structure, outputs: Structure, paths: dict[int, str]) -> list[Call]:
    """The calls between `inputs` and `outputs`, each after all that it depends on."""
    known = set(map(id, tree.flatten(inputs)))
    done: set[int] = set()
    calls: list[Call] = []
    stack: list[tuple[Any, bool]] = []

    def visit(tensors: Sequence[keras.KerasTensor]) -> None:
        for x in reversed(tensors):
            if id(x) not in known:
                stack.append((_node(x), False))

    visit(tree.flatten(outputs))
    while stack:
        node, dependencies_done = stack.pop()
        if id(node) in done:
            continue
        if dependencies_done:
            done.add(id(node))
            path = paths.get(id(node.outputs[0]), node.operation.name)
            inputs_and_outputs = tuple(node.input_tensors), tuple(node.outputs)
            calls.append(Call(node.operation, path, *inputs_and_outputs, node.arguments))
            continue
        stack.append((node, True))
        visit(node.input_tensors)
    return calls


def _node(tensor: keras.KerasTensor) -> Any:
    operation, node_index, _ = tensor._keras_history
    return operation._inbound_nodes[node_index]
