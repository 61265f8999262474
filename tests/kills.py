"""Kills: ends trainings at random moments, ten times of each kind, and prints what was lost.

    KERAS_BACKEND=jax python tests/kills.py          # some minutes; expects 0, 0, 0

Kinds: the program, the process of one run, and both. Lost is a line of results that is gone, a run that has no line or
two in the end, an epoch that was kept before the kill and not after it, or a process that outlives its program.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROGRAM = Path(__file__).parents[1] / "examples" / "reproduce.py"
GRID = """
dataset = "digits"
network = "resnet8"
width = 4
train_size = 100
epochs = {epochs}
batch_size = 50
validation = 0.2
seed = [0, 1]
method = "all_four"
"""


def epochs_kept(folder):
    """The epochs that each run has kept, by the name of its folder."""
    kept = {}
    for path in folder.glob("results.partial/*/epoch"):
        kept[path.parent.name] = int(path.read_text())
    return kept


def lines(folder):
    path = folder / "results.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def children(pid):
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def outlives(pid):
    """Whether a process is still there ten seconds later."""
    for _ in range(100):
        path = Path(f"/proc/{pid}/stat")
        if not path.exists() or path.read_text().rpartition(")")[2].split()[0] == "Z":
            return False
        time.sleep(0.1)
    return True


def start(folder):
    command = [sys.executable, str(PROGRAM), str(folder / "grid.toml"), "--results", str(folder / "results.jsonl")]
    return subprocess.Popen([*command, "--jobs", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def kill_once(folder, kind):
    """Starts the program, kills by kind at a random moment after it has kept something new; returns what was lost."""
    before, before_lines = epochs_kept(folder), lines(folder)
    program = start(folder)
    while epochs_kept(folder) == before and lines(folder) == before_lines and program.poll() is None:
        time.sleep(0.02)
    time.sleep(random.uniform(0, 0.5))
    before, before_lines, runs = epochs_kept(folder), lines(folder), children(program.pid)
    if kind in ("run", "both") and runs:
        os.kill(random.choice(runs), signal.SIGKILL)
    if kind in ("program", "both"):
        program.kill()
    else:
        time.sleep(0.5)
        program.terminate()
    program.wait()
    lost = sum(outlives(pid) for pid in runs)
    after, after_lines = epochs_kept(folder), lines(folder)
    lost += after_lines[: len(before_lines)] != before_lines
    for name, epoch in before.items():
        kept = after.get(name, epoch)  # A run that has its line has no folder; it is counted in the end.
        lost += kept < epoch
    return lost


def kill_often(kind, times, epochs):
    """Kills a grid of two runs as often as asked for, lets it end, and returns what was lost."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "grid.toml").write_text(GRID.format(epochs=epochs))
        lost = 0
        for _ in range(times):
            lost += kill_once(folder, kind)
        lost += start(folder).wait() != 0
        records = [json.loads(line) for line in lines(folder)]
        seeds = sorted(record["settings"]["seed"] for record in records)
        lost += seeds != [0, 1]
        for record in records:
            lost += len(record["history"]["loss"]) != epochs
        return lost


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=10, help="kills of each kind (default: 10)")
    parser.add_argument("--epochs", type=int, default=400, help="of each run, so that it lasts longer than the kills")
    options = parser.parse_args()
    total = 0
    for kind in ("program", "run", "both"):
        lost = kill_often(kind, options.times, options.epochs)
        total += lost
        print(f"killed {kind}, {options.times} times: {lost} lost", flush=True)
    sys.exit(1 if total else 0)


if __name__ == "__main__":
    main()
