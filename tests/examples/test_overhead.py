"""The overhead program's pieces on a tiny network: what it counts, what it remembers, and what it prints."""

import json
import sys
from pathlib import Path

import keras
import numpy as np
import overhead
import pytest
from keras import layers

BACKEND = keras.backend.backend()
ON_JAX = pytest.mark.skipif(BACKEND != "jax", reason="XLA's counts are read through JAX")
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
    monkeypatch.setitem(overhead.NETWORKS, "tiny", ("Tiny, 12×12", tiny))
    monkeypatch.setattr(overhead, "version_of", lambda package: "1.0")  # Not all backends need be installed.
    monkeypatch.setattr(overhead, "device", lambda backend: f"A {backend} device")
    yield
    keras.config.set_dtype_policy("float32")


def task_of(measure, *variants, dtype="float32"):
    return overhead.Task(measure, BACKEND, "tiny", 4, dtype, variants)


def measured(task, results):
    overhead.measure(task, results, pairs=1)
    return {variant: record for (_, variant), record in overhead.finished([task], results, pairs=1).items()}


def test_a_measurement_is_made_once(tmp_path, capsys):
    results = tmp_path / "new" / "overhead.jsonl"
    task = task_of("time", "R-Drop")
    first = measured(task, results)
    assert list(first) == ["R-Drop"]
    assert first["R-Drop"]["machine"] == f"A {BACKEND} device"
    assert len(first["R-Drop"]["seconds"]) == 1
    assert capsys.readouterr().out.startswith(f"time {BACKEND} tiny 4 float32, R-Drop: ")
    assert measured(task, results) == first
    assert capsys.readouterr().out == ""

    others = [{"pairs": 2}, {"versions": {"keras": "2.0"}}, {"terms": [{"weight": 0.5}]}, {"batch": 8}]
    for changed in [*others, {"machine": "NVIDIA H100"}, {"dtype": "mixed_bfloat16"}]:
        results.write_text(json.dumps({**first["R-Drop"], **changed}) + "\n")
        assert overhead.finished([task], results, pairs=1) == {}
    older = {name: value for name, value in first["R-Drop"].items() if name != "dtype"}
    results.write_text(json.dumps(older) + "\n")  # As lines were before there was another dtype.
    assert overhead.finished([task], results, pairs=1) == {(task, "R-Drop"): first["R-Drop"]}
    whole = json.dumps(first["R-Drop"])
    results.write_text(f"{whole}\n{whole[:-9]}\n")  # The second as a full disk would leave it.
    assert overhead.finished([task], results, pairs=1) == {(task, "R-Drop"): first["R-Drop"]}
    results.write_text(whole[:-9])
    assert list(measured(task, results)) == ["R-Drop"]  # Measured again, on a line of its own.


@ON_JAX
def test_counts_are_those_of_the_arithmetic(tmp_path):
    variants = ["plain", "all four", "unwrapped", "Keras' Distiller"]
    found = measured(task_of("counts", *variants), tmp_path / "overhead.jsonl")
    assert list(found) == variants
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


@ON_JAX
def test_steps_that_are_timed_are_counted(tmp_path, monkeypatch):
    network, dtypes = tiny(), []

    def watched():
        dtypes.append(keras.config.dtype_policy().name)
        return tiny()

    monkeypatch.setitem(overhead.NETWORKS, "tiny", ("Tiny, 12×12", watched))
    variants = ["default", "all four", "unwrapped"]
    found = measured(task_of("time", *variants, dtype="mixed_bfloat16"), tmp_path / "overhead.jsonl")
    assert set(dtypes) == {"mixed_bfloat16"}
    assert list(found) == variants
    plain = found["default"]["plain"]
    assert plain["parameters"] == network.count_params()
    assert plain["operations"] < found["default"]["operations"] < found["all four"]["operations"]
    for column in ("operations", "memory", "parameters"):
        assert found["unwrapped"][column] == plain[column]

    counts = measured(task_of("counts", "plain", dtype="mixed_bfloat16"), tmp_path / "overhead.jsonl")
    assert {name: counts["plain"][name] for name in plain} == plain


@ON_JAX
def test_a_block_is_that_many_steps():
    from overhead_jax import CompiledStep, compile_all

    task = task_of("time", "all four")
    model, twin = overhead.make("all four", task), overhead.make("all four", task)
    twin.set_weights(model.get_weights())
    x, y = overhead.batch_for(model, 4)
    step = CompiledStep(lambda: model, x, y)
    compile_all([step])
    step.block = 3
    step.run()
    for _ in range(3):
        twin.train_on_batch(x, y)
    for left, right in zip(step.state[0], twin.trainable_variables, strict=True):
        np.testing.assert_allclose(left, right.value, rtol=1e-4, atol=1e-6)


def test_table_has_multiples_of_the_plain_network(tmp_path, monkeypatch, capsys):
    results = tmp_path / "overhead.jsonl"
    monkeypatch.setattr(overhead, "device", lambda backend: "A device")

    def write(measure, backend, variant, **found):
        task = overhead.Task(measure, backend, "tiny", 4, "float32", ())
        record = overhead.key(task, variant, 3)
        with results.open("a") as file:
            file.write(json.dumps({**record, **found}) + "\n")

    write("counts", "jax", "plain", operations=2e9, memory=2**20, parameters=1000)
    write("counts", "jax", "all four", operations=2e9, memory=2**20, parameters=1000)
    write("counts", "jax", "all four", operations=2.02e9, memory=3 * 2**20, parameters=1024)  # The newer one.
    write("time", "tensorflow", "unwrapped", seconds=[[0.1, 0.2], [0.2, 0.3], [0.4, 0.4]])
    own = {"operations": 2e9, "memory": 2**20, "parameters": 1000}
    write("time", "jax", "default", seconds=[[1.0, 1.5]], plain=own, operations=3e9, memory=2**20, parameters=1000)
    text = reported(results, monkeypatch)
    assert rows_of(text) == [
        ["", "XLA operations", "XLA temporary memory", "trainable parameters", "step, tensorflow", "step, jax"],
        ["plain", "2.0 GFLOP", "1 MiB", "1,000", "0.2 s", "1 s"],
        ["default", "1.5000×", "1.0000×", "+0", "", "1.50× (1.50–1.50)"],
        ["all four", "1.0100×", "3.0000×", "+24", "", ""],
        ["unwrapped", "", "", "", "1.50× (1.00–2.00)", ""],
    ]
    assert text.startswith("## A device\n")
    assert "### Tiny, 12×12, batch 4" in capsys.readouterr().out

    own = {"operations": None, "memory": 2**20, "parameters": 1000}  # As on an accelerator.
    monkeypatch.setattr(overhead, "device", lambda backend: "Another device")
    write("time", "jax", "default", seconds=[[1.0, 1.5]], plain=own, operations=None, memory=2**20, parameters=1000)
    assert rows_of(reported(results, monkeypatch).split("## Another device")[1])[1:] == [
        ["plain", "1 MiB", "1,000", "1 s"],
        ["default", "1.0000×", "+0", "1.50× (1.50–1.50)"],
    ]


def reported(results, monkeypatch, rows="terms"):
    monkeypatch.setattr(sys, "argv", ["overhead.py", "--report", "--rows", rows, "--results", str(results)])
    with pytest.raises(SystemExit, match="0"):
        overhead.main()
    return results.with_suffix(".md").read_text(encoding="utf-8")


def rows_of(text):
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize(("name", "rows"), [("overhead", "terms"), ("methods", "methods")])
def test_the_pages_are_those_of_the_lines(name, rows, tmp_path, monkeypatch):
    page = Path(overhead.__file__).parent / "results" / f"{name}.md"
    copy = tmp_path / f"{name}.jsonl"
    copy.write_bytes(page.with_suffix(".jsonl").read_bytes())
    assert reported(copy, monkeypatch, rows) == page.read_text(encoding="utf-8")
