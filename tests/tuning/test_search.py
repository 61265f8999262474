"""The search program on digits: its outcome, chief and workers, and what it refuses."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

keras_tuner = pytest.importorskip("keras_tuner")
PROGRAM = Path(__file__).parents[2] / "tuning" / "search.py"


def command(folder, space, *more):
    settings = ["--epochs", "1", "--width", "4", "--train-size", "100", "--algorithm", "random", "--trials", "1"]
    places = ["--directory", str(folder / "search"), "--results", str(folder / "results" / "searches.jsonl")]
    return [sys.executable, str(PROGRAM), "digits", "resnet8", space, *settings, *places, *more]


def search(folder, space):
    return subprocess.run(command(folder, space), capture_output=True, text=True, check=False)


def refused(folder, space, message, monkeypatch):
    """A search that ends before it trains, in this process, since starting another takes seconds."""
    import search

    monkeypatch.setattr(sys, "argv", command(folder, space)[1:])
    with pytest.raises(SystemExit, match=message):
        search.search(search.parse_arguments())


def outcomes(folder):
    return [json.loads(line) for line in (folder / "results" / "searches.jsonl").read_text().splitlines()]


def test_a_search_is_told_and_kept_and_no_other_mixes_with_it(tmp_path, monkeypatch):
    result = search(tmp_path, "weights")
    assert result.returncode == 0, result.stderr
    assert "trial 1 of 1: " in result.stdout
    (record,) = outcomes(tmp_path)
    assert record["settings"]["space"] == "weights"
    assert len(record["trials"]) == 1
    assert 0 <= record["test"]["accuracy"] <= 1
    assert "kernel_similarity_weight" in record["best"]
    assert (tmp_path / "results" / "digits-resnet8-weights-random.png").stat().st_size > 10_000
    refused(tmp_path, "weights", "has the outcome of this search already", monkeypatch)
    refused(tmp_path, "plain", r"holds another search \(space: 'weights', now 'plain'\)", monkeypatch)


def test_a_chief_and_two_workers_one_of_which_is_killed_and_comes_back(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def start(name):
        place = {"KERASTUNER_TUNER_ID": name, "KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
        with (tmp_path / f"{name}.log").open("a") as log:
            line = command(tmp_path, "plain", "--trials", "3")
            return subprocess.Popen(line, env=os.environ | place, stdout=log, stderr=subprocess.STDOUT)

    def printed(name):
        return (tmp_path / f"{name}.log").read_text()

    oracle = tmp_path / "search" / "trials" / "oracle.json"

    def at_work(name):
        return oracle.exists() and name in json.loads(oracle.read_text())["ongoing_trials"]

    chief, first, second = (start(name) for name in ("chief", "worker-0", "worker-1"))
    try:
        deadline = time.monotonic() + 300
        while not at_work("worker-0"):
            assert chief.poll() is first.poll() is None, printed("chief") + printed("worker-0")
            assert time.monotonic() < deadline
            time.sleep(0.1)
        first.kill()
        first.wait()
        interrupted = json.loads(oracle.read_text())["ongoing_trials"]["worker-0"]
        first = start("worker-0")
        for worker, name in ((first, "worker-0"), (second, "worker-1")):
            assert worker.wait(timeout=400) == 0, printed(name)
        assert chief.wait(timeout=400) == 0, printed("chief")
    finally:
        for process in (chief, first, second):
            process.kill()
    (record,) = outcomes(tmp_path)
    assert len(record["trials"]) == 3
    assert record["val_accuracy"] == max(trial["score"] for trial in record["trials"])
    lines = [line.split(":")[0] for name in ("worker-0", "worker-1") for line in printed(name).splitlines()]
    assert sorted(line for line in lines if line.startswith("trial ")) == [f"trial {n} of 3" for n in (1, 2, 3)]
    assert f"trial {int(interrupted) + 1} of 3" in printed("worker-0")
    assert "The chief tells the outcome" in printed("worker-1")


def test_a_kill_while_keras_tuner_writes_leaves_the_file_before(tmp_path, monkeypatch):
    import search
    from keras_tuner.engine.trial import Trial

    monkeypatch.setattr(keras_tuner.src.utils, "save_json", search.save_json)
    path = tmp_path / "trial.json"
    Trial(keras_tuner.HyperParameters(), trial_id="1").save(path)
    before = path.read_text()

    def killed(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Trial(keras_tuner.HyperParameters(), trial_id="2").save(path)
    assert path.read_text() == before


def test_foreign_lines_of_a_results_file_are_named_and_an_outcome_is_kept_once(tmp_path, capsys):
    import search

    path = tmp_path / "searches.jsonl"
    path.write_text('3\n{}\n{"settings": {"da')
    for _ in range(2):
        search.keep(path, {"settings": {"dataset": "digits"}, "val_accuracy": 0.5})
    assert path.read_text().count("digits") == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[0] == f"{path}:1 is no JSON object and was skipped: 3"
    assert errors[1] == f"{path}:3 is cut off or no JSON and was skipped."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning-rate", "nan"], "--learning-rate must be a finite number of 0 or more. Received: nan."),
        (["--width", "0"], "--width must be 1 or more. Received: 0."),
        (["--trials", "0"], "--trials must be 1 or more. Received: 0."),
        (["--validation", "0"], "--validation must be above 0 and below 1. Received: 0.0."),
        (["--data", "/nowhere"], "--data: there is no /nowhere."),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_trained(monkeypatch, capsys, arguments, message):
    import search

    monkeypatch.setattr(sys, "argv", ["search.py", "digits", "resnet8", "plain", *arguments])
    with pytest.raises(SystemExit, match="2"):
        search.parse_arguments()
    assert message in capsys.readouterr().err
