"""Sizes of the tensors of a network whose batch, and maybe more, is left open (None).

Every layer says what it makes of shapes, so that trying a batch of a certain size, and inputs of a certain size, tells
which axes are the batch and where a resolution ends. What a trial finds decides where "auto" taps and never whether
a network is accepted: where no trial goes through, the shapes are those that Keras itself knows.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
from keras import tree

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


def probe(inputs: Any, calls: Sequence[Any]) -> Sizes:
    """The shapes for the first size of the inputs that every call accepts, or that most accept.

    Args:
        inputs: symbolic inputs of the network, in any structure.
        calls: all its `Call`s in topological order.
    """
    flat = tree.flatten(inputs)
    best = _trial(flat, calls, _OPEN_SIZES[0])
    if not any(map(_is_open, flat)):
        return best
    for size in _OPEN_SIZES[1:]:
        if not best.missed:
            break
        trial = _trial(flat, calls, size)
        if trial.missed < best.missed:
            best = trial
    return best


def _is_open(tensor: keras.KerasTensor) -> bool:
    return None in tensor.shape[1:]


def _trial(inputs: Sequence[keras.KerasTensor], calls: Sequence[Any], size: int) -> Sizes:
    batch = inputs[0].shape[0] or _BATCH
    values: dict[int, keras.KerasTensor] = {}
    for x in inputs:
        values[id(x)] = _filled(x, batch, size)
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


def _outputs(call: Any, values: dict[int, Any]) -> list[Any] | None:
    args, kwargs = call.arguments.fill_in(values)
    try:
        outputs = tree.flatten(call.operation.compute_output_spec(*args, **kwargs))
    except Exception:  # Whatever a user's layer raises for sizes that are not meant for it.
        return None
    for x in outputs:
        if not all(x.shape):
            return None
    return outputs if len(outputs) == len(call.outputs) else None


def _filled(tensor: keras.KerasTensor, batch: int, size: int) -> keras.KerasTensor:
    shape = list(tensor.shape)
    for axis, length in enumerate(shape):
        if length is None:
            shape[axis] = size if axis else batch
    return keras.KerasTensor(shape, dtype=tensor.dtype, sparse=tensor.sparse)
