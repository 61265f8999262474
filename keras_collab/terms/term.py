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

# A weight variable that holds this follows its schedule; any weight >= 0 put in its place takes over.
_FOLLOW_SCHEDULE = -1.0


@dataclasses.dataclass(frozen=True)
class StepTensors:
    """What one training step saw, as far as the term asked for it in `select`.

    Attributes:
        taps: one array a tap, `(batch, positions..., channels)`, in the network's own precision.
        head: the classifier's features, kernel, bias and logits in float32 (`HeadValues`), or None.
        kernels: the kernels that train at present; `kernel.read(group, first, count)` gives filters in float32.
        outputs: the network's own outputs.
        y: the labels as they were given to `fit`.
        sample_weight: sample weights (class weights multiplied in), or None.
    """

    taps: tuple[Any, ...]
    head: Any  # HeadValues
    kernels: tuple[Kernel, ...]
    outputs: Any
    y: Any
    sample_weight: Any

    @property
    def labels(self) -> Any:
        """The head's labels as distributions of the shape of `head.logits`."""
        if self.head is None:
            raise ValueError("tensors.labels needs the head that they belong to: ask for it in select().")
        y = ops.convert_to_tensor(pick_output(self.y, self.head.head))
        check_labels(self.head.head, y.shape)
        return self.head.head.label_distributions(y)

    def mean_over_samples(self, values: Any) -> Any:
        """The mean of one value a sample, weighted as the task loss of the head (or of the only output) weighs them.

        Args:
            values: `(batch,)`.
        """
        weight = pick_output(self.sample_weight, self.head and self.head.head)
        return weighted_mean(values, weight)


def weighted_mean(values: Any, sample_weight: Any) -> Any:
    """The mean over the batch of `(batch,)` values times their weights, as Keras' own losses take it; None for 1."""
    if sample_weight is None:
        return ops.mean(values)
    return ops.mean(values * ops.reshape(ops.cast(sample_weight, values.dtype), (-1,)))


class Term(keras.layers.Layer):
    """A term that the parts of one network add to its training loss; subclass it to write your own.

    A subclass says in `select` what it reads, once, when a network is wrapped, and in `call` turns what each training
    step saw into one float32 scalar. The total loss is the task's loss plus `weight` times that scalar.

    Attributes:
        found: what the term reads of the network it is part of; None before it is wrapped.

    Args:
        weight: what the term is multiplied by: a number >= 0, a `keras.optimizers.schedules.LearningRateSchedule`, or
            another function of the training step. A number may be assigned at any time, also between two `fit` calls.
        name: the term's column in the history. Defaults to the class name in snake_case.
        seed: integer seed (>= 0, < 2³¹) of the term's random draws, which are a function of this seed and the training
            step alone. Defaults to one that follows from `keras.utils.set_random_seed`.

    Raises:
        ValueError: if the weight is negative or not finite, or the name is taken by Keras.
        TypeError: if the weight is neither a number nor a schedule.
    """

    def __init__(self, weight: Weight = 1.0, *, name: str | None = None, seed: int | None = None):
        name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()
        super().__init__(name=name, dtype="float32", trainable=False)
        self._schedule, self._number = _check_weight(name, weight)
        seed = _seed_for(name) if seed is None else seed
        self.seed = check_range(self, seed=seed, least=0, most=2**31 - 1, whole=True)
        self.selection: Selection | None = None

    def select(self, network: NetworkReader) -> Selection:
        """The taps, the head and the kernels that the term reads, as a `Selection`.

        Called once, when a network is wrapped. The default reads the network's outputs and the labels only.
        """
        return Selection()

    def call(self, tensors: StepTensors) -> Any:
        """The term's value for one training step, a float32 scalar."""
        raise NotImplementedError(f"{type(self).__name__} must implement call(tensors).")

    def operations(self, selection: Selection, batch_size: int) -> float:
        """Floating-point operations that the term adds to a training step, forward and backward; NaN if not known."""
        return math.nan

    def layers_config(self, layers: Any) -> Any:
        """`layers=` as it can be saved: a function is replaced by the layers it said yes to."""
        if isinstance(layers, str):
            return layers
        if not callable(layers):
            return list(layers)
        if self.selection is None:
            raise ValueError(f"'{self.name}' chooses layers by a function; it can be saved once it is part of a model.")
        return self.selection.paths

    def check_labels(self, selection: Selection, y: Any) -> None:
        """Raises if the term cannot use labels like these. Called before the first step is compiled."""

    def attach(self, selection: Selection) -> None:
        """Makes the term part of a model: what it reads there is settled; its weight becomes a variable."""
        self.selection = selection
        self._weight = self.add_weight(
            shape=(), initializer=keras.initializers.Constant(self._number), trainable=False, name="weight"
        )
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.built = True

    @property
    def scheduled(self) -> bool:
        """Whether the weight was given as a schedule."""
        return self._schedule is not None

    @property
    def weight(self) -> Weight:
        """The number or schedule that the term is multiplied by. Assign a number to change it at once."""
        number = float(ops.convert_to_numpy(self._weight)) if self.built else self._number
        if self._schedule is not None and number < 0:
            return self._schedule
        return self._number if math.isclose(number, self._number, rel_tol=1e-6) else number  # Not 0.2's float32.

    @weight.setter
    def weight(self, value: float) -> None:
        schedule, number = _check_weight(self.name, value)
        if schedule is not None:
            raise TypeError(
                f"The weight of '{self.name}' can only be set to a number: a schedule is compiled into the training "
                f"step. Received: {value!r}. Give the schedule when the term is made, weight=..."
            )
        self._number = number
        if self.built:
            self._weight.assign(number)

    def weight_at(self, step: Any) -> Any:
        """The weight at a training step (an integer scalar), computed inside the compiled step."""
        number = ops.convert_to_tensor(self._weight)
        if self._schedule is None:
            return number
        return ops.where(number < 0, ops.cast(self._schedule(step), "float32"), number)

    def draw_at(self, step: Any) -> None:
        """Sets the random generator to the step, so that a resumed training draws what it would have drawn."""
        state = self.seed_generator.state
        seed = ops.convert_to_tensor(self.seed, dtype=state.dtype)
        # A term may draw a few times a step; steps are far enough apart that no draw comes twice.
        state.assign(ops.stack([seed, ops.cast(step, state.dtype) * 16]))

    def get_config(self) -> dict[str, Any]:
        weight = self.weight if self._schedule is None else self._schedule
        return {"weight": _serialize_weight(self.name, weight), "name": self.name, "seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Term":
        weight = config.get("weight")
        if isinstance(weight, dict):
            config = {**config, "weight": keras.saving.deserialize_keras_object(weight)}
        return cls(**config)


def _check_weight(name: str, weight: Any) -> tuple[Any, float]:
    """The weight as (schedule or None, number)."""
    if isinstance(weight, numbers.Real) and not isinstance(weight, bool):
        number = float(weight)
        if not (math.isfinite(number) and number >= 0):
            raise ValueError(f"The weight of '{name}' must be finite and >= 0. Received: {weight!r}.")
        return None, number
    if callable(weight):
        _check_schedule(name, weight)
        return weight, _FOLLOW_SCHEDULE
    raise TypeError(
        f"The weight of '{name}' must be a number >= 0, or a schedule such as keras_collab.schedules.Ramp(1.0, "
        f"steps=1000). Received: {weight!r} (of type {type(weight).__name__})."
    )


def _check_schedule(name: str, schedule: Any) -> None:
    """Calls the schedule once: an error inside the first training step would cost JAX the network's weights."""
    try:
        first = float(ops.convert_to_numpy(schedule(ops.convert_to_tensor(0, dtype="int32"))))
    except Exception as error:
        raise TypeError(
            f"The weight of '{name}' is not a schedule: it must turn a training step into one number. "
            f"Received: {schedule!r}, which at step 0 raises {type(error).__name__}: {error}"
        ) from error
    if not (math.isfinite(first) and first >= 0):
        raise ValueError(f"The weight of '{name}' must be finite and >= 0 at every step. At step 0 it is {first}.")


def _serialize_weight(name: str, weight: Any) -> Any:
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
