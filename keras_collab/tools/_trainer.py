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
from keras import ops, tree

from keras_collab._files import write_json, write_whole
from keras_collab._types import Data
from keras_collab.callbacks import Backup, random_states
from keras_collab.collab_model import CollabModel
from keras_collab.schedules import Ramp
from keras_collab.tools._batches import Shuffled, check_data, first_batches
from keras_collab.tools._directory import (
    digest,
    finite,
    load_weights,
    mean_size,
    network_digest,
    read_record,
    training_settings,
    unnumbered,
)
from keras_collab.tools.arms import Arm, balanced, check_trains
from keras_collab.tools.balance import balance
from keras_collab.tools.comparison import Comparison, Run, is_larger_better


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
    batch_size: int
    arms: dict[str, Arm]
    folder: Path
    larger_is_better: bool | None
    runs: list[Run] = dataclasses.field(default_factory=list)
    metric: str = ""
    metric_name: str = ""
    first_batch_by_seed: dict[int, int] = dataclasses.field(default_factory=dict)
    latest_variables: dict[int, Any] = dataclasses.field(default_factory=dict)
    latest_iterations: Any = None
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
            settings["mean size of the initial weights"] = mean_size(network)
            training = training_settings(self.model_of(arm, network))
            settings[f"training of {arm!r}"] = training
            self.losses.add(str(training["compiled"].get("loss")))
        return settings

    def run(self, arm: str, seed: int, on_epoch: Callable[[int], Any]) -> None:
        """Trains one run, or reads its record if it is done: that is written last."""
        path = self.path(arm, seed, ".json")
        is_kept = path.exists()
        if not is_kept:
            write_json(path, self.train_one(arm, seed, on_epoch))
            self.backup_path(arm, seed).unlink(missing_ok=True)
        record = read_record(path, self.epochs)
        if not self.metric:
            self.metric, self.metric_name = record["metric"], record["metric_name"]
            if self.larger_is_better is None:
                self.larger_is_better = record["larger_is_better"]
            if self.metric == "val_loss" and len(self.losses) > 1:
                warnings.warn(
                    "The arms have different losses and are compared by them. Compile a metric to compare by.",
                    stacklevel=3,
                )
        history = record["history"]
        if record["metric_name"] != self.metric_name:
            raise ValueError(f"Arm {arm!r} has no column {self.metric!r}, by which arms are compared: {list(history)}.")
        history[self.metric] = history.pop(record["metric"])
        if seed not in self.first_batch_by_seed:
            self.first_batch_by_seed[seed] = self.first_batch_digest(seed) if is_kept else record["first_batch"]
        if self.first_batch_by_seed[seed] != record["first_batch"]:
            warnings.warn(
                "The arms of a seed begin with different training batches, so that the runs are not pairs: the data "
                "continue their shuffling from run to run, or are not those of the directory. Give train= as a "
                "function that makes the data.",
                stacklevel=3,
            )
        seconds = statistics.median(history.pop("seconds_per_step"))
        self.runs.append(Run(arm, seed, history, seconds, record["risen"]))

    def train_one(self, arm: str, seed: int, on_epoch: Callable[[int], Any]) -> dict[str, Any]:
        """Trains one run from its last whole epoch on, keeps the network's weights and returns the record."""
        network, model = self.make(arm, seed)
        if self.arms[arm] is balanced:
            balance(model, _made("train", self.train), batch_size=self.batch_size, verbose=False)
        first_batch = self.first_batch_digest(seed)
        _set_seed(seed)
        backup = Backup(self.backup_path(arm, seed))
        watch = _Watch(seed * self.epochs, on_epoch)
        self.fit(model, [watch, backup])
        if not watch.steps:  # Stopped after the last epoch: metrics have no names before they have seen data.
            for batch in first_batches(self.owner, _made("validation", self.validation), count=1, size=32):
                model.test_on_batch(*batch)
        write_whole(self.path(arm, seed, ".weights.h5"), network.save_weights)
        metric = _metric(model, backup.history)
        return {
            "metric": metric,
            "metric_name": unnumbered(metric),
            "larger_is_better": is_larger_better(metric, _metric_class(model, metric)),
            "history": finite(backup.history),
            "first_batch": first_batch,
            "risen": _risen(model),
        }

    def first_batch_digest(self, seed: int) -> int:
        """A number that tells the first training batches of a seed apart."""
        _set_seed(seed)
        for batch in first_batches(self.owner, _made("train", self.train), count=1, size=32):
            return digest(batch)
        raise ValueError(f"`train` must have a batch. Received none: {self.train!r}.")

    def fit(self, model: keras.Model, callbacks: list[keras.callbacks.Callback]) -> None:
        train = _made("train", self.train)
        shuffle = isinstance(train, keras.utils.PyDataset)  # The default of `fit`; for other data Keras 3.15 warns.
        if isinstance(train, tuple | list):
            train = Shuffled(train, self.batch_size)
        model.fit(
            train,
            validation_data=_made("validation", self.validation),
            validation_batch_size=4 * self.batch_size,  # Of arrays. No gradients: larger batches fit.
            epochs=self.epochs,
            shuffle=shuffle,
            callbacks=callbacks,
            verbose=0,
        )

    def make(self, arm: str, seed: int) -> tuple[keras.Model, keras.Model]:
        """The network and the model that trains it, compiled; in all arms of a seed with the same weights."""
        keras.utils.set_random_seed(seed)
        network = self.new_network()
        start = self.folder / f"start{seed}.weights.h5"
        if start.exists():
            load_weights(network, start)
        else:
            write_whole(start, network.save_weights)
        return network, self.model_of(arm, network)

    def new_network(self) -> keras.Model:
        network = self.build_network()
        if not isinstance(network, keras.Model):
            raise TypeError(f"`build_network` must return a network. Received: {network!r}.")
        if not network.built:
            raise ValueError("`build_network` must return a built network. Begin it with keras.Input(shape).")
        variables = _changing(network)
        shared = [variable.path for key, variable in variables.items() if key in self.latest_variables]
        if shared:
            raise ValueError(
                "`build_network` must make a new network at each call, augmentation included; only what is frozen may "
                f"be shared. Received the same variables twice: {shared[:4]}."
            )
        self.latest_variables = variables
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
        if model.optimizer is not None:  # Keras may wrap an optimizer, for mixed precision, but not what it counts.
            if model.optimizer.iterations is self.latest_iterations:
                raise ValueError("`compile` must make a new optimizer at each call. Received the same one twice.")
            self.latest_iterations = model.optimizer.iterations
        return model

    def load(self, arm: str, seed: int) -> keras.Model:
        """The trained network of a run."""
        network = self.build_network()
        load_weights(network, self.path(arm, seed, ".weights.h5"))
        return network

    def path(self, arm: str, seed: int, suffix: str) -> Path:
        return self.folder / f"seed{seed}-{quote(arm, safe='')}{suffix}"

    def backup_path(self, arm: str, seed: int) -> Path:
        path = self.path(arm, seed, ".weights.h5")
        return path.with_name(f"backup-{path.name}")

    def comparison(self, stopped_early: bool = False) -> Comparison:
        return Comparison(
            self.runs,
            list(self.arms),
            self.metric,
            self.load,
            larger_is_better=self.larger_is_better,
            stopped_early=stopped_early,
        )


class _Watch(keras.callbacks.Callback):
    """Sets the seed of each epoch, measures the time of a step and moves the progress bar."""

    def __init__(self, first_seed: int, on_epoch: Callable[[int], Any]):
        super().__init__()
        self.first_seed, self.report = first_seed, on_epoch
        self.steps = 0

    def on_epoch_begin(self, epoch, logs=None):
        _seed_shuffling(self.first_seed + epoch)  # Whatever else has drawn, and after an interruption.
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.steps, self.last = batch + 1, logs

    def on_test_begin(self, logs=None):
        # Waits until the step is done: JAX and GPUs compute behind Python's back.
        tree.map_structure(ops.convert_to_numpy, self.last)
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


def _set_seed(seed: int) -> None:
    keras.utils.set_random_seed(seed)
    _seed_shuffling(seed)


def _seed_shuffling(seed: int) -> None:
    """Seeds what shuffles data. On TensorFlow, Keras' `set_random_seed` would also drop all that is compiled."""
    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)


def _made(name: str, data: Data) -> Any:
    """The data, made now if they were given as a function."""
    data = data() if callable(data) else data
    check_data(name, data)
    return data


def _changing(network: keras.Model) -> dict[int, Any]:
    """The variables that training changes, by id: trainable weights and random states."""
    return {id(variable): variable for variable in [*network.trainable_weights, *random_states(network)]}


def _metric(model: keras.Model, history: Mapping[str, Any]) -> str:
    """The history's column of the first compiled metric, or of the loss."""
    if not any(name.startswith("val_") for name in history):
        raise ValueError("`validation` must have a batch. Received none.")
    for metrics in _compiled_metrics(model):
        for name in metrics.result():
            if f"val_{name}" in history:
                return f"val_{name}"
    return "val_loss"


def _compiled_metrics(model: keras.Model) -> list[Any]:
    """The metric in which Keras 3.15 holds the compiled ones, with one value for each; none if there are none."""
    return [metric for metric in model.metrics if metric.name == "compile_metrics"]


def _metric_class(model: keras.Model, column: str) -> str:
    """The name of the class of a column's metric; empty for the loss."""
    for metrics in _compiled_metrics(model):
        for metric in metrics.metrics:
            if column.endswith(f"_{metric.name}"):
                return type(metric).__name__
    return ""


def _risen(model: keras.Model) -> float:
    """The smallest share of its height that a term's ramp has reached, from 0 to 1."""
    share = 1.0
    if isinstance(model, CollabModel):
        for term in model.terms.values():
            if isinstance(term.weight, Ramp) and term.weight.value > 0:
                now = float(ops.convert_to_numpy(term.weight(model._counter.step)))
                share = min(share, now / term.weight.value)
    return share
