"""Does it help on your own data? Trains a network plain and wrapped from the same initial weights, and compares."""

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from keras_collab._checks import check_range
from keras_collab._types import Data
from keras_collab.tools._batches import check_data
from keras_collab.tools._directory import check_same, owner_of
from keras_collab.tools._trainer import Trainer
from keras_collab.tools.arms import Arm, make_arms
from keras_collab.tools.comparison import Comparison


def compare(
    build_network: Callable[[], keras.Model],
    train: Data,
    validation: Data,
    *,
    compile: Callable[[keras.Model], Any],
    epochs: int,
    seeds: int = 3,
    batch_size: int = 32,
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
            run. Augment by layers in the network: with a seed set, random operations of `tf.data` are the same in each
            epoch.
        validation: validation data, in the same forms.
        compile: function that compiles the model it is given, such as `lambda model: model.compile("adam", "mse")`. It
            is called for each run and must make a new optimizer.
        epochs: integer, >= 1. Epochs of each run.
        seeds: integer, >= 1. Runs of each arm; fewer than three rarely show a difference. Defaults to 3.
        batch_size: integer, >= 1. Batch size of training arrays, as in `fit`; validation arrays are read in four times
            as large ones. Defaults to 32.
        arms: names of predefined arms: `"plain"`, `"wrapped"` (the default terms), the name of one of the four terms
            alone, `"strong"` (`recipes.strong()`), `"balanced"` (the same with weights set by `balance`) and
            `"label_smoothing"` (0.1). Or a dict from names to None for plain training, to a function from a network to
            a model, which is then compiled if it is not, or to a function without arguments that returns a list of
            terms. The first arm is the one that the others are compared with. Defaults to `("plain", "wrapped")`.
        directory: folder that keeps the runs of one comparison: of the same network, initial weights, arrays and
            settings; functions, such as a loss of your own, are told apart by their names. After an interruption, the
            same call resumes from the last complete epoch (a `tf.data.Dataset` then shuffles anew); with more seeds it
            adds runs. Defaults to a temporary folder.
        larger_is_better: whether a larger value of the metric is better. Defaults to what the name of its class says,
            or its own: losses and errors are better when smaller, all others when larger.
        stop_early: whether to stop once all intervals exclude 0, from the third seed on. Such repeated tests find
            chance differences more often than the intervals state. Defaults to False.
        verbose: whether to show a progress bar. Defaults to True.

    Returns:
        A `Comparison`; print it.

    Raises:
        ValueError: if the directory holds another comparison or a damaged file, or is in use, or an argument has a
            wrong value.
        TypeError: if `build_network` or `compile` is no function, or an arm is neither None nor a function, or does not
            train the network that it is given.

    >>> print(keras_collab.compare(build_network, (x, y), (x_val, y_val), compile=compile, epochs=30))
    """
    epochs = check_range(compare, epochs=epochs, least=1, whole=True)
    seeds = check_range(compare, seeds=seeds, least=1, whole=True)
    batch_size = check_range(compare, batch_size=batch_size, least=1, whole=True)
    for name, function in {"build_network": build_network, "compile": compile}.items():
        if not callable(function):
            raise TypeError(f"compare: `{name}` must be a function. Received: {name}={function!r}.")
    check_data("train", train)
    check_data("validation", validation)
    arms_by_name = make_arms(arms)
    folder = Path(tempfile.mkdtemp(prefix="keras_collab-") if directory is None else directory)
    trainer = Trainer(
        owner=compare,
        build_network=build_network,
        train=train,
        validation=validation,
        compile=compile,
        epochs=epochs,
        batch_size=batch_size,
        arms=arms_by_name,
        folder=folder,
        larger_is_better=larger_is_better,
    )
    if directory is None:
        weakref.finalize(trainer, shutil.rmtree, folder, ignore_errors=True)  # The comparison holds the trainer.
    with owner_of(folder):
        settings = trainer.settings()
        if directory is not None:
            check_same(folder, settings)
        with _progress(verbose) as progress:
            bar = progress.add_task("", total=seeds * len(trainer.arms) * epochs)

            def show(epoch: int) -> None:
                progress.update(bar, completed=len(trainer.runs) * epochs + epoch)

            for seed in range(seeds):
                for arm in trainer.arms:
                    progress.update(bar, description=escape(f"seed {seed}, {arm}"))
                    trainer.run(arm, seed, on_epoch=show)
                    show(0)  # Also of a run that was kept.
                if stop_early and seed >= 2 and _clear(trainer.comparison()):
                    return trainer.comparison(stopped_early=True)
    return trainer.comparison()


def _progress(verbose: bool) -> Progress:
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, disable=not verbose)


def _clear(comparison: Comparison) -> bool:
    others = comparison.arms[1:]
    return bool(others) and all(comparison.difference(arm).clear for arm in others)
