"""Kernels as filters: which weight of a layer holds its filters, and the filters as vectors."""

import dataclasses
import functools
import math

import keras
from keras import ops

from keras_collab._types import Operation, Tensor
from keras_collab.network.calls import is_keras_own
from keras_collab.network.graph import Graph


@dataclasses.dataclass(frozen=True, eq=False)
class Kernel:
    """The filters of one layer.

    Attributes:
        path: names from the network down to the layer.
        layer: the layer that owns them.
        weight: name of the layer's attribute that holds them.
        filters: number of filters in a group.
        size: number of weights in a filter.
        window: number of positions that a filter spans, 9 for 3×3.
        groups: number of groups. Filters are compared within a group only, since groups read different channels.
        filter_axis: axis of the weight that counts filters: -1, or -2 for transposed convolutions.
        depthwise: whether each filter reads a single channel of its own.
        dense: whether the layer is a Dense layer.
    """

    path: str
    layer: keras.Layer
    weight: str
    filters: int
    size: int
    window: int = 1
    groups: int = 1
    filter_axis: int = -1
    depthwise: bool = False
    dense: bool = False

    @property
    def operation(self) -> Operation:
        return self.layer

    @property
    def name(self) -> str:
        return self.layer.name

    @property
    def parameters(self) -> int:
        """Number of weights in all filters."""
        return self.groups * self.filters * self.size

    @property
    def trainable(self) -> bool:
        """Whether training changes it. `compile` reads it, so set `trainable` before."""
        for variable in self.layer.weights:
            if variable.trainable and variable.name in (self.weight, "lora_kernel_a", "lora_kernel_b"):
                return True
        return False

    def made_by(self, graph: Graph) -> list[Operation]:
        """The layer, if training changes the filters."""
        return [self.layer] if self.trainable else []

    def read(self) -> Tensor:
        """The filters as the layer applies them (LoRA's update included), in the layer's own precision.

        Returns:
            `(size, filters)`, or `(groups, size, filters)` for more than one group.
        """
        values = ops.convert_to_tensor(getattr(self.layer, self.weight))
        if self.filter_axis == -2:
            values = ops.swapaxes(values, -1, -2)
        if self.groups == 1:
            return ops.reshape(values, (self.size, self.filters))
        return ops.swapaxes(ops.reshape(values, (self.size, self.groups, self.filters)), 0, 1)


def kernel_of(operation: Operation, path: str) -> Kernel | None:
    """The filters of a layer, or None.

    None also for quantized layers, and for a user's subclass that overrides how Keras applies the kernel.
    """
    if not isinstance(operation, keras.Layer) or operation.quantization_mode is not None:
        return None
    for method in ("call", "convolution_op"):
        if getattr(type(operation), method, None) and not is_keras_own(type(operation), method):
            return None
    return _kernel(operation, path)


def kernels_of(operation: Operation, path: str) -> list[Kernel]:
    """The filters of a layer and of all layers inside it, each with the path to it."""
    kernel = kernel_of(operation, path)
    if kernel is not None:
        return [kernel]
    kernels = []
    for layer in _inner_layers(operation):
        kernels.extend(kernels_of(layer, f"{path}/{layer.name}"))
    return kernels


def all_kernels(graph: Graph) -> list[Kernel]:
    """The kernels of all layers, each once, under its first path."""
    kernels: dict[int, Kernel] = {}
    for call in graph.calls:
        for kernel in kernels_of(call.operation, call.path):
            kernels.setdefault(id(kernel.layer), kernel)
    return list(kernels.values())


def _inner_layers(operation: Operation) -> list[keras.Layer]:
    """The layers that a layer itself holds; none for an operation of keras.ops."""
    if not isinstance(operation, keras.Layer):
        return []
    return list(operation._flatten_layers(include_self=False, recursive=False))


def computes(operation: Operation, embeddings: bool = False) -> bool:
    """Whether a layer mixes features by trainable weights, frozen or not; spectrograms and embeddings do not."""
    layers = operation._flatten_layers() if isinstance(operation, keras.Layer) else []
    for layer in layers:
        if isinstance(layer, keras.layers.STFTSpectrogram):  # Its weights are those of a Fourier transform.
            continue
        if not embeddings and "Embedding" in type(layer).__name__:
            continue
        for weight in layer._trainable_variables:
            if len(weight.shape) > 1:
                return True
    return False


def is_composite(operation: Operation) -> bool:
    """Whether a layer is a block of its own: a recurrent one, a model, or a user's that holds layers with weights.

    So is one of these in a wrapper that applies it at every time step.
    """
    if isinstance(operation, keras.layers.TimeDistributed):
        return is_composite(operation.layer)
    if isinstance(operation, keras.layers.RNN | keras.layers.Bidirectional | keras.Model):
        return computes(operation)
    if not isinstance(operation, keras.Layer) or is_keras_own(type(operation), "call"):
        return False
    return any(map(computes, _inner_layers(operation)))


def activation_names(operation: Operation) -> set[str]:
    """In small letters, without underscores: the name of an operation's class, and that of its own activation."""
    activation = getattr(operation, "activation", None)  # A function, or a layer.
    names = {type(operation).__name__, getattr(activation, "__name__", type(activation).__name__)}
    return {name.lower().replace("_", "") for name in names}


@functools.singledispatch
def _kernel(layer: Operation, path: str) -> Kernel | None:
    """The filters of `layer`, or None for a layer that has none. One registration a kind of layer."""
    return None


@_kernel.register(keras.layers.Conv1D)
@_kernel.register(keras.layers.Conv2D)
@_kernel.register(keras.layers.Conv3D)
def _convolution(layer, path):
    *window, channels, filters = layer.kernel.shape
    return Kernel(
        path=path,
        layer=layer,
        weight="kernel",
        filters=filters // layer.groups,
        size=math.prod(window) * channels,
        window=math.prod(window),
        groups=layer.groups,
        depthwise=channels == 1 and layer.groups > 1,
    )


@_kernel.register(keras.layers.Conv1DTranspose)
@_kernel.register(keras.layers.Conv2DTranspose)
@_kernel.register(keras.layers.Conv3DTranspose)
def _transposed_convolution(layer, path):
    *window, filters, channels = layer.kernel.shape
    return Kernel(
        path=path,
        layer=layer,
        weight="kernel",
        filters=filters,
        size=math.prod(window) * channels,
        window=math.prod(window),
        filter_axis=-2,
    )


@_kernel.register(keras.layers.SeparableConv1D)
@_kernel.register(keras.layers.SeparableConv2D)
def _separable_convolution(layer, path):
    channels, filters = layer.pointwise_kernel.shape[-2:]
    return Kernel(
        path=path,
        layer=layer,
        weight="pointwise_kernel",
        filters=filters,
        size=channels,
        window=math.prod(layer.depthwise_kernel.shape[:-2]),
    )


@_kernel.register(keras.layers.DepthwiseConv1D)
@_kernel.register(keras.layers.DepthwiseConv2D)
def _depthwise_convolution(layer, path):
    *window, channels, multiplier = layer.kernel.shape
    return Kernel(
        path=path,
        layer=layer,
        weight="kernel",
        filters=multiplier,
        size=math.prod(window),
        window=math.prod(window),
        groups=channels,
        depthwise=True,
    )


@_kernel.register(keras.layers.Dense)
def _dense(layer, path):
    features, units = layer.kernel.shape
    return Kernel(path=path, layer=layer, weight="kernel", filters=units, size=features, dense=True)
