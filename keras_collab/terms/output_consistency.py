"""Consistency of the output layer: parts of the head predict what the whole head predicts."""

import warnings
from typing import Any

import keras
from keras import ops

from keras_collab._checks import check_range, check_temperature
from keras_collab._types import Tensor
from keras_collab.network.select import NetworkReader, Selection
from keras_collab.terms.step_tensors import StepTensors
from keras_collab.terms.term import Term
from keras_collab.terms.weights import Weight

# With one of these the outputs are quantities, not logits.
_REGRESSION_LOSSES = {
    keras.losses.MeanSquaredError: keras.losses.mean_squared_error,
    keras.losses.MeanAbsoluteError: keras.losses.mean_absolute_error,
    keras.losses.MeanAbsolutePercentageError: keras.losses.mean_absolute_percentage_error,
    keras.losses.MeanSquaredLogarithmicError: keras.losses.mean_squared_logarithmic_error,
    keras.losses.Huber: keras.losses.huber,
    keras.losses.LogCosh: keras.losses.log_cosh,
    keras.losses.Poisson: keras.losses.poisson,
    keras.losses.CosineSimilarity: keras.losses.cosine_similarity,
}


def consistency_divergence(logits: Tensor, part_logits: Tensor, temperature: float) -> Tensor:
    """temperature² · mean over parts of KL( softmax(logits / temperature) ‖ softmax(part_logits / temperature) ).

    No gradient flows into `logits`, the target. The factor temperature² keeps the scale of the gradient.

    Args:
        logits: `(batch, ..., classes)`, of the whole head.
        part_logits: `(parts, batch, ..., classes)`.
        temperature: float > 0.

    Returns:
        `(batch, ...)`.
    """
    target_log = ops.log_softmax(ops.stop_gradient(logits) / temperature, axis=-1)
    part_log = ops.log_softmax(part_logits / temperature, axis=-1)
    divergence = ops.sum(ops.exp(target_log) * (target_log - part_log), axis=-1)
    return temperature**2 * ops.mean(divergence, axis=0)


@keras.saving.register_keras_serializable("keras_collab")
class OutputConsistency(Term):
    """Makes parts of the head predict what the whole head predicts.

    A part is the head with dropout on its input features h: z_p = (m_p ∘ h) W / (1 − rate) + b, where m_p is a random
    0/1 mask and W and b are the head's kernel and bias. The mean of z_p over all masks is z, the logits of the head.
    The value is temperature² · mean over parts of KL( sg softmax(z / temperature) ‖ softmax(z_p / temperature) ); sg
    stops the gradient.

    The formula is this project's reading of the abstract of Fang & Lin (2021, arXiv 2105.09590). The parts replace the
    heads of Song & Chai (2018, arXiv 1805.11761) and add no weights. The masks are those of Multi-Sample Dropout
    (Inoue, 2019, arXiv 1905.09788) and SD-Dropout (Lee et al., 2022, arXiv 2208.05642).

    Sample weights and class weights apply as in the task loss with Keras' default reduction.

    Args:
        weight: number >= 0 or schedule, see `Term`. Defaults to 0.1.
        parts: integer >= 1. Number of parts at each step. Defaults to 2.
        rate: float in (0, 1). Dropout rate of the features of a part. Defaults to 0.5.
        temperature: float in [1e-4, 1e4]. Softens both predictions; 1 leaves them unchanged. Defaults to 2.
        output: name of the output whose head is read. Required if the network has several outputs.
        name: column in the history. Defaults to `"output_consistency"`.
        seed: integer seed of the masks, see `Term`.
    """

    def __init__(
        self,
        weight: Weight = 0.1,
        *,
        parts: int = 2,
        rate: float = 0.5,
        temperature: float = 2.0,
        output: str | None = None,
        name: str | None = None,
        seed: int | None = None,
    ):
        super().__init__(weight, name=name, seed=seed)
        self.parts = check_range(self, parts=parts, least=1, whole=True)
        self.rate = check_range(self, rate=rate, above=0, below=1)
        self.temperature = check_temperature(self, temperature)
        self.output_name = output

    def select(self, reader: NetworkReader) -> Selection:
        return Selection(head=reader.head(self.output_name))

    def call(self, tensors: StepTensors) -> Tensor:
        head = tensors.head
        part_logits = head.logits_of(head.features * self._masks(*ops.shape(head.features)))
        divergence = consistency_divergence(head.logits, part_logits, self.temperature)
        return tensors.mean_over_samples(divergence)

    def check_loss(self, loss: Any) -> None:
        head = self.selection.head
        regression = isinstance(loss, tuple(_REGRESSION_LOSSES)) or loss in _REGRESSION_LOSSES.values()
        if head and regression and head.activation == "linear":
            warnings.warn(
                f"'{self.name}' reads the outputs of '{head.path}' as logits of classes, but the loss is "
                f"{loss!r}, a regression loss. Leave the term out: pass the other terms to wrap(network, [...]).",
                stacklevel=3,
            )

    def _masks(self, batch: Tensor, size: int) -> Tensor:
        """Dropout masks, `(parts, batch, size)`: 0, or 1 / (1 − rate)."""
        uniform = keras.random.uniform((self.parts, batch, size), dtype="float32", seed=self.seed_generator)
        return ops.cast(uniform >= self.rate, "float32") / (1 - self.rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "output": self.output_name}
