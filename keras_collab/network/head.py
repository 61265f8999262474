"""The head: the classifier at the end of a network, found by walking back from an output."""

import dataclasses
import functools
import math
from typing import Any

import keras
from keras import ops, tree

from keras_collab._types import Operation, Structure, Tensor
from keras_collab.network.calls import Call
from keras_collab.network.graph import Graph
from keras_collab.network.layers import Kernel, kernel_of


@dataclasses.dataclass(frozen=True, eq=False)
class Head:
    """The classifier at the end of a network.

    Attributes:
        path: names from the network down to the Dense or 1×1 convolution layer.
        layer: that layer.
        activation: `"softmax"`, `"sigmoid"` or `"linear"` (the network returns logits).
        features: symbolic input of the layer.
        size: number of input features.
        classes: number of output units.
        name: name of its output of the network.
        index: index of that output.
    """

    path: str
    layer: keras.Layer
    activation: str
    features: keras.KerasTensor
    size: int
    classes: int
    name: str
    index: int

    @property
    def two_way(self) -> bool:
        """Whether each logit is a binary classifier, as with a sigmoid."""
        return self.activation == "sigmoid" or self.classes == 1

    def made_by(self, graph: Graph) -> list[Operation]:
        """All operations that the logits depend on, the head's layer last."""
        return [*graph.operations_before(self.features), self.layer]

    def label_distributions(self, y: Tensor) -> Tensor:
        """Labels as distributions, in the shape of `HeadValues.logits`: class indices become one-hot vectors.

        A ValueError says which labels do not fit. An index that is no class becomes NaN, so that the loss shows it.
        """
        _check_shape(self, y.shape)
        if self.two_way:
            yes = ops.cast(ops.reshape(y, (-1, self.classes)), "float32")
            return ops.stack([1.0 - yes, yes], axis=-1)
        if tuple(y.shape[1:]) == (self.classes,):
            return ops.cast(y, "float32")
        indices = ops.cast(ops.reshape(y, (-1, 1)), "int32")
        one_hot = ops.cast(indices == ops.arange(self.classes, dtype="int32"), "float32")
        is_class = ops.logical_and(indices >= 0, indices < self.classes)
        return ops.where(is_class, one_hot, float("nan"))


@dataclasses.dataclass(frozen=True)
class HeadValues:
    """Features, kernel, bias and logits of the head at a training step, in float32.

    Attributes:
        source: the classifier that they are of.
        features: `(batch, features)`.
        kernel: `(features, classes)`.
        bias: `(classes,)`, zeros where the layer has none.
    """

    source: Head
    features: Tensor
    kernel: Tensor
    bias: Tensor

    @property
    def logits(self) -> Tensor:
        """The head's logits for distributions over the last axis; see `logits_of`."""
        return self.logits_of(self.features)

    def logits_of(self, features: Tensor) -> Tensor:
        """The head's logits for `features`, computed from kernel and bias.

        Args:
            features: `(..., features)`.

        Returns:
            `(..., classes)`; for a sigmoid head `(..., classes, 2)`, the logits of "no" and "yes" for each class. A
            softmax over the last axis gives probabilities in both cases.
        """
        logits = ops.matmul(features, self.kernel) + self.bias
        if self.source.two_way:
            return ops.stack([ops.zeros_like(logits), logits], axis=-1)
        return logits


def find_heads(graph: Graph) -> list[Head | str]:
    """The head of each output of the network, or the reason why it has none."""
    heads = []
    for index, output in enumerate(tree.flatten(graph.outputs)):
        heads.append(_find_head(graph, output, index))
    return heads


def read_head(head: Head, features: Tensor) -> HeadValues:
    """The values of a head at a training step.

    Args:
        head: from `find_heads`.
        features: `(batch, features)`, or with axes of length 1 in between, as before a 1×1 convolution.
    """
    layer = head.layer
    features = ops.reshape(features, (-1, head.size))
    kernel = ops.reshape(layer.kernel, (head.size, head.classes))
    bias = layer.bias if layer.use_bias else ops.zeros((head.classes,))
    return HeadValues(
        source=head,
        features=ops.cast(features, "float32"),
        kernel=ops.cast(kernel, "float32"),
        bias=ops.cast(bias, "float32"),
    )


def _check_shape(head: Head, y_shape: tuple[int | None, ...]) -> None:
    """Raises a ValueError if labels of this shape are neither class indices nor distributions over the classes."""
    per_sample = tuple(y_shape[1:])
    distribution = per_sample == (head.classes,)
    indices = not head.two_way and per_sample in ((), (1,))
    yes_or_no = head.classes == 1 and per_sample == ()
    if not (distribution or indices or yes_or_no):
        raise ValueError(
            f"Labels for head '{head.path}' have shape {tuple(y_shape)}. Expected "
            f"(batch, {head.classes}) for {head.classes} classes"
            + (", or class indices of shape (batch,) or (batch, 1)." if not head.two_way else ".")
        )


def check_indices(head: Head, labels: Tensor) -> None:
    """Raises a ValueError if labels, a NumPy array, do not fit, or are class indices and one of them is no class."""
    _check_shape(head, labels.shape)
    if head.two_way or labels.shape[1:] == (head.classes,):
        return
    if not ((labels >= 0) & (labels < head.classes) & (labels % 1 == 0)).all():
        raise ValueError(
            f"Labels for head '{head.path}' must be class indices from 0 to {head.classes - 1}. Received: numbers "
            f"from {labels.min()} to {labels.max()}."
        )


def pick_output(structure: Structure, head: Head | None) -> Tensor:
    """The labels or sample weights of the head's output, or the only ones."""
    if isinstance(structure, dict) and head is not None:
        if head.name not in structure:
            raise ValueError(
                f"Labels or sample weights of output '{head.name}' are needed. Received a dict of {list(structure)}. "
                f"Add '{head.name}' to it, or leave out the term that reads this output."
            )
        return structure[head.name]
    leaves = tree.flatten(structure)
    if len(leaves) == 1:
        return leaves[0]
    if head is None:
        raise ValueError("Several outputs have labels or sample weights: ask for a head in select().")
    return leaves[head.index]


def _last_layer(graph: Graph, output: keras.KerasTensor) -> tuple[Call | None, list[Call]]:
    """The last layer with a kernel before an output, None if it is an input, and the calls behind it, last first."""
    behind: list[Call] = []
    call = graph.producer.get(id(output))
    while call is not None and kernel_of(call.operation, call.path) is None:
        behind.append(call)
        call = graph.producer.get(id(call.inputs[0])) if _only_activates(call) else None
    return call, behind


def _only_activates(call: Call) -> bool:
    return len(call.inputs) == 1 and _activation_of(call.operation) is not None


def _find_head(graph: Graph, output: keras.KerasTensor, index: int) -> Head | str:
    name = graph.output_names[index]
    call, behind = _last_layer(graph, output)
    if call is None and behind and not _only_activates(behind[-1]):
        return f"output '{name}' comes from layer '{behind[-1].path}' ({type(behind[-1].operation).__name__})"
    if call is None:
        return f"output '{name}' comes from an input, with no layer that classifies"
    head = _head_at(graph, call, name, index)
    if not isinstance(head, Head):
        return head
    activation = head.activation
    for later in reversed(behind):
        applied = _activation_of(later.operation) or "linear"
        if applied != "linear" and activation != "linear":
            return f"layer '{head.path}' has two activations, '{activation}' and then '{applied}'"
        activation = activation if applied == "linear" else applied
        shape = graph.shape(later.output)
        if applied != "linear" and (shape[-1] != head.classes or math.prod(shape[1:]) != head.classes):
            return f"'{applied}' acts on the {head.classes} outputs of layer '{head.path}' reshaped to {shape}"
    if graph.shape(output)[1:] != () and graph.shape(output)[-1] != head.classes:
        return f"the {head.classes} outputs of layer '{head.path}' are reshaped to {graph.shape(output)}"
    if activation not in ("softmax", "sigmoid", "linear"):
        return f"layer '{head.path}' ends in activation '{activation}', not in softmax, sigmoid or logits"
    return dataclasses.replace(head, activation=activation)


def _head_at(graph: Graph, call: Call, name: str, index: int) -> Head | str:
    """The layer as a head, with its own activation; or the reason why it is none."""
    layer, features = call.operation, call.inputs[0]
    kernel = kernel_of(layer, call.path)
    if not graph.is_per_sample(features):
        return f"the first axis of the features of layer '{call.path}' does not count the samples of the batch"
    if kernel is None or not _reads_one_vector(kernel, graph.shape(features)):
        kind = type(layer).__name__
        return f"layer '{call.path}' ({kind}) reads features of shape {features.shape}, one vector is expected"
    return Head(
        path=call.path,
        layer=layer,
        activation=_name_of(layer.activation),
        features=features,
        size=kernel.size,
        classes=kernel.filters,
        name=name,
        index=index,
    )


def _reads_one_vector(kernel: Kernel, shape: tuple[Any, ...]) -> bool:
    """Whether the layer just multiplies the feature vector of a sample by its kernel matrix."""
    if kernel.weight != "kernel" or kernel.groups > 1 or kernel.filter_axis != -1:
        return False
    return kernel.size == kernel.layer.kernel.shape[-2] == math.prod(shape[1:])


def _name_of(activation: Any) -> str:
    """The name of one of Keras' activations, a Softmax layer among them; the repr of any other function or layer."""
    if isinstance(activation, keras.layers.Softmax):
        return _activation_of(activation) or repr(activation)
    name = getattr(activation, "__name__", "")
    return name if getattr(keras.activations, name, None) is activation else repr(activation)


@functools.singledispatch
def _activation_of(operation: Operation) -> str | None:
    """The activation that an operation after the classifier applies, None if it does more than that."""
    name = type(operation).__name__.lower()
    module = type(operation).__module__
    if module.startswith("keras.src.ops") and name in ("reshape", "squeeze"):
        return "linear"
    is_activation = module == "keras.src.ops.nn" and name in ("softmax", "sigmoid")
    return name if is_activation and getattr(operation, "axis", -1) == -1 else None


@_activation_of.register(keras.layers.Flatten)
@_activation_of.register(keras.layers.Reshape)
@_activation_of.register(keras.layers.Dropout)
@_activation_of.register(keras.layers.Identity)
def _moves(layer):
    return "linear"


@_activation_of.register(keras.layers.Activation)
def _activates(layer):
    return _name_of(layer.activation)


@_activation_of.register(keras.layers.Softmax)
def _normalizes(layer):
    return "softmax" if layer.axis == -1 else None
