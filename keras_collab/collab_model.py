"""The model that trains a network with terms of collaboration added to its loss."""

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from typing import Any

import keras
from keras import ops, tree

from keras_collab.network.graph import check_network, symbolic_ends
from keras_collab.network.head import read_head
from keras_collab.network.placement import check_same_placement
from keras_collab.network.select import NetworkReader, Selection
from keras_collab.terms.intermediate_consistency import IntermediateConsistency
from keras_collab.terms.kernel_similarity import KernelSimilarity
from keras_collab.terms.output_consistency import OutputConsistency
from keras_collab.terms.representation_similarity import RepresentationSimilarity
from keras_collab.terms.term import StepTensors, Term
from keras_collab.tools.describe import Description, describe

_RESERVED_NAMES = ("loss", "task_loss")

# Which model is in its training step; a ContextVar because MirroredStrategy runs replicas in threads.
_collaborating: contextvars.ContextVar[Any] = contextvars.ContextVar("collaborating", default=None)
_evaluating: contextvars.ContextVar[bool] = contextvars.ContextVar("evaluating", default=False)


@contextlib.contextmanager
def scoped(variable: contextvars.ContextVar[Any], value: Any) -> Iterator[None]:
    """Sets the variable for a while."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


class _Internals:
    """What Keras' saver and layer tracking must not see: they would store the network a second time."""

    def __init__(self, network: keras.Model, reader: NetworkReader, selections: Sequence[Selection]):
        self.network = network
        self.selections = tuple(selections)
        tensors = {id(x): x for selection in selections for x in _tensors_read(selection)}
        self.tap_index = {key: index for index, key in enumerate(tensors)}
        self.tapped = reader.graph.tapped(list(tensors.values()))
        self.graph = reader.graph


def _tensors_read(selection: Selection) -> list[keras.KerasTensor]:
    return [tap.tensor for tap in selection.taps] + ([selection.head.features] if selection.head else [])


def default_terms() -> list[Term]:
    """All four terms with their default weights."""
    return [OutputConsistency(), IntermediateConsistency(), RepresentationSimilarity(), KernelSimilarity()]


def wrap(network: keras.Model, terms: Sequence[Term] | None = None, *, name: str | None = None) -> "CollabModel":
    """Makes a network train with the collaboration of its own parts.

    Args:
        network: a Functional or built Sequential model. Its layers and weights are used as they are, never copied.
        terms: terms to add to its loss. Defaults to all four with default weights.
        name: name of the wrapped model. Defaults to the network's.

    Returns:
        A `CollabModel`, to be compiled, fitted, evaluated and saved like any Keras model.

    Raises:
        ValueError, TypeError: if the network has no graph of layers, or a term finds nothing to read in it; the message
            says what was received, what was expected and how to mend it. The network is as it was.

    >>> network = keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3), classes=10)
    >>> model = keras_collab.wrap(network)
    >>> list(model.terms)
    ['output_consistency', 'intermediate_consistency', 'representation_similarity', 'kernel_similarity']
    """
    return CollabModel(network, terms, name=name)


@keras.saving.register_keras_serializable("keras_collab")
class CollabModel(keras.Model):
    """A network whose parts teach each other while it trains; see `wrap`.

    `fit` adds `weight · value` of every term to the network's own loss. `evaluate`, `predict`, `export` and
    `unwrap` are the network itself. The history has `loss` (the total), `task_loss` (without terms, regularizers and
    `add_loss`), one column of raw values a term, and `<term>_weight` for a scheduled weight.

    Args:
        network: a Functional or built Sequential model.
        terms: terms to add to its loss. Defaults to all four with default weights.
        name: name of the model. Defaults to the network's.
    """

    def __init__(
        self,
        network: keras.Model,
        terms: Sequence[Term] | None = None,
        *,
        name: str | None = None,
    ):
        check_not_wrapped(network, CollabModel)
        check_network(network)
        terms = default_terms() if terms is None else _checked(terms)
        reader = NetworkReader(network)
        selections = [_select(term, reader) for term in terms]
        check_same_placement(network)
        internals = _Internals(network, reader, selections)

        # Keras 3.15 on torch registers a weight by its path, which must not contain a dot ("mobilenetv2_0.35_224").
        super().__init__(*symbolic_ends(network), name=(name or network.name).replace(".", "_"))
        self.dtype_policy = network.dtype_policy
        self._internals = internals
        for term, selection in zip(terms, selections, strict=True):
            term.attach(selection)
        self._terms = terms
        self._step = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False, aggregation="only_first_replica", name="step"
        )
        self._task_tracker = keras.metrics.Mean(name="task_loss")
        self._value_trackers = [keras.metrics.Mean(name=term.name) for term in terms]
        self._weight_trackers = [keras.metrics.Mean(name=f"{term.name}_weight") for term in terms if term.scheduled]

    @property
    def network(self) -> keras.Model:
        """The wrapped network, the very object that was given."""
        return self._internals.network

    @property
    def terms(self) -> dict[str, Term]:
        """The terms by name. `model.terms["kernel_similarity"].weight = 0.5` takes effect at once."""
        return {term.name: term for term in self._terms}

    def unwrap(self) -> keras.Model:
        """The network itself, trained, without the terms. Its files load where keras_collab is not installed."""
        return self.network

    def describe(self, batch_size: int = 128, *, verbose: bool = True) -> Description:
        """Tells what each term found in the network and what it will cost.

        Args:
            batch_size: samples in a training step, which the costs depend on.
            verbose: whether to print the table, or only to return it.
        """
        return describe(self, self._internals.graph, batch_size, verbose=verbose)

    # Training: one forward pass through the tapped network, whose outputs go through Keras' own loss.

    def train_step(self, *args, **kwargs):
        with scoped(_collaborating, self):
            return super().train_step(*args, **kwargs)

    def call(self, inputs, training=None, mask=None, **kwargs):
        if _collaborating.get() is self:
            return self._internals.tapped.call(inputs, training=training, mask=mask, **kwargs)
        return super().call(inputs, training=training, mask=mask, **kwargs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if _collaborating.get() is not self:
            self._check_labels(y)
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        outputs, taps = y_pred["outputs"], y_pred["taps"]
        total = self.task_total(x, y, outputs, sample_weight, training)
        batch = ops.shape(tree.flatten(outputs)[0])[0]
        self._task_tracker.update_state(self._task_loss(total), sample_weight=batch)
        weight_trackers = iter(self._weight_trackers)
        step = ops.convert_to_tensor(self._step)
        for term, selection, tracker in zip(self._terms, self._internals.selections, self._value_trackers, strict=True):
            term.draw_at(step)
            value = term(tensors=self._tensors(selection, taps, outputs, y, sample_weight))
            weight = term.weight_at(step)
            total = total + self._aggregate_additional_loss(weight * value)
            tracker.update_state(value, sample_weight=batch)
            if term.scheduled:
                next(weight_trackers).update_state(weight, sample_weight=batch)
        self._step.assign(step + 1)
        return total

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        outputs = y_pred["outputs"] if _collaborating.get() is self else y_pred
        return super().compute_metrics(x, y, outputs, sample_weight)

    def task_total(self, x: Any, y: Any, outputs: Any, sample_weight: Any, training: bool) -> Any:
        """The network's own loss, with regularizers and add_loss."""
        return super().compute_loss(x, y, outputs, sample_weight, training)

    def _task_loss(self, total: Any) -> Any:
        """The loss without regularizers and add_loss, and without the scaling of a distribution strategy."""
        for loss in self.losses:
            total = total - self._aggregate_additional_loss(loss)
        return total / self._aggregate_additional_loss(ops.ones(()))

    def _tensors(
        self, selection: Selection, taps: Sequence[Any], outputs: Any, y: Any, sample_weight: Any
    ) -> StepTensors:
        read = {key: taps[index] for key, index in self._internals.tap_index.items()}
        return StepTensors(
            taps=tuple(tap.channels_last(read[id(tap.tensor)]) for tap in selection.taps),
            head=read_head(selection.head, read[id(selection.head.features)]) if selection.head else None,
            kernels=tuple(kernel for kernel in selection.kernels if kernel.trainable),
            outputs=outputs,
            y=y,
            sample_weight=sample_weight,
        )

    def _check_labels(self, y: Any) -> None:
        """Called where Keras builds losses and metrics: an error inside the first step would cost JAX its weights."""
        if y is not None and not _evaluating.get():
            for term, selection in zip(self._terms, self._internals.selections, strict=True):
                term.check_labels(selection, y)

    # Evaluation: the network's own columns only.

    def test_step(self, *args, **kwargs):
        with scoped(_evaluating, True):
            return super().test_step(*args, **kwargs)

    def evaluate(self, *args, **kwargs):
        with scoped(_evaluating, True):
            return super().evaluate(*args, **kwargs)

    def get_metrics_result(self):
        trackers = {id(t) for t in (self._task_tracker, *self._value_trackers, *self._weight_trackers)}
        task: dict[str, Any] = {}
        collaboration: dict[str, Any] = {}
        for metric in self.metrics:
            result = metric.result()
            columns = result if isinstance(result, dict) else {metric.name: result}
            (collaboration if id(metric) in trackers else task).update(columns)
        twice = sorted(task.keys() & collaboration.keys())
        if twice:
            raise ValueError(
                f"The history would have two columns named {twice[0]!r}, one of the task's and one of the "
                "terms'. Give the term, or the network's output, another name=."
            )
        return task if _evaluating.get() else {**task, **collaboration}

    # The network's own.

    def summary(self, *args, **kwargs):
        return self.network.summary(*args, **kwargs)

    def export(self, *args, **kwargs):
        return self.network.export(*args, **kwargs)

    # Saving.

    def save(self, *args, **kwargs):
        self.get_config()  # Raises for what cannot be saved before a file that is already there is opened.
        return super().save(*args, **kwargs)

    def get_config(self):
        return {
            "network": keras.saving.serialize_keras_object(self.network),
            "terms": [keras.saving.serialize_keras_object(term) for term in self._terms],
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        def restore(item):
            return keras.saving.deserialize_keras_object(item, custom_objects=custom_objects)

        terms = [restore(term) for term in config["terms"]]
        return cls(restore(config["network"]), terms, name=config["name"])


def check_not_wrapped(network: Any, *wrappers: type[keras.Model]) -> None:
    """Raises if the network is one of the wrappers, or has one among its layers."""
    layers = network._flatten_layers() if isinstance(network, keras.Model) else []
    wrapped = next((layer for layer in layers if isinstance(layer, wrappers)), None)
    if wrapped is not None:
        raise ValueError(
            f"'{wrapped.name}' is already wrapped. Take its network, {wrapped.name}.unwrap(), and give wrap() all the "
            "terms it should have."
        )


def _checked(terms: Any) -> list[Term]:
    if isinstance(terms, Term):
        raise TypeError(f"`terms` must be a list. Received: {terms!r}. Put it into brackets: [...].")
    terms = list(terms)
    for term in terms:
        if not isinstance(term, Term):
            raise TypeError(
                f"`terms` must be a list of keras_collab.Term objects, such as "
                f"[keras_collab.OutputConsistency()]. Received: {term!r}."
            )
        if term.selection is not None:
            raise ValueError(
                f"Term '{term.name}' is already part of a model and holds that model's weight and draws. Make "
                f"a new one: {type(term).__name__}.from_config(term.get_config())."
            )
        if term.name in _RESERVED_NAMES:
            raise ValueError(
                f"A term cannot be named '{term.name}': the history's column of that name is Keras' or the "
                "model's own. Give it another name=."
            )
    names = [term.name for term in terms] + [f"{term.name}_weight" for term in terms if term.scheduled]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"Several terms would write the history's column {twice[0]!r}. Give each its own name=.")
    return terms


def _select(term: Term, reader: NetworkReader) -> Selection:
    try:
        return term.select(reader)
    except ValueError as error:
        raise ValueError(f"Term '{term.name}': {error}") from error
    except TypeError as error:
        raise TypeError(f"Term '{term.name}': {error}") from error
