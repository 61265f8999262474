"""The search program on digits: its outcome, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("keras_tuner")
PROGRAM = Path(__file__).parents[1] / "tuning" / "search.py"


def search(folder, space, *more):
    settings = ["--trials", "2", "--epochs", "1", "--width", "4", "--train-size", "100", "--algorithm", "random"]
    places = ["--directory", str(folder / "search"), "--results", str(folder / "results" / "searches.jsonl")]
    command = [sys.executable, str(PROGRAM), "digits", "resnet8", space, *settings, *places, *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_search_is_told_and_kept_and_no_other_mixes_with_it(tmp_path):
    result = search(tmp_path, "weights")
    assert result.returncode == 0, result.stderr
    assert "trial 2 of 2: " in result.stdout
    (record,) = [json.loads(line) for line in (tmp_path / "results" / "searches.jsonl").read_text().splitlines()]
    assert record["settings"]["space"] == "weights"
    assert len(record["trials"]) == 2
    assert record["val_accuracy"] == max(trial["score"] for trial in record["trials"])
    assert 0 <= record["test"]["accuracy"] <= 1
    assert {"kernel_similarity_weight", "learning_rate"} <= record["best"].keys()
    assert (tmp_path / "results" / "digits-resnet8-weights-random.png").stat().st_size > 10_000
    again = search(tmp_path, "weights")
    assert "has the outcome of this search already" in again.stderr
    other = search(tmp_path, "plain")
    assert "holds another search (space: 'weights', now 'plain')" in other.stderr


def test_no_trials():
    result = search(Path("/nowhere"), "plain", "--trials", "0")
    assert result.returncode == 2
    assert "--trials must be 1 or more. Received: 0" in result.stderr
