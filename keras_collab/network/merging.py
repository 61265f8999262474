"""Which calls bring branches together, and which refine what one layer has made."""

import keras

from keras_collab.network.calls import Call, topological_calls
from keras_collab.network.layers import computes

# Names of layers and of operations of keras.ops. A product gates, and does not count.
_MERGING = ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Subtract")

_REFINING = (
    keras.layers.Activation,
    keras.layers.BatchNormalization,
    keras.layers.ELU,
    keras.layers.GroupNormalization,
    keras.layers.Lambda,
    keras.layers.LayerNormalization,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.RMSNormalization,
    keras.layers.ReLU,
    keras.layers.UnitNormalization,
)


def merges(call: Call) -> bool:
    """Whether a call brings branches together; so does a user's layer without weights, if it adds or joins inside."""
    operation = call.operation
    if type(operation).__name__ in _MERGING:
        return True
    is_known = type(operation).__module__.startswith(("keras.src.layers", "keras.src.ops"))
    is_other = isinstance(operation, keras.Layer) and not is_known and not computes(operation)
    return is_other and _merges_inside(call)


def _merges_inside(call: Call) -> bool:
    fresh = {id(x): keras.KerasTensor(x.shape, x.dtype) for x in call.inputs}
    args, kwargs = call.arguments.fill_in(fresh)
    try:
        inside = topological_calls(list(fresh.values()), call.operation.call(*args, **kwargs), {})
    except Exception:  # A backend's own functions, for instance, take no symbolic tensors.
        return True
    return any(type(part.operation).__name__ in _MERGING for part in inside)


def refines(call: Call) -> bool:
    """Whether a call normalizes or activates what one layer has made, at the same shape."""
    if len(call.inputs) != 1 or call.inputs[0].shape != call.output.shape:
        return False
    is_activation = type(call.operation).__module__ == "keras.src.ops.nn"
    return is_activation or isinstance(call.operation, _REFINING)
