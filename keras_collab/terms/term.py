"""The base class of all terms, and what a term receives at a training step."""

import dataclasses
import inspect
import math
import numbers
import random
import re
import zlib
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_collab._checks import FLOAT32_TINY, check_range
from keras_collab._heights import at_height
from keras_collab._types import Tensor
from keras_collab.network.head import HeadValues, check_labels, pick_output
from keras_collab.network.layers import Kernel
from keras_collab.network.select import NetworkReader, Selection

Weight = float | Callable[[Tensor], Tensor]

# Steps at which a schedule is tried out when a term is made.
_TRIED_STEPS = (0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)

# Times a value of more than 1 it is still a float32.
_LARGEST_WEIGHT = 1e38

# A term may draw this often in a step before it reaches into the draws of the next one.
_DRAWS_A_STEP = 256


@dataclasses.dataclass(frozen=True)
class StepTensors:
    """What a term receives at a training step: the tensors that its `select` asked for.

    Attributes:
        taps: one tensor for each tap, `(batch, positions..., channels)`, in the dtype of the layer's output.
        masks: one mask for each tap, `(batch, positions...)`, true for valid positions; None without a mask.
        kernels: the trainable kernels; `kernel.read()` returns their filters.
        outputs: the outputs of the network.
        y: the labels, as passed to `fit`.
        sample_weight: sample weights multiplied by class weights, or None.
        head_values: what `head` returns, or None.
    """

    taps: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]
    kernels: tuple[Kernel, ...]
    outputs: Tensor
    y: Tensor
    sample_weight: Tensor
    head_values: HeadValues | None

    @property
    def head(self) -> HeadValues:
        """Features, kernel, bias and logits of the classifier in float32; a ValueError if `select` asked for none."""
        if self.head_values is None:
            raise ValueError("This needs a head: select() must return Selection(head=network.head()).")
        return self.head_values

    @property
    def labels(self) -> Tensor:
        """The labels as distributions over classes, in the shape of `head.logits`."""
        y = ops.convert_to_tensor(pick_output(self.y, self.head.head))
        check_labels(self.head.head, y.shape)
        return self.head.head.label_distributions(y)

    def mean_over_samples(self, values: Tensor) -> Tensor:
        """The mean over samples, with the same sample weights and class weights as the task loss.

        Args:
            values: `(batch,)`, or `(batch, labels)` with one value for each label.
        """
        head = self.head_values.head if self.head_values else None
        return weighted_mean(values, pick_output(self.sample_weight, head))


def weighted_mean(values: Tensor, sample_weight: Tensor) -> Tensor:
    """The mean of `values · sample_weight` over all values, the reduction of Keras' losses.

    Args:
        values: `(batch,)`, or `(batch, labels)`.
        sample_weight: `(batch,)`, `(batch, 1)`, `(batch, labels)`, or None for 1.
    """
    if sample_weight is None:
        return ops.mean(values)
    weight = ops.convert_to_tensor(sample_weight, dtype=values.dtype)
    rows = ops.reshape(weight, (ops.shape(values)[0], -1))
    if len(values.shape) == 1 or rows.shape[1] != values.shape[1]:
        rows = ops.mean(rows, axis=1, keepdims=True)
    return ops.mean(ops.reshape(values, (ops.shape(values)[0], -1)) * rows)


class Term(keras.layers.Layer):
    """A term that is added to the training loss of a network; subclass it to write your own.

    A subclass implements two methods. `select` is called once, when a network is wrapped, and returns what the term
    reads. `call` is called at each training step and returns the term's value, a scalar. The total loss is the task
    loss plus `weight · value`. An `__init__` with arguments of its own keeps each in an attribute of the same name, or
    the subclass extends `get_config`, so that the term can be saved and copied.

    Args:
        weight: number >= 0, a `keras.optimizers.schedules.LearningRateSchedule`, or another function of the training
            step. A number can be assigned at any time, also in place of a schedule. Defaults to 1.
        name: string, the term's column in the history. Defaults to the class name in snake_case.
        seed: integer in [0, 2³¹). The term's random draws depend on it and on the training step only. Defaults to a
            seed derived from `keras.utils.set_random_seed`.

    Attributes:
        selection: what the term reads; empty until a network is wrapped.

    Raises:
        ValueError: if the weight is negative or not finite, or the seed is out of range.
        TypeError: if the weight is neither a number nor a schedule, or the name is not a string.

    >>> class SmallLogits(keras_collab.Term):
    ...     def select(self, network):
    ...         return keras_collab.Selection(head=network.head())
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
        self._weight_setting = _checked_weight(name, weight)
        seed = _seed_for(name) if seed is None else seed
        self.seed = check_range(self, seed=seed, least=0, most=2**31 - 1, whole=True)
        self.selection = Selection()

    def select(self, network: NetworkReader) -> Selection:
        """Returns what the term reads besides the outputs and the labels; by default nothing."""
        return Selection()

    def call(self, tensors: StepTensors) -> Tensor:
        """Returns the value of the term at a training step, a float32 scalar."""
        raise NotImplementedError(f"{type(self).__name__} must implement call(tensors).")

    def check_loss(self, selection: Selection, loss: Any) -> None:
        """Warns of a loss that the term does not fit; by default of none. Called by `compile`."""

    def attach(self, selection: Selection) -> None:
        """Stores what the term reads in a network and creates the term's variables. Called by `wrap`."""
        self.selection = selection
        schedule, number = _split_weight(self._weight_setting)
        self._weight = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(number), trainable=False, name="weight"
        )
        self._on_schedule = self.add_weight(
            shape=(),
            dtype="int32",
            initializer="zeros" if schedule is None else "ones",
            trainable=False,
            name="on_schedule",
        )
        self.value_tracker = keras.metrics.Mean(name=self.name)
        self.weight_tracker = keras.metrics.Mean(name=f"{self.name}_weight") if callable(schedule) else None
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.built = True

    def track(self, value: Tensor, weight: Any, batch: Tensor) -> None:
        """Adds a step to the term's columns of the history, which are means over the samples of an epoch."""
        self.value_tracker.update_state(value, sample_weight=batch)
        if self.weight_tracker is not None:
            self.weight_tracker.update_state(weight, sample_weight=batch)

    @property
    def scheduled(self) -> bool:
        """Whether the weight follows a schedule."""
        return callable(self.weight)

    @property
    def weight(self) -> Weight:
        """The factor of the value in the total loss, a number or a schedule. An assigned number applies at once."""
        if not self.built or (callable(self._weight_setting) and _read(self, self._on_schedule)):
            return self._weight_setting
        number = float(_read(self, self._weight))
        schedule_or_number = self._weight_setting
        if not callable(schedule_or_number) and math.isclose(number, schedule_or_number, rel_tol=1e-6):
            return schedule_or_number  # 0.2, not the 0.20000000298 that float32 makes of it.
        return number

    @weight.setter
    def weight(self, value: float) -> None:
        checked = _checked_weight(self.name, value)
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
        self._on_schedule.assign(0)

    def set_height(self, value: float) -> None:
        """Assigns a number to the weight, or to the height of its ramp: then a compiled step has to be made anew."""
        if self.scheduled:
            self._weight_setting = at_height(self._weight_setting, value)
        else:
            self.weight = value

    def weight_at(self, step: Tensor) -> Tensor:
        """The weight at training step `step`, an integer scalar; called inside the compiled step."""
        number = ops.convert_to_tensor(self._weight)
        if not callable(self._weight_setting):
            return number
        scheduled = ops.cast(self._weight_setting(step), "float32")
        return ops.where(ops.convert_to_tensor(self._on_schedule) > 0, scheduled, number)

    def draw_at(self, step: Tensor) -> None:
        """Seeds the random generator with the step, so that a resumed training makes the same draws."""
        state = self.seed_generator.state
        # torch adds the two numbers of a state (Keras 3.15): seeds 0 and 1 must lie far apart.
        seed = ops.convert_to_tensor(self.seed * 2654435761 % 2**31, dtype=state.dtype)
        state.assign(ops.stack([seed, ops.cast(step, state.dtype) * _DRAWS_A_STEP]))

    def load_own_variables(self, store):
        super().load_own_variables(store)
        _checked_weight(self.name, float(ops.convert_to_numpy(self._weight)))

    def layers_config(self, layers: Any) -> Any:
        """The value of `layers` for `get_config`: once wrapped, the paths of the layers that it chose."""
        if isinstance(layers, list | tuple):
            return list(layers)
        if self.built and layers != "auto":
            return self.selection.paths
        if callable(layers):
            raise ValueError(f"'{self.name}' chooses layers by a function; it can be saved once it is part of a model.")
        return layers

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the term again: those that it keeps as attributes of the same names."""
        weight = _serialized_weight(self.name, self.weight)
        return _arguments(self, {"weight": weight, "name": self.name, "seed": self.seed})

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


def _split_weight(setting: Weight) -> tuple[Any, float]:
    """The weight as (schedule or None, number)."""
    return (setting, 0.0) if callable(setting) else (None, setting)


def _checked_weight(name: str, weight: Any) -> Weight:
    if isinstance(weight, numbers.Real) and not isinstance(weight, bool):
        if not 0 <= weight <= _LARGEST_WEIGHT:  # type: ignore[operator]  # NaN is neither, and an int of any size is.
            raise ValueError(f"The weight of '{name}' must be a number from 0 to 1e38. Received: {weight!r}.")
        if 0 < float(weight) < FLOAT32_TINY:
            raise ValueError(
                f"The weight of '{name}' is used as float32, which holds 0 and sizes from {FLOAT32_TINY:.2g}. "
                f"Received: {weight!r}. Give 0 for none."
            )
        return float(weight)
    if not callable(weight):
        raise TypeError(
            f"The weight of '{name}' must be a number >= 0, or a schedule such as keras_collab.schedules.Ramp(1.0, "
            f"steps=1000). Received: {weight!r} (of type {type(weight).__name__})."
        )
    for step in _TRIED_STEPS:
        _try_schedule(name, weight, step)
    return weight


def _try_schedule(name: str, schedule: Any, step: int) -> None:
    """Calls the schedule once: an error inside a compiled step would come late."""
    try:
        value = float(ops.convert_to_numpy(schedule(ops.convert_to_tensor(step, dtype="int32"))))
    except Exception as error:
        raise TypeError(
            f"The weight of '{name}' is not a schedule: it must turn a training step into one number. "
            f"Received: {schedule!r}, which at step {step} raises {type(error).__name__}: {error}"
        ) from error
    # The schedule has computed in float32: a decay may have come down to where there is nothing left.
    if not 0 <= value <= _LARGEST_WEIGHT:
        raise ValueError(f"The weight of '{name}' must be a number >= 0 at every step. At step {step} it is {value}.")


def _serialized_weight(name: str, weight: Any) -> Any:
    if isinstance(weight, float):
        return weight
    registered = isinstance(weight, keras.optimizers.schedules.LearningRateSchedule) or ">" in (
        keras.saving.get_registered_name(weight)
    )
    if not registered or getattr(weight, "__name__", "") == "<lambda>":
        raise ValueError(
            f"The weight of '{name}' is a function that cannot be saved: {weight!r}. Use a schedule of "
            "keras_collab.schedules or keras.optimizers.schedules, or decorate a named function with "
            "@keras.saving.register_keras_serializable()."
        )
    return keras.saving.serialize_keras_object(weight)


def _seed_for(name: str) -> int:
    """A seed derived from the global one without advancing it, so that wrapping changes no other random draw."""
    generator = random.Random()
    generator.setstate(random.getstate())
    return (generator.getrandbits(31) ^ zlib.crc32(name.encode())) & 0x7FFFFFFF
