"""The overhead program's pieces on a tiny network: what it counts, what it remembers, and what it prints."""

import json
import sys

import keras
import overhead
import pytest
from keras import layers

BACKEND = keras.backend.backend()
FILTERS = (4, 4, 8, 8)


def tiny(dropout=0.0):
    """Maps of 10×10, 8×8, 6×6 and 4×4 positions."""
    inputs = x = keras.Input((12, 12, 3))
    for index, filters in enumerate(FILTERS):
        x = layers.Conv2D(filters, 3, activation="relu", name=f"map{index}")(x)
    x = layers.Dropout(dropout)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(x))


@pytest.fixture(autouse=True)
def a_tiny_comparison(monkeypatch):
    monkeypatch.setattr(overhead, "NETWORKS", {"tiny": ("Tiny, 12×12", tiny)})
    monkeypatch.setattr(overhead, "version_of", lambda package: "1.0")  # Not all backends need be installed.
    for rows, variants in {"terms": ["all four", "unwrapped", "Keras' Distiller"], "methods": ["R-Drop"]}.items():
        chosen = overhead.COMPARISONS[rows]._replace(variants=variants)
        monkeypatch.setitem(overhead.COMPARISONS, rows, chosen)


def measured(measure, results, rows="terms"):
    task = overhead.Task(measure, BACKEND, "tiny", 4, rows)
    overhead.measure(task, results, pairs=1)
    return {variant: record for (_, variant), record in overhead.finished([task], results, pairs=1).items()}


def test_a_measurement_is_made_once(tmp_path, capsys):
    results = tmp_path / "new" / "overhead.jsonl"
    first = measured("time", results, "methods")
    assert list(first) == ["R-Drop"]
    assert len(first["R-Drop"]["seconds"]) == 1
    assert capsys.readouterr().out.startswith(f"time {BACKEND} tiny 4 methods, R-Drop: ")
    assert measured("time", results, "methods") == first
    assert capsys.readouterr().out == ""

    task = overhead.Task("time", BACKEND, "tiny", 4, "methods")
    for changed in ({"pairs": 2}, {"versions": {"keras": "2.0"}}, {"terms": [{"weight": 0.5}]}, {"batch": 8}):
        results.write_text(json.dumps({**first["R-Drop"], **changed}) + "\n")
        assert overhead.finished([task], results, pairs=1) == {}
    whole = json.dumps(first["R-Drop"])
    results.write_text(f"{whole}\n{whole[:-9]}\n")  # The second as a full disk would leave it.
    assert overhead.finished([task], results, pairs=1) == {(task, "R-Drop"): first["R-Drop"]}
    results.write_text(whole[:-9])
    assert list(measured("time", results, "methods")) == ["R-Drop"]  # Measured again, on a line of its own.


@pytest.mark.skipif(BACKEND != "jax", reason="XLA's counts are read through JAX")
def test_counts_are_those_of_the_arithmetic(tmp_path):
    found = measured("counts", tmp_path / "overhead.jsonl")
    assert list(found) == ["plain", "all four", "unwrapped", "Keras' Distiller"]
    # Two operations for each weight, position and sample, three times: forward, and backward to the kernel and to the
    # input, which the images need not. The rest is elementwise.
    channels, positions = (3, *FILTERS), (100, 64, 36, 16)
    forward = [2 * 4 * n * 9 * a * b for n, a, b in zip(positions, channels, FILTERS, strict=False)]
    convolutions = 3 * sum(forward) - forward[0]
    assert convolutions < found["plain"]["operations"] < 1.2 * convolutions
    assert found["all four"]["operations"] > found["plain"]["operations"]
    assert found["Keras' Distiller"]["operations"] > found["plain"]["operations"] + sum(forward)
    for column in ("operations", "memory"):
        assert found["unwrapped"][column] == found["plain"][column]


def test_table_has_multiples_of_the_plain_network(tmp_path, monkeypatch, capsys):
    results = tmp_path / "overhead.jsonl"

    def write(measure, backend, variant, **found):
        record = overhead.key(overhead.Task(measure, backend, "tiny", 4, "terms"), variant, 3)
        with results.open("a") as file:
            file.write(json.dumps({**record, **found}) + "\n")

    write("counts", "jax", "plain", operations=2e9, memory=2**20, parameters=1000)
    write("counts", "jax", "all four", operations=2.02e9, memory=3 * 2**20, parameters=1024)
    write("time", "tensorflow", "unwrapped", seconds=[[0.1, 0.2], [0.2, 0.3], [0.4, 0.4]])
    arguments = ["--report", "--networks", "tiny", "--batches", "4", "--pairs", "3", "--results", str(results)]
    monkeypatch.setattr(sys, "argv", ["overhead.py", *arguments])
    with pytest.raises(SystemExit, match="0"):
        overhead.main()
    text = (tmp_path / "overhead.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines() if line.startswith("| ")]
    assert rows == [
        ["", "XLA operations", "XLA temporary memory", "trainable parameters", "step, tensorflow"],
        ["plain", "2.0 GFLOP", "1 MiB", "1,000", "0.2 s"],
        ["all four", "1.0100×", "3.0000×", "+24", ""],
        ["unwrapped", "", "", "", "1.50× (1.00–2.00)"],
        ["Keras' Distiller", "", "", "", ""],
    ]
    assert "### Tiny, 12×12, batch 4" in capsys.readouterr().out
