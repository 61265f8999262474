"""The ways of training that `compare` knows by name, each a function that turns a network into a model."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from keras_collab._types import Tensor
from keras_collab.collab_model import wrap
from keras_collab.network.select import NetworkReader, Selection
from keras_collab.recipes import strong
from keras_collab.terms.step_tensors import StepTensors
from keras_collab.terms.term import Term

Arm = Callable[..., Any]


@keras.saving.register_keras_serializable("keras_collab")
class LabelSmoothing(Term):
    """Label smoothing (Szegedy et al., 2016, arXiv 1512.00567) as a term, whose weight is the smoothing ε.

    (1 − ε) · CE(y, p) + ε · mean_k CE(k, p) = CE(y, p) + ε · (mean_k CE(k, p) − CE(y, p)); the bracket is the value.
    """

    def select(self, reader: NetworkReader) -> Selection:
        return Selection(head=reader.head(None))

    def call(self, tensors: StepTensors) -> Tensor:
        log_probabilities = ops.log_softmax(tensors.head.logits, axis=-1)
        gaps = ops.sum(tensors.labels * log_probabilities, axis=-1) - ops.mean(log_probabilities, axis=-1)
        return tensors.mean_over_samples(ops.mean(ops.reshape(gaps, (ops.shape(gaps)[0], -1)), axis=-1))


def plain(network: keras.Model) -> keras.Model:
    """The network as it is."""
    return network


def label_smoothing(network: keras.Model) -> keras.Model:
    """The network, trained with label smoothing of 0.1."""
    return wrap(network, [LabelSmoothing(0.1)])


def balanced(network: keras.Model) -> keras.Model:
    """All four terms; `compare` sets their weights with `balance` once the model is compiled."""
    return wrap(network, strong())


def make_arms(arms: Any) -> dict[str, Arm]:
    """Each arm as a function that turns a network into a model.

    Args:
        arms: names, or a dict; see `compare`.

    Raises:
        ValueError: if there is no arm of a name.
        TypeError: if an arm in a dict is neither None nor a function.
    """
    ready: dict[str, Arm] = {"plain": plain, "wrapped": wrap}
    for term in strong():
        ready[term.name] = _alone(type(term))
    ready |= {"strong": _wrapper(strong), "label_smoothing": label_smoothing, "balanced": balanced}
    if isinstance(arms, Mapping) and arms:
        return {name: _arm(name, arm) for name, arm in arms.items()}
    if not isinstance(arms, tuple | list) or not arms:
        raise TypeError(
            f"`arms` must be names, such as ['plain', 'wrapped'], or a dict of functions by name. Received: {arms!r}."
        )
    unknown = [name for name in arms if name not in ready]
    if unknown:
        raise ValueError(
            f"There is no arm {unknown[0]!r}. Available: {', '.join(ready)}. For an arm of your own give a dict: "
            "arms={'plain': None, 'mine': function}."
        )
    return {name: ready[name] for name in arms}


def _arm(name: Any, arm: Any) -> Arm:
    if not isinstance(name, str):
        raise TypeError(f"The names of arms must be strings. Received: {name!r}.")
    if arm is None:
        return plain
    if not callable(arm) or isinstance(arm, keras.Layer):
        raise TypeError(
            f"Arm {name!r} must be None for plain training, a function that turns a network into a model, or one "
            "without arguments that makes a list of terms: lambda: [keras_collab.KernelSimilarity()]. Received: "
            f"{arm!r}."
        )
    required = [each for each in inspect.signature(arm).parameters.values() if each.default is each.empty]
    return arm if required else _wrapper(arm)


def check_trains(name: str, model: Any, network: keras.Model) -> None:
    """Raises if an arm's model does not train the network that the arm was given."""
    trains = isinstance(model, keras.Model) and {id(weight) for weight in network.weights} <= {
        id(weight) for weight in model.weights
    }
    if not trains:
        raise TypeError(
            f"Arm {name!r} must return a model that trains the network that it is given, such as "
            f"keras_collab.wrap(network). Received: {model!r}."
        )


def _alone(kind: type[Term]) -> Arm:
    return lambda network: wrap(network, [kind()])


def _wrapper(make_terms: Arm) -> Arm:
    return lambda network: wrap(network, make_terms())
