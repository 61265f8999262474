"""The quickstart, and the diagnosis of its network, run as they stand and leave behind what they promise."""

import runpy
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_collab

EXAMPLES = Path(__file__).parents[2] / "examples"
QUICKSTART = EXAMPLES / "quickstart.py"


@pytest.fixture(scope="module")
def quickstart():
    return runpy.run_path(str(QUICKSTART))


def test_prints_the_table_and_leaves_network_and_curves(quickstart, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quickstart["main"](epochs=1, seeds=1)

    printed = capsys.readouterr().out
    assert "accuracy, % on validation data" in printed
    for start in ("  plain ", "  wrapped ", "wrapped: ", "The best network, on test images"):
        assert any(line.startswith(start) for line in printed.splitlines()), start
    assert [path.name for path in tmp_path.iterdir()] == ["quickstart_output"]
    results = tmp_path / "quickstart_output"
    assert {path.name for path in results.iterdir()} == {"runs", "quickstart.png", "network.keras"}
    assert (results / "quickstart.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    network = keras.saving.load_model(results / "network.keras")
    assert not isinstance(network, keras_collab.CollabModel)
    assert network.output_shape == (None, 10)


def test_git_ignores_what_it_writes():
    ignored = (EXAMPLES.parent / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert "quickstart_output/" in ignored


def test_splits_are_stratified_and_share_no_digit(quickstart):
    splits = quickstart["digits"]()
    assert [len(images) for images, _ in splits] == [250, 350, 1197]
    frequencies = np.bincount(np.concatenate([labels for _, labels in splits])) / 1797
    for _, labels in splits:
        np.testing.assert_allclose(np.bincount(labels), frequencies * len(labels), atol=1.0)
    # All 1,797 images are different, so none is in two splits.
    assert len(np.unique(np.concatenate([images.reshape(-1, 64) for images, _ in splits]), axis=0)) == 1797
