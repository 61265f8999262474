"""Consistency of the output layer: parts of the head predict what the whole head predicts."""

import warnings
from typing import Any

import keras
from keras import ops

from keras_collab._checks import check_range
from keras_collab.network.select import NetworkReader, Selection
from keras_collab.terms.term import StepTensors, Term, Weight

# With one of these the outputs are quantities, not logits.
_REGRESSION_LOSSES = (
    keras.losses.MeanSquaredError,
    keras.losses.MeanAbsoluteError,
    keras.losses.MeanAbsolutePercentageError,
    keras.losses.MeanSquaredLogarithmicError,
    keras.losses.Huber,
    keras.losses.LogCosh,
)
_REGRESSION_FUNCTIONS = (
    keras.losses.mean_squared_error,
    keras.losses.mean_absolute_error,
    keras.losses.mean_absolute_percentage_error,
    keras.losses.mean_squared_logarithmic_error,
    keras.losses.huber,
    keras.losses.log_cosh,
)


def consistency_divergence(logits: Any, part_logits: Any, temperature: float) -> Any:
    """T² · mean_p KL( softmax(z / T) ‖ softmax(z_p / T) ) of each sample, the target without gradient.

    Args:
        logits: `(batch, ..., classes)`, of the whole head; the target.
        part_logits: `(parts, batch, ..., classes)`.
        temperature: T, softens both; the factor T² keeps the size of the gradient.

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

    A part keeps a random half of the D features h that the head reads, and predicts on its own through the head's own
    kernel: z_p = (m_p ∘ h) W / (1 − rate) + b. On average over the masks the mean of the parts is z, the network's
    own prediction. The loss is T² · mean_p KL( sg softmax(z / T) ‖ softmax(z_p / T) ).

    The formula is this project's reading of the abstract of Fang & Lin (2021, arXiv 2105.09590). Its parts stand in
    the place of the heads of Song & Chai (2018, arXiv 1805.11761), without a weight being added. The masks are those
    of Multi-Sample Dropout (Inoue, 2019, arXiv 1905.09788) and SD-Dropout (Lee et al., 2022, arXiv 2208.05642).

    Each sample counts as it does in the task loss: sample weights and class weights apply.

    Args:
        weight: number >= 0 or schedule, see `Term`. Defaults to 0.1.
        parts: number of parts that predict in a step, at least 1. Defaults to 2.
        rate: share of the features that a part leaves out, in (0, 1). Defaults to 0.5.
        temperature: T > 0; 1 for no softening. Defaults to 2.
        output: name of the network's output that the head makes; needed when the network has several.
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
        self.temperature = check_range(self, temperature=temperature, above=0)
        self.output_name = output

    def select(self, network: NetworkReader) -> Selection:
        return Selection(head=network.head(self.output_name))

    def call(self, tensors: StepTensors) -> Any:
        head = tensors.head
        part_logits = head.logits_of(head.features * self._masks(*ops.shape(head.features)))
        divergence = consistency_divergence(head.logits, part_logits, self.temperature)
        return tensors.mean_over_samples(divergence)

    def check_loss(self, selection: Selection, loss: Any) -> None:
        regression = isinstance(loss, _REGRESSION_LOSSES) or loss in _REGRESSION_FUNCTIONS
        if regression and selection.head.activation == "linear":
            warnings.warn(
                f"'{self.name}' reads the outputs of '{selection.head.path}' as logits of classes, but the loss is "
                f"{loss!r}, a regression. Leave the term out: wrap(network, [...]) with the others.",
                stacklevel=3,
            )

    def _masks(self, batch: Any, size: int) -> Any:
        """What the features are multiplied by, `(parts, batch, size)`."""
        uniform = keras.random.uniform((self.parts, batch, size), dtype="float32", seed=self.seed_generator)
        return ops.cast(uniform >= self.rate, "float32") / (1 - self.rate)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "parts": self.parts,
            "rate": self.rate,
            "temperature": self.temperature,
            "output": self.output_name,
        }
