"""Consistency of intermediate layers: they relate the samples of a batch as the outputs do."""

from typing import Any

import keras
from keras import ops

from keras_collab._checks import check_choice, check_range
from keras_collab.network.names import Layers
from keras_collab.network.select import NetworkReader, Selection
from keras_collab.terms.relations import log_relations, pool
from keras_collab.terms.term import StepTensors, Term, Weight

_TARGETS = ("outputs", "deepest")


def relational_divergence(features: Any, target: Any, temperature: float) -> Any:
    """Mean over samples of KL( P_target ‖ P ), P the relations between samples; 0 for a batch of one.

    Args:
        features: `(batch, channels)`.
        target: `(batch, batch)`, log P_target as `log_relations` gives it; without gradient.
        temperature: τ of P.
    """
    target = ops.stop_gradient(target)
    return ops.mean(ops.sum(ops.exp(target) * (target - log_relations(features, temperature)), axis=-1))


@keras.saving.register_keras_serializable("keras_collab")
class IntermediateConsistency(Term):
    """Makes the stages of a network relate the samples of a batch to each other as its outputs do.

    u_l = tap l, averaged over positions, centred over the batch and L2-normalised. P_l = row softmax of u_l u_lᵀ / τ
    without the diagonal: how similar each other sample is to sample i for layer l. The loss is the mean over l and i
    of KL( sg P_target ‖ P_l ). There is no projection, so layers of any shape compare.

    The formula is this project's reading of the abstract of Fang & Lin (2021, arXiv 2105.09590). Relations between
    samples follow Similarity-Preserving distillation (Tung & Mori, 2019, arXiv 1907.09682).

    Samples are related within a batch, under `tf.distribute.MirroredStrategy` within a replica's share of it. All
    count alike: sample weights do not apply.

    Args:
        weight: number >= 0 or schedule, see `Term`. Defaults to 0.1.
        target: `"outputs"`: the logits of the head are the target. `"deepest"`: the deepest tap is; no head is needed,
            but two taps. Defaults to `"outputs"`.
        temperature: τ > 0, for cosines in [−1, 1]. Defaults to 0.1.
        layers: layers to tap (names, a regular expression, a function of the layer), or `"auto"`: the end of each
            stage. Defaults to `"auto"`.
        output: name of the network's output that is the target; needed when the network has several.
        name: column in the history. Defaults to `"intermediate_consistency"`.
        seed: unused; there are no random draws.
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
        seed: int | None = None,
    ):
        super().__init__(weight, name=name, seed=seed)
        self.target = check_choice(self, target=target, choices=_TARGETS)
        self.temperature = check_range(self, temperature=temperature, above=0)
        self.layers = layers
        self.output_name = output

    def select(self, network: NetworkReader) -> Selection:
        if self.target == "outputs":
            return Selection(taps=network.taps(self.layers), head=network.head(self.output_name))
        return Selection(taps=network.taps(self.layers, at_least=2))

    def call(self, tensors: StepTensors) -> Any:
        features = [pool(tap, mask) for tap, mask in zip(tensors.taps, tensors.masks, strict=True)]
        if self.target == "outputs":
            target = ops.reshape(tensors.head.logits, (ops.shape(features[0])[0], -1))
        else:
            target = features.pop()
        target = log_relations(ops.stop_gradient(target), self.temperature)
        total = ops.zeros((), dtype="float32")
        for u in features:
            total = total + relational_divergence(u, target, self.temperature)
        return total / max(1, len(features))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "target": self.target,
            "temperature": self.temperature,
            "layers": self.layers_config(self.layers),
            "output": self.output_name,
        }
