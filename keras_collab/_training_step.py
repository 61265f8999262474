"""The scope and the number of a training step, and what a failed one must not cost."""

import contextlib
import contextvars
import dataclasses
import signal
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np


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
    model.network._called = True  # Keras 3.15 exports to ONNX only what was called, and a larger model is called here.
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


class StepCounter(keras.layers.Layer):
    """Counts training steps. A layer of its own, so that weight files of the model load into the plain network.

    The file also holds the names of the terms: a file whose terms were dropped or exchanged does not load.
    """

    def __init__(self, names: Sequence[str]):
        super().__init__(trainable=False, name="step_counter")
        self._names = "\n".join(names)
        self.step = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", trainable=False, aggregation="only_first_replica", name="step"
        )
        self.built = True

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["terms"] = np.frombuffer(self._names.encode(), dtype="uint8")

    def load_own_variables(self, store):
        names = np.asarray(store["terms"]).astype("uint8").tobytes().decode()
        if names != self._names:
            raise ValueError(f"The weights are those of terms {names.split()}, the model has {self._names.split()}.")
        self.step.assign(store["0"])


class LastState:
    """The values of a model's variables after its last whole step, on JAX.

    There `fit` takes the values out of the variables, and each step is given them, deletes them and returns new ones.
    Keras 3.15 holds these in a local variable, so an error or Ctrl-C at that moment costs the model its weights.
    """

    def __init__(self):
        self._values: Sequence[Any] = ()

    def remember(self, model: keras.Model) -> None:
        """Remembers the values of the variables, before they are taken out."""
        count = 4 if model.compiled and model.optimizer else 3
        values = []
        for group in _groups(model, count):
            values.append([variable._value for variable in group])
        self._values = values

    def remembering(self, step: Any) -> Any:
        """The function `step(state, data)`, whose new state is remembered in the place of the old one."""

        def remembering_step(state, data):
            with _ctrl_c_waits():
                logs, state = step(state, data)
                self._values = state
            return logs, state

        return remembering_step

    @contextlib.contextmanager
    def kept(self, model: keras.Model) -> Iterator[None]:
        """If the block raises, puts the last known values back into variables that JAX has emptied."""
        self._values = list[Any]()  # What a training that ended otherwise left.
        try:
            yield
        except BaseException:
            for group, values in zip(_groups(model, len(self._values)), self._values, strict=False):
                for variable, value in zip(group, values, strict=True):
                    if _is_lost(variable._value) and not _is_lost(value):
                        variable.assign(value)
            raise  # The values stay: if `evaluate` ends so, the `fit` around it puts deleted ones in once more.
        self._values = ()


def _groups(model: keras.Model, count: int) -> list[Any]:
    """The variables of the model in the order of Keras' states: 4 groups in training, without the optimizer's 3."""
    groups = [model.trainable_variables, model.non_trainable_variables, model.metrics_variables]
    if count == 4:
        groups.insert(2, model.optimizer.variables)
    return groups


def _is_lost(value: Any) -> bool:
    return value is None or value.is_deleted()


@contextlib.contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    """Lets Ctrl-C in afterwards only; a second one, while a step compiles or hangs, at once."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    received: list[Any] = []

    def receive(*arguments: Any) -> None:
        if received:
            handler(*arguments)
        received.append(arguments)

    signal.signal(signal.SIGINT, receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if received:
            handler(*received[0])
