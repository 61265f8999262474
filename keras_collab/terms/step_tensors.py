"""What a term receives at a training step."""

import dataclasses

from keras import ops

from keras_collab._types import Tensor
from keras_collab.network.head import HeadValues, pick_output
from keras_collab.network.layers import Kernel


@dataclasses.dataclass(frozen=True)
class StepTensors:
    """What a term receives at a training step: the tensors that its `select` asked for.

    Attributes:
        taps: one tensor for each tap, `(batch, positions..., channels)`, in the dtype of the layer's output.
        masks: one mask for each tap, `(batch, positions...)`, true for valid positions; None without a mask.
        kernels: the trainable kernels; `kernel.read()` returns their filters.
        outputs: the outputs of the network.
        y: the labels, as passed to `fit`.
        sample_weight: sample weights multiplied by class weights, or None.
        head_values: what `head` returns, or None.
    """

    taps: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    kernels: tuple[Kernel, ...]
    outputs: Tensor
    y: Tensor
    sample_weight: Tensor
    head_values: HeadValues | None

    @property
    def head(self) -> HeadValues:
        """Features, kernel, bias and logits of the classifier in float32; a ValueError if `select` asked for none."""
        if self.head_values is None:
            raise ValueError("This needs a head: select() must return Selection(head=reader.head()).")
        return self.head_values

    @property
    def labels(self) -> Tensor:
        """The labels as distributions over classes, in the shape of `head.logits`.

        That is `(batch, classes)`, and `(batch, classes, 2)` of a sigmoid. A ValueError says which labels do not fit;
        an index that is no class becomes NaN.
        """
        y = ops.convert_to_tensor(pick_output(self.y, self.head.source))
        return self.head.source.label_distributions(y)

    def mean_over_samples(self, values: Tensor) -> Tensor:
        """The mean over samples, with the same sample weights and class weights as the task loss.

        It is that of Keras' losses by default, also where the task loss has another `reduction`.

        Args:
            values: `(batch,)`, or `(batch, labels)` with one value for each label.

        Returns:
            A scalar.

        Raises:
            ValueError: if several outputs have sample weights, and `select` asked for no head.
        """
        head = self.head_values.source if self.head_values else None
        return weighted_mean(values, pick_output(self.sample_weight, head))


def weighted_mean(values: Tensor, sample_weight: Tensor) -> Tensor:
    """The mean of `values · sample_weight` over all values, the reduction of Keras' losses.

    Args:
        values: `(batch,)`, or `(batch, labels)`.
        sample_weight: `(batch,)`, `(batch, 1)`, `(batch, labels)`, or None for 1.
    """
    if sample_weight is None:
        return ops.mean(values)
    weight = ops.convert_to_tensor(sample_weight, dtype=values.dtype)
    rows = ops.reshape(weight, (ops.shape(values)[0], -1))
    if len(values.shape) == 1 or rows.shape[1] != values.shape[1]:
        rows = ops.mean(rows, axis=1, keepdims=True)
    return ops.mean(ops.reshape(values, (ops.shape(values)[0], -1)) * rows)
