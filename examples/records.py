"""Records: files of JSON lines, and files that are written whole or not at all."""

import errno
import functools
import importlib.metadata
import json
import math
import os
import platform

MACHINE = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
NO_STORAGE = 74  # The exit status of a run that had no room, or no right to write: EX_IOERR of sysexits.h.


def read(path):
    """Reads a file of JSON lines.

    Returns:
        The records that are JSON objects, as a list of (line number, record), and a message for each other line: one
        that a full disk cut off, or one that is no JSON object. A file that does not exist has neither.
    """
    records, messages = [], []
    if not path.exists():
        return records, messages
    # A byte order mark, as some editors write it, is no part of the first line.
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            messages.append(f"{path}:{number} is cut off or no JSON and was skipped.")
            continue
        if isinstance(record, dict):
            records.append((number, record))
        else:
            messages.append(f"{path}:{number} is no JSON object and was skipped: {line.strip()[:40]}")
    return records, messages


def append(path, record):
    """Appends one line by one write, so that neither a kill nor another process can mix two lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    line = json.dumps(finite(record), allow_nan=False).encode() + b"\n"
    if path.exists():
        last = path.read_bytes()[-1:]
        if last not in (b"", b"\n"):  # The line before was cut off.
            line = b"\n" + line
    with path.open("ab", buffering=0) as file:
        if file.write(line) < len(line):
            raise OSError(f"{path} took a part of a line only: the disk is full. The part is skipped when it is read.")


def finite(value):
    """The value with null for each number that JSON does not have: NaN and infinity."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return list(map(finite, value))
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write(path, content):
    """Writes a text, or bytes, as a whole file: after a kill there is the old file or the new one."""
    if isinstance(content, str):
        content = content.encode()
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())  # Else a power cut could leave the new name with nothing in it.
    part.replace(path)


@functools.cache
def version_of(module):
    """The version of the package that a module comes with: of tensorflow-cpu too, where that is what is installed.

    Raises:
        ModuleNotFoundError: if the module is not installed.
    """
    packages = importlib.metadata.packages_distributions().get(module)
    if not packages:
        raise ModuleNotFoundError(f"{module} is not installed: python -m pip install {module}")
    return importlib.metadata.version(packages[0])


def device(backend):
    """The accelerator that JAX trains on, or the machine. Lines of the other backends are those of processors."""
    if backend != "jax":
        return MACHINE
    import jax

    name = jax.devices()[0].device_kind
    return MACHINE if name == "cpu" else name
