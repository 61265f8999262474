"""The directory of a comparison: one process owns it, and it holds the runs of one comparison."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import keras

from keras_collab._files import write_json
from keras_collab.collab_model import CollabModel


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


def training_settings(model: keras.Model) -> dict[str, Any]:
    """What a model's training depends on, as it is saved."""
    settings = {"compiled": json.loads(json.dumps(model.get_compile_config(), default=str))}
    settings["compiled"]["optimizer"]["config"].pop("name", None)  # Keras numbers it: adam_1, adam_2.
    if isinstance(model, CollabModel):
        terms = [term.get_config() for term in model.terms.values()]
        settings["terms"] = [{**term, "seed": None} for term in terms]  # The seed follows from the run's.
    return settings
