"""The scope of a training step, and what a failed one must not cost."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from typing import Any

import keras


@dataclasses.dataclass
class TrainingStep:
    """What one training step carries from the forward pass to the loss.

    Attributes:
        model: the model whose step it is.
        taps: the tensors that the forward pass read, until the loss takes them.
        values: the value of each term by name.
    """

    model: keras.Model
    taps: Any = None
    values: dict[str, Any] = dataclasses.field(default_factory=dict)


# A ContextVar because MirroredStrategy runs replicas in threads.
_training_step: contextvars.ContextVar[TrainingStep | None] = contextvars.ContextVar("training_step", default=None)
_evaluating: contextvars.ContextVar[bool] = contextvars.ContextVar("evaluating", default=False)


@contextlib.contextmanager
def training_step(model: keras.Model) -> Iterator[TrainingStep]:
    """The scope of one training step of a model."""
    step = TrainingStep(model)
    token = _training_step.set(step)
    try:
        yield step
    finally:
        _training_step.reset(token)


def step_of(model: keras.Model) -> TrainingStep | None:
    """The training step that a model is in, or None."""
    step = _training_step.get()
    return step if step is not None and step.model is model else None


@contextlib.contextmanager
def evaluation() -> Iterator[None]:
    token = _evaluating.set(True)
    try:
        yield
    finally:
        _evaluating.reset(token)


def is_evaluating() -> bool:
    """Whether an evaluation runs."""
    return _evaluating.get()


@contextlib.contextmanager
def values_kept(model: keras.Model) -> Iterator[None]:
    """Gives the variables of a model their values back if training fails before its first step is done.

    Keras 3.15 on JAX takes the values out of the variables while `fit` runs, and loses them if a step cannot be traced.
    """
    kept = [(variable, variable.value) for variable in model.variables]
    try:
        yield
    except BaseException:
        # Keras 3.15 on JAX alone: the state after the last whole step, if there was one, goes back first.
        getattr(model, "jax_state_sync", lambda: None)()
        for variable, value in kept:
            if variable._value is None:
                variable.assign(value)
        raise
