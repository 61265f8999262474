"""Trains the runs of a comparison, one after the other, and keeps what they gave."""

import dataclasses
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import keras
import numpy as np
from keras import ops

from keras_collab._files import write_json, write_whole
from keras_collab._types import Data
from keras_collab.callbacks import Backup
from keras_collab.collab_model import CollabModel
from keras_collab.schedules import Ramp
from keras_collab.tools._batches import Shuffled, first_batches
from keras_collab.tools._directory import (
    digest,
    finite,
    load_weights,
    network_digest,
    read_record,
    training_settings,
)
from keras_collab.tools.arms import Arm, balanced, check_trains
from keras_collab.tools.balance import balance
from keras_collab.tools.comparison import Comparison, Run


@dataclasses.dataclass
class Trainer:
    """Trains runs, one after the other, and keeps what they gave.

    The arguments are those of `compare`; `owner` is the function that errors name.
    """

    owner: Callable[..., Any]
    build_network: Callable[[], keras.Model]
    train: Data
    validation: Data
    compile: Callable[[keras.Model], Any]
    epochs: int
    batch_size: int | None
    arms: dict[str, Arm]
    folder: Path
    larger_is_better: bool | None
    runs: list[Run] = dataclasses.field(default_factory=list)
    metric: str = ""
    first_batches: dict[int, int] = dataclasses.field(default_factory=dict)
    latest_network: keras.Model | None = None
    stopped_early: bool = False
    losses: set[str] = dataclasses.field(default_factory=set)

    def settings(self) -> dict[str, Any]:
        """What the runs of one directory depend on. Makes each model once: what fails, fails before any training."""
        settings = {"epochs": self.epochs, "batch_size": self.batch_size, "backend": keras.backend.backend()}
        settings["arms"] = list(self.arms)
        for name, data in {"train": self.train, "validation": self.validation}.items():
            if isinstance(data, tuple | list):  # Datasets and loaders may shuffle: `run` looks at their first batch.
                settings[f"digest of {name}"] = digest(data)
        for arm in self.arms:
            keras.utils.set_random_seed(0)
            network = self.new_network()
            settings["parameters"], settings["digest of the network"] = network.count_params(), network_digest(network)
            training = training_settings(self.model_of(arm, network))
            settings[f"training of {arm!r}"] = training
            self.losses.add(str(training["compiled"]["loss"]))
        return settings

    def run(self, arm: str, seed: int, on_epoch: Callable[[int], Any]) -> None:
        """Trains one run, or reads its record if it is done: that is written last."""
        path = self.path(arm, seed, ".json")
        is_kept = path.exists()
        if not is_kept:
            write_json(path, self.train_one(arm, seed, on_epoch))
            self.path(arm, seed, "-backup.weights.h5").unlink(missing_ok=True)
        record = read_record(path, self.epochs)
        if not self.metric:
            self.metric = record["metric"]
            if self.metric == "val_loss" and len(self.losses) > 1:
                warnings.warn(
                    "The arms have different losses and are compared by them. Compile a metric to compare by.",
                    stacklevel=3,
                )
        history = record["history"]
        if self.metric not in history:
            raise ValueError(f"Arm {arm!r} has no column {self.metric!r}, by which arms are compared: {list(history)}.")
        if seed not in self.first_batches:
            self.first_batches[seed] = self.first_batch_digest(seed) if is_kept else record["first_batch"]
        if self.first_batches[seed] != record["first_batch"]:
            warnings.warn(
                "The arms of a seed begin with different training batches, so that the runs are not pairs: the data "
                "continue their shuffling from run to run, or are not those of the directory. Give train= as a "
                "function that makes the data.",
                stacklevel=3,
            )
        seconds = statistics.median(history.pop("seconds_per_step"))
        self.runs.append(Run(arm, seed, history, seconds, record.get("risen", 1.0)))

    def train_one(self, arm: str, seed: int, on_epoch: Callable[[int], Any]) -> dict[str, Any]:
        """Trains one run from its last whole epoch on, keeps the network's weights and returns the record."""
        network, model = self.make(arm, seed)
        if self.arms[arm] is balanced:
            balance(model, _made(self.train), batch_size=self.batch_size or 32, verbose=False)
        first_batch = self.first_batch_digest(seed)
        keras.utils.set_random_seed(seed)
        backup = Backup(self.path(arm, seed, "-backup.weights.h5"))
        self.fit(model, [_Watch(seed * self.epochs, on_epoch), backup])
        write_whole(self.path(arm, seed, ".weights.h5"), network.save_weights)
        metric = _metric(model, backup.history)
        history = finite(backup.history)
        return {"metric": metric, "history": history, "first_batch": first_batch, "risen": _risen(model)}

    def first_batch_digest(self, seed: int) -> int:
        """A number that tells the first training batches of a seed apart."""
        keras.utils.set_random_seed(seed)
        number = 0
        for batch in first_batches(self.owner, _made(self.train), count=1, size=32):
            number = digest(batch)
        return number

    def fit(self, model: keras.Model, callbacks: list[keras.callbacks.Callback]) -> None:
        train = _made(self.train)
        shuffle = isinstance(train, keras.utils.PyDataset)  # The default of `fit`; for other data Keras 3.15 warns.
        batch_size = self.batch_size or 32
        if isinstance(train, tuple | list):
            train = Shuffled(train, batch_size)
        model.fit(
            train,
            validation_data=_made(self.validation),
            validation_batch_size=4 * batch_size,  # Of arrays. No gradients: larger batches fit.
            epochs=self.epochs,
            shuffle=shuffle,
            callbacks=callbacks,
            verbose=0,
        )

    def make(self, arm: str, seed: int) -> tuple[keras.Model, keras.Model]:
        """The network and the model that trains it, compiled; in all arms of a seed with the same weights."""
        keras.utils.set_random_seed(seed)
        network = self.new_network()
        start = self.folder / f"seed{seed}-start.weights.h5"
        if start.exists():
            load_weights(network, start)
        else:
            write_whole(start, network.save_weights)
        return network, self.model_of(arm, network)

    def new_network(self) -> keras.Model:
        network = self.build_network()
        if not isinstance(network, keras.Model):
            raise TypeError(f"`build_network` must return a network. Received: {network!r}.")
        if network is self.latest_network:
            raise ValueError("`build_network` must make a new network at each call. Received the same one twice.")
        self.latest_network = network
        if network.compiled:
            raise ValueError("`build_network` must not compile the network: what trains it is compiled by `compile`.")
        return network

    def model_of(self, arm: str, network: keras.Model) -> keras.Model:
        """The model that trains the network in an arm, compiled."""
        model = self.arms[arm](network)
        check_trains(arm, model, network)
        if not model.compiled:
            self.compile(model)
        if not model.compiled:
            raise ValueError(f"`compile` must call model.compile(...). Received: {self.compile!r}, which did not.")
        return model

    def load(self, arm: str, seed: int) -> keras.Model:
        """The trained network of a run."""
        network = self.build_network()
        load_weights(network, self.path(arm, seed, ".weights.h5"))
        return network

    def path(self, arm: str, seed: int, suffix: str) -> Path:
        return self.folder / f"seed{seed}-{quote(arm, safe='')}{suffix}"

    def comparison(self) -> Comparison:
        return Comparison(
            self.runs,
            list(self.arms),
            self.metric,
            self.load,
            larger_is_better=self.larger_is_better,
            stopped_early=self.stopped_early,
        )


class _Watch(keras.callbacks.Callback):
    """Sets the seed of each epoch, measures the time of a step and moves the progress bar."""

    def __init__(self, first_seed: int, on_epoch: Callable[[int], Any]):
        super().__init__()
        self.first_seed, self.report = first_seed, on_epoch

    def on_epoch_begin(self, epoch, logs=None):
        _seed_shuffling(self.first_seed + epoch)  # Whatever else has drawn, and after an interruption.
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.steps, self.last = batch + 1, logs

    def on_test_begin(self, logs=None):
        float(self.last["loss"])  # Waits until the step is done: JAX and GPUs compute behind Python's back.
        self.seconds = (time.perf_counter() - self.started) / self.steps

    def on_epoch_end(self, epoch, logs=None):
        metric = _metric(self.model, logs)
        if np.ndim(logs[metric]) > 0:
            raise ValueError(
                f"compare: the first metric must be one number. Received: {metric}={logs[metric]}. Give it "
                "average='macro', or put another metric first."
            )
        logs["seconds_per_step"] = self.seconds
        self.report(epoch + 1)


def _seed_shuffling(seed: int) -> None:
    """Seeds what shuffles data. On TensorFlow, Keras' `set_random_seed` would also drop all that is compiled."""
    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _made(data: Data) -> Any:
    """The data, made now if they were given as a function."""
    return data() if callable(data) else data


def _metric(model: keras.Model, history: Mapping[str, Any]) -> str:
    """The history's column of the first compiled metric, or of the loss."""
    losses = {"loss", *(f"{name}_loss" for name in getattr(model, "output_names", ()))}
    for name in model.get_metrics_result():  # The loss, those of several outputs, then metrics as they were compiled.
        if f"val_{name}" in history and name not in losses:
            return f"val_{name}"
    return "val_loss"


def _risen(model: keras.Model) -> float:
    """The smallest share of its height that a term's ramp has reached, from 0 to 1."""
    share = 1.0
    if isinstance(model, CollabModel):
        for term in model.terms.values():
            if isinstance(term.weight, Ramp) and term.weight.value > 0:
                now = float(ops.convert_to_numpy(term.weight(model.optimizer.iterations)))
                share = min(share, now / term.weight.value)
    return share
