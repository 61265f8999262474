"""Search of the terms' weights and settings with keras-tuner: `pip install 'keras-collab[tuner]'`.

>>> hypermodel = CollabHyperModel(build_network, data=(x_train, y_train))
>>> tuner = keras_tuner.BayesianOptimization(hypermodel, objective="val_accuracy", max_trials=20, directory="search")
>>> tuner.search(x_train, y_train, validation_data=(x_val, y_val), epochs=30)
>>> model = tuner.get_best_models()[0]
"""

import inspect
import json
import numbers
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_collab._checks import require
from keras_collab.collab_model import CollabModel, default_terms, wrap
from keras_collab.terms.term import Term
from keras_collab.tools.balance import RANGE
from keras_collab.tools.balance import balance as balance_weights

keras_tuner: Any = require("keras_tuner", "`keras_collab.tuner` needs keras-tuner: `pip install 'keras-collab[tuner]'`")

_TunerCallback = require("keras_tuner.src.engine.tuner_utils", "keras-tuner 1.4 has it").TunerCallback

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
EXECUTIONS = "executions.jsonl"


def compile_with_adam(hp: Any, model: keras.Model) -> None:
    """Adam with Keras' own settings, cross-entropy of integer labels, accuracy."""
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])


class CollabHyperModel(keras_tuner.HyperModel):
    """A hypermodel of a network that its own parts teach: searches the terms' weights, and more if asked to.

    The weights are hyperparameters `<term>_weight` on a logarithmic scale. Each trial's directory keeps a line of every
    execution's history in `executions.jsonl`, since keras-tuner itself keeps their mean only; a trial that was stopped
    and begun again has the lines of its first attempt before them.

    Weights are variables: on JAX, trials that differ in them alone compile once, if the environment variable
    JAX_COMPILATION_CACHE_DIR names a directory.

    The objective must be one of the task alone, such as `val_accuracy`, which it is if the tuner is given none, or
    `val_loss`: `loss` holds the weighted terms, and would be lowered by lowering their weights.

    Args:
        build_network: makes the network of a trial, from the hyperparameters if its first argument has no
            default.
        terms: the terms, as patterns; each trial gets its own of the same settings. Defaults to all four. `[]` searches
            the plain network, as a control.
        data: training data to measure on, as `keras_collab.balance` takes them; needed if `balance`.
        batch_size: samples in a batch of `data`; give that of the training to come.
        balance: whether the ranges of the weights are those that `keras_collab.balance` finds on a fresh network, with
            the hyperparameters' defaults. Otherwise they go from a tenth of the terms' own weights to ten times these.
        settings: other hyperparameters, `"term.argument"` to either a range `(low, high)`, searched on a logarithmic
            scale, or a list of choices: `{"output_consistency.temperature": (1.0, 8.0)}`.
        choose_terms: whether a trial may leave terms out.
        compile: compiles the wrapped model, `compile(hp, model)`; a place for the optimizer's hyperparameters. Defaults
            to Adam, cross-entropy of integer labels, and accuracy.

    Raises:
        ValueError: if `balance` has no data, or a setting is none of a term's arguments.
        keras_tuner.errors.FailedTrialError: if a network cannot be wrapped; a search warns, and goes on.
        keras_tuner.errors.FatalValueError: if the objective holds the weighted terms; a search ends.
    """

    def __init__(
        self,
        build_network: Callable[..., keras.Model],
        terms: Sequence[Term] | None = None,
        *,
        data: Any = None,
        batch_size: int = 32,
        balance: bool = True,
        settings: Mapping[str, tuple[float, float] | list[Any]] | None = None,
        choose_terms: bool = False,
        compile: Callable[[Any, keras.Model], None] = compile_with_adam,
        name: str | None = None,
        tunable: bool = True,
    ):
        super().__init__(name=name, tunable=tunable)
        self.build_network = build_network
        self.terms = default_terms() if terms is None else list(terms)
        self.settings = dict(settings or {})
        self.choose_terms = choose_terms
        self.compile = compile
        self._check_settings()
        if not balance or not self.terms:
            self.ranges = {term.name: _around(term) for term in self.terms}
        elif data is None:
            raise ValueError(
                "CollabHyperModel measures the ranges of the weights on data, and has none. Give data=(x, y), or "
                "balance=False for ranges around the terms' own weights."
            )
        else:
            self.ranges = self._measured(data, batch_size)

    def _check_settings(self) -> None:
        known = {f"{term.name}.{argument}" for term in self.terms for argument in term.get_config()}
        known -= {f"{term.name}.{argument}" for term in self.terms for argument in ("name", "weight")}
        for setting, values in self.settings.items():
            if setting not in known:
                raise ValueError(f"There is no setting {setting!r} to search. Settings: {', '.join(sorted(known))}.")
            if not isinstance(values, list) and not (len(values) == 2 and 0 < values[0] < values[1]):
                raise ValueError(
                    f"A setting to search must be a list of choices or a range (low, high) with 0 < low < high. "
                    f"Received: {setting}={values!r}."
                )

    def _measured(self, data: Any, batch_size: int) -> dict[str, tuple[float, float]]:
        hp = keras_tuner.HyperParameters()
        terms = [_copy(term, weight=_number(term)) for term in self.terms]
        model = wrap(self._network(hp), terms)
        self.compile(hp, model)
        found = balance_weights(model, data, batch_size=batch_size, verbose=False).ranges
        return {term.name: found.get(term.name, _around(term)) for term in self.terms}

    def _network(self, hp: Any) -> keras.Model:
        first = next(iter(inspect.signature(self.build_network).parameters.values()), None)
        takes = first is not None and first.kind in _POSITIONAL and first.default is inspect.Parameter.empty
        return self.build_network(hp) if takes else self.build_network()

    def build(self, hp: Any) -> CollabModel:
        """The wrapped and compiled model of these hyperparameters."""
        network, terms = self._network(hp), [self._term(hp, term) for term in self.terms]
        try:
            model = wrap(network, [term for term in terms if term is not None])
        except (TypeError, ValueError) as error:
            message = f"A network of the search cannot be wrapped: {error}"
            warnings.warn(message, stacklevel=2)  # A search only notes down why a trial failed.
            raise keras_tuner.errors.FailedTrialError(message) from error
        self.compile(hp, model)
        if not model.optimizer.built:  # So that `get_best_models` restores its state too, and Keras does not warn.
            model.optimizer.build(model.trainable_variables)
        return model

    def _term(self, hp: Any, term: Term) -> Term | None:
        if not self.choose_terms:
            return self._tuned(hp, term)
        if not hp.Boolean(term.name, default=True):
            return None
        with hp.conditional_scope(term.name, [True]):
            return self._tuned(hp, term)

    def _tuned(self, hp: Any, term: Term) -> Term:
        low, high = self.ranges[term.name]
        tuned = {"weight": hp.Float(f"{term.name}_weight", low, high, sampling="log", default=(low * high) ** 0.5)}
        for setting, values in self.settings.items():
            owner, _, argument = setting.rpartition(".")
            if owner == term.name:
                name, default = f"{term.name}_{argument}", term.get_config()[argument]
                if isinstance(values, list):
                    tuned[argument] = hp.Choice(name, values, default=default if default in values else values[0])
                else:
                    inside = isinstance(default, int | float) and values[0] <= default <= values[1]
                    tuned[argument] = hp.Float(
                        name, *values, sampling="log", default=default if inside else (values[0] * values[1]) ** 0.5
                    )
        return _copy(term, **tuned)

    def fit(self, hp: Any, model: keras.Model, *args: Any, **kwargs: Any) -> Any:
        """Trains a model of a search and keeps its history in the directory of the trial."""
        searching = next((c for c in kwargs.get("callbacks") or [] if isinstance(c, _TunerCallback)), None)
        if searching is None:
            return super().fit(hp, model, *args, **kwargs)
        objective = searching.tuner.oracle.objective
        self._check_objective(objective)
        if objective.name == "default_objective":
            for saver in (c for c in kwargs["callbacks"] if getattr(c, "objective", None) is objective):
                saver.objective, saver.best_value = keras_tuner.Objective("val_accuracy", "max"), -np.inf
        history = super().fit(hp, model, *args, **kwargs)
        folder = Path(searching.tuner.get_trial_dir(searching.trial.trial_id))
        _record(folder / EXECUTIONS, hp, history.history)
        if objective.name == "default_objective":
            return -float(np.nanmax(history.history["val_accuracy"]))
        return history

    def _check_objective(self, objective: Any) -> None:
        names = [single.name for single in getattr(objective, "objectives", [objective])]
        columns = {"loss", *(name for term in self.terms for name in (term.name, f"{term.name}_weight"))}
        for name in names:
            if name in columns:
                raise keras_tuner.errors.FatalValueError(
                    f"The objective {name!r} holds the terms that the search weighs: it would be won by the lowest "
                    "weights. Choose one of the task, such as objective='val_accuracy' or "
                    "keras_tuner.Objective('val_loss', 'min')."
                )


def _copy(term: Term, **changes: Any) -> Term:
    return type(term).from_config({**term.get_config(), **changes})


def _number(term: Term) -> float:
    weight = term.weight
    return float(weight) if isinstance(weight, numbers.Real) else 1.0


def _around(term: Term) -> tuple[float, float]:
    weight = _number(term) or 1.0
    return weight / RANGE, weight * RANGE


def _record(path: Path, hp: Any, history: Mapping[str, Sequence[Any]]) -> None:
    columns = {name: [float(value) for value in values] for name, values in history.items()}
    with path.open("ab", buffering=0) as file:  # One write: a kill leaves a whole line or none.
        file.write(json.dumps({"values": hp.values, "history": columns}).encode() + b"\n")
