"""On which axis a tensor has its channels: where the layer that made it puts them."""

from collections.abc import Sequence

import keras

from keras_collab._types import Operation
from keras_collab.network.calls import Call

# Layers that work on the last axis, and what moves axes about: the output's channels are on the last axis.
_ON_THE_LAST_AXIS = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.Reshape,
    keras.layers.Permute,
    keras.layers.Bidirectional,
    keras.layers.TimeDistributed,
)
_MOVING = ("Reshape", "Transpose", "Moveaxis", "Swapaxes", "Matmul", "Einsum", "Dot", "Tensordot")


def channels_first(calls: Sequence[Call]) -> set[int]:
    """The tensors, by id, that have their channels on axis 1."""
    first: set[int] = set()
    for call in calls:
        rank = len(call.output.shape)
        inherited = any(len(x.shape) == rank and id(x) in first for x in call.inputs)
        if _puts_first(call.operation, inherited):
            first.update(id(output) for output in call.outputs if len(output.shape) > 2)
    return first


def _puts_first(operation: Operation, inherited: bool) -> bool:
    """Whether the output has its channels on axis 1, given whether an input has."""
    if isinstance(operation, _ON_THE_LAST_AXIS) or type(operation).__name__ in _MOVING:
        return False
    if isinstance(operation, keras.layers.RNN):
        return getattr(operation, "data_format", "") == "channels_first" and not operation.return_sequences
    parts = operation._flatten_layers() if isinstance(operation, keras.Layer) else [operation]
    for layer in reversed(parts):
        data_format = getattr(layer, "data_format", None)  # Convolutions, pooling, padding: each its own.
        if data_format is not None:
            return data_format == "channels_first"
    axis = getattr(operation, "axis", None)
    if isinstance(operation, keras.layers.LayerNormalization | keras.layers.BatchNormalization):
        return axis in (1, [1], (1,))
    return inherited
