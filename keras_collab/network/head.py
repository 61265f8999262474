"""The head: the classifier at the end of a network, found by walking back from an output."""

import dataclasses
import functools
import math
from typing import Any

import keras
from keras import ops, tree

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

    def label_distributions(self, y: Any) -> Any:
        """Labels as distributions, in the shape of `HeadValues.logits`: class indices become one-hot vectors."""
        if self.two_way:
            yes = ops.cast(ops.reshape(y, (-1, self.classes)), "float32")
            return ops.stack([1.0 - yes, yes], axis=-1)
        if tuple(y.shape[1:]) == (self.classes,):
            return ops.cast(y, "float32")
        indices = ops.cast(ops.reshape(y, (-1,)), "int32")
        return ops.one_hot(indices, self.classes, dtype="float32")


@dataclasses.dataclass(frozen=True)
class HeadValues:
    """Features, kernel, bias and logits of the head at a training step, in float32.

    Attributes:
        head: the classifier.
        features: `(batch, features)`.
        kernel: `(features, classes)`.
        bias: `(classes,)`, zeros where the layer has none.
    """

    head: Head
    features: Any
    kernel: Any
    bias: Any

    @property
    def logits(self) -> Any:
        """The head's logits for distributions over the last axis; see `logits_of`."""
        return self.logits_of(self.features)

    def logits_of(self, features: Any) -> Any:
        """The head's logits for `features`, computed from kernel and bias.

        Args:
            features: `(..., features)`.

        Returns:
            `(..., classes)`; for a sigmoid head `(..., classes, 2)`, the logits of "no" and "yes" for each class. A
            softmax over the last axis gives probabilities in both cases.
        """
        logits = ops.matmul(features, self.kernel) + self.bias
        if self.head.two_way:
            return ops.stack([ops.zeros_like(logits), logits], axis=-1)
        return logits


def find_heads(graph: Graph) -> list[Head | str]:
    """The head of each output of the network, or the reason why it has none."""
    heads = []
    for index, output in enumerate(tree.flatten(graph.outputs)):
        heads.append(_find_head(graph, output, index))
    return heads


def read_head(head: Head, features: Any) -> HeadValues:
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
        head=head,
        features=ops.cast(features, "float32"),
        kernel=ops.cast(kernel, "float32"),
        bias=ops.cast(bias, "float32"),
    )


def check_labels(head: Head, y_shape: tuple[int | None, ...]) -> None:
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


def check_indices(head: Head, labels: Any) -> None:
    """Raises a ValueError if labels, a NumPy array, are class indices and one of them is no class."""
    if head.two_way or labels.shape[1:] == (head.classes,):
        return
    if not ((labels >= 0) & (labels < head.classes) & (labels % 1 == 0)).all():
        raise ValueError(
            f"Labels for head '{head.path}' must be class indices from 0 to {head.classes - 1}. Received: numbers "
            f"from {labels.min()} to {labels.max()}."
        )


def pick_output(structure: Any, head: Head | None) -> Any:
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


def _find_head(graph: Graph, output: keras.KerasTensor, index: int) -> Head | str:
    name = graph.output_names[index]
    activation = "linear"
    call = graph.producer.get(id(output))
    while call is not None and kernel_of(call.operation, call.path) is None:
        applied = _passes_through(call.operation)
        if applied is None or len(call.inputs) != 1:
            return f"output '{name}' comes from layer '{call.path}' ({type(call.operation).__name__})"
        activation = applied if applied != "linear" else activation
        call = graph.producer.get(id(call.inputs[0]))
    if call is None:
        return f"output '{name}' comes from an input, with no layer that classifies"
    head = _head_at(graph, call, activation, name, index)
    if isinstance(head, Head) and graph.shape(output)[-1] != head.classes:
        return f"the {head.classes} outputs of layer '{head.path}' are reshaped to {graph.shape(output)}"
    return head


def _head_at(graph: Graph, call: Call, activation: str, name: str, index: int) -> Head | str:
    layer = call.operation
    kernel = kernel_of(layer, call.path)
    shape = graph.shape(call.inputs[0])
    if not graph.is_per_sample(call.inputs[0]):
        return f"the first axis of the features of layer '{call.path}' does not count the samples of the batch"
    if kernel is None or not _reads_one_vector(kernel, shape):
        return f"layer '{call.path}' ({type(layer).__name__}) reads features of shape {shape}, one vector is expected"
    inside = _name_of(layer.activation)
    activation = inside if inside != "linear" else activation
    if activation not in ("softmax", "sigmoid", "linear"):
        return f"layer '{call.path}' ends in activation '{activation}', not in softmax, sigmoid or logits"
    return Head(
        path=call.path,
        layer=layer,
        activation=activation,
        features=call.inputs[0],
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
    """The name of one of Keras' activations; the repr of any other function or layer."""
    name = getattr(activation, "__name__", "")
    return name if getattr(keras.activations, name, None) is activation else repr(activation)


@functools.singledispatch
def _passes_through(operation: Any) -> str | None:
    """The activation that an operation after the classifier applies, None if it does more than that."""
    return None


@_passes_through.register(keras.layers.Flatten)
@_passes_through.register(keras.layers.Reshape)
@_passes_through.register(keras.layers.Dropout)
@_passes_through.register(keras.layers.Identity)
def _moves(layer):
    return "linear"


@_passes_through.register(keras.layers.Activation)
def _activates(layer):
    return _name_of(layer.activation)


@_passes_through.register(keras.layers.Softmax)
def _normalizes(layer):
    return "softmax"
