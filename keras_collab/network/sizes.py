"""Sizes of the tensors of a network whose batch, and maybe more, is left open (None).

Every layer says what it makes of shapes, so that trying a batch of a certain size, and inputs of a certain size, tells
which axes are the batch and where a resolution ends. What a trial finds decides where "auto" taps and never whether
a network is accepted: where no trial goes through, the shapes are those that Keras itself knows.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import keras
from keras import tree
from keras.src import backend

from keras_collab._types import Operation, Structure, Tensor
from keras_collab.network.calls import Call, is_keras_own

# A prime that no layer has as its own size, so that an axis of this length is the batch.
_BATCH = 11

# Sizes tried for inputs that leave theirs open: of images, of learned positions, of windows, of raw audio.
_OPEN_SIZES = (224, 128, 64, 32, 16, 1024, 16_384)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The shapes of all tensors for one size of the inputs.

    Attributes:
        batch: the number of samples.
        shapes: by the tensors' id; without None.
        missed: how many calls did not say what they make of such inputs.
    """

    batch: int
    shapes: dict[int, tuple[int, ...]]
    missed: int


def probe(inputs: Structure, calls: Sequence[Call]) -> Sizes:
    """The shapes for the first size of the inputs that every call accepts, or that most accept.

    Args:
        inputs: symbolic inputs of the network, in any structure.
        calls: all its `Call`s in topological order.
    """
    flat = tree.flatten(inputs)
    sizes = _OPEN_SIZES if any(map(_is_open, flat)) else _OPEN_SIZES[:1]
    batches = [_BATCH]
    if flat[0].shape[0]:  # A network may need its fixed batch, which may be the length of another axis too.
        batches.append(flat[0].shape[0])
    first, *others = itertools.product(batches, sizes)
    best = _trial(flat, calls, *first)
    for batch, size in others:
        if not best.missed:
            break
        trial = _trial(flat, calls, batch, size)
        if trial.missed < best.missed:
            best = trial
    return best


def _is_open(tensor: keras.KerasTensor) -> bool:
    return None in tensor.shape[1:]


def _trial(inputs: Sequence[keras.KerasTensor], calls: Sequence[Call], batch: int, size: int) -> Sizes:
    values: dict[int, keras.KerasTensor] = {}
    fixed = inputs[0].shape[0]
    for x in inputs:
        values[id(x)] = _filled(x, batch, size, fixed)
    missed = 0
    for call in calls:
        outputs = _outputs(call, values)
        if outputs is None:
            missed += 1
            outputs = [_filled(x, batch, size) for x in call.outputs]
        for x, output in zip(call.outputs, outputs, strict=True):
            values[id(x)] = output
    shapes = {}
    for key, x in values.items():
        shapes[key] = tuple(x.shape)
    return Sizes(batch, shapes, missed)


def _outputs(call: Call, values: dict[int, Tensor]) -> list[Any] | None:
    args, kwargs = call.arguments.fill_in(values)
    operation = call.operation
    try:
        if is_keras_own(type(operation), "compute_output_spec") and not _declares_shape(operation):
            outputs = tree.flatten(operation.compute_output_spec(*args, **kwargs))
        else:
            outputs = tree.flatten(backend.compute_output_spec(operation.call, *args, **kwargs))
    except Exception:  # Whatever a user's layer raises for sizes that are not meant for it.
        return None
    outputs = [x for x in outputs if isinstance(x, keras.KerasTensor)]  # A layer may return None beside tensors.
    for x in outputs:
        if None in x.shape:
            return None
    return outputs if len(outputs) == len(call.outputs) else None


def _declares_shape(operation: Operation) -> bool:
    """Whether a user says what shape an operation makes: with None for the batch, whatever it does with it."""
    is_layer = isinstance(operation, keras.Layer)
    return is_layer and (
        not is_keras_own(type(operation), "compute_output_shape") or isinstance(operation, keras.layers.Lambda)
    )


def _filled(tensor: keras.KerasTensor, batch: int, size: int, fixed: int | None = None) -> keras.KerasTensor:
    """A tensor with no size left open; a first axis of the length that the batch has been fixed to is the batch."""
    shape = list(tensor.shape)
    if shape and fixed is not None and shape[0] == fixed:
        shape[0] = batch
    for axis, length in enumerate(shape):
        if length is None:
            shape[axis] = size if axis else batch
    return keras.KerasTensor(shape, dtype=tensor.dtype, sparse=tensor.sparse)
