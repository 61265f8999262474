"""The overhead program's pieces on a tiny network: what it measures, what it remembers, and what it prints."""

import importlib.util
import json
import sys
from pathlib import Path

import keras
import pytest
from keras import layers

import keras_collab

BACKEND = keras.backend.backend()


def tiny():
    inputs = x = keras.Input((8, 8, 3))
    for filters in (4, 4, 8, 8):
        x = layers.Conv2D(filters, 3, strides=filters // 4, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


@pytest.fixture
def overhead(monkeypatch):
    spec = importlib.util.spec_from_file_location("overhead", Path(__file__).parents[1] / "examples" / "overhead.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "NETWORKS", {"tiny": ("Tiny, 8×8", tiny)})
    monkeypatch.setattr(module, "version", lambda package: "1.0")  # Not all backends need be installed.
    return module


def run(overhead, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["overhead.py", *arguments])
    overhead.main()


def test_times_once_resumes_and_reports(overhead, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(overhead, "VARIANTS", {**overhead.VARIANTS, "time": ["all four", "unwrapped"]})
    results = tmp_path / "new" / "overhead.jsonl"
    task = overhead.Task("time", BACKEND, "tiny", 4)
    for _ in range(2):  # The second time nothing is missing.
        overhead.measure(task, results, pairs=1)
    assert len(capsys.readouterr().out.splitlines()) == 2
    lines = results.read_text().splitlines()
    assert [json.loads(line)["variant"] for line in lines] == ["all four", "unwrapped"]
    assert [len(json.loads(line)["seconds"]) for line in lines] == [1, 1]

    results.write_text(f"{lines[0]}\n{lines[1][:50]}\n")  # As a full disk would leave it.
    overhead.measure(task, results, pairs=1)
    assert "unwrapped" in capsys.readouterr().out
    assert overhead.finished([task], results, pairs=2) == {}  # Other settings: another measurement.

    monkeypatch.setattr(keras_collab, "__version__", "0.0.0")
    assert overhead.finished([task], results, pairs=1) == {}


@pytest.mark.skipif(BACKEND != "jax", reason="XLA's counts are read through JAX.")
def test_counts_are_exact(overhead, tmp_path, monkeypatch):
    results = tmp_path / "overhead.jsonl"
    overhead.measure(overhead.Task("counts", "jax", "tiny", 4), results, pairs=1)
    found = {record["variant"]: record for record in map(json.loads, results.read_text().splitlines())}
    assert list(found) == overhead.VARIANTS["counts"]
    # Two operations for each weight and position; the backward pass has twice those, but for the images' gradient.
    positions, weights = [64, 64, 16, 4], [9 * 3 * 4, 9 * 4 * 4, 9 * 4 * 8, 9 * 8 * 8]
    forward = [2 * 4 * p * w for p, w in zip(positions, weights, strict=True)]
    assert found["plain"]["operations"] > 3 * sum(forward) - forward[0]
