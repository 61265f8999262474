"""The terms that a network is wrapped with, and what they read in it."""

import inspect
import numbers
import warnings
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_collab._checks import close_matches
from keras_collab._types import Tensor
from keras_collab.network.select import NetworkReader, Selection
from keras_collab.recipes import gentle
from keras_collab.terms.term import Term

_RESERVED_NAMES = ("loss", "task_loss")


class TermsByName(dict[str, Term]):
    """The terms of a model by name. A wrong name raises a KeyError with the right ones."""

    def __missing__(self, name: str) -> Term:
        others = f"Names: {', '.join(map(repr, self))}." if self else "It has none."
        raise KeyError(f"The model has no term {name!r}. {close_matches(str(name), self) or others}")


def check_not_wrapped(network: Any, *wrappers: type[keras.Model]) -> None:
    """Raises if the network is one of the wrappers, or has one among its layers."""
    layers = network._flatten_layers() if isinstance(network, keras.Model) else []
    for layer in layers:
        if isinstance(layer, wrappers):
            raise ValueError(
                f"'{layer.name}' is already wrapped. Take its network, {layer.name}.unwrap(), and give wrap() all the "
                "terms it should have."
            )


def checked_terms(terms: Any) -> list[Term]:
    if isinstance(terms, str | Term) or not isinstance(terms, Sequence):
        raise TypeError(
            "`terms` must be a list of terms, such as [keras_collab.OutputConsistency()], or None for the default. "
            f"Received: terms={terms!r}."
        )
    columns: set[str] = set(_RESERVED_NAMES)
    for term in terms:
        if not isinstance(term, Term):
            raise TypeError(
                "`terms` must be a list of keras_collab.Term objects, such as [keras_collab.OutputConsistency()]. "
                f"Received: {term!r}."
            )
        if term.built:
            raise ValueError(
                f"Term '{term.name}' is already part of a model and holds its state. Make a new one: term.copy()."
            )
        if {term.name, f"{term.name}_weight"} & columns or term.name.startswith("val_"):
            raise ValueError(
                f"The history would have two columns named '{term.name}' or '{term.name}_weight'. The names "
                f"{_RESERVED_NAMES} and those of validation, 'val_...', are taken; give each term its own name=."
            )
        if "tensors" not in inspect.signature(term.call).parameters:
            raise TypeError(f"{type(term).__name__} must have a method call(self, tensors). Received: {term.call}.")
        columns |= {term.name, f"{term.name}_weight"}
    return list(terms)


def select_default(reader: NetworkReader) -> tuple[list[Term], list[Selection]]:
    """The default terms that fit the network, and what they read; warns once about the others."""
    terms, selections, left_out = [], [], []
    for term in gentle(_width(reader)):
        try:
            selections.append(term.select(reader))
            terms.append(term)
        except ValueError as error:
            left_out.append(f"'{term.name}': {error}")
    if not terms:
        raise ValueError("None of the default terms fits this network.\n" + "\n".join(left_out))
    if left_out:
        warnings.warn("Default terms that do not fit this network are left out.\n" + "\n".join(left_out), stacklevel=4)
    return terms, selections


def _width(reader: NetworkReader) -> int:
    """Channels of the network's widest stage; filters of its widest layer where no stage can be read."""
    try:
        return max(tap.channels for tap in reader.taps())
    except ValueError:  # The terms that read stages will say why.
        widths = [kernel.groups * kernel.filters for kernel in reader.kernels(at_least=0)]
        return max(widths, default=1)


def select_all(terms: Sequence[Term], reader: NetworkReader) -> list[Selection]:
    """What each term reads; raises once for all terms that can read nothing."""
    selections, errors = [], []
    for term in terms:
        try:
            selections.append(_checked_selection(term.select(reader)))
        except (TypeError, ValueError) as error:
            errors.append((type(error), f"Term '{term.name}': {error}"))
    if errors:
        raise errors[0][0]("\n".join(message for _, message in errors))
    return selections


def _checked_selection(selection: Any) -> Selection:
    if not isinstance(selection, Selection) or not isinstance(selection.taps, tuple | list):
        raise TypeError(
            "select() must return a keras_collab.Selection, with a tuple of taps: "
            f"Selection(taps=reader.taps('auto')). Received: {selection!r}."
        )
    targets = selection.targets
    if not isinstance(targets, tuple | list) or any(target not in selection.sources for target in targets):
        raise TypeError(
            "The targets of a selection must be a tuple of some of its taps or its head: taps = reader.taps('auto'), "
            f"then Selection(taps=taps, targets=taps[-1:]). Received: targets={targets!r}."
        )
    return selection


def checked_value(term: Term, value: Tensor) -> Tensor:
    """The value of a term at a training step as a float32 scalar.

    Raises:
        ValueError: if it is none: a value for each sample would be summed, not averaged.
    """
    if isinstance(value, numbers.Real):
        value = ops.convert_to_tensor(value, dtype="float32")
    if not ops.is_tensor(value) or len(value.shape) > 0:
        received = f"shape {tuple(value.shape)}" if ops.is_tensor(value) else repr(value)
        raise ValueError(
            f"The value of term '{term.name}' must be a scalar. Received: {received}. From one value for each sample "
            "take tensors.mean_over_samples(values)."
        )
    return ops.cast(value, "float32")
