"""What the four terms have in common, and what a user writes to add a fifth."""

import dataclasses
import math
import numbers
import random
import re
import zlib
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_collab._checks import check_range
from keras_collab.network.head import check_labels, pick_output
from keras_collab.network.layers import Kernel
from keras_collab.network.select import NetworkReader, Selection

Weight = float | Callable[[Any], Any]

# Steps at which a schedule is tried out when a term is made.
_TRIED_STEPS = (0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)

# A term may draw this often in a step before it reaches into the draws of the next one.
_DRAWS_A_STEP = 256


@dataclasses.dataclass(frozen=True)
class StepTensors:
    """The tensors that a term asked for, at the current training step.

    Attributes:
        taps: one tensor a tap, `(batch, positions..., channels)`, in the network's own precision.
        masks: one mask a tap, `(batch, positions...)`, true for the positions that count; None where all do.
        head: features, kernel, bias and logits of the classifier in float32 (`HeadValues`), or None.
        kernels: the kernels that train; `kernel.read()` gives their filters.
        outputs: the network's outputs.
        y: the labels as `fit` was given them.
        sample_weight: sample weights, multiplied by class weights, or None.
    """

    taps: tuple[Any, ...]
    masks: tuple[Any, ...]
    head: Any  # HeadValues
    kernels: tuple[Kernel, ...]
    outputs: Any
    y: Any
    sample_weight: Any

    @property
    def labels(self) -> Any:
        """The labels of the head as distributions, of the shape of `head.logits`."""
        if self.head is None:
            raise ValueError("tensors.labels belong to a head: ask for it in select(), Selection(head=network.head()).")
        y = ops.convert_to_tensor(pick_output(self.y, self.head.head))
        check_labels(self.head.head, y.shape)
        return self.head.head.label_distributions(y)

    def mean_over_samples(self, values: Any) -> Any:
        """The mean of values, weighted as the task loss of the head (or of the only output) weighs them.

        Args:
            values: `(batch,)`, or `(batch, labels)` for one value a label.
        """
        return weighted_mean(values, pick_output(self.sample_weight, self.head and self.head.head))


def weighted_mean(values: Any, sample_weight: Any) -> Any:
    """The mean of values times their weights, as Keras' losses take it.

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

    A subclass says in `select` what it reads, once, when a network is wrapped. In `call` it turns the tensors of a
    training step into one float32 scalar. The total loss is the task's loss plus `weight` times that scalar.

    Attributes:
        selection: what the term reads of its network; empty before the network is wrapped.

    Args:
        weight: what the term is multiplied by: a number >= 0, a `keras.optimizers.schedules.LearningRateSchedule`, or
            another function of the training step. A number may be assigned at any time; it replaces a schedule.
        name: the term's column in the history. Defaults to the class name in snake_case.
        seed: integer seed (>= 0, < 2³¹) of the term's random draws, which follow from this seed and the training
            step alone. Defaults to one that follows from `keras.utils.set_random_seed`.

    Raises:
        ValueError: if the weight is negative or not finite.
        TypeError: if the weight is neither a number nor a schedule, or the name is no string.
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
        """The taps, the head and the kernels that the term reads, as a `Selection`.

        Called once, when a network is wrapped. The default reads the outputs and the labels only.
        """
        return Selection()

    def call(self, tensors: StepTensors) -> Any:
        """The value of the term at one training step, a float32 scalar."""
        raise NotImplementedError(f"{type(self).__name__} must implement call(tensors).")

    def check_labels(self, selection: Selection, y: Any) -> None:
        """Raises if the term cannot use labels like these. Called before the first step is compiled."""

    def check_loss(self, selection: Selection, loss: Any) -> None:
        """Warns if the term does not fit the loss given to `compile`. Called by `compile`."""

    def attach(self, selection: Selection) -> None:
        """Makes the term part of a model: what it reads there is settled, and its weight becomes a variable."""
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

    def track(self, value: Any, weight: Any, batch: Any) -> None:
        """Adds a step to the columns of the history; every sample of an epoch counts once."""
        self.value_tracker.update_state(value, sample_weight=batch)
        if self.weight_tracker is not None:
            self.weight_tracker.update_state(weight, sample_weight=batch)

    @property
    def scheduled(self) -> bool:
        """Whether the weight follows a schedule."""
        return callable(self.weight)

    @property
    def weight(self) -> Weight:
        """The number or schedule that the term is multiplied by. Assign a number to change it at once."""
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

    def weight_at(self, step: Any) -> Any:
        """The weight at a training step (an integer scalar), computed inside the compiled step."""
        number = ops.convert_to_tensor(self._weight)
        if not callable(self._weight_setting):
            return number
        scheduled = ops.cast(self._weight_setting(step), "float32")
        return ops.where(ops.convert_to_tensor(self._on_schedule) > 0, scheduled, number)

    def draw_at(self, step: Any) -> None:
        """Sets the random generator to the step, so that a resumed training draws what it would have drawn."""
        state = self.seed_generator.state
        # torch adds the two numbers of a state (Keras 3.15): seeds 0 and 1 must lie far apart.
        seed = ops.convert_to_tensor(self.seed * 2654435761 % 2**31, dtype=state.dtype)
        state.assign(ops.stack([seed, ops.cast(step, state.dtype) * _DRAWS_A_STEP]))

    def layers_config(self, layers: Any) -> Any:
        """`layers=` as it can be saved: patterns and functions are replaced by the layers they chose."""
        if isinstance(layers, list | tuple):
            return list(layers)
        if self.built and layers != "auto":
            return self.selection.paths
        if callable(layers):
            raise ValueError(f"'{self.name}' chooses layers by a function; it can be saved once it is part of a model.")
        return layers

    def get_config(self) -> dict[str, Any]:
        return {"weight": _serialized_weight(self.name, self.weight), "name": self.name, "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Term":
        weight = config.get("weight")
        if isinstance(weight, dict):
            config = {**config, "weight": keras.saving.deserialize_keras_object(weight)}
        return cls(**config)


def _read(term: Term, variable: keras.Variable) -> Any:
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
        if not 0 <= float(weight) <= 1e38:  # NaN is neither; float32 ends at 3.4e38.
            raise ValueError(f"The weight of '{name}' must be a float32 number >= 0. Received: {weight!r}.")
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
    """Calls the schedule once, so that it fails here and not inside a compiled step."""
    try:
        value = float(ops.convert_to_numpy(schedule(ops.convert_to_tensor(step, dtype="int32"))))
    except Exception as error:
        raise TypeError(
            f"The weight of '{name}' is not a schedule: it must turn a training step into one number. "
            f"Received: {schedule!r}, which at step {step} raises {type(error).__name__}: {error}"
        ) from error
    if not 0 <= value <= 1e38:
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
    """A seed that follows from the global one without consuming it, so that wrapping disturbs no other draw."""
    generator = random.Random()
    generator.setstate(random.getstate())
    return (generator.getrandbits(31) ^ zlib.crc32(name.encode())) & 0x7FFFFFFF
