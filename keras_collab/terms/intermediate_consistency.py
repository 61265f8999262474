"""Collaboration of intermediate layers: they see the same relations between samples as the outputs do."""

from typing import Any

import keras
from keras import ops

from keras_collab._checks import check_choice, check_range
from keras_collab.network.select import Layers, NetworkReader, Selection
from keras_collab.terms.relations import centre, log_relations, pool, vote
from keras_collab.terms.term import StepTensors, Term, Weight

FORMS = ("outputs", "relational", "cka", "nearest_neighbours")


def relational_divergence(features: Any, target: Any, temperature: float) -> Any:
    """Mean over samples of KL( sg P_target ‖ P ), P the relations between samples; 0 for a batch of one.

    Args:
        features: `(batch, channels)`.
        target: `(batch, batch)`, `log_relations` of the teacher; without gradient.
        temperature: τ of P.
    """
    target = ops.stop_gradient(target)
    return ops.mean(ops.sum(ops.exp(target) * (target - log_relations(features, temperature)), axis=-1))


def cka_distance(shallow: Any, deepest: Any) -> Any:
    """1 − linear CKA, ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖) of centred features (Kornblith et al., 2019, arXiv 1905.00414).

    Args:
        shallow: `(batch, channels)`.
        deepest: `(batch, other channels)`; the target, without gradient.
    """
    grams = []
    for features in (shallow, ops.stop_gradient(deepest)):
        centred = centre(features)
        centred = centred / ops.sqrt(ops.stop_gradient(ops.mean(ops.square(centred))) + 1e-30)
        gram = ops.matmul(centred, ops.transpose(centred))
        grams.append(gram / ops.sqrt(ops.sum(ops.square(gram)) + 1e-12))
    same = ops.sum(ops.square(grams[0])) * ops.sum(ops.square(grams[1]))
    return ops.sqrt(same + 1e-12) - ops.sum(grams[0] * grams[1])


def neighbour_divergence(features: Any, logits: Any, temperature: float) -> Any:
    """Mean over samples of KL( sg p_i ‖ Σ_j P_ij sg p_j ): a layer's neighbours predict what the network predicts.

    Deep supervision without a classifier (soft nearest neighbours: Frosst et al., 2019, arXiv 1902.01889).

    Args:
        features: `(batch, channels)` of a layer; P are its relations.
        logits: `(batch, ..., classes)` of the network, without gradient.
        temperature: τ.
    """
    target_log = ops.stop_gradient(ops.log_softmax(logits, axis=-1))
    target = ops.exp(target_log)
    voted = vote(features, target, temperature)
    return ops.mean(ops.sum(target * (target_log - ops.log(ops.maximum(voted, 1e-6))), axis=-1))


@keras.saving.register_keras_serializable("keras_collab")
class IntermediateConsistency(Term):
    """Makes the network's stages see the same similarities between samples that its outputs see.

    u_l = globally averaged tap l, centred over the batch and L2-normalised; P_l = row-softmax of u_l u_lᵀ / τ without
    the diagonal, how similar each other sample is to sample i for layer l; the loss is the mean over l and i of
    KL( sg P_target ‖ P_l ). No projection and no exit: layers of any shape compare. The formula is this project's
    reading of the abstract of Fang & Lin (2021, arXiv 2105.09590); relations between samples follow
    Similarity-Preserving distillation (Tung & Mori, 2019, arXiv 1907.09682). Forms:

    - `"outputs"`: the target is P of the logits. With a single logit that says no more than on which side of the
      batch's mean a sample lies.
    - `"relational"`: the target is P of the deepest tap, so that no head is needed.
    - `"cka"`: mean over l of 1 − linear CKA( tap l, sg deepest ) (Kornblith et al., 2019, arXiv 1905.00414).
    - `"nearest_neighbours"`: soft nearest neighbours in every tap predict the network's own output. The other way
      round, neighbours that teach the output, is `OutputConsistency(form="neighbours")`.

    Args:
        weight: number >= 0 or schedule, see `Term`. Defaults to 0.1, which with `"outputs"` was the best of
            the first eight combinations in examples/results/choose-together.jsonl with label noise, and within 0.1
            points of the best of them without.
        temperature: τ > 0 of the relations, for cosines in [−1, 1]; unused by `"cka"`. Defaults to 0.1.
        layers: layers to tap (names, a regular expression, a function of the layer), or `"auto"`: the end of each
            stage. `"relational"` and `"cka"` need two, of which the deepest is the target. Defaults to `"auto"`.
        form: one of the above. Defaults to `"outputs"`.
        head: name of the output meant by `"outputs"` and `"nearest_neighbours"`, in a network with several.
        name: column in the history. Defaults to `"intermediate_consistency"`.
        seed: unused, there are no random draws.

    Samples are related within a batch (within a replica's share of it under `tf.distribute.MirroredStrategy`), all
    alike: sample weights do not apply.
    """

    def __init__(
        self,
        weight: Weight = 0.1,
        *,
        temperature: float = 0.1,
        layers: Layers = "auto",
        form: str = "outputs",
        head: str | None = None,
        name: str | None = None,
        seed: int | None = None,
    ):
        super().__init__(weight, name=name, seed=seed)
        self.form = check_choice(self, form=form, choices=FORMS)
        self.temperature = check_range(self, temperature=temperature, above=0)
        self.layers = layers
        self.head = head

    def select(self, network: NetworkReader) -> Selection:
        if self.form in ("outputs", "nearest_neighbours"):
            return Selection(taps=network.taps(self.layers), head=network.head(self.head))
        return Selection(taps=network.taps(self.layers, at_least=2))

    def call(self, tensors: StepTensors) -> Any:
        pooled = [pool(tap) for tap in tensors.taps]
        if self.form == "nearest_neighbours":
            logits = tensors.head.logits
            values = [neighbour_divergence(u, logits, self.temperature) for u in pooled]
        elif self.form == "outputs":
            logits = ops.reshape(tensors.head.logits, (ops.shape(pooled[0])[0], -1))
            target = log_relations(ops.stop_gradient(logits), self.temperature)
            values = [relational_divergence(u, target, self.temperature) for u in pooled]
        elif self.form == "cka":
            values = [cka_distance(u, pooled[-1]) for u in pooled[:-1]]
        else:
            target = log_relations(ops.stop_gradient(pooled[-1]), self.temperature)
            values = [relational_divergence(u, target, self.temperature) for u in pooled[:-1]]
        return ops.mean(ops.stack(values))

    def operations(self, selection: Selection, batch_size: int) -> float:
        # One similarity matrix a tap, and one product (CKA: two) for its gradient, which a target does not have.
        channels, backward = [tap.channels for tap in selection.taps], 2 if self.form == "cka" else 1
        target = channels[-1] if self.form in ("relational", "cka") else 0
        products = sum(channels) + backward * (sum(channels) - target)
        pooling = sum(2.0 * batch_size * tap.channels * tap.position_count for tap in selection.taps)
        of_head = 0.0
        if selection.head:  # The logits, and their relations or votes.
            of_head = 2.0 * batch_size * selection.head.classes * (selection.head.size + batch_size)
        return 2.0 * batch_size**2 * products + pooling + of_head

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "layers": self.layers_config(self.layers),
            "form": self.form,
            "head": self.head,
        }
