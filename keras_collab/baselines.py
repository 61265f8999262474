"""Baselines for the terms: multi-head training, R-Drop, and exits that exist in training only.

Each trains a network inside a larger model, of which `unwrap()` keeps the network. Heads and exits have weights of
their own; R-Drop takes a second forward pass. Training uses the loss of the method, on logits; the loss given to
`compile` is that of `evaluate`. Save the network: `model.unwrap().save(...)`. `save_weights` stores heads and exits
too, for the same baseline only.
"""

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_collab._checks import check_range, check_temperature
from keras_collab._choice import check_not_wrapped
from keras_collab._training_step import step_of, training_step
from keras_collab._types import Tensor
from keras_collab.collab_model import CollabModel
from keras_collab.network.head import Head, read_head
from keras_collab.network.select import NetworkReader, Tap
from keras_collab.terms.output_consistency import consistency_divergence
from keras_collab.terms.pairs import scale_gradient
from keras_collab.terms.relations import pool
from keras_collab.terms.step_tensors import weighted_mean

__all__ = ["Baseline", "Exits", "MultiHead", "RDrop"]


def cross_entropy(labels: Tensor, logits: Tensor) -> Tensor:
    """The cross-entropy of each sample, `(batch,)`; labels and logits are `(batch, classes)`."""
    return -ops.sum(labels * ops.log_softmax(logits), axis=-1)


class _Logits(keras.layers.Layer):
    """The logits of a head, in float32."""

    def __init__(self, head: Head):
        super().__init__(dtype="float32")
        self.head = head
        self.classifier = head.layer  # So that Keras finds its weights.

    def call(self, features):
        return read_head(self.head, features).logits


class Baseline(keras.Model):
    """The base class of the baselines: trains a network through `training_graph`, a larger model.

    The outputs of `training_graph` are a list, which begins with the logits of the network's head.

    Args:
        network: a Functional or built Sequential model that ends in a Dense layer with one output for each class.
    """

    def __init__(self, network: keras.Model, name: str | None = None):
        check_not_wrapped(network, CollabModel, Baseline)
        super().__init__(name=name or network.name)
        self.network = network
        self.reader = NetworkReader(network)
        self.head = self.reader.head()
        if not isinstance(self.head.layer, keras.layers.Dense) or self.head.two_way:
            raise ValueError(
                f"{type(self).__name__} needs a network that ends in a Dense layer with one output a class. Received: "
                f"'{self.head.path}', {type(self.head.layer).__name__} with {self.head.classes} outputs and activation "
                f"{self.head.activation!r}."
            )
        self.training_graph = self.build_training_graph()
        self.built = True

    def build_training_graph(self) -> keras.Model:
        """Returns the model that training runs, which shares the network's layers. Called once."""
        raise NotImplementedError

    def loss_of(self, labels: Tensor, logits: Sequence[Tensor]) -> Tensor:
        """The loss of each sample, `(batch,)`.

        Args:
            labels: `(batch, classes)`, distributions.
            logits: outputs of `training_graph`: logits, and what else the loss needs.
        """
        raise NotImplementedError

    def unwrap(self) -> keras.Model:
        """Returns the network."""
        return self.network

    def save(self, filepath, *args, **kwargs):
        raise NotImplementedError(
            f"A {type(self).__name__} model is not saved. Save its network, which needs no keras_collab to load: "
            f"model.unwrap().save({str(filepath)!r})."
        )

    def train_step(self, *args, **kwargs):
        with training_step(self):
            return super().train_step(*args, **kwargs)

    def call(self, inputs, training=None, mask=None):
        step = step_of(self)
        if step is None:
            return self.network(inputs, training=training)
        step.taps = self.training_graph(inputs, training=training)
        logits = step.taps[0]
        return logits if self.head.activation == "linear" else ops.softmax(logits)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        step = step_of(self)
        if step is None or step.taps is None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        logits, step.taps = step.taps, None
        losses = self.loss_of(self.head.label_distributions(y), logits)
        total = self._aggregate_additional_loss(weighted_mean(losses, sample_weight))
        for loss in self.losses:
            total = total + self._aggregate_additional_loss(loss)
        return total


class MultiHead(Baseline):
    """Trains several heads that learn from each other (Song & Chai, 2018, arXiv 1805.11761).

    Each split continues the network in several branches, whose layers have new weights of their own, but for the first,
    which is the network's; the layers before it are shared. Head h learns from the labels and from the mean logits of
    the other heads: L_h = hard_share · CE(y, z_h) + (1 − hard_share) · CE(sg softmax(mean_j≠h z_j / temperature),
    softmax(z_h / temperature)). The loss is the sum over heads. Each split divides the gradient by `branches`, so that
    the shared layers get the mean of the heads' gradients. The first head is that of the network.

    Args:
        network: network to train; it ends in a Dense layer.
        splits: names of the layers to split after, in the order of the network; or an integer n >= 1, which splits
            after each of the n stages before the last. Defaults to 1.
        branches: integer >= 2. Branches of each split; there are `branches ** len(splits)` heads. Defaults to 2.
        hard_share: float in (0, 1]. Weight of the labels. Defaults to 0.5.
        temperature: float in [1e-4, 1e4]. Defaults to 2.
        name: name of the model. Defaults to that of the network.

    Raises:
        ValueError: if an argument is outside its range, the network ends in no Dense layer with one output for each
            class, or it cannot be split there.
    """

    def __init__(
        self,
        network: keras.Model,
        splits: int | Sequence[str] = 1,
        *,
        branches: int = 2,
        hard_share: float = 0.5,
        temperature: float = 2.0,
        name: str | None = None,
    ):
        self.branches = check_range(self, branches=branches, least=2, whole=True)
        self.hard_share = check_range(self, hard_share=hard_share, above=0, most=1)
        self.temperature = check_temperature(self, temperature)
        self.splits = splits
        super().__init__(network, name)

    def build_training_graph(self):
        if isinstance(self.splits, int | np.integer):
            count = check_range(self, splits=self.splits, least=1, whole=True)
            stages = self.reader.taps("auto", at_least=0)
            if count >= len(stages):
                raise ValueError(
                    f"MultiHead: `splits` must be below the number of stages, which is {len(stages)} in network "
                    f"'{self.network.name}'. Received: splits={count}. Give a smaller number, or names of layers."
                )
            taps = stages[-1 - count : -1]
        else:
            taps = self.reader.taps(self.splits)
        inputs = self.reader.graph.inputs
        shared = keras.Model(inputs, taps[0].tensor, name="shared")
        ends = [*(tap.tensor for tap in taps[1:]), self.head.features]
        parts: list[keras.Model] = []
        for tap, end in zip(taps, ends, strict=True):
            parts.append(self._part(tap, end, name=f"part{len(parts)}"))
        logits = self._grow(shared(inputs), parts, branch="")
        return keras.Model(inputs, logits, name="training_graph")

    def _part(self, tap: Tap, end: keras.KerasTensor, name: str) -> keras.Model:
        """The layers between a tap and a later tensor."""
        try:
            return keras.Model(tap.tensor, end, name=name)
        except ValueError as error:
            raise ValueError(
                f"MultiHead: network '{self.network.name}' cannot be split after '{tap.path}': a later layer, or its "
                "mask, reads what lies before it. Split at the end of a block, through which everything passes."
            ) from error

    def _grow(self, x: Tensor, parts: Sequence[keras.Model], branch: str) -> list[Tensor]:
        """The logits of all heads that grow from `x`; in the branches "", "0", "00" layers are the network's own."""
        if not parts:
            head, dense = self.head, self.head.layer
            if branch.strip("0"):
                dense = type(dense).from_config({**dense.get_config(), "name": f"{dense.name}_{branch}"})
                dense.build((None, head.size))
                head = dataclasses.replace(head, layer=dense)
            return [_Logits(head)(x)]
        x = scale_gradient(x, 1.0 / self.branches)
        logits = []
        for index in range(self.branches):
            name, part = f"{branch}{index}", parts[0]
            if name.strip("0"):
                part = keras.models.clone_model(part)
                part.name = f"{part.name}_{name}"  # Keras wants the names of a model's layers to be unique.
            logits += self._grow(part(x), parts[1:], name)
        return logits

    def loss_of(self, labels, logits):
        total, hard = 0.0, self.hard_share
        for index, z in enumerate(logits):
            others = [*logits[:index], *logits[index + 1 :]]
            consensus = ops.stop_gradient(ops.softmax(sum(others) / (len(others) * self.temperature)))
            soft = -ops.sum(consensus * ops.log_softmax(z / self.temperature), axis=-1)
            total = total + hard * cross_entropy(labels, z) + (1 - hard) * soft
        return total


class RDrop(Baseline):
    """Makes two forward passes with different dropout masks agree (R-Drop, Liang et al., 2021, arXiv 2106.14448).

    L = mean of both cross-entropies + weight · (KL(p₁‖p₂) + KL(p₂‖p₁)) / 2. The two passes are one pass over the batch
    concatenated with itself.

    Args:
        network: network to train; it has one input and dropout in a layer, and ends in a Dense layer.
        weight: float >= 0, of the divergence between the passes. Defaults to 0.3.
        name: name of the model. Defaults to that of the network.

    Raises:
        ValueError: if the weight is negative, or the network has no dropout, several inputs, or does not end in a Dense
            layer with one output for each class.
    """

    def __init__(self, network: keras.Model, weight: float = 0.3, *, name: str | None = None):
        self.weight = check_range(self, weight=weight, least=0)
        super().__init__(network, name)

    def build_training_graph(self):
        if not any(map(_drops, self.network._flatten_layers())):
            raise ValueError(
                f"Network '{self.network.name}' has no dropout: both passes of R-Drop would be the same. "
                "Build it with one, for instance keras_collab.models.resnet8(dropout=0.3)."
            )
        inputs = self.reader.graph.inputs
        if isinstance(inputs, list | tuple | dict):
            raise ValueError(f"RDrop takes networks with one input. Received: {inputs!r}.")
        features = keras.Model(inputs, self.head.features, name="features")
        both = _Logits(self.head)(features(ops.concatenate([inputs, inputs])))
        return keras.Model(inputs, ops.split(both, 2), name="training_graph")

    def loss_of(self, labels, logits):
        first, second = ops.log_softmax(logits[0]), ops.log_softmax(logits[1])
        apart = ops.sum(ops.exp(first) * (first - second) + ops.exp(second) * (second - first), axis=-1)
        task = (cross_entropy(labels, logits[0]) + cross_entropy(labels, logits[1])) / 2
        return task + self.weight * apart / 2


class Exits(Baseline):
    """Trains a classifier on each stage, in training only (Be Your Own Teacher, Zhang et al., 2019, arXiv 1905.08094).

    These exits learn from the labels and from the prediction of the network:
    L = CE(y, z) + Σ_l [ (1 − soft_share) · CE(y, z_l) + soft_share · temperature² · KL(sg p ‖ p_l) ], where p and p_l
    are softmaxes of z / temperature and z_l / temperature. An exit is global average pooling and a Dense layer. The
    exits of the paper have a bottleneck before the pooling: three convolutions that reduce the positions to about
    those of the last stage and give as many features f_l as the features f of the head; the loss then adds
    hint_weight · ‖f_l − sg f‖².

    Args:
        network: network to train; it ends in a Dense layer.
        layers: layers that get an exit, or `"auto"`: the end of each stage but the last. Defaults to `"auto"`.
        soft_share: float in [0, 1]. Weight of the network's prediction against the labels. Defaults to 0.3.
        temperature: float in [1e-4, 1e4]. Defaults to 3.
        bottleneck: whether exits have the paper's bottleneck. Defaults to False.
        hint_weight: float >= 0, unused without a bottleneck. Defaults to 1e-4; public reimplementations use 1e-6 on
            the sum over a batch of 128.
        name: name of the model. Defaults to that of the network.

    Raises:
        ValueError: if an argument is outside its range, the network ends in no Dense layer with one output for each
            class, or a layer cannot have an exit.
    """

    def __init__(
        self,
        network: keras.Model,
        layers: str | Sequence[str] = "auto",
        *,
        soft_share: float = 0.3,
        temperature: float = 3.0,
        bottleneck: bool = False,
        hint_weight: float = 1e-4,
        name: str | None = None,
    ):
        self.soft_share = check_range(self, soft_share=soft_share, least=0, most=1)
        self.temperature = check_temperature(self, temperature)
        self.bottleneck = bottleneck
        self.hint_weight = check_range(self, hint_weight=hint_weight, least=0)
        self.layers_with_exit = layers
        super().__init__(network, name)

    def build_training_graph(self):
        is_auto = self.layers_with_exit == "auto"
        taps = self.reader.taps(self.layers_with_exit, at_least=2 if is_auto else 1)
        logits, hints = [_Logits(self.head)(self.head.features)], []
        for tap in taps[:-1] if is_auto else taps:
            x = tap.channels_last(tap.tensor)
            features = pool(self._bottleneck(x, tap) if self.bottleneck else x)
            logits.append(keras.layers.Dense(self.head.classes, dtype="float32")(features))
            if self.bottleneck:
                hints.append(features - ops.stop_gradient(ops.reshape(self.head.features, (-1, self.head.size))))
        return keras.Model(self.reader.graph.inputs, logits + hints, name="training_graph")

    def _bottleneck(self, x: Tensor, tap: Tap) -> Tensor:
        """From a tap's positions to about those of the last stage, and to the features of the head."""
        last = self.reader.taps("auto")[-1].positions
        if len(tap.positions) != 2 or len(last) != 2:
            raise ValueError(
                f"An exit with a bottleneck needs images, with height and width. Received: layer '{tap.path}' with "
                f"positions {tap.positions}, the last stage with {last}. Use bottleneck=False."
            )
        strides = [max(1, here // there) for here, there in zip(tap.positions, last, strict=True)]
        narrow = max(1, self.head.size // 4)
        for filters, size in ((narrow, 1), (narrow, strides), (self.head.size, 1)):
            x = keras.layers.Conv2D(filters, size, strides=size, data_format="channels_last", dtype="float32")(x)
            x = keras.layers.ReLU(dtype="float32")(keras.layers.BatchNormalization(dtype="float32")(x))
        return x

    def loss_of(self, labels, logits):
        total, soft = cross_entropy(labels, logits[0]), self.soft_share
        exits = (len(logits) - 1) // 2 if self.bottleneck else len(logits) - 1
        for z in logits[1 : 1 + exits]:
            agreement = consistency_divergence(logits[0], z[None], self.temperature)
            total = total + (1 - soft) * cross_entropy(labels, z) + soft * agreement
        for hint in logits[1 + exits :]:
            total = total + self.hint_weight * ops.sum(ops.square(hint), axis=-1)
        return total


def _drops(layer: keras.Layer) -> bool:
    """Whether a layer drops at random: a Dropout layer, or one with a rate of its own, such as attention and LSTM."""
    for name in ("rate", "dropout", "recurrent_dropout"):
        rate = getattr(layer, name, 0)
        if isinstance(rate, float) and rate > 0:
            return True
    return "Dropout" in type(layer).__name__ and not isinstance(getattr(layer, "rate", None), float)
