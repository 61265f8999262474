"""The runner: trains the runs of a grid, each in a process of its own, and keeps their lines. Needs no Keras."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from grid import read_results, still_to_do
from records import NO_STORAGE, append
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

PROGRAM = Path(__file__).with_name("train_run.py")


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM; no `except Exception` takes it for a fault."""

    def __init__(self, number):
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


@contextlib.contextmanager
def interruptible():
    """Makes Ctrl-C and SIGTERM raise `Interrupted`, once: what follows is not interrupted again."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def stop(number, frame):
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    for number in numbers:
        signal.signal(number, stop)
    yield


class _Run:
    """A run in its process, which ends when the other end of its standard input is closed, however that happens."""

    def __init__(self, settings, folder, options, progress):
        self.settings, self.folder, self.started = settings, folder, time.perf_counter()
        self.bar = progress.add_task(settings.label, total=settings.all_epochs)
        job = {
            "settings": settings.model_dump(),
            "folder": str(folder),
            "data": str(options.data) if options.data else None,
            "jit": options.jit,
            "skip_unreadable": options.skip_unreadable,
        }
        threads = str(max(1, (os.cpu_count() or 1) // options.jobs))
        self.log = (folder / "log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=self.log,
            stderr=self.log,
            env={**os.environ, "OMP_NUM_THREADS": threads, "TF_NUM_INTRAOP_THREADS": threads},
            start_new_session=True,  # Ctrl-C is for the program that started it.
        )

    def epochs(self):
        path = self.folder / "epoch"
        return int(path.read_text()) if path.exists() else 0

    def fault(self):
        """Why there is no record although the process ended."""
        kept = f"Its epochs up to {self.epochs()} are kept: give the command again."
        status = self.process.returncode
        if status < 0:
            name = signal.Signals(-status).name
            memory = " (perhaps for lack of memory)" if name == "SIGKILL" else ""
            return f"{self.settings.label} was ended by {name}{memory}. {kept}"
        self.log.seek(0)
        text = self.log.read()[-2000:].strip()
        if status == NO_STORAGE:
            raise OSError(text or f"No room, or no right to write, in {self.folder}")
        return f"{self.settings.label} failed with status {status}. {kept}\n{text}"

    def end(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.log.close()


def train_all(todo, options, partial):
    """Trains the runs, `options.jobs` at once. A run has succeeded if its line is in `options.results`.

    Raises:
        OSError: if there is no room, or no right to write: no other run could end either.
    """
    columns = ("{task.description:58}", BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    waiting, running = list(todo), []
    with Progress(*columns) as progress:
        whole = progress.add_task("grid", total=len(todo))
        try:
            while waiting or running:
                while waiting and len(running) < options.jobs:
                    settings = waiting.pop(0)
                    folder = partial / settings.digest
                    folder.mkdir(exist_ok=True)
                    running.append(_Run(settings, folder, options, progress))
                time.sleep(0.1)
                for run in list(running):
                    progress.update(run.bar, completed=run.epochs())
                    if run.process.poll() is None:
                        continue
                    message = keep(run.settings, run.folder, options.results) or run.fault()
                    running.remove(run)
                    run.end()
                    progress.remove_task(run.bar)
                    progress.advance(whole)
                    seconds = f"{run.settings.label}: {time.perf_counter() - run.started:.0f} s"
                    progress.console.print(seconds if message == "kept" else message, markup=False, highlight=False)
        finally:
            for run in running:
                run.end()


def keep(settings, folder, path):
    """Appends the record that a run left in its folder, if it did, unless the file has it by now."""
    record = folder / "record.json"
    if not record.exists():
        return None
    results, _ = read_results(path)
    if still_to_do([settings], results, path):
        append(path, json.loads(record.read_text()))
    shutil.rmtree(folder)
    return "kept"
