"""Relations between the samples of a batch: how similar the other samples are to each sample, for a layer."""

from keras import ops

from keras_collab._types import Tensor
from keras_collab.terms.pairs import cosines

# Added to the logit of a sample's relation with itself, so that its probability is exactly 0 in float32.
_NEVER = -1e9


def pool(tap: Tensor, mask: Tensor = None) -> Tensor:
    """Global average over positions, in float32: `(batch, positions..., channels)` to `(batch, channels)`.

    Args:
        tap: the values.
        mask: `(batch, positions...)`, true for valid positions; None if all are valid.
    """
    axes = tuple(range(1, len(tap.shape) - 1))
    tap = ops.cast(tap, "float32")
    if mask is None:
        return ops.mean(tap, axis=axes)
    counts = ops.expand_dims(ops.cast(mask, "float32"), -1)
    return ops.sum(tap * counts, axis=axes) / ops.maximum(ops.sum(counts, axis=axes), 1.0)


def log_relations(features: Tensor, temperature: float) -> Tensor:
    """The log of the relations of a layer: row i is the log softmax over j != i of cosine(i, j) / temperature.

    Args:
        features: `(batch, channels)`; centered over the batch before the cosines are taken.
        temperature: float > 0.

    Returns:
        `(batch, batch)`, about −1e9 on the diagonal.
    """
    batch = ops.shape(features)[0]
    columns = ops.transpose(features - ops.mean(features, axis=0, keepdims=True))
    constant = ops.stop_gradient(columns)
    # A sample at the mean of the batch has no direction; a floor relative to the mean length keeps it finite.
    floor = 1e-6 * ops.sum(ops.square(constant)) / ops.cast(batch, "float32")
    similarity = cosines(columns, constant, floor) / temperature
    # Symmetric, so the gradient towards the columns of a pair is that towards its rows, for one product less.
    similarity = similarity + ops.transpose(similarity) - ops.stop_gradient(similarity)
    diagonal = ops.eye(batch, dtype="float32")
    return ops.log_softmax(similarity + _NEVER * diagonal, axis=-1)
