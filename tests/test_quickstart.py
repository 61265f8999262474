"""The quickstart, and the diagnosis of its network, run as they stand and leave behind what they promise."""

import runpy
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_collab

EXAMPLES = Path(__file__).parents[1] / "examples"
QUICKSTART = EXAMPLES / "quickstart.py"
TERMS = ["output_consistency", "intermediate_consistency", "representation_similarity", "kernel_similarity"]


@pytest.fixture(scope="module")
def quickstart():
    return runpy.run_path(str(QUICKSTART))


def test_leaves_table_curves_and_network(quickstart, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["quickstart.py", "--epochs", "1", "--seeds", "1", "--output", "new/results"])
    quickstart["main"]()

    results = tmp_path / "new" / "results"
    assert {path.name for path in results.iterdir()} == {"quickstart.txt", "quickstart.png", "network.keras"}
    said = (results / "quickstart.txt").read_text(encoding="utf-8").splitlines()
    for row in (*TERMS, "test accuracy, %", "test neg. log-likelihood", "a training step, ms"):
        assert any(line.startswith(row) for line in said), row
    assert set(said) <= set(capsys.readouterr().out.splitlines())
    assert (results / "quickstart.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    network = keras.saving.load_model(results / "network.keras")
    assert not isinstance(network, keras_collab.CollabModel)
    assert network.output_shape == (None, 10)


def test_diagnose_tells_the_untrained_the_plain_and_the_wrapped_network_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["diagnose.py", "--epochs", "1", "--output", str(tmp_path)])
    runpy.run_path(str(EXAMPLES / "diagnose.py"))["main"]()

    kinds = ["untrained", "plain", "wrapped"]
    assert {path.name for path in tmp_path.iterdir()} == {"diagnosis.txt", *(f"diagnosis-{kind}.png" for kind in kinds)}
    said = (tmp_path / "diagnosis.txt").read_text(encoding="utf-8").splitlines()
    assert [line.strip("─ ") for line in said if line.startswith("──")] == kinds
    stage = [line.split() for line in said if line.split()[:1] == ["stage2"]]
    assert len({tuple(row) for row in stage}) == 3
    assert {row[1] for row in stage} == {"32"}
    kernels = [line.split()[0] for line in said if line.split()[:1] and line.split()[0].startswith("conv2d")]
    assert kernels[:6] == kernels[6:12] == kernels[12:]  # The same layers have the same names.


def test_splits_are_stratified_and_share_no_digit(quickstart):
    splits = quickstart["digits"]()
    assert [len(images) for images, _ in splits] == [250, 350, 1197]
    frequencies = np.bincount(np.concatenate([labels for _, labels in splits])) / 1797
    for _, labels in splits:
        np.testing.assert_allclose(np.bincount(labels), frequencies * len(labels), atol=1.0)
    # All 1,797 images are different, so none is in two splits.
    assert len(np.unique(np.concatenate([images.reshape(-1, 64) for images, _ in splits]), axis=0)) == 1797


def test_plain_and_wrapped_differ_by_the_wrapping_alone(quickstart, monkeypatch):
    """With all weights 0 both trainings are the same: initial weights, order of batches, and no trace of the probe."""
    data = quickstart["digits"]()
    probe = keras_collab.wrap(quickstart["residual_network"]())
    probe.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    wrap = keras_collab.wrap

    def wrap_with_weights_0(network):
        model = wrap(network)
        for term in model.terms.values():
            term.weight = 0.0
        return model

    monkeypatch.setattr(keras_collab, "wrap", wrap_with_weights_0)
    train = quickstart["train_one"]
    runs = {kind: train(kind, 1, data, 2, 0.0, probe, lambda **moved: None)[1] for kind in ("plain", "wrapped")}
    for column in ("loss", "accuracy", "val_loss", "val_accuracy", "test_loss", "intermediate_consistency"):
        np.testing.assert_allclose(runs["wrapped"][column], runs["plain"][column], rtol=1e-5, err_msg=column)
