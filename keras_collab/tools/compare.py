"""Does it help on your own data? Trains a network plain and wrapped from the same initial weights, and compares."""

import dataclasses
import random
import shutil
import statistics
import sys
import tempfile
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import keras
import numpy as np
from keras import ops
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from keras_collab._checks import check_range
from keras_collab._files import write_json, write_whole
from keras_collab.callbacks import Backup
from keras_collab.collab_model import CollabModel
from keras_collab.schedules import Ramp
from keras_collab.tools._batches import Array, Shuffled, first_batches
from keras_collab.tools._directory import (
    check_same,
    digest,
    finite,
    load_weights,
    network_digest,
    owner_of,
    read_record,
    training_settings,
)
from keras_collab.tools.arms import Arm, balanced, check_trains, make_arms
from keras_collab.tools.balance import balance
from keras_collab.tools.comparison import Comparison, Run


def compare(
    build_network: Callable[[], keras.Model],
    train: Any,
    validation: Any,
    *,
    compile: Callable[[keras.Model], Any],
    epochs: int,
    seeds: int = 3,
    batch_size: int | None = None,
    arms: Mapping[str, Arm | None] | Sequence[str] = ("plain", "wrapped"),
    directory: str | Path | None = None,
    larger_is_better: bool | None = None,
    stop_early: bool = False,
    verbose: bool = True,
) -> Comparison:
    """Trains a network in several ways, and reports which is better on your data, with 95% intervals.

    Each way of training is called an arm. For each seed, all arms start from the same weights and see the same batches.
    Arms are compared by the validation value, after the last epoch, of the first compiled metric, or of the loss if
    there is none. The table also has the epoch at which each arm was best: if that is not near the last one, compare
    again with fewer epochs. The intervals cover other seeds on the same data; confirm a choice on a separate test set.

    Args:
        build_network: function that returns a new Functional or Sequential network, not compiled.
        train: training data as in `fit`: arrays `(x, y)` or `(x, y, sample_weight)`, shuffled anew each epoch, a
            `tf.data.Dataset`, a `keras.utils.PyDataset` or a torch `DataLoader`. Or a function that returns them,
            called for each run right after the seed is set; use it for data whose shuffling would continue from run to
            run.
        validation: validation data, in the same forms.
        compile: function that compiles the model it is given, such as `lambda model: model.compile("adam", "mse")`. It
            is called for each run and must make a new optimizer.
        epochs: integer, >= 1. Epochs of each run.
        seeds: integer, >= 1. Runs of each arm; fewer than three rarely show a difference. Defaults to 3.
        batch_size: batch size of arrays, as in `fit`. Defaults to 32.
        arms: names of predefined arms: `"plain"`, `"wrapped"` (the default terms), the name of one of the four terms
            alone, `"strong"` (`recipes.strong()`), `"balanced"` (the same with weights set by `balance`) and
            `"label_smoothing"` (0.1). Or a dict from names to None for plain training, to a function from a network to
            a model, which is then compiled if it is not, or to a function without arguments that returns a list of
            terms. The first arm is the one that the others are compared with. Defaults to `("plain", "wrapped")`.
        directory: folder that keeps the runs of one comparison: of the same network, arrays and settings; functions,
            such as a loss of your own, are told apart by their names. After an interruption, the same call resumes from
            the last complete epoch (a `tf.data.Dataset` then shuffles anew); with more seeds it adds runs. Defaults to
            a temporary folder.
        larger_is_better: whether a larger value of the metric is better. Defaults to what its name says: metrics named
            as a loss or an error are better when smaller, all others when larger.
        stop_early: whether to stop once all intervals exclude 0, from the third seed on. Such repeated tests find
            chance differences more often than the intervals state. Defaults to False.
        verbose: whether to show a progress bar. Defaults to True.

    Returns:
        A `Comparison`; print it.

    Raises:
        ValueError: if the directory holds another comparison or a damaged file, or is in use, or an argument has a
            wrong value.
        TypeError: if an arm is neither None nor a function, or does not train the network that it is given.

    >>> print(keras_collab.compare(build_network, (x, y), (x_val, y_val), compile=compile, epochs=30))
    """
    epochs = check_range(compare, epochs=epochs, least=1, whole=True)
    seeds = check_range(compare, seeds=seeds, least=1, whole=True)
    if batch_size is not None:
        batch_size = check_range(compare, batch_size=batch_size, least=1, whole=True)
    for name, function in {"build_network": build_network, "compile": compile}.items():
        if not callable(function):
            raise TypeError(f"compare: `{name}` must be a function. Received: {name}={function!r}.")
    _check_data(train, validation)
    folder = Path(tempfile.mkdtemp(prefix="keras_collab-") if directory is None else directory)
    trainer = _Trainer(
        build_network, train, validation, compile, epochs, batch_size, make_arms(arms), folder, larger_is_better
    )
    if directory is None:
        weakref.finalize(trainer, shutil.rmtree, folder, ignore_errors=True)  # The comparison holds the trainer.
    with owner_of(folder):
        settings = trainer.settings()
        if directory is not None:
            check_same(folder, settings)
        with _progress(verbose) as progress:
            bar = progress.add_task("", total=seeds * len(trainer.arms) * epochs)
            for seed in range(seeds):
                for arm in trainer.arms:
                    done = len(trainer.runs) * epochs
                    progress.update(bar, description=f"seed {seed}, {arm}", completed=done)
                    trainer.run(arm, seed, _Bar(progress, bar, done))
                if stop_early and seed >= 2 and _clear(trainer.comparison()):
                    trainer.stopped_early = True
                    break
            progress.update(bar, completed=len(trainer.runs) * epochs)
    return trainer.comparison()


@dataclasses.dataclass
class _Trainer:
    """Trains runs, one after the other, and keeps what they gave."""

    build_network: Callable[[], keras.Model]
    train: Any
    validation: Any
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
        keras.utils.set_random_seed(seed)
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
        for batch in first_batches(compare, _made(self.train), count=1, size=32):
            number = digest(batch)
        return number

    def fit(self, model: keras.Model, callbacks: list[keras.callbacks.Callback]) -> None:
        train = _made(self.train)
        shuffle = isinstance(train, keras.utils.PyDataset)  # The default of `fit`; for other data Keras 3.15 warns.
        if isinstance(train, tuple | list):
            train = Shuffled(train, self.batch_size or 32)
        validation = _made(self.validation)
        model.fit(
            train, validation_data=validation, epochs=self.epochs, shuffle=shuffle, callbacks=callbacks, verbose=0
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


@dataclasses.dataclass
class _Bar:
    """Moves the progress bar: called with the number of epochs of the present run."""

    progress: Progress
    task: Any
    before: int

    def __call__(self, epoch: int) -> None:
        self.progress.update(self.task, completed=self.before + epoch)


def _progress(verbose: bool) -> Progress:
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, disable=not verbose)


def _check_data(train: Any, validation: Any) -> None:
    for name, data in {"train": train, "validation": validation}.items():
        if data is None or isinstance(data, Iterator | Array):
            raise ValueError(
                f"`{name}` must be data that can be iterated more than once: (x, y), a dataset or loader, or a "
                f"function that makes them. Received: {data!r}."
            )


def _made(data: Any) -> Any:
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


def _clear(comparison: Comparison) -> bool:
    return all(comparison.difference(arm).clear for arm in comparison.arms[1:])
