"""Searches the weights and settings of terms with keras-tuner: `pip install 'keras-collab[tuner]'`.

>>> hypermodel = CollabHyperModel(build_network, data=(x_train, y_train))
>>> tuner = keras_tuner.BayesianOptimization(hypermodel, objective="val_accuracy", max_trials=20, directory="search")
>>> tuner.search(x_train, y_train, validation_data=(x_val, y_val), epochs=30)
>>> model = tuner.get_best_models()[0]
"""

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_collab._checks import require
from keras_collab._types import Data
from keras_collab.collab_model import CollabModel, wrap
from keras_collab.recipes import strong
from keras_collab.terms.term import Term
from keras_collab.terms.weights import at_height, height
from keras_collab.tools.balance import RANGE
from keras_collab.tools.balance import balance as balance_weights

keras_tuner: Any = require("keras_tuner", "`keras_collab.tuner` needs keras-tuner: `pip install 'keras-collab[tuner]'`")

__all__ = ["CollabHyperModel"]

Values = tuple[float, float] | list[Any]  # A range, or choices.

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def compile_with_adam(hp: Any, model: keras.Model) -> None:
    """Compiles a model with Adam, cross-entropy of integer labels, and accuracy."""
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])


class CollabHyperModel(keras_tuner.HyperModel):
    """A keras-tuner hypermodel that searches the weights of a wrapped network's terms, and optionally their settings.

    The weights are hyperparameters `<term>_weight` on a logarithmic scale; for a ramp, it is the ramp's `value`.

    The objective must measure the task alone, as `val_accuracy` and `val_loss` do. `loss` is hidden from the tuner and
    refused as the objective: it includes the weighted terms, so lower weights would lower it.

    On JAX, trials that differ only in these weights compile once if the environment variable
    JAX_COMPILATION_CACHE_DIR names a directory.

    Args:
        build_network: function that returns a new network for a trial. If its first argument has no default, it gets
            the hyperparameters.
        terms: list of terms; each trial gets copies. `[]` searches the plain network, as a control. Defaults to
            `keras_collab.recipes.strong()`.
        data: training data to measure on, as `keras_collab.balance` takes them. Required if `balance`.
        batch_size: integer, >= 1. Batch size of arrays in `data`; give that of training. Defaults to 32.
        balance: whether to measure the ranges of the weights with `keras_collab.balance`, on a new network with
            default hyperparameters. Otherwise, and for a term without a gradient, the range goes from a tenth of the
            term's weight to ten times it, or from 0.1 to 10 if it is 0. Defaults to True.
        settings: dict from `"term.argument"` to a range `(low, high)`, searched on a logarithmic scale, or to a list of
            choices, which are numbers, strings or booleans: `{"output_consistency.temperature": (1.0, 8.0)}`. Defaults
            to None.
        choose_terms: whether a trial may leave terms out. Defaults to False.
        compile: function `compile(hp, model)` that compiles the wrapped model; it may define hyperparameters, for
            instance of the optimizer. Defaults to Adam, cross-entropy of integer labels, and accuracy.
        name, tunable: as in `keras_tuner.HyperModel`.

    Raises:
        ValueError: if `balance` has no data, a setting is not an argument of a term, or a weight follows a schedule
            that is not a ramp.
        keras_tuner.errors.FatalValueError: at the start of the first trial if the objective is `loss`.
        keras_tuner.errors.FailedTrialError: if a network cannot be wrapped; the search warns and goes on.
    """

    def __init__(
        self,
        build_network: Callable[..., keras.Model],
        terms: Sequence[Term] | None = None,
        *,
        data: Data = None,
        batch_size: int = 32,
        balance: bool = True,
        settings: Mapping[str, Values] | None = None,
        choose_terms: bool = False,
        compile: Callable[[Any, keras.Model], None] = compile_with_adam,
        name: str | None = None,
        tunable: bool = True,
    ):
        super().__init__(name=name, tunable=tunable)
        self.build_network = build_network
        self.terms = strong() if terms is None else list(terms)
        self.settings = dict(settings or {})
        self.choose_terms = choose_terms
        self.compile = compile
        self._check_settings()
        self.ranges = {}
        for term in self.terms:
            weight = _number(term)
            self.ranges[term.name] = (weight / RANGE, weight * RANGE)
        if balance and self.terms:
            if data is None:
                raise ValueError(
                    "CollabHyperModel needs data to measure the ranges of the weights. Give data=(x, y), or "
                    "balance=False for ranges around the terms' own weights."
                )
            self.ranges.update(self._measured_ranges(data, batch_size))

    def _check_settings(self) -> None:
        known = set()
        for term in self.terms:
            for argument in term.get_config().keys() - {"name", "weight"}:
                known.add(f"{term.name}.{argument}")
        for setting, values in self.settings.items():
            if setting not in known:
                raise ValueError(f"There is no setting {setting!r} to search. Settings: {', '.join(sorted(known))}.")
            if not _is_range(values) and not _are_choices(values):
                raise ValueError(
                    "A setting to search must be a list of choices, which are numbers, strings or booleans, or a range "
                    f"(low, high) with 0 < low < high. Received: {setting}={values!r}."
                )

    def _measured_ranges(self, data: Data, batch_size: int) -> dict[str, tuple[float, float]]:
        hp = keras_tuner.HyperParameters()
        terms = [term.copy(weight=_number(term)) for term in self.terms]
        model = wrap(self._network(hp), terms)
        self.compile(hp, model)
        return balance_weights(model, data, batch_size=batch_size, verbose=False).ranges

    def _network(self, hp: Any) -> keras.Model:
        parameters = list(inspect.signature(self.build_network).parameters.values())
        if parameters and parameters[0].kind in _POSITIONAL and parameters[0].default is inspect.Parameter.empty:
            return self.build_network(hp)
        return self.build_network()

    def build(self, hp: Any) -> CollabModel:
        """Returns a wrapped and compiled model with these hyperparameters."""
        network = self._network(hp)
        terms = []
        for term in self.terms:
            if not self.choose_terms:
                terms.append(self._tuned(hp, term))
            elif hp.Boolean(term.name, default=True):
                with hp.conditional_scope(term.name, [True]):
                    terms.append(self._tuned(hp, term))
        try:
            model = wrap(network, terms)
        except (TypeError, ValueError) as error:
            message = f"A network of the search cannot be wrapped: {error}"
            warnings.warn(message, stacklevel=2)  # keras-tuner only notes in a file why a trial failed (1.4.8).
            raise keras_tuner.errors.FailedTrialError(message) from error
        self.compile(hp, model)
        if not model.optimizer.built:  # `get_best_models` loads its state, and Keras would warn (3.15).
            model.optimizer.build(model.trainable_variables)
        return model

    def _tuned(self, hp: Any, term: Term) -> Term:
        """A copy of the term with the weight and settings of a trial."""
        low, high = self.ranges[term.name]
        weight = hp.Float(f"{term.name}_weight", low, high, sampling="log", default=_middle(low, high))
        tuned: dict[str, Any] = {"weight": at_height(term.weight, weight)}
        for setting, values in self.settings.items():
            owner, _, argument = setting.rpartition(".")
            if owner == term.name:
                tuned[argument] = _choose(hp, f"{owner}_{argument}", values, term.get_config()[argument])
        return term.copy(**tuned)

    def fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """Trains the model of a trial and returns its history without the column `loss`."""
        for callback in kwargs.get("callbacks") or []:
            _check_objective(getattr(callback, "objective", None))
        history = super().fit(hp, model, *args, **kwargs)
        del history.history["loss"]
        return history


def _is_range(values: Any) -> bool:
    if not isinstance(values, tuple) or len(values) != 2:
        return False
    return all(isinstance(value, int | float) for value in values) and 0 < values[0] < values[1]


def _are_choices(values: Any) -> bool:
    if not isinstance(values, list) or not values:
        return False
    return all(isinstance(value, int | float | str) for value in values)


def _check_objective(objective: Any) -> None:
    """Raises an error that ends the search if an objective, or one of several, is `loss`."""
    names = getattr(objective, "name_to_direction", None) or [getattr(objective, "name", None)]
    if "loss" in names:
        raise keras_tuner.errors.FatalValueError(
            "The objective must measure the task alone. Received: 'loss', which holds the weighted terms, so a search "
            "would find the lowest weights. Give objective='val_accuracy', 'val_loss' or 'accuracy'."
        )


def _choose(hp: Any, name: str, values: Values, default: Any) -> Any:
    """A hyperparameter with the term's own setting as its default, where that is among the values."""
    if isinstance(values, list):
        return hp.Choice(name, values, default=default if default in values else values[0])
    low, high = values
    is_whole = isinstance(default, int)
    if not isinstance(default, int | float) or not low <= default <= high:
        default = _middle(low, high)
    if is_whole:
        low, high = math.ceil(low), math.floor(high)
        return hp.Int(name, low, high, sampling="log", default=round(default))
    return hp.Float(name, low, high, sampling="log", default=default)


def _middle(low: float, high: float) -> float:
    """The middle of a range on a logarithmic scale."""
    return float((low * high) ** 0.5)


def _number(term: Term) -> float:
    """The weight of a term, or the height of its ramp; 1 if it is 0."""
    return height(term.name, term.weight) or 1.0
