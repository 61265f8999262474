"""The experiment runner: what is to do, what is refused, and a run that a kill cut off ends like one that was not."""

import argparse
import dataclasses
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
import reproduce

import keras_collab
from keras_collab.collab_model import default_terms

EXAMPLES = Path(__file__).parents[1] / "examples"
PROGRAM = EXAMPLES / "reproduce.py"
GRID = """
dataset = "digits"
network = "resnet8"
width = 4
train_size = 100
epochs = {epochs}
batch_size = 50
validation = 0.2
learning_rate = {learning_rate}

[[runs]]
method = {methods}
noise = "symmetric"
noise_rate = 0.5
"""


def write_grid(folder, *, epochs=3, methods=("all_four",), learning_rate=0.1):
    path = folder / "grid.toml"
    path.write_text(GRID.format(epochs=epochs, methods=json.dumps(list(methods)), learning_rate=learning_rate))
    return path


def command(grid, results, *more):
    return [sys.executable, str(PROGRAM), str(grid), "--results", str(results), *more]


def run(*arguments):
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_runs_are_made_once_and_a_kill_costs_no_more_than_an_epoch(tmp_path):
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    grid = write_grid(tmp_path, epochs=6)
    first = run(grid, whole)
    assert first.returncode == 0, first.stdout + first.stderr
    (record,) = lines(whole)
    assert len(record["history"]["val_accuracy"]) == 6
    assert record["history"].keys() >= {"loss", "accuracy", "task_loss", "kernel_similarity", "val_loss"}
    assert record["added_parameters"] == 0
    assert 0 <= record["memorization"]["wrong_fit"] <= 1
    assert record["peak_memory"] > 2**26
    assert record["best_epoch"] == 1 + int(np.argmax(record["history"]["val_accuracy"]))
    assert not list(tmp_path.glob("whole.partial/*"))
    again = run(grid, whole)
    assert "1 of them in" in again.stdout
    assert "0 to do" in again.stdout
    assert len(lines(whole)) == 1

    # The program and the run's own process are killed once three epochs are kept.
    process = subprocess.Popen(command(grid, killed), start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not [p for p in tmp_path.glob("killed.partial/*/epochs.json") if len(json.loads(p.read_text())) >= 3]:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not killed.exists()
    assert run(grid, killed).returncode == 0
    (resumed,) = lines(killed)
    assert {len(values) for values in resumed["history"].values()} == {6}
    np.testing.assert_allclose(resumed["history"]["val_loss"][:2], record["history"]["val_loss"][:2], rtol=1e-3)
    assert resumed["settings"] == record["settings"]
    assert not list(tmp_path.glob("killed.partial/*"))


def test_terms_take_arguments_a_loss_and_weights_from_balance(tmp_path):
    table = """
method = "terms"
terms.output_consistency = {weight = 3}
terms.kernel_similarity = {form = "angle", weight = {Ramp = {value = 2.0, epochs = 1}}}
variant = "two"
loss = "gce"
"""
    grid = write_grid(tmp_path, epochs=1)
    text = grid.read_text().replace('method = ["all_four"]\n', table)
    more = '[[runs]]\nmethod = "all_four"\nbalance = 0.1\n[[runs]]\nmethod = "gce"\n'
    grid.write_text(text + more)
    runs = reproduce.read_grid(grid)
    assert reproduce.new_term(keras_collab.KernelSimilarity, runs[0], 2).form == "angle"
    assert [run.label for run in runs] == [
        "digits 100 resnet8 symmetric 50% terms (two) seed 0",
        "digits 100 resnet8 all_four seed 0",
        "digits 100 resnet8 gce seed 0",
    ]
    assert run(grid, tmp_path / "results.jsonl").returncode == 0
    two, balanced, gce = lines(tmp_path / "results.jsonl")
    assert two["weights"].keys() == {"output_consistency", "kernel_similarity"}
    assert two["weights"]["output_consistency"] == 3
    assert two["history"]["kernel_similarity_weight"] == [0.5]  # 0 in the first step of two, 1 in the other.
    assert balanced["weights"].keys() == set(reproduce.TERMS)
    assert balanced["weights"]["kernel_similarity"] != 10
    assert 0 < gce["history"]["loss"][0] <= 1 / 0.7
    assert 0 < two["history"]["task_loss"][0] <= 1 / 0.7 < balanced["history"]["task_loss"][0]


def test_cells_each_have_all_runs_and_validation_is_counted_from_the_end(tmp_path):
    grid = tmp_path / "grid.toml"
    shared = 'dataset = "digits"\nnetwork = "resnet8"\nwidth = 4\nvalidate_every = 2\n'
    cells = "[[cells]]\ntrain_size = 100\nepochs = 4\nepochs_factor = 1.25\n[[cells]]\ntrain_size = 50\nepochs = 2\n"
    grid.write_text(f'{shared}{cells}[[runs]]\nmethod = ["plain", "gce"]\n')
    runs = reproduce.read_grid(grid)
    assert [(run.method, run.train_size, run.all_epochs) for run in runs] == [
        ("plain", 100, 5),
        ("gce", 100, 5),
        ("plain", 50, 2),
        ("gce", 50, 2),
    ]
    assert run(grid, tmp_path / "results.jsonl").returncode == 0
    histories = [record["history"] for record in lines(tmp_path / "results.jsonl")]
    assert [history["val_epoch"] for history in histories] == [[1, 3, 5], [1, 3, 5], [2], [2]]
    assert [len(history["val_accuracy"]) for history in histories] == [3, 3, 1, 1]
    assert [len(history["accuracy"]) for history in histories] == [5, 5, 2, 2]


def test_noise_is_in_the_labels_of_validation_unless_asked_for():
    options = argparse.Namespace(data=None)
    settings = reproduce.Settings("digits", "resnet8", noise="symmetric", noise_rate=0.5, validation=0.2)
    noisy, clean = reproduce.load_data(settings, options)
    true, again = reproduce.load_data(dataclasses.replace(settings, clean_validation=True), options)
    assert 0.3 < np.mean(noisy.validation.labels != true.validation.labels) < 0.6
    assert 0.3 < np.mean(noisy.train.labels != clean) < 0.6
    np.testing.assert_array_equal(true.train.labels, noisy.train.labels)
    np.testing.assert_array_equal(again, clean)


def test_results_with_other_settings_are_refused(tmp_path):
    results = tmp_path / "results.jsonl"
    runs = reproduce.read_grid(write_grid(tmp_path, methods=["plain", "all_four"]))
    assert [run.method for run in runs] == ["plain", "all_four"]
    records.append(results, {"settings": dataclasses.asdict(runs[0])})
    assert reproduce.still_to_do(runs, reproduce.read_results(results), results) == runs[1:]
    changed = reproduce.read_grid(write_grid(tmp_path, learning_rate=0.2))
    records.append(results, {"settings": dataclasses.asdict(runs[1])})
    with pytest.raises(ValueError, match=r"learning_rate: 0.1, now 0.2.*--results FILE"):
        reproduce.still_to_do(changed, reproduce.read_results(results), results)


def test_halving_goes_on_with_the_better_half():
    variants = {"a": 0.5, "b": 0.7, "c": 0.6, "d": 0.4}
    runs = [
        reproduce.Settings("digits", "resnet8", method, variant=variant, terms=terms, seed=seed, train_size=size)
        for seed in range(3)
        for size in (100, 200)
        for method, variant, terms in [
            ("plain", "", {}),
            *(("terms", variant, {"kernel_similarity": {}}) for variant in variants),
            ("terms", "other", {"output_consistency": {}}),
        ]
    ]

    def records(*done, **better):
        accuracies = {"": 0.3, "other": 0.1} | variants | better
        return [
            {"settings": dataclasses.asdict(run), "history": {"val_accuracy": [0.9, accuracies[run.variant]]}}
            for run in runs
            if run.seed in done
        ]

    def tried(found):
        return [run.variant for run in found if run.train_size == 100], {run.seed for run in found}

    assert tried(reproduce.next_round(runs, [])) == (["", "a", "b", "c", "d", "other"], {0})
    assert tried(reproduce.next_round(runs, records(0)[1:])) == ([""], {0})
    assert tried(reproduce.next_round(runs, records(0))) == (["", "b", "c", "other"], {1})
    assert tried(reproduce.next_round(runs, records(0) + records(1, c=0.9))) == (["", "c", "other"], {2})
    assert reproduce.next_round(runs, records(0, 1, 2)) == []


def test_a_line_that_was_cut_off_is_done_again(tmp_path, capsys):
    results = tmp_path / "results.jsonl"
    runs = reproduce.read_grid(write_grid(tmp_path, methods=["plain", "all_four"]))
    records.append(results, {"settings": dataclasses.asdict(runs[0])})
    results.write_bytes(results.read_bytes() + b'{"settings": {"data')
    assert reproduce.still_to_do(runs, reproduce.read_results(results), results) == runs[1:]
    assert "cut off" in capsys.readouterr().err
    records.append(results, {"settings": dataclasses.asdict(runs[1])})
    assert reproduce.still_to_do(runs, reproduce.read_results(results), results) == []


def test_a_full_disk_costs_one_line(tmp_path):
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
    assert records.read(path) == [(1, {"run": 1}), (2, None), (3, {"run": 3})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods = 'plain'", r"no setting 'methods'. Settings: dataset"),
        ("method = 'all_five'", r"method must be one of plain.*Received: 'all_five'"),
        ("noise = 'symmetric'", r"noise_rate must lie.*Received: noise='symmetric', noise_rate=0.0"),
        ("noise = 'symmetric'\nnoise_rate = 1.5", r"noise_rate=1.5"),
        ("loss = 'hinge'", r"loss must be one of label_smoothing, gce. Received: 'hinge'"),
        ("validate_every = 0", r"validate_every be at least 1. Received: epochs=40.*validate_every=0"),
        ("epochs_factor = 0.01", r"There must be an epoch.*epochs_factor=0.01"),
        ("balance = 0.1", r"balance sets weights of terms, which 'plain' has none of"),
        ("method = 'terms'", r"terms of method 'terms' must be some of output_consistency.*Received: \[\]"),
        ("terms.kernels = {weight = 1}", r"must be some of output_consistency.*Received: \['kernels'\]"),
        ("[[runs]]\nterms.kernel_similarity = {weight = 1}", r"method 'plain' must be some of none"),
        ("learning_rate = [0.1, 0.2]", r"differ in other settings. Give each a variant"),
    ],
)
def test_bad_grids(tmp_path, text, message):
    path = tmp_path / "grid.toml"
    path.write_text(f"dataset = 'digits'\nnetwork = 'resnet8'\n{text}\n")
    with pytest.raises(ValueError, match=message):
        reproduce.read_grid(path)


@pytest.mark.parametrize("name", sorted(path.stem for path in (EXAMPLES / "grids").glob("*.toml")))
def test_ready_grids_can_be_read(name):
    runs = reproduce.read_grid(EXAMPLES / "grids" / f"{name}.toml")
    assert "plain" in {run.method for run in runs}
    assert len({run.candidate for run in runs}) > 1
    for run in {run.candidate: run for run in runs}.values():
        for term in default_terms():
            if term.name in run.terms:
                assert reproduce.new_term(type(term), run, 16).name == term.name


@pytest.mark.parametrize("grid", sorted((EXAMPLES / "grids").glob("*.toml")), ids=lambda path: path.stem)
def test_results_in_the_repository_go_with_their_grids(grid):
    results = EXAMPLES / "results" / f"{grid.stem}.jsonl"
    runs, records = reproduce.read_grid(grid), reproduce.read_results(results)
    assert len(reproduce.still_to_do(runs, records, results)) == len(runs) - len(records)


def test_an_unknown_grid_is_named(tmp_path):
    result = run("nonsense", tmp_path / "results.jsonl")
    assert result.returncode == 1
    assert "cifar10-subset" in result.stderr
