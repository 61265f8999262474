"""What is searched: hypermodels by name, trained by the optimizer of examples/train_run.py."""

import dataclasses

import keras
from train_run import new_optimizer

from keras_collab.tuner import CollabHyperModel

BATCH_SIZE = 128

# These networks are narrow: on TensorFlow XLA takes longer to compile than it saves.
JIT = "auto" if keras.backend.backend() == "jax" else False


@dataclasses.dataclass(frozen=True)
class Training:
    """Compiles the model of a trial."""

    steps: int
    learning_rate: float
    weight_decay: float
    searched: bool = False

    def __call__(self, hp, model):
        rate, decay = self.learning_rate, self.weight_decay
        if self.searched:
            rate = hp.Float("learning_rate", 0.01, 1.0, sampling="log", default=rate)
            decay = hp.Float("weight_decay", 1e-5, 1e-2, sampling="log", default=decay)
        optimizer = new_optimizer(rate, decay, self.steps)
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=JIT)


def plain(build_network, data, train):
    """The network alone: its learning rate and weight decay. The control."""
    train = dataclasses.replace(train, searched=True)
    return CollabHyperModel(build_network, [], compile=train)


def weights(build_network, data, train):
    """All four terms, each with a weight in the range that `balance` measures."""
    return CollabHyperModel(build_network, data=data, batch_size=BATCH_SIZE, compile=train)


def terms(build_network, data, train):
    """As `weights`, and which terms there are."""
    return CollabHyperModel(build_network, data=data, batch_size=BATCH_SIZE, compile=train, choose_terms=True)


def settings(build_network, data, train):
    """As `weights`, and the temperatures, the learning rate and the weight decay."""
    ranges = {"output_consistency.temperature": (1.0, 8.0), "intermediate_consistency.temperature": (0.03, 0.3)}
    train = dataclasses.replace(train, searched=True)
    return CollabHyperModel(build_network, data=data, batch_size=BATCH_SIZE, compile=train, settings=ranges)


SPACES = {"plain": plain, "weights": weights, "terms": terms, "settings": settings}
