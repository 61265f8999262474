"""Does it help on your own data? Trains a network plain and wrapped from the same starts, and compares in pairs."""

import dataclasses
import inspect
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import filelock
import keras
from keras import ops
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from keras_collab._checks import check_range
from keras_collab._files import write_json, write_whole
from keras_collab.collab_model import CollabModel, default_terms, wrap
from keras_collab.network.select import NetworkReader, Selection
from keras_collab.terms.term import StepTensors, Term
from keras_collab.tools.balance import balance
from keras_collab.tools.comparison import Comparison, Run

Arm = Callable[..., Any]


class LabelSmoothing(Term):
    """Label smoothing as a term: with weight ε it turns a cross-entropy into that of labels smoothed by ε.

    (1 − ε) · CE(y, p) + ε · mean_k CE(k, p) = CE(y, p) + ε · (mean_k CE(k, p) − CE(y, p)); the bracket is the value.
    Szegedy et al. (2016, arXiv 1512.00567).
    """

    def select(self, network: NetworkReader) -> Selection:
        return Selection(head=network.head(None))

    def call(self, tensors: StepTensors) -> Any:
        log_probabilities = ops.log_softmax(tensors.head.logits, axis=-1)
        gap = ops.sum(tensors.labels * log_probabilities, axis=-1) - ops.mean(log_probabilities, axis=-1)
        return tensors.mean_over_samples(ops.mean(ops.reshape(gap, (ops.shape(gap)[0], -1)), axis=-1))


def plain(network: keras.Model) -> keras.Model:
    """The network as it is."""
    return network


def label_smoothing(network: keras.Model) -> keras.Model:
    """The network with its labels smoothed by 0.1."""
    return wrap(network, [LabelSmoothing(0.1)])


def balanced(network: keras.Model) -> keras.Model:
    """All four terms; `compare` lets `balance` set their weights once the model is compiled."""
    return wrap(network)


def ready_arms() -> dict[str, Arm]:
    """The arms that have a name: plain, wrapped, each term alone, label_smoothing, balanced."""
    arms: dict[str, Arm] = {"plain": plain, "wrapped": wrap}
    for term in default_terms():
        arms[term.name] = type(term)
    return {**arms, "label_smoothing": label_smoothing, "balanced": balanced}


def compare(
    build_network: Callable[[], keras.Model],
    train: Any,
    validation: Any,
    *,
    compile: Callable[[keras.Model], Any],
    epochs: int,
    seeds: int = 3,
    batch_size: int | None = None,
    arms: Mapping[str, Arm | None] | list[str] | None = None,
    directory: str | Path | None = None,
    stop_early: bool = False,
    verbose: bool = True,
) -> Comparison:
    """Trains a network in several ways and says which is better on these data, and how sure that is.

    For each seed all ways, called arms, begin with the same weights and see the same batches. What counts is the
    value at the last epoch, on the validation data, of the first metric that is compiled, or of the loss where there
    is none. Smaller is better for what is named as a loss or an error, larger for all else. The intervals speak of
    other seeds with these same data: what is chosen by them needs test data that had no part in it, keep some apart.

    Args:
        build_network: a function that makes a fresh network, Functional or Sequential.
        train: what `fit` takes: arrays `(x, y)` or `(x, y, sample_weight)`, a `tf.data.Dataset`, a
            `keras.utils.PyDataset` or a torch `DataLoader`. Or a function that makes it, called before each run, right
            after the seed is set: needed where the data shuffle themselves and go on where the last run left them, as
            `tf.data` does.
        validation: the same, not empty. The metric is measured on it after each epoch.
        compile: a function that compiles a model, `lambda model: model.compile("adam", "mse")`. It is called for each
            run, since an optimizer belongs to one model.
        epochs: epochs of each run, >= 1.
        seeds: how many runs each arm has, >= 1. With fewer than three hardly anything can be shown.
        batch_size: for arrays, as in `fit`. Defaults to 32.
        arms: names of arms that are ready, `["plain", "wrapped", "kernel_similarity", "label_smoothing", "balanced"]`
            (each of the four terms has one); or a dict of names to None for plain training, to a function that turns a
            network into a model (`keras_collab.wrap`), or to one without arguments that makes a list of terms. The
            first arm is what the others are compared with. Defaults to `["plain", "wrapped"]`.
        directory: where each run is kept once it is done. The same call with the same directory goes on after an
            interruption, and runs with more seeds are added. Defaults to a temporary one.
        stop_early: whether to stop after the seed after which all intervals leave out 0, the third or a later one.
            Looking often finds a difference by chance more often than the interval says.
        verbose: whether to show a progress bar.

    Returns:
        A `Comparison`, to be printed.

    Raises:
        ValueError: if the directory holds another comparison, or is in use.

    >>> print(keras_collab.compare(build_network, (x, y), (x_val, y_val), compile=compile, epochs=30))
    """
    epochs = check_range(compare, epochs=epochs, least=1, whole=True)
    seeds = check_range(compare, seeds=seeds, least=1, whole=True)
    temporary = tempfile.TemporaryDirectory(prefix="keras_collab-") if directory is None else None
    folder = Path(temporary.name if temporary else str(directory))
    trainer = _Trainer(build_network, train, validation, compile, epochs, batch_size, _makers(arms), folder)
    identity = trainer.identity()
    with _owned(folder):
        _check_identity(folder / "comparison.json", identity)
        trainer.train_all(seeds, stop_early, verbose)
    return Comparison(trainer.runs, list(trainer.makers), trainer.metric, trainer.load, temporary)


@dataclasses.dataclass
class _Trainer:
    """Trains the arms, one run after the other, and keeps what they gave."""

    build_network: Callable[[], keras.Model]
    train: Any
    validation: Any
    compile: Callable[[keras.Model], Any]
    epochs: int
    batch_size: int | None
    makers: dict[str, Arm]
    folder: Path
    runs: list[Run] = dataclasses.field(default_factory=list)
    metric: str = ""

    def identity(self) -> dict[str, Any]:
        """What the runs of one directory have in common. All that makes them is called once, before the first one."""
        arms = {}
        for name in self.makers:
            network, model = self._make(name, seed=0)
            arms[name] = _settings(model)
        return {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "backend": keras.backend.backend(),
            "parameters": network.count_params(),
            "arms": arms,
        }

    def train_all(self, seeds: int, stop_early: bool, verbose: bool) -> None:
        """Trains what is not in the folder yet, seed after seed."""
        columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, disable=not verbose) as progress:
            bar = progress.add_task("", total=seeds * len(self.makers) * self.epochs)
            for seed in range(seeds):
                for arm in self.makers:
                    progress.update(bar, description=f"seed {seed}, {arm}")
                    self._run(arm, seed, lambda: progress.advance(bar))
                    done = (seed * len(self.makers) + list(self.makers).index(arm) + 1) * self.epochs
                    progress.update(bar, completed=done)
                if stop_early and seed >= 2 and self._clear():
                    return

    def load(self, arm: str, seed: int) -> keras.Model:
        """The trained network of a run."""
        network = self.build_network()
        network.load_weights(self._path(arm, seed, ".weights.h5"))
        return network

    def _run(self, arm: str, seed: int, on_epoch: Callable[[], Any]) -> None:
        """Trains one run, or reads it if it is done: its record is written last."""
        path = self._path(arm, seed, ".json")
        if not path.exists():
            network, model = self._make(arm, seed)
            if self.makers[arm] is balanced:
                balance(model, _made(self.train), batch_size=self.batch_size or 32, verbose=False)
            watch = _Watch(on_epoch)
            keras.utils.set_random_seed(seed)
            history = _fit(model, _made(self.train), _made(self.validation), self.epochs, self.batch_size, watch)
            write_whole(self._path(arm, seed, ".weights.h5"), network.save_weights)
            seconds = statistics.median(watch.seconds[1:] or watch.seconds)
            run = {"arm": arm, "seed": seed, "history": history, "seconds_per_step": seconds}
            write_json(path, {"metric": _metric(model, history), **run})
        record = json.loads(path.read_text(encoding="utf-8"))
        self.metric = self.metric or record.pop("metric")
        record.pop("metric", None)
        self.runs.append(Run(**record))

    def _make(self, arm: str, seed: int) -> tuple[keras.Model, keras.Model]:
        """The network and the model that trains it, compiled; for one seed with the same weights in every arm."""
        keras.utils.set_random_seed(seed)
        network = self.build_network()
        self._start(network, seed)
        model = self.makers[arm](network)
        if not model.compiled:
            self.compile(model)
        if not model.compiled:
            raise ValueError(
                f"`compile` must compile the model it is given. Received: {self.compile!r}, which did not."
            )
        return network, model

    def _start(self, network: keras.Model, seed: int) -> None:
        """Gives the network the weights that the first network of this seed had."""
        path = self.folder / f"seed{seed}-start.weights.h5"
        if path.exists():
            network.load_weights(path)
        else:
            write_whole(path, network.save_weights)

    def _path(self, arm: str, seed: int, suffix: str) -> Path:
        return self.folder / f"seed{seed}-{quote(arm, safe='')}{suffix}"

    def _clear(self) -> bool:
        comparison = Comparison(self.runs, list(self.makers), self.metric, self.load)
        return all(comparison.difference(arm).clear for arm in comparison.arms[1:])


class _Watch(keras.callbacks.Callback):
    """Measures the time of a step in each epoch and moves the progress bar."""

    def __init__(self, on_epoch: Callable[[], Any]):
        super().__init__()
        self.on_epoch = on_epoch
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.steps, self.last = batch + 1, logs

    def on_test_begin(self, logs=None):
        float(self.last["loss"])  # Waits until the step is done: JAX and GPUs compute ahead.
        self.seconds.append((time.perf_counter() - self.started) / self.steps)

    def on_epoch_end(self, epoch, logs=None):
        self.on_epoch()


def _makers(arms: Any) -> dict[str, Arm]:
    """Each arm as a function that turns a network into a model."""
    ready = ready_arms()
    if arms is None:
        arms = ["plain", "wrapped"]
    if not isinstance(arms, Mapping):
        unknown = [name for name in arms if name not in ready]
        if unknown:
            raise ValueError(f"There is no arm {unknown[0]!r}. Arms that are ready: {', '.join(ready)}.")
        arms = {name: ready[name] for name in arms}
    return {name: _maker(arm) for name, arm in arms.items()}


def _maker(arm: Arm | None) -> Arm:
    if arm is None:
        return plain
    if inspect.isclass(arm):
        return lambda network: wrap(network, [arm()])
    if not inspect.signature(arm).parameters:
        return lambda network: wrap(network, arm())
    return arm


def _made(data: Any) -> Any:
    """The data, made now if they were given as a function."""
    return data() if inspect.isroutine(data) else data


def _fit(model: Any, train: Any, validation: Any, epochs: int, batch_size: int | None, watch: _Watch) -> Any:
    arguments = {"epochs": epochs, "validation_data": validation, "callbacks": [watch], "verbose": 0}
    if isinstance(train, tuple | list):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(train)
        sizes = {"batch_size": batch_size, "validation_batch_size": batch_size}
        history = model.fit(x, y, sample_weight=sample_weight, **sizes, **arguments).history
    else:
        history = model.fit(train, **arguments).history
    return {name: [float(value) for value in values] for name, values in history.items()}


def _metric(model: keras.Model, history: Mapping[str, Any]) -> str:
    """The history's column of the first compiled metric, or of the loss."""
    for name in model.get_metrics_result():  # The loss, those of several outputs, then metrics as they were compiled.
        if f"val_{name}" in history and not name.endswith("loss"):
            return f"val_{name}"
    return "val_loss"


def _settings(model: Any) -> dict[str, Any]:
    """What an arm's training depends on, as far as it can be written down."""
    settings = {"optimizer": keras.saving.serialize_keras_object(model.optimizer), "terms": {}}
    if isinstance(model, CollabModel):
        for name, term in model.terms.items():
            settings["terms"][name] = {**term.get_config(), "seed": None}  # A seed follows from the run's.
    return settings


def _owned(folder: Path) -> Any:
    """A lock on the folder, which has one owner at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / "owner.lock")
    try:
        return lock.acquire(blocking=False)
    except filelock.Timeout:
        raise ValueError(
            f"{folder} is in use: another process compares there now. Wait for it, or give another directory=."
        ) from None


def _check_identity(path: Path, identity: dict[str, Any]) -> None:
    """Raises if the folder holds another comparison; says what differs."""
    identity = json.loads(json.dumps(identity))
    if not path.exists():
        return write_json(path, identity)
    kept = json.loads(path.read_text(encoding="utf-8"))
    for name, value in identity.items():
        if kept.get(name) != value:
            raise ValueError(
                f"{path.parent} holds another comparison, with {name}={kept.get(name)!r}. Received: {name}={value!r}. "
                "Give another directory=."
            )
    return None
