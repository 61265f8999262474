"""Files that are whole or not there: written beside their place, then renamed."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Lets `write` fill a file beside `path`, which then takes the place of `path` in one step.

    Args:
        path: the file; its folder is made if need be. What it held stays until the new content is on the disk.
        write: a function that writes the file whose path it is given. The name ends as that of `path` does.

    Raises:
        OSError: if the disk is full or the folder cannot be written to.
    """
    part = path.with_name(f".part-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except NotImplementedError:  # A RuntimeError that says nothing of the disk.
        raise
    except (OSError, RuntimeError) as error:  # h5py 3 raises RuntimeError where closing a file fails.
        raise write_error(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Writes a value as a JSON file, whole or not at all."""
    write_whole(path, lambda part: part.write_text(json.dumps(value, indent=1, allow_nan=False), encoding="utf-8"))


def write_error(path: Path, error: Exception) -> OSError:
    """One message for whatever kept a file from being written."""
    reason = getattr(error, "strerror", None) or str(error)
    failure = OSError(
        f"{path} could not be written: {reason}. Earlier files are intact. Make room, or choose a folder that you can "
        "write to, and start again."
    )
    failure.errno = getattr(error, "errno", None)
    return failure
