"""Does it help on your own data? Trains a network plain and wrapped from the same starts, and compares in pairs."""

import contextlib
import dataclasses
import json
import math
import shutil
import statistics
import tempfile
import time
import warnings
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import filelock
import keras
from keras import tree
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from keras_collab._checks import check_range
from keras_collab._files import write_json, write_whole
from keras_collab.callbacks import Backup
from keras_collab.collab_model import CollabModel
from keras_collab.tools._batches import first_batches
from keras_collab.tools.arms import Arm, balanced, make_arms
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
    stop_early: bool = False,
    verbose: bool = True,
) -> Comparison:
    """Trains a network in several ways and says which is better on these data, and how sure that is.

    For each seed all ways, called arms, begin with the same weights and see the same batches. What counts is the value
    after the last epoch, on the validation data, of the first metric that is compiled, or of the loss where there is
    none. What is named as a loss or an error is better when it is smaller, all else when it is larger. The intervals
    speak of other seeds with these same data; what is chosen by them needs a test on data kept apart.

    Args:
        build_network: a function that makes a fresh network, Functional or Sequential, not compiled.
        train: what `fit` takes: arrays `(x, y)` or `(x, y, sample_weight)`, a `tf.data.Dataset`, a
            `keras.utils.PyDataset` or a torch `DataLoader`. Or a function that makes it, called before each run right
            after the seed is set: for data that shuffle themselves and go on where the last run left them.
        validation: the same, measured after each epoch.
        compile: a function that compiles a model, `lambda model: model.compile("adam", "mse")`. It is called for each
            run, since an optimizer belongs to one model.
        epochs: epochs of each run, >= 1.
        seeds: how many runs each arm has, >= 1. With fewer than three hardly anything can be shown.
        batch_size: for arrays, as in `fit`. Defaults to 32.
        arms: names of arms that are ready: `"plain"`, `"wrapped"` (the default terms), each of the four terms alone by
            its name, `"label_smoothing"` (0.1), `"balanced"` (weights set by `balance`). Or a dict of names to None for
            plain training, to a function that turns a network into a model (`keras_collab.wrap`; it is compiled if
            that does not), or to one without arguments that makes a list of terms. The others are compared with the
            first. Defaults to plain and wrapped.
        directory: where runs are kept. The same call goes on after an interruption at any moment, with the last whole
            epoch; with more seeds it adds runs. Defaults to a temporary one.
        stop_early: whether to stop once all intervals leave out 0, after the third seed or a later one. Who looks often
            finds a difference by chance more often than the intervals say.
        verbose: whether to show a progress bar.

    Returns:
        A `Comparison`, to be printed.

    Raises:
        ValueError: if the directory holds another comparison or is in use, or an argument is not as described.

    >>> print(keras_collab.compare(build_network, (x, y), (x_val, y_val), compile=compile, epochs=30))
    """
    epochs = check_range(compare, epochs=epochs, least=1, whole=True)
    seeds = check_range(compare, seeds=seeds, least=1, whole=True)
    _check_data(train, validation)
    folder = Path(tempfile.mkdtemp(prefix="keras_collab-") if directory is None else directory)
    trainer = _Trainer(build_network, train, validation, compile, epochs, batch_size, make_arms(arms), folder)
    with _owner_of(folder):
        settings = trainer.settings()
        if directory is not None:
            _check_same(folder, settings)
        with _progress(verbose) as progress:
            bar = progress.add_task("", total=seeds * len(trainer.arms) * epochs)
            for seed in range(seeds):
                for arm in trainer.arms:
                    done = len(trainer.runs) * epochs
                    progress.update(bar, description=f"seed {seed}, {arm}", completed=done)
                    trainer.run(arm, seed, _Bar(progress, bar, done))
                if stop_early and seed >= 2 and _clear(trainer.comparison()):
                    break
            progress.update(bar, completed=len(trainer.runs) * epochs)
    comparison = trainer.comparison()
    if directory is None:
        weakref.finalize(comparison, shutil.rmtree, folder, ignore_errors=True)
    return comparison


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
    runs: list[Run] = dataclasses.field(default_factory=list)
    metric: str = ""
    first_batches: dict[int, int] = dataclasses.field(default_factory=dict)
    latest_network: keras.Model | None = None

    def settings(self) -> dict[str, Any]:
        """What the runs of one directory depend on. Makes each model once: what fails, fails before any training."""
        settings = {"epochs": self.epochs, "batch_size": self.batch_size, "backend": keras.backend.backend()}
        settings["arms"] = list(self.arms)
        for arm in self.arms:
            network, model = self.make(arm, seed=0)
            settings["parameters"] = network.count_params()
            settings[f"training of {arm!r}"] = _training_settings(model)
        return settings

    def run(self, arm: str, seed: int, on_epoch: Callable[[int], Any]) -> None:
        """Trains one run, or reads its record if it is done: that is written last."""
        path = self.path(arm, seed, ".json")
        if not path.exists():
            write_json(path, self.train_one(arm, seed, on_epoch))
            self.path(arm, seed, "-backup.weights.h5").unlink(missing_ok=True)
        record = json.loads(path.read_text(encoding="utf-8"))
        self.metric = self.metric or record["metric"]
        history = {name: [math.nan if v is None else v for v in column] for name, column in record["history"].items()}
        if self.metric not in history:
            raise ValueError(f"Arm {arm!r} has no column {self.metric!r}, by which arms are compared: {list(history)}.")
        if self.first_batches.setdefault(seed, record["first_batch"]) != record["first_batch"]:
            warnings.warn(
                "The arms of a seed begin with different training batches, so that the runs are not pairs: the data "
                "shuffle themselves and go on where the last run left them, or are not those of the directory. Give "
                "train= as a function that makes them.",
                stacklevel=3,
            )
        self.runs.append(Run(arm, seed, history, statistics.median(history.pop("seconds_per_step"))))

    def train_one(self, arm: str, seed: int, on_epoch: Callable[[int], Any]) -> dict[str, Any]:
        """Trains one run from its last whole epoch on, keeps the network's weights and returns the record."""
        network, model = self.make(arm, seed)
        if self.arms[arm] is balanced:
            balance(model, _made(self.train), batch_size=self.batch_size or 32, verbose=False)
        keras.utils.set_random_seed(seed)
        first_batch = _digest(_made(self.train))
        keras.utils.set_random_seed(seed)
        backup = Backup(self.path(arm, seed, "-backup.weights.h5"))
        self.fit(model, [_Watch(seed * self.epochs, on_epoch), backup])
        write_whole(self.path(arm, seed, ".weights.h5"), network.save_weights)
        history = {
            name: [value if math.isfinite(value) else None for value in column]
            for name, column in backup.history.items()
        }
        return {"metric": _metric(model, history), "history": history, "first_batch": first_batch}

    def fit(self, model: keras.Model, callbacks: list[keras.callbacks.Callback]) -> None:
        train = _made(self.train)
        validation = _made(self.validation)
        settings: dict[str, Any] = {"validation_data": validation, "epochs": self.epochs, "callbacks": callbacks}
        if isinstance(train, tuple | list):
            train, settings["y"], settings["sample_weight"] = keras.utils.unpack_x_y_sample_weight(train)
            settings["batch_size"] = self.batch_size
        elif not isinstance(train, keras.utils.PyDataset):
            settings["shuffle"] = False  # Datasets and loaders shuffle themselves; Keras 3.15 warns of True.
        model.fit(train, verbose=0, **settings)

    def make(self, arm: str, seed: int) -> tuple[keras.Model, keras.Model]:
        """The network and the model that trains it, compiled; in all arms of a seed with the same weights."""
        keras.utils.set_random_seed(seed)
        network = self.build_network()
        if network is self.latest_network:
            raise ValueError("`build_network` must make a new network at each call. Received the same one twice.")
        self.latest_network = network
        if network.compiled:
            raise ValueError("`build_network` must not compile the network: what trains it is compiled by `compile`.")
        start = self.folder / f"seed{seed}-start.weights.h5"
        if start.exists():
            network.load_weights(start)
        else:
            write_whole(start, network.save_weights)
        model = self.arms[arm](network)
        if not model.compiled:
            self.compile(model)
        if not model.compiled:
            raise ValueError(f"`compile` must call model.compile(...). Received: {self.compile!r}, which did not.")
        return network, model

    def load(self, arm: str, seed: int) -> keras.Model:
        """The trained network of a run."""
        network = self.build_network()
        network.load_weights(self.path(arm, seed, ".weights.h5"))
        return network

    def path(self, arm: str, seed: int, suffix: str) -> Path:
        return self.folder / f"seed{seed}-{quote(arm, safe='')}{suffix}"

    def comparison(self) -> Comparison:
        return Comparison(self.runs, list(self.arms), self.metric, self.load)


class _Watch(keras.callbacks.Callback):
    """Sets the seed of each epoch, measures the time of a step and moves the progress bar."""

    def __init__(self, first_seed: int, on_epoch: Callable[[int], Any]):
        super().__init__()
        self.first_seed, self.report = first_seed, on_epoch

    def on_epoch_begin(self, epoch, logs=None):
        keras.utils.set_random_seed(self.first_seed + epoch)  # Whatever else has drawn, and after an interruption.
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.steps, self.last = batch + 1, logs

    def on_test_begin(self, logs=None):
        float(self.last["loss"])  # Waits until the step is done: JAX and GPUs compute behind Python's back.
        self.seconds = (time.perf_counter() - self.started) / self.steps

    def on_epoch_end(self, epoch, logs=None):
        logs["seconds_per_step"] = self.seconds
        self.report(epoch + 1)


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
        if data is None or isinstance(data, Iterator):
            raise ValueError(
                f"`{name}` must be data that can be gone through again: (x, y), a dataset or loader, or a function "
                f"that makes them. Received: {data!r}."
            )


def _made(data: Any) -> Any:
    """The data, made now if they were given as a function."""
    return data() if callable(data) else data


def _digest(data: Any) -> int:
    """A number that tells first batches apart."""
    number = 0
    for batch in first_batches(compare, data, count=1, size=32):
        for array in tree.flatten(batch):
            number = zlib.crc32(b"" if array is None else array.tobytes(), number)
    return number


def _metric(model: keras.Model, history: Mapping[str, Any]) -> str:
    """The history's column of the first compiled metric, or of the loss."""
    for name in model.get_metrics_result():  # The loss, those of several outputs, then metrics as they were compiled.
        if f"val_{name}" in history and not name.endswith("loss"):
            return f"val_{name}"
    return "val_loss"


def _clear(comparison: Comparison) -> bool:
    return all(comparison.difference(arm).clear for arm in comparison.arms[1:])


def _training_settings(model: keras.Model) -> dict[str, Any]:
    """What a model's training depends on, as it is saved."""
    settings = {"compiled": json.loads(json.dumps(model.get_compile_config(), default=str))}
    settings["compiled"]["optimizer"]["config"].pop("name", None)  # Keras numbers it: adam_1, adam_2.
    if isinstance(model, CollabModel):
        terms = [term.get_config() for term in model.terms.values()]
        settings["terms"] = [{**term, "seed": None} for term in terms]  # The seed follows from the run's.
    return settings


@contextlib.contextmanager
def _owner_of(folder: Path) -> Iterator[None]:
    """Keeps other processes out of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / "owner.lock", timeout=0):
            yield
    except filelock.Timeout:
        raise ValueError(
            f"{folder} is in use: another process compares there. Wait for it, or give another directory=."
        ) from None


def _check_same(folder: Path, settings: dict[str, Any]) -> None:
    """Raises if the folder holds another comparison; says what differs."""
    path = folder / "comparison.json"
    settings = json.loads(json.dumps(settings, default=str))
    if not path.exists():
        write_json(path, settings)
    kept = json.loads(path.read_text(encoding="utf-8"))
    names = [name for name in {**kept, **settings} if kept.get(name) != settings.get(name)]
    if names:
        differing = []
        for name in names:
            before, now = _shortened(kept.get(name)), _shortened(settings.get(name))
            differing.append(f"{name}: {before}, now {now}")
        raise ValueError(
            f"{folder} holds another comparison. What differs: {'; '.join(differing)}. Give another directory=."
        )


def _shortened(setting: Any) -> str:
    text = repr(setting)
    return text if len(text) <= 300 else f"{text[:300]}..."
