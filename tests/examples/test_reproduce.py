"""The experiment runner: a run that ends badly costs no line, no checkpoint and no other run, and says so."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import records

EXAMPLES = Path(__file__).parents[2] / "examples"
# Stands for train_run.py: the name of the variant says how it ends.
FAKE = """
import json, os, pathlib, signal, sys, time
job = json.loads(sys.argv[1])
folder, how = pathlib.Path(job["folder"]), job["settings"]["variant"]
(folder / "part").write_text("2")
(folder / "part").replace(folder / "epoch")  # Whole or not at all, as the real one: the program may read it meanwhile.
(folder / "backup.weights.h5").write_text("kept")
if how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if how == "fails":
    sys.exit("ValueError: a fault of its own")
if how == "full":
    print("[Errno 28] No space left on device", file=sys.stderr)
    sys.exit(74)
if how == "sleeps":
    (folder.parent / "pid").write_text(str(os.getpid()))
    time.sleep(60)
if how != "silent":
    record = {"settings": job["settings"], "history": {"val_accuracy": [0.5]}}
    (folder / "record.json").write_text(json.dumps(record))
"""
DRIVER = f"""
import pathlib, sys
sys.path.insert(0, {str(EXAMPLES)!r})
import reproduce, runner
runner.PROGRAM = pathlib.Path(sys.argv.pop(1))
reproduce.main()
"""


def write_grid(folder, *variants):
    text = "dataset = 'digits'\nnetwork = 'resnet8'\nwidth = 4\ntrain_size = 100\nepochs = 3\nbatch_size = 50\n"
    path = folder / "grid.toml"
    path.write_text(f"{text}validation = 0.2\nvariant = {json.dumps(variants)}\n")
    return path


def command(folder, *more):
    (folder / "fake.py").write_text(FAKE)
    paths = [str(folder / name) for name in ("fake.py", "grid.toml")]
    return [sys.executable, "-c", DRIVER, *paths, "--results", str(folder / "results.jsonl"), *more]


def reproduce(folder, *more, **options):
    return subprocess.run(command(folder, *more), capture_output=True, text=True, check=False, **options)


def lines(folder):
    path = folder / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def epoch_of(folder):
    """The number of complete epochs of the only run, as it tells it."""
    for path in folder.glob("*/epoch"):
        return int(path.read_text())
    return 0


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # In a container without an init that waits for orphans a dead one stays as a zombie.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_runs_are_made_once(tmp_path):
    write_grid(tmp_path, "a", "b")
    first = reproduce(tmp_path)
    assert first.returncode == 0, first.stderr
    assert [line["settings"]["variant"] for line in lines(tmp_path)] == ["a", "b"]
    again = reproduce(tmp_path)
    assert again.returncode == 0
    assert "2 of them in" in again.stdout
    assert "0 to do" in again.stdout
    assert len(lines(tmp_path)) == 2


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("killed", "was ended by SIGKILL (perhaps for lack of memory). Its epochs up to 2 are kept"),
        ("fails", "failed with status 1. Its epochs up to 2 are kept: give the command again."),
        ("silent", "failed with status 0. Its epochs up to 2 are kept: give the command again."),
    ],
)
def test_a_run_without_a_line_failed_and_keeps_its_checkpoint(tmp_path, how, message):
    write_grid(tmp_path, how, "good")
    result = reproduce(tmp_path)
    assert result.returncode == 1
    assert message in " ".join(result.stdout.split())
    assert f"No result: digits 100 resnet8 plain ({how}) seed 0." in result.stderr
    assert [line["settings"]["variant"] for line in lines(tmp_path)] == ["good"]
    (checkpoint,) = tmp_path.glob("results.partial/*/backup.weights.h5")
    assert checkpoint.read_text() == "kept"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_is_one_line_and_leaves_no_orphan(tmp_path, number, status):
    write_grid(tmp_path, "good", "sleeps")
    with subprocess.Popen(command(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        pid = tmp_path / "results.partial" / "pid"
        wait_for(lambda: pid.exists() and pid.read_text())
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == status
    assert errors == f"Stopped by {number.name}. Results in the file are whole; give the command again to go on.\n"
    wait_for(lambda: not is_alive(int(pid.read_text())))
    assert len(lines(tmp_path)) == 1
    assert len(list(tmp_path.glob("results.partial/*/backup.weights.h5"))) == 1


def test_a_second_start_on_one_file_is_refused(tmp_path):
    write_grid(tmp_path, "sleeps")
    with subprocess.Popen(command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        pid = tmp_path / "results.partial" / "pid"
        wait_for(lambda: pid.exists() and pid.read_text())
        second = reproduce(tmp_path)
        process.terminate()
    assert second.returncode == 1
    assert second.stderr == (
        f"{tmp_path}/results.jsonl is in use by another start of this program. Wait for it, or give --results FILE.\n"
    )


def test_a_record_that_was_not_kept_is_kept_once_by_the_next_start(tmp_path):
    write_grid(tmp_path, "silent")
    reproduce(tmp_path)
    (folder,) = (path.parent for path in tmp_path.glob("results.partial/*/epoch"))
    job = {"dataset": "digits", "network": "resnet8", "width": 4, "train_size": 100, "epochs": 3, "batch_size": 50}
    record = {"settings": {**job, "validation": 0.2, "variant": "silent"}, "history": {"val_accuracy": [0.5]}}
    for _ in range(2):  # The second time as if the program had been killed after it appended the line.
        folder.mkdir(exist_ok=True)
        (folder / "record.json").write_text(json.dumps(record))
        assert reproduce(tmp_path).returncode == 0
        assert lines(tmp_path) == [record]
        assert not folder.exists()


def test_a_full_disk_is_one_line_and_stops_the_rest(tmp_path):
    write_grid(tmp_path, "full", "good")
    result = reproduce(tmp_path)
    assert result.returncode == 1
    assert result.stderr == (
        "Nothing can be written: [Errno 28] No space left on device. "
        "Results in the file are whole; give the command again to go on.\n"
    )
    assert lines(tmp_path) == []


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    write_grid(tmp_path, "good")
    (tmp_path / "results.partial").write_text("in the way")
    result = reproduce(tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("Nothing can be written: [Errno 17] File exists")
    assert result.stderr.count("\n") == 1


def test_a_line_that_a_full_disk_cut_off_is_the_only_loss(tmp_path):
    path = tmp_path / "results.jsonl"
    records.append(path, {"run": 1})
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, unlimited[1]))
    try:
        with pytest.raises(OSError, match=r"results.jsonl took a part of a line only: the disk is full"):
            records.append(path, {"run": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    records.append(path, {"run": 3})
    found, messages = records.read(path)
    assert found == [(1, {"run": 1}), (3, {"run": 3})]
    assert messages == [f"{path}:2 is cut off or no JSON and was skipped."]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "There is no grid"),
        (["smoke", "--jobs", "0"], "--jobs must be 1 or more. Received: 0."),
        (["smoke", "--data", "/nowhere"], "--data: there is no /nowhere."),
    ],
)
def test_wrong_arguments(arguments, message):
    program = [sys.executable, str(EXAMPLES / "reproduce.py"), *arguments]
    result = subprocess.run(program, capture_output=True, text=True, check=False)
    assert result.returncode in (1, 2)
    assert message in result.stderr


def test_a_version_is_that_of_whatever_package_brings_the_module(monkeypatch):
    records.version_of.cache_clear()
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: {"tensorflow": ["tensorflow-cpu"]})
    monkeypatch.setattr("importlib.metadata.version", {"tensorflow-cpu": "2.21.0"}.__getitem__)
    assert records.version_of("tensorflow") == "2.21.0"
    with pytest.raises(ModuleNotFoundError, match="jax is not installed: python -m pip install jax"):
        records.version_of("jax")
    records.version_of.cache_clear()


def test_a_run_is_trained_whole_and_goes_on_after_a_kill(tmp_path):
    """The real program: an all-four run on digits that is killed with its process once an epoch is kept."""
    grid = tmp_path / "grid.toml"
    text = write_grid(tmp_path, "").read_text()
    grid.write_text(text + 'method = "all_four"\nnoise = "symmetric"\nnoise_rate = 0.5\nvalidate_every = 2\n')
    program = [sys.executable, str(EXAMPLES / "reproduce.py"), str(grid), "--results", str(tmp_path / "results.jsonl")]
    program += ["--jit", "off"]  # Compiling would take most of the time.
    with subprocess.Popen(program, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 300
        while epoch_of(tmp_path / "results.partial") < 1:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.kill()
    result = subprocess.run(program, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (record,) = lines(tmp_path)
    assert len(record["history"]["loss"]) == 3
    assert record["history"].keys() >= {"loss", "accuracy", "task_loss", "kernel_similarity", "val_loss"}
    assert record["history"]["val_epoch"] == [1, 3]
    assert record["best_epoch"] == [1, 3][int(np.argmax(record["history"]["val_accuracy"]))]
    assert record["weights"].keys() >= {"output_consistency", "kernel_similarity"}
    assert 0 <= record["memorization"]["wrong_fit"] <= 1
    assert record["added_parameters"] == 0
    assert not list(tmp_path.glob("results.partial/*/"))
