"""Records: files of JSON lines, and files that are written whole or not at all."""

import json
import os
import platform

MACHINE = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def read(path):
    """(line number, record) of each line of a file, if there is one; None for what a full disk cut off."""
    found = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append((number, json.loads(line)))
            except json.JSONDecodeError:
                found.append((number, None))
    return found


def append(path, record):
    """Appends one line by one write, so that neither a kill nor another process can mix two lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cut_off = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
    with path.open("ab", buffering=0) as file:
        line = b"\n" * cut_off + json.dumps(record).encode() + b"\n"
        if file.write(line) < len(line):
            raise OSError(f"{path} took a part of a line only: the disk is full. The part is skipped when it is read.")


def write(path, text):
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # Else a power cut could leave the new name with nothing in it.
    part.replace(path)
