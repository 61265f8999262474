"""The base class of all terms."""

import inspect
import math
import random
import re
import zlib
from typing import Any

import keras
from keras import ops

from keras_collab._checks import check_range
from keras_collab._types import Tensor
from keras_collab.network.select import NetworkReader, Selection
from keras_collab.terms.step_tensors import StepTensors
from keras_collab.terms.weights import Weight, at_height, checked_weight, serialized_weight

# How a weight is given: as a number, by a schedule, or by a number that took the place of a schedule.
_NUMBER, _SCHEDULE, _REPLACED = range(3)

# A term may draw this often in a step before it reaches into the draws of the next one.
_DRAWS_A_STEP = 256


class Term(keras.layers.Layer):
    """A term that is added to the training loss of a network; subclass it to write your own.

    A subclass implements two methods. `select` is called once, when a network is wrapped, and returns what the term
    reads. `call` is called at each training step and returns the term's value, a scalar. The total loss is the task
    loss plus `weight · value`. An `__init__` with arguments of its own keeps each in an attribute of the same name, or
    the subclass extends `get_config`, so that the term can be saved and copied.

    Args:
        weight: number, 0 or from 1.2e-38 to 1e38, a `keras.optimizers.schedules.LearningRateSchedule`, or another
            function of the training step. A number can be assigned at any time, also in place of a schedule. Defaults
            to 1.
        name: string, the term's column in the history. Defaults to the class name in snake_case.
        seed: integer in [0, 2³¹). The term's random draws depend on it and on the training step only. Defaults to a
            seed derived from `keras.utils.set_random_seed`.

    Attributes:
        selection: what the term reads; empty until a network is wrapped.
        trained_selection: what the term is handed in training: the selection without frozen taps and kernels, unless
            all are frozen; empty if the term can change nothing. Set by `compile`.

    Raises:
        ValueError: if the weight or the seed is out of range.
        TypeError: if the weight is neither a number nor a schedule, or the name is not a string.

    >>> class SmallLogits(keras_collab.Term):
    ...     def select(self, reader):
    ...         return keras_collab.Selection(head=reader.head())
    ...
    ...     def call(self, tensors):
    ...         return tensors.mean_over_samples(keras.ops.mean(tensors.head.logits**2, axis=-1))
    >>> list(keras_collab.wrap(network, [SmallLogits(0.01)]).terms)
    ['small_logits']
    """

    def __init__(self, weight: Weight = 1.0, *, name: str | None = None, seed: int | None = None):
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower() if name is None else name
        if not isinstance(name, str) or not name:
            raise TypeError(f"{type(self).__name__}: `name` must be a string. Received: name={name!r}.")
        super().__init__(name=name, dtype="float32", trainable=False)
        self._weight_setting = checked_weight(name, weight)
        seed = _seed_for(name) if seed is None else seed
        self.seed = check_range(self, seed=seed, least=0, most=2**31 - 1, whole=True)
        self.selection = Selection()
        self.trained_selection = Selection()
        self._copying = False  # A copy needs no form that can be saved.

    def select(self, reader: NetworkReader) -> Selection:
        """Chooses what the term reads besides the outputs and the labels; by default nothing.

        Args:
            reader: gives the taps, kernels and heads of the network that is wrapped.

        Returns:
            A `Selection`. A ValueError that this raises says why the network does not suit the term.
        """
        return Selection()

    def call(self, tensors: StepTensors) -> Tensor:
        """Computes the value of the term at a training step; called inside the compiled step.

        Args:
            tensors: what `select` has chosen, and the outputs and labels of the batch, as tensors `(batch, ...)`.

        Returns:
            A scalar, which is multiplied by the weight and added to the loss.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement call(tensors).")

    def check_loss(self, loss: Any) -> None:
        """Warns of a loss that the term does not fit; by default of none. Called by `compile`.

        Args:
            loss: the loss of the head's output, as given to `compile`; one of Keras' as a `keras.losses.Loss`.
        """

    def _attach(self, selection: Selection) -> None:
        """Stores what the term reads in a network and creates the term's variables. Called by `wrap`."""
        self.selection = selection
        self.trained_selection = selection
        is_scheduled = callable(self._weight_setting)
        number = keras.initializers.Constant(0.0 if is_scheduled else self._weight_setting)
        mode = keras.initializers.Constant(_SCHEDULE if is_scheduled else _NUMBER)
        self._weight = self.add_weight(shape=(), initializer=number, trainable=False, name="weight")
        self._mode = self.add_weight(shape=(), dtype="int32", initializer=mode, trainable=False, name="mode")
        if self._trainable_variables:
            names = [weight.name for weight in self._trainable_variables]
            raise TypeError(
                f"Term '{self.name}' has weights of its own that would train: {names}. A term adds nothing to a "
                "network but its loss: make them with trainable=False, or part of the network."
            )
        self.value_tracker = keras.metrics.Mean(name=self.name)
        self.weight_tracker = keras.metrics.Mean(name=f"{self.name}_weight") if is_scheduled else None
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.built = True

    def _track(self, value: Tensor, weight: Any, batch: Tensor) -> None:
        """Adds a step to the term's columns of the history, which are means over the samples of an epoch."""
        self.value_tracker.update_state(value, sample_weight=batch)
        if self.weight_tracker is not None:
            self.weight_tracker.update_state(weight, sample_weight=batch)

    @property
    def is_frozen(self) -> bool:
        """Whether the term reads layers and can change none of them: then its value is 0."""
        return self.trained_selection.is_empty and not self.selection.is_empty

    @property
    def scheduled(self) -> bool:
        """Whether the weight follows a schedule."""
        return callable(self.weight)

    @property
    def weight(self) -> Weight:
        """The factor of the value in the total loss, a number or a schedule. An assigned number applies at once."""
        if not self.built or _read(self, self._mode) == _SCHEDULE:
            return self._weight_setting
        number = float(_read(self, self._weight))
        schedule_or_number = self._weight_setting
        if not callable(schedule_or_number) and math.isclose(number, schedule_or_number, rel_tol=1e-6):
            return schedule_or_number  # 0.2, not the 0.20000000298 that float32 makes of it.
        return number

    @weight.setter
    def weight(self, value: float) -> None:
        checked = checked_weight(self.name, value)
        if not self.built:
            self._weight_setting = checked
            return
        if callable(checked):
            raise TypeError(
                f"The weight of '{self.name}' can only be set to a number: a schedule is compiled into the training "
                f"step. Received: {value!r}. Give the schedule when the term is made, weight=..."
            )
        _read(self, self._weight)
        if not callable(self._weight_setting):
            self._weight_setting = checked
        self._weight.assign(checked)
        self._mode.assign(_REPLACED if callable(self._weight_setting) else _NUMBER)

    def _set_height(self, value: float) -> None:
        """Assigns a number to the weight, or to the height of its ramp: then a compiled step has to be made anew."""
        if self.scheduled:
            self._weight_setting = at_height(self._weight_setting, value)
        else:
            self.weight = value

    def _weight_at(self, step: Tensor) -> Tensor:
        """The weight at training step `step`, an integer scalar; called inside the compiled step."""
        number = ops.convert_to_tensor(self._weight)
        if not callable(self._weight_setting):
            return number
        scheduled = ops.cast(self._weight_setting(step), "float32")
        return ops.where(ops.convert_to_tensor(self._mode) == _SCHEDULE, scheduled, number)

    def _draw_at(self, step: Tensor) -> None:
        """Seeds the random generator with the step, so that a resumed training makes the same draws."""
        state = self.seed_generator.state
        # torch adds the two numbers of a state (Keras 3.15): seeds 0 and 1 must lie far apart.
        seed = ops.convert_to_tensor(self.seed * 2654435761 % 2**31, dtype=state.dtype)
        state.assign(ops.stack([seed, ops.cast(step, state.dtype) * _DRAWS_A_STEP]))

    def _check_schedule(self) -> None:
        """Raises if a loaded weight follows a schedule and this one does not, or the other way round."""
        mode, kinds = int(ops.convert_to_numpy(self._mode)), ("is a number", "follows a schedule")
        scheduled = callable(self._weight_setting)
        if mode != _REPLACED and scheduled != (mode == _SCHEDULE):
            raise ValueError(
                f"In the file the weight of '{self.name}' {kinds[not scheduled]}, in this model it {kinds[scheduled]}. "
                "Wrap the network with the same terms, or load the whole model from a .keras file."
            )

    def load_own_variables(self, store):
        super().load_own_variables(store)
        checked_weight(self.name, float(ops.convert_to_numpy(self._weight)))

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the term again: those that it keeps as attributes of the same names.

        In the place of a pattern or a function, `layers` are the paths that it chose when the network was wrapped.
        """
        weight = self.weight if self._copying else serialized_weight(self.name, self.weight)
        arguments = _arguments(self, {"weight": weight, "name": self.name, "seed": self.seed})
        if "layers" in arguments and not self._copying:
            arguments["layers"] = self._chosen_layers(arguments["layers"])
        return arguments

    def _chosen_layers(self, layers: Any) -> Any:
        chooses = callable(layers) or (isinstance(layers, str) and layers != "auto")
        if chooses and self.built:
            paths = [source.path for source in self.selection.taps or self.selection.kernels]
            return list(dict.fromkeys(paths))  # Each once, however often its layer is called.
        if callable(layers):
            raise ValueError(f"'{self.name}' chooses layers by a function; it can be saved once it is part of a model.")
        return layers

    def copy(self, **changes: Any) -> "Term":
        """Returns a new term with the same arguments, but for `changes`, that belongs to no model."""
        self._copying = True
        try:
            config = self.get_config()
        finally:
            self._copying = False
        return type(self).from_config({**config, **changes})

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Term":
        weight = config.get("weight")
        if isinstance(weight, dict):
            config = {**config, "weight": keras.saving.deserialize_keras_object(weight)}
        return cls(**config)


def _arguments(term: Term, common: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a term's `__init__`: the common ones that it takes, and the attributes of the others' names."""
    kinds = type(term).__mro__
    made_by = next(kind for kind in kinds if "__init__" in vars(kind))
    described_by = next(kind for kind in kinds if "get_config" in vars(kind))
    arguments = {}
    for name, parameter in list(inspect.signature(vars(made_by)["__init__"]).parameters.items())[1:]:
        if parameter.kind == parameter.VAR_KEYWORD:
            arguments.update(common)
        elif name in common:
            arguments[name] = common[name]
        elif hasattr(term, name):
            arguments[name] = getattr(term, name)
        elif parameter.kind != parameter.VAR_POSITIONAL and not issubclass(described_by, made_by):
            raise ValueError(
                f"Term '{term.name}' does not keep its argument `{name}`, so it can be neither saved nor copied. Write "
                f"self.{name} = {name} in {made_by.__name__}.__init__, or extend get_config()."
            )
    return arguments


def _read(term: Term, variable: keras.Variable) -> Tensor:
    try:
        return ops.convert_to_numpy(variable)
    except TypeError as error:  # Keras 3.15 on JAX holds no value between two batches of `fit`.
        raise RuntimeError(
            f"The weight of '{term.name}' is inside a running `fit` on JAX. In a callback reach the term through the "
            f"callback's own model: self.model.terms[{term.name!r}].weight."
        ) from error


def _seed_for(name: str) -> int:
    """A seed derived from the global one without advancing it, so that wrapping changes no other random draw."""
    generator = random.Random()
    generator.setstate(random.getstate())
    return (generator.getrandbits(31) ^ zlib.crc32(name.encode())) & 0x7FFFFFFF
