"""The directory of a comparison: one process owns it, and it holds the runs of one comparison."""

import contextlib
import json
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import keras
import numpy as np
from keras import ops, tree

from keras_collab._checks import name_of
from keras_collab._files import write_json
from keras_collab._types import Data
from keras_collab.callbacks import epochs_in
from keras_collab.collab_model import CollabModel
from keras_collab.terms.term import Term

# What `Trainer.train_one` records of a run beside its history.
_RECORDED = {"metric", "metric_name", "larger_is_better", "first_batch", "risen"}


@contextlib.contextmanager
def owner_of(folder: Path) -> Iterator[None]:
    """Keeps other processes out of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / "owner.lock", timeout=0):
            yield
    except filelock.Timeout:
        raise ValueError(
            f"{folder} is in use: another process compares there. Wait for it, or give another directory=."
        ) from None


def check_same(folder: Path, settings: dict[str, Any]) -> None:
    """Raises if the folder holds another comparison that has trained for an epoch or more; says what differs."""
    path = folder / "comparison.json"
    settings = json.loads(json.dumps(settings, default=str), parse_constant=str)  # NaN differs from itself.
    starts, backups = list(folder.glob("start[0-9]*.weights.h5")), list(folder.glob("backup-seed*.weights.h5"))
    runs = list(folder.glob("seed*.json"))
    if not path.exists() and (starts or backups or runs):
        raise ValueError(
            f"{folder} holds {(starts + backups + runs)[0].name}, but no comparison.json, which says of which "
            "comparison it is. Give another directory=, or delete the folder."
        )
    kept = _read(path) if path.exists() else {}
    if kept != settings and not runs and not any(map(epochs_in, backups)):
        for left in starts + backups:
            left.unlink()  # By a call that failed, and was then corrected.
        write_json(path, settings)
        kept = settings
    kept, now = _leaves(kept), _leaves(settings)
    names = [name for name in {**kept, **now} if kept.get(name) != now.get(name)]
    if names:
        differing = "; ".join(f"{name}: {kept.get(name)!r:.99}, now {now.get(name)!r:.99}" for name in names[:5])
        raise ValueError(f"{folder} holds another comparison. What differs: {differing}. Give another directory=.")


def _leaves(settings: dict[str, Any]) -> dict[str, Any]:
    """Nested settings as one dict, with names such as 'training of plain, compiled, loss'."""
    return {", ".join(map(str, path)): leaf for path, leaf in tree.flatten_with_path(settings)}


def training_settings(model: keras.Model) -> dict[str, Any]:
    """What a model's training depends on, as it is saved; of what cannot be saved the name and the plain attributes."""
    compiled = tree.map_structure(_setting, model._compile_config.config)
    text = json.dumps(compiled, default=name_of)
    names = re.compile(r'"name": "[^"]*"')  # Given by Keras; a function's own name may end in a number.
    settings = {"compiled": json.loads(names.sub(lambda name: unnumbered(name[0]), text))}
    settings["model"] = {"class": name_of(model), **_plain_attributes(model)}
    if model.optimizer is not None:
        settings["learning rate"] = float(ops.convert_to_numpy(model.optimizer.learning_rate))
    if isinstance(model, CollabModel):
        terms = [_term_settings(term) for term in model.terms.values()]
        settings["terms"] = [{**term, "seed": None} for term in terms]  # The seed follows from the run's.
    return settings


def _term_settings(term: Term) -> dict[str, Any]:
    try:
        return term.get_config()
    except ValueError:  # Its weight is a function that cannot be saved, or it does not keep an argument.
        return {"name": term.name, "class": name_of(term), "weight": name_of(term.weight)}


def _setting(value: Any) -> Any:
    """A part of what was compiled: as it is saved, with the attributes that it may have beside its config."""
    try:
        saved = keras.saving.serialize_keras_object(value)
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        saved = {"class": name_of(value)}
    if not isinstance(saved, dict):
        return saved
    return {**saved, **_plain_attributes(value)}


def _plain_attributes(value: Any) -> dict[str, Any]:
    """The numbers and strings among the attributes of an object, but for its name, which Keras numbers."""
    attributes = {}
    for name, attribute in getattr(value, "__dict__", {}).items():
        if isinstance(attribute, bool | int | float | str) and name != "name" and not name.startswith("_"):
            attributes[name] = attribute
    return attributes


def unnumbered(text: str) -> str:
    """Text without the numbers by which Keras tells names apart: adam_1, val_auc_2, dense_8_accuracy."""
    return re.sub(r"_\d+(?![^\W_])", "", text)


def digest(data: Data) -> int:
    """A number that tells arrays apart."""
    number = 0
    for array in tree.flatten(data):
        if array is not None:
            array = np.ascontiguousarray(ops.convert_to_numpy(array))
            if array.dtype == object:
                array = array.astype(str)  # Text: its bytes would be addresses.
            number = zlib.crc32(f"{array.dtype} {array.shape}".encode(), number)
            number = zlib.crc32(array.tobytes(), number)
    return number


def network_digest(network: keras.Model) -> int:
    """A number that tells networks apart, whatever numbers Keras gives their layers; 0 for one that has no config."""
    try:
        text = json.dumps(keras.saving.serialize_keras_object(network), sort_keys=True, default=str)
    except (NotImplementedError, TypeError, ValueError):
        return 0
    text = re.sub(r'"shared_object_id": \d+', "", text)
    return zlib.crc32(unnumbered(text).encode())


def mean_size(network: keras.Model) -> str:
    """The mean size of a network's weights, which tells those of one file from those of another."""
    sizes = [float(np.mean(np.abs(ops.convert_to_numpy(weight).astype("float64")))) for weight in network.weights]
    return f"{np.mean(sizes):.4g}" if sizes else ""  # Rounded: other processors compute some starts a little apart.


def finite(history: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The history with None for each number that JSON does not have."""
    columns = {}
    for name, column in history.items():
        columns[name] = [value if np.all(np.isfinite(value)) else None for value in column]
    return columns


def read_record(path: Path, epochs: int) -> dict[str, Any]:
    """The record of a run, with NaN for None.

    Raises:
        ValueError: if the file is damaged.
    """
    record = _read(path)
    history = record.get("history")
    if not isinstance(history, dict) or not record.keys() >= _RECORDED:
        raise _damaged(path, "it is no record of a run")
    columns = {}
    for name, column in {"seconds_per_step": None, **history}.items():
        if not isinstance(column, list) or len(column) != epochs:
            raise _damaged(path, f"its column {name!r} has no {epochs} epochs")
        columns[name] = [math.nan if value is None else value for value in column]
    return {**record, "history": columns}


def load_weights(network: keras.Model, path: Path) -> None:
    """Loads weights that a comparison has written."""
    try:
        network.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(path, str(error)) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(record, dict):
        raise _damaged(path, "it is no JSON object")
    return record


def _damaged(path: Path, reason: str) -> ValueError:
    return ValueError(
        f"{path} cannot be read: {reason}. "
        + ("Delete the folder" if path.name == "comparison.json" else "Delete it to train again what it held")
        + ", or give another directory=."
    )
