"""Consistency of intermediate layers: they relate the samples of a batch as the outputs do."""

from typing import Any

import keras
from keras import ops

from keras_collab._checks import check_choice, check_temperature
from keras_collab._types import Tensor
from keras_collab.network.names import Layers
from keras_collab.network.select import NetworkReader, Selection
from keras_collab.terms.relations import log_relations, pool
from keras_collab.terms.step_tensors import StepTensors
from keras_collab.terms.term import Term
from keras_collab.terms.weights import Weight

_TARGETS = ("outputs", "deepest")


def relational_divergence(features: Tensor, log_target: Tensor, temperature: float) -> Tensor:
    """Mean over samples of KL( P_target ‖ P ), where P is the relations of `features`; 0 for a batch of one.

    Args:
        features: `(batch, channels)`.
        log_target: `(batch, batch)`, log P_target from `log_relations`. No gradient flows into it.
        temperature: float > 0, of P.
    """
    log_target = ops.stop_gradient(log_target)
    return ops.mean(ops.sum(ops.exp(log_target) * (log_target - log_relations(features, temperature)), axis=-1))


@keras.saving.register_keras_serializable("keras_collab")
class IntermediateConsistency(Term):
    """Makes the stages of a network relate the samples of a batch to each other as its outputs do.

    Tap l is averaged over positions, centered over the batch and L2-normalized: u_l, `(batch, channels)`. Its relations
    are P_l = row softmax of u_l u_lᵀ / temperature without the diagonal: row i says how similar the other samples are
    to sample i. The value is the mean over taps and samples of KL( sg P_target ‖ P_l ); sg stops the gradient. Taps of
    any shape can be compared, without added layers.

    The formula is this project's reading of the abstract of Fang & Lin (2021, arXiv 2105.09590). Relations between
    samples follow Similarity-Preserving distillation (Tung & Mori, 2019, arXiv 1907.09682).

    Samples are related within a batch; under `tf.distribute.MirroredStrategy`, within a replica's share of it. Sample
    weights do not apply.

    Args:
        weight: number >= 0 or schedule, see `Term`. Defaults to 0.1.
        target: `"outputs"` for the logits of the head, or `"deepest"` for the deepest tap, which needs no head but
            two or more taps. Defaults to `"outputs"`.
        temperature: float in [1e-4, 1e4]. Divides cosines, which lie in [−1, 1]. Defaults to 0.1.
        layers: layers to tap (names, a regular expression, a function of the layer), or `"auto"`: the last
            block of each stage, or four blocks of a network with one stage. Defaults to `"auto"`.
        output: name of the output whose head is the target, with `target="outputs"` only. Required if the network has
            several outputs.
        name: column in the history. Defaults to `"intermediate_consistency"`.
    """

    def __init__(
        self,
        weight: Weight = 0.1,
        *,
        target: str = "outputs",
        temperature: float = 0.1,
        layers: Layers = "auto",
        output: str | None = None,
        name: str | None = None,
    ):
        super().__init__(weight, name=name)
        self.target = check_choice(self, target=target, choices=_TARGETS)
        self.temperature = check_temperature(self, temperature)
        self.layers = layers
        if output is not None and target == "deepest":
            raise ValueError(
                f"{type(self).__name__}: `output` names the head that target='outputs' reads. Received: "
                f"output={output!r} and target='deepest'. Leave `output` out."
            )
        self.output_name = output

    def select(self, reader: NetworkReader) -> Selection:
        if self.target == "outputs":
            head = reader.head(self.output_name)
            return Selection(taps=reader.taps(self.layers), head=head, targets=(head,))
        taps = reader.taps(self.layers, at_least=2)
        return Selection(taps=taps, targets=taps[-1:])

    def call(self, tensors: StepTensors) -> Tensor:
        features = [pool(tap, mask) for tap, mask in zip(tensors.taps, tensors.masks, strict=True)]
        if self.target == "outputs":
            target = ops.reshape(tensors.head.logits, (ops.shape(features[0])[0], -1))
        else:
            target = features.pop()
        log_target = log_relations(ops.stop_gradient(target), self.temperature)
        total = ops.zeros((), dtype="float32")
        for u in features:
            total = total + relational_divergence(u, log_target, self.temperature)
        return total / len(features)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "output": self.output_name}
