"""The model that trains a network with terms added to its loss: the only place where training is touched."""

import warnings
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
from keras import ops, tree

from keras_collab._choice import (
    TermsByName,
    check_not_wrapped,
    checked_terms,
    checked_value,
    select_all,
    select_default,
)
from keras_collab._training_step import LastState, StepCounter, evaluation, is_evaluating, step_of, training_step
from keras_collab._types import Tensor
from keras_collab.network.calls import symbolic_ends
from keras_collab.network.head import Head, read_head
from keras_collab.network.placement import check_same_placement
from keras_collab.network.reach import trainable_count, trained_selection, unread, unread_remark
from keras_collab.network.select import NetworkReader, Selection
from keras_collab.terms.step_tensors import StepTensors
from keras_collab.terms.term import Term


class _Internals:
    """What Keras' saver and layer tracking must not see: they would store the network a second time."""

    def __init__(self, network: keras.Model, reader: NetworkReader, selections: Sequence[Selection]):
        self.network = network
        self.graph = reader.graph
        tensors: dict[int, keras.KerasTensor] = {}
        for selection in selections:
            for tensor in _tensors_of(selection):
                tensors[id(tensor)] = tensor
        self.tap_ids = list(tensors)
        self.tapped = reader.graph.tapped(list(tensors.values()))
        self.last_state = LastState()
        self.loss_weights: Any = None  # Keras 3.15 keeps them in a form to be saved only, and not all losses can be.


def _tensors_of(selection: Selection) -> list[keras.KerasTensor]:
    tensors = [tap.tensor for tap in selection.taps]
    tensors += [tap.mask for tap in selection.taps if tap.mask is not None]
    if selection.head:
        tensors.append(selection.head.features)
    return tensors


def wrap(network: keras.Model, terms: Sequence[Term] | None = None, *, name: str | None = None) -> "CollabModel":
    """Adds terms to the training loss of a network, by which its parts teach each other.

    Args:
        network: a Functional or built Sequential model. Its layers and weights are shared, not copied.
        terms: list of `Term` objects. Defaults to `keras_collab.recipes.gentle(width)` for the width of the network,
            without the terms that do not fit it; a warning names these.
        name: name of the wrapped model. Defaults to that of the network.

    Returns:
        A `CollabModel`, which you compile, fit, evaluate and save like any Keras model.

    Raises:
        TypeError: if `network` is not a model, or `terms` is not a list of terms.
        ValueError: if the network is subclassed, not built or already wrapped, or a term finds nothing to read in it.

    >>> network = keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3), classes=10)
    >>> model = keras_collab.wrap(network)
    >>> list(model.terms)
    ['intermediate_consistency', 'kernel_similarity']
    """
    return CollabModel(network, terms, name=name)


@keras.saving.register_keras_serializable("keras_collab")
class CollabModel(keras.Model):
    """A network with terms in its training loss; made by `wrap`.

    `fit` adds `weight · value` of every term to the loss of the network. `evaluate`, `predict` and `export` are those
    of the network itself. The history has `loss` (the total), `task_loss` (without terms, regularizers and
    `add_loss`), for each term a column of its values before weighting, and `<term>_weight` for a scheduled weight.

    A clone has no terms, which a warning says: give `keras.wrappers.SKLearnClassifier` a function that returns a
    wrapped model.

    Args:
        network: a Functional or built Sequential model.
        terms: terms to add to its loss. Defaults to those of `keras_collab.recipes.gentle(width)`.
        name: name of the model. Defaults to that of the network.
    """

    def __init__(self, network: keras.Model, terms: Sequence[Term] | None = None, *, name: str | None = None):
        if name is not None and not isinstance(name, str):
            raise TypeError(f"`name` must be a string. Received: name={name!r}.")
        check_not_wrapped(network, CollabModel)
        reader = NetworkReader(network)
        if terms is None:
            chosen, selections = select_default(reader)
            remark = unread_remark(unread(reader.graph, selections), trainable_count(reader.graph))
            if remark:
                warnings.warn(f"'{network.name}': {remark}", stacklevel=3)
        else:
            chosen = checked_terms(terms)
            selections = select_all(chosen, reader)
        check_same_placement(network)
        internals = _Internals(network, reader, selections)

        # Keras 3.15 on torch registers a weight by its path, which must not contain a dot ("mobilenetv2_0.35_224").
        super().__init__(*symbolic_ends(network), name=(name or network.name).replace(".", "_"))
        self.dtype_policy = network.dtype_policy
        self._internals = internals
        for term, selection in zip(chosen, selections, strict=True):
            term._attach(selection)
        self._terms = chosen
        self._counter = StepCounter([term.name for term in chosen])
        self._task_tracker = keras.metrics.Mean(name="task_loss")
        self._warned_outside = False

    @property
    def network(self) -> keras.Model:
        """The network that was wrapped, the same object."""
        return self._internals.network

    @property
    def terms(self) -> Mapping[str, Term]:
        """The terms by name. A new weight applies at once: `model.terms["kernel_similarity"].weight = 0.5`."""
        return MappingProxyType(TermsByName({term.name: term for term in self._terms}))

    def unwrap(self) -> keras.Model:
        """Returns the network without the terms. Its saved files load where keras_collab is not installed."""
        return self.network

    # Training: one forward pass through the tapped network, whose outputs go through Keras' own loss.

    def compile(self, optimizer="rmsprop", loss=None, loss_weights=None, *args, **kwargs):
        super().compile(optimizer, loss, loss_weights, *args, **kwargs)
        self._internals.loss_weights = loss_weights
        for term in self._terms:
            term.trained_selection = trained_selection(term.selection, self._internals.graph)
        self._check_losses()
        self._check_something_trains()

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, *args, **kwargs):
        self._internals.graph.check_unchanged()
        self._initial_epoch = None  # What a `fit` that ended before its first epoch left.
        with self._internals.last_state.kept(self):
            return super().fit(*args, **kwargs)

    def train_on_batch(self, *args, **kwargs):
        self._internals.graph.check_unchanged()
        with self._internals.last_state.kept(self):
            return super().train_on_batch(*args, **kwargs)

    def train_step(self, *args, **kwargs):
        with training_step(self):
            return super().train_step(*args, **kwargs)

    def _purge_model_variables(self, *args, **kwargs):  # Keras 3.15 has it on JAX alone.
        self._internals.last_state.remember(self)
        super()._purge_model_variables(*args, **kwargs)

    def _make_function(self, step_function, *args, **kwargs):
        if keras.backend.backend() == "jax":  # Keras 3.15 on TensorFlow would trace the wrapper.
            step_function = self._internals.last_state.remembering(step_function)
        return super()._make_function(step_function, *args, **kwargs)

    def call(self, inputs, training=None, mask=None, **kwargs):
        step = step_of(self)
        if step is None:
            self._warn_outside(training)
            return self.network(inputs, training=training, mask=mask, **kwargs)
        both = self._internals.tapped.call(inputs, training=training, mask=mask, **kwargs)
        step.taps = both["taps"]
        return both["outputs"]

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        total = self.task_total(x, y, y_pred, sample_weight, training)
        step = step_of(self)
        if step is None or step.taps is None:
            return total
        taps, step.taps = dict(zip(self._internals.tap_ids, step.taps, strict=True)), None
        batch = ops.shape(tree.flatten(y_pred)[0])[0]
        self._task_tracker.update_state(self._task_loss(total), sample_weight=batch)
        number = ops.convert_to_tensor(self._counter.step)
        for term in self._terms:
            value = ops.zeros((), dtype="float32")
            if not term.is_frozen:
                term._draw_at(number)
                tensors = _read(term.trained_selection, taps, y_pred, y, sample_weight)
                value = checked_value(term, term(tensors=tensors))
                if not term.selection.kernels:
                    value = ops.where(batch > 0, value, 0.0)  # Under a strategy a replica may have no samples.
            weight = term._weight_at(number)
            total = total + ops.cast(self._aggregate_additional_loss(weight * value), total.dtype)
            term._track(value, weight, batch)
            step.values[term.name] = value
        self._counter.step.assign(number + 1)
        return total

    def loss_and_terms(
        self, x: Tensor, y: Tensor = None, sample_weight: Tensor = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes the total training loss of a batch and the value of each term, for a custom training loop.

        The model must be compiled. On JAX, call this inside a `keras.StatelessScope`. Each call is a training step: it
        counts for schedules and moves statistics, as of BatchNormalization. With a `LossScaleOptimizer`, as in
        mixed_float16, take the gradients of `model.optimizer.scale_loss(loss)`.

        Args:
            x: inputs, `(batch, ...)`.
            y: labels, as in `fit`.
            sample_weight: sample weights, as in `fit`. Defaults to None.

        Returns:
            The total loss, a scalar, and a dict from the name of each term to its value, a float32 scalar.

        Raises:
            ValueError: if the model is not compiled, or the network has changed since it was wrapped.

        >>> loss, values = model.loss_and_terms(x, y)
        """
        if not self.compiled:
            raise ValueError("`loss_and_terms` needs a compiled model: call model.compile(optimizer, loss) first.")
        self._internals.graph.check_unchanged()
        with training_step(self) as step:
            outputs = self(x, training=True)
            total = self.compute_loss(x, y, outputs, sample_weight, training=True)
        return total, step.values

    def task_total(self, x: Tensor, y: Tensor, y_pred: Tensor, sample_weight: Tensor, training: bool) -> Tensor:
        """The loss without the terms: the compiled loss, regularizers and `add_loss`."""
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def _task_loss(self, total: Tensor) -> Tensor:
        """The compiled loss alone: without regularizers, `add_loss` and the scaling of a distribution strategy."""
        for loss in self.losses:
            total = total - self._aggregate_additional_loss(loss)
        return total / self._aggregate_additional_loss(ops.ones((), dtype=total.dtype))

    # Checks. An error inside the first step would come late.

    def _check_losses(self) -> None:
        for term in self._terms:
            head = term.selection.head
            if head is not None and self.loss is not None:
                term.check_loss(_loss_of(self.loss, head))

    def _check_something_trains(self) -> None:
        for term in self._terms:
            if term.is_frozen:
                warnings.warn(
                    f"'{term.name}' trains nothing, since what it reads is frozen or only a target. Unfreeze a layer "
                    "and compile again, or leave the term out.",
                    stacklevel=3,
                )

    def _warn_outside(self, training: Any) -> None:
        if training is True and not self._warned_outside:
            self._warned_outside = True
            warnings.warn(
                f"'{self.name}' is called with training=True outside a training step of its own, so its terms are not "
                "in the loss. Train it with fit() or train_on_batch(), or take loss and terms of a batch from "
                "model.loss_and_terms(x, y). To call the network alone, call model.unwrap().",
                stacklevel=3,
            )

    # Evaluation: the columns of the task only.

    def test_step(self, *args, **kwargs):
        with evaluation():
            return super().test_step(*args, **kwargs)

    def evaluate(self, *args, **kwargs):
        with evaluation(), self._internals.last_state.kept(self):
            return super().evaluate(*args, **kwargs)

    def predict(self, *args, **kwargs):
        with self._internals.last_state.kept(self):
            return super().predict(*args, **kwargs)

    def get_metrics_result(self):
        trackers = {id(self._task_tracker)}
        for term in self._terms:
            trackers.update(id(metric) for metric in term.metrics)
        task: dict[str, Any] = {}
        added: dict[str, Any] = {}
        for metric in self.metrics:
            result = metric.result()
            columns = result if isinstance(result, dict) else {metric.name: result}
            (added if id(metric) in trackers else task).update(columns)
        twice = sorted(task.keys() & added.keys())
        if twice:
            raise ValueError(
                f"The history would have two columns named {twice[0]!r}, one of the task's and one of the terms'. Give "
                "the term, or the network's output, another name=."
            )
        return task if is_evaluating() else {**task, **added}

    # The network's own.

    def compute_output_spec(self, *args, **kwargs):
        return self.network.compute_output_spec(*args, **kwargs)

    def summary(self, *args, **kwargs):
        return self.network.summary(*args, **kwargs)

    def export(self, *args, **kwargs):
        return self.network.export(*args, **kwargs)

    def _run_through_graph(self, *args, **kwargs):  # Keras 3.15 makes a model with it, and clones one.
        if hasattr(self, "_counter"):
            warnings.warn(
                f"'{self.name}' is cloned. The clone has no terms and trains plainly: wrap a clone of model.unwrap(), "
                "or give SKLearnClassifier a function that returns a wrapped model.",
                stacklevel=3,
            )
        return super()._run_through_graph(*args, **kwargs)

    # Saving.

    def load_weights(self, filepath, *args, **kwargs):
        variables = list(self.variables)
        if self.compiled and self.optimizer:
            variables += self.optimizer.variables
        before = [variable.numpy().copy() for variable in variables]
        try:
            super().load_weights(filepath, *args, **kwargs)
            for term in self._terms:
                term._check_schedule()
        except ValueError as error:
            for variable, value in zip(variables, before, strict=True):  # Keras 3.15 stops in the middle.
                variable.assign(value)
            raise ValueError(
                f"{error}\nNothing was loaded from {filepath}. If it is the file of the plain network, load it there: "
                f"model.unwrap().load_weights({str(filepath)!r})."
            ) from error

    def save(self, filepath, *args, **kwargs):
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                f"A model with terms is saved as a .keras file. Received: {str(filepath)!r}. Keras' older format does "
                "not hold the step; for the network alone use model.unwrap().save(...)."
            )
        self._internals.graph.check_unchanged()
        keras.saving.serialize_keras_object(self)  # Raises before a file that is already there is opened.
        return super().save(filepath, *args, **kwargs)

    def get_config(self):
        return {
            "network": keras.saving.serialize_keras_object(self.network),
            "terms": [keras.saving.serialize_keras_object(term) for term in self._terms],
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        for key, kind in (("name", str), ("network", dict), ("terms", list)):
            value = config.get(key)
            if not isinstance(value, kind):
                raise ValueError(
                    f"The config of a CollabModel has {key!r}, a {kind.__name__}. Received: {key}={value!r}."
                )
        network = keras.saving.deserialize_keras_object(config["network"], custom_objects=custom_objects)
        terms = []
        for number, saved in enumerate(config["terms"]):
            try:
                term = keras.saving.deserialize_keras_object(saved, custom_objects=custom_objects)
                terms.extend(checked_terms([term]))
            except (TypeError, ValueError) as error:  # Keras 3.15 shows a TypeError beneath the whole config.
                raise ValueError(f"Entry {number} of 'terms' in the config of '{config['name']}': {error}") from error
        return cls(network, terms, name=config["name"])


def _loss_of(loss: Any, head: Head) -> Any:
    """The loss given to `compile` for the output of a head, as a `keras.losses.Loss` where it is one of Keras'."""
    if isinstance(loss, dict):
        loss = loss.get(head.name)
    elif isinstance(loss, list | tuple):
        loss = loss[head.index] if head.index < len(loss) else None
    return keras.losses.get(loss) if isinstance(loss, str) else loss


def _read(selection: Selection, taps: dict[int, Tensor], outputs: Tensor, y: Tensor, weights: Tensor) -> StepTensors:
    """What a term reads of the tapped tensors of a step, by id."""
    values, masks = [], []
    for tap in selection.taps:
        last = tap.channels_last(taps[id(tap.tensor)])
        mask = taps.get(id(tap.mask))
        values.append(last)
        masks.append(tap.valid(last, mask))
    return StepTensors(
        taps=tuple(values),
        masks=tuple(masks),
        kernels=selection.kernels,
        outputs=outputs,
        y=y,
        sample_weight=weights,
        head_values=read_head(selection.head, taps[id(selection.head.features)]) if selection.head else None,
    )
