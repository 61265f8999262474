"""A second model of the same network, to measure training steps without training the network."""

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import keras
from keras import ops

from keras_collab._checks import name_of
from keras_collab.collab_model import CollabModel
from keras_collab.terms.term import Term


def check_wrapped(owner: Any, model: Any) -> None:
    if not isinstance(model, CollabModel):
        raise TypeError(
            f"`{name_of(owner)}` takes a wrapped network. Received: {model!r}. Give keras_collab.wrap(network)."
        )


def check_compiled(owner: Any, model: Any) -> None:
    """Raises if a model is not wrapped or not compiled."""
    check_wrapped(owner, model)
    if not model.compiled:
        raise ValueError(f"`{name_of(owner)}` runs training steps: call model.compile(optimizer, loss) first.")


def check_labels(owner: Any, model: CollabModel, y: Any) -> None:
    """Raises if the loss of a model needs labels and the data have none."""
    if y is None and model.loss is not None:
        name = name_of(owner)
        raise TypeError(f"`{name}` needs labels. Received: data without y. Give {name}(model, (x, y)).")


def terms_like(model: CollabModel) -> list[Term]:
    """New terms with the settings of those of a model."""
    return [term.copy() for term in model.terms.values()]


def compile_like(copy: keras.Model, model: CollabModel, optimizer: Any, **settings: Any) -> None:
    """Compiles a copy with the loss of a model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The model itself has warned already of terms that do not fit.
        copy.compile(
            optimizer,
            model.loss,
            loss_weights=model._internals.loss_weights,
            jit_compile=model.jit_compile,
            run_eagerly=model.run_eagerly,
            **settings,
        )


@contextlib.contextmanager
def unchanged(network: keras.Model) -> Iterator[None]:
    """Restores the variables of a network afterwards: weights, statistics and random states."""
    before = []
    torch = sys.modules.get("torch")
    drawn = torch.get_rng_state() if torch else None  # Keras 3.15 on PyTorch draws from its generator too.
    for variable in network.variables:
        before.append((variable, ops.convert_to_numpy(variable).copy()))
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)
        if torch:
            torch.set_rng_state(drawn)
