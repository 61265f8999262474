"""What is searched: hypermodels by name, all with the optimizer's learning rate and weight decay among the rest."""

from reproduce import new_optimizer

from keras_collab.tuner import CollabHyperModel


def optimizer(hp, model, steps):
    """The optimizer of examples/reproduce.py, whose learning rate and weight decay are searched."""
    rate = hp.Float("learning_rate", 0.01, 1.0, sampling="log", default=0.1)
    decay = hp.Float("weight_decay", 1e-5, 1e-2, sampling="log", default=5e-4)
    model.compile(new_optimizer(rate, decay, steps), "sparse_categorical_crossentropy", metrics=["accuracy"])


def plain(build_network, data, compile):
    """The network alone: its learning rate and weight decay. The control."""
    return CollabHyperModel(build_network, [], compile=compile)


def weights(build_network, data, compile):
    """All four terms, each with a weight in the range that `balance` measures."""
    return CollabHyperModel(build_network, data=data, compile=compile)


def terms(build_network, data, compile):
    """As `weights`, and which terms there are."""
    return CollabHyperModel(build_network, data=data, compile=compile, choose_terms=True)


def settings(build_network, data, compile):
    """As `weights`, and the temperatures."""
    wide = {"output_consistency.temperature": (1.0, 8.0), "intermediate_consistency.temperature": (0.03, 0.3)}
    return CollabHyperModel(build_network, data=data, compile=compile, settings=wide)


SPACES = {space.__name__: space for space in (plain, weights, terms, settings)}
