"""What is searched: hypermodels by name, trained by the optimizer of examples/reproduce.py."""

from reproduce import new_optimizer

from keras_collab.tuner import CollabHyperModel


def plain(build_network, data, steps):
    """The network alone: its learning rate and weight decay. The control."""
    return CollabHyperModel(build_network, [], compile=_optimizer(steps, searched=True))


def weights(build_network, data, steps):
    """All four terms, each with a weight in the range that `balance` measures."""
    return CollabHyperModel(build_network, data=data, compile=_optimizer(steps))


def terms(build_network, data, steps):
    """As `weights`, and which terms there are."""
    return CollabHyperModel(build_network, data=data, compile=_optimizer(steps), choose_terms=True)


def settings(build_network, data, steps):
    """As `weights`, and the temperatures, the learning rate and the weight decay."""
    wide = {"output_consistency.temperature": (1.0, 8.0), "intermediate_consistency.temperature": (0.03, 0.3)}
    return CollabHyperModel(build_network, data=data, compile=_optimizer(steps, searched=True), settings=wide)


def _optimizer(steps, searched=False):
    def compile(hp, model):
        rate, decay = 0.1, 5e-4
        if searched:
            rate = hp.Float("learning_rate", 0.01, 1.0, sampling="log", default=rate)
            decay = hp.Float("weight_decay", 1e-5, 1e-2, sampling="log", default=decay)
        model.compile(new_optimizer(rate, decay, steps), "sparse_categorical_crossentropy", metrics=["accuracy"])

    return compile


SPACES = {space.__name__: space for space in (plain, weights, terms, settings)}
