"""Collaboration of the output layer: parts of the head's features predict, and agree with the whole."""

import math
from typing import Any

import keras
from keras import ops

from keras_collab._checks import check_choice, check_range
from keras_collab.network.head import check_labels, pick_output
from keras_collab.network.select import NetworkReader, Selection
from keras_collab.terms.relations import vote
from keras_collab.terms.term import StepTensors, Term, Weight

FORMS = ("dropout", "partition", "jensen_shannon", "neighbours")

_RELATION_TEMPERATURE = 0.1  # τ of the neighbours, that of IntermediateConsistency.


def consistency_divergence(logits: Any, part_logits: Any, temperature: float) -> Any:
    """T² · mean_p KL( softmax(z / T) ‖ softmax(z_p / T) ) of each sample, the target without gradient.

    Args:
        logits: `(batch, ..., classes)`, the whole head's; the target.
        part_logits: `(parts, batch, ..., classes)`.
        temperature: T, softens both; the factor T² keeps the gradient's size.

    Returns:
        `(batch, ...)`.
    """
    target_log = ops.log_softmax(ops.stop_gradient(logits) / temperature, axis=-1)
    part_log = ops.log_softmax(part_logits / temperature, axis=-1)
    divergence = ops.sum(ops.exp(target_log) * (target_log - part_log), axis=-1)
    return temperature**2 * ops.mean(divergence, axis=0)


def cross_entropy(labels: Any, part_logits: Any) -> Any:
    """Mean over parts of the cross-entropy of each sample.

    Args:
        labels: `(batch, ..., classes)`, distributions.
        part_logits: `(parts, batch, ..., classes)`.

    Returns:
        `(batch, ...)`.
    """
    return ops.mean(-ops.sum(labels * ops.log_softmax(part_logits, axis=-1), axis=-1), axis=0)


def generalised_jensen_shannon(labels: Any, part_logits: Any, label_share: float, temperature: float) -> Any:
    """Generalised Jensen-Shannon divergence of the label and the parts' predictions, of each sample.

    (1 / Z) · Σ_i π_i KL( p_i ‖ m ), m = Σ_i π_i p_i, Z = −(1 − π_1) log(1 − π_1), with the label as p_1
    (Englesson & Azizpour, 2021, arXiv 2105.04522): bounded, so that a wrong label cannot pull without end.

    Args:
        labels: `(batch, ..., classes)`, distributions.
        part_logits: `(parts, batch, ..., classes)`.
        label_share: π_1, in (0, 1); the parts share the rest.
        temperature: T, divides the logits.

    Returns:
        `(batch, ...)`.
    """
    part_log = ops.log_softmax(part_logits / temperature, axis=-1)
    part = ops.exp(part_log)
    mixture = label_share * labels + (1 - label_share) * ops.mean(part, axis=0)
    mixture_log = ops.log(ops.maximum(mixture, 1e-12))
    labels_log = ops.log(ops.maximum(labels, 1e-12))
    from_label = ops.sum(labels * (labels_log - mixture_log), axis=-1)
    from_parts = ops.mean(ops.sum(part * (part_log - mixture_log), axis=-1), axis=0)
    scale = -(1 - label_share) * math.log(1 - label_share)
    return (label_share * from_label + (1 - label_share) * from_parts) / scale


def ensemble_divergence(features: Any, logits: Any, temperature: float, relation_temperature: float) -> Any:
    """T² · KL( sg Σ_j P_ij softmax(z_j / T) ‖ softmax(z_i / T) ) of each sample i, P the relations of the features.

    Args:
        features: `(batch, features)`; without gradient.
        logits: `(batch, ..., classes)`.
        temperature: T.
        relation_temperature: τ of P.

    Returns:
        `(batch, ...)`; for a batch of one, 0.
    """
    predicted_log = ops.log_softmax(logits / temperature, axis=-1)
    target = ops.stop_gradient(vote(features, ops.exp(predicted_log), relation_temperature))
    target_log = ops.log(ops.maximum(target, 1e-12))
    return temperature**2 * ops.sum(target * (target_log - predicted_log), axis=-1)


@keras.saving.register_keras_serializable("keras_collab")
class OutputConsistency(Term):
    """Makes subsets of the head's features predict, through the head's own kernel, what the whole head predicts.

    A part keeps some of the D features h that the head reads and predicts on its own, z_p = scale · (m_p ∘ h) W + b.
    The mean of the parts is z, the network's own prediction (exactly for a partition, on average for dropout): it is
    the ensemble of its parts, so that the several heads of Song & Chai (2018, arXiv 1805.11761) appear without a
    weight being added. The formula is this project's reading of the abstract of Fang & Lin (2021, arXiv 2105.09590).
    Forms:

    - `"dropout"`: independent dropout masks (Multi-Sample Dropout, Inoue, 2019, arXiv 1905.09788; SD-Dropout, Lee et
      al., 2022, arXiv 2208.05642), `T² · mean_p KL( sg softmax(z/T) ‖ softmax(z_p/T) )`.
    - `"partition"`: the same with the features split into equal parts by a permutation drawn each step.
    - `"jensen_shannon"`: dropout masks whose predictions and the label come together in a generalised Jensen-Shannon
      divergence (Englesson & Azizpour, 2021, arXiv 2105.04522), the form for noisy labels.
    - `"neighbours"`: no parts; the predictions of those samples in the batch that have similar features, mixed, teach
      each, `T² · KL( sg Σ_j P_ij softmax(z_j/T) ‖ softmax(z_i/T) )` with P the relations of h as in
      `IntermediateConsistency`, τ = 0.1 (after batch knowledge ensembling, BAKE, Ge et al., 2021, arXiv 2104.13298).

    Args:
        weight: number >= 0 or schedule, see `Term`. Defaults to 0.1: weight 1 kept a ResNet-8 from learning
            its training images and cost 5.4 points of accuracy (examples/results/cifar10-subset.jsonl); a tenth cost
            none with the other terms (examples/results/milder-output.jsonl).
        parts: how many parts predict, at least 2 for `"partition"` and at most the number of features. Defaults to 2.
        rate: share of features that a dropout mask leaves out, in (0, 1). Defaults to 0.5.
        temperature: T > 0; 1 for no softening. Defaults to 2.
        label_share: share s of the parts' own cross-entropy against the labels, `(1 − s) · KL + s · CE`, in [0, 1];
            for `"jensen_shannon"` the label's weight π_1, in (0, 1). Defaults to 0, and to 0.3 for `"jensen_shannon"`.
        form: one of the above. Defaults to `"dropout"`. `"neighbours"` has no use for `parts` and `rate`, and takes no
            `label_share`.
        head: name of the output whose classifier is meant, needed when the network has several.
        name: column in the history. Defaults to `"output_consistency"`.
        seed: integer seed of the masks, see `Term`.

    Each sample counts as it does in the task loss: sample weights and class weights apply.
    """

    def __init__(
        self,
        weight: Weight = 0.1,
        *,
        parts: int = 2,
        rate: float = 0.5,
        temperature: float = 2.0,
        label_share: float | None = None,
        form: str = "dropout",
        head: str | None = None,
        name: str | None = None,
        seed: int | None = None,
    ):
        super().__init__(weight, name=name, seed=seed)
        self.form = check_choice(self, form=form, choices=FORMS)
        self.parts = check_range(self, parts=parts, least=2 if form == "partition" else 1, whole=True)
        self.rate = check_range(self, rate=rate, above=0, below=1)
        self.temperature = check_range(self, temperature=temperature, above=0)
        if label_share is None:
            label_share = 0.3 if form == "jensen_shannon" else 0.0
        if form == "jensen_shannon":
            self.label_share = check_range(self, label_share=label_share, above=0, below=1)
        else:
            self.label_share = check_range(
                self, label_share=label_share, least=0, most=0 if form == "neighbours" else 1
            )
        self.head = head

    def select(self, network: NetworkReader) -> Selection:
        head = network.head(self.head)
        if self.parts > head.size and self.form != "neighbours":
            raise ValueError(
                f"parts={self.parts} is more than the {head.size} features that head '{head.path}' reads; a part needs "
                "at least one feature."
            )
        return Selection(head=head)

    def call(self, tensors: StepTensors) -> Any:
        head = tensors.head
        if self.form == "neighbours":
            loss = ensemble_divergence(head.features, head.logits, self.temperature, _RELATION_TEMPERATURE)
        else:
            loss = self._parts_divergence(tensors, head)
        return tensors.mean_over_samples(ops.mean(ops.reshape(loss, (ops.shape(loss)[0], -1)), axis=-1))

    def _parts_divergence(self, tensors: StepTensors, head: Any) -> Any:
        part_logits = head.logits_of(head.features * self._masks(ops.shape(head.features)[0], head.head.size))
        if self.form == "jensen_shannon":
            return generalised_jensen_shannon(tensors.labels, part_logits, self.label_share, self.temperature)
        loss = (1 - self.label_share) * consistency_divergence(head.logits, part_logits, self.temperature)
        return loss + self.label_share * cross_entropy(tensors.labels, part_logits) if self.label_share else loss

    def operations(self, selection: Selection, batch_size: int) -> float:
        if self.form == "neighbours":  # Relations of the features, what they mix, and the logits.
            head = selection.head
            return 2.0 * batch_size * (batch_size * (head.size + head.classes) + head.size * head.classes)
        # Logits of the whole and of each part; the parts again, twice, in the backward pass.
        return 2.0 * batch_size * selection.head.size * selection.head.classes * (1 + 3 * self.parts)

    def check_labels(self, selection: Selection, y: Any) -> None:
        if self.label_share:
            check_labels(selection.head, pick_output(y, selection.head).shape)

    def _masks(self, batch: Any, size: int) -> Any:
        """What the features are multiplied by: `(parts, batch, size)`, or `(parts, 1, size)` for a partition."""
        if self.form == "partition":
            order = ops.argsort(keras.random.uniform((size,), seed=self.seed_generator))
            member = ops.arange(self.parts)[:, None] == (order % self.parts)[None, :]
            return float(self.parts) * ops.cast(member, "float32")[:, None, :]
        # A uniform float32 has 23 random bits: the upper 12 and the lower 11 make two masks for the price of one.
        uniform = keras.random.uniform(((self.parts + 1) // 2, batch, size), seed=self.seed_generator)
        lower = uniform * 4096 - ops.floor(uniform * 4096)
        kept = ops.concatenate([uniform >= self.rate, lower >= self.rate])[: self.parts]
        return ops.cast(kept, "float32") / (1 - self.rate)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "parts": self.parts,
            "rate": self.rate,
            "temperature": self.temperature,
            "label_share": self.label_share,
            "form": self.form,
            "head": self.head,
        }
