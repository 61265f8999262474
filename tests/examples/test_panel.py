"""The panel's page is that of its lines, and a line trained again gives the same accuracy."""

import argparse

import keras
import panel
import pytest
from panel_training import train

PAGE = panel.RESULTS.with_suffix(".md")


def test_the_page_is_that_of_the_lines(tmp_path):
    panel.write_table(panel.read_results(panel.RESULTS), tmp_path / "panel.md")
    assert (tmp_path / "panel.md").read_text() == PAGE.read_text(), "Run python examples/panel.py --table."


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="The lines are TensorFlow's.")
@pytest.mark.parametrize("arm", ["plain", "default"])
def test_a_run_trained_again_gives_the_same_accuracy(arm):
    (cell,) = [cell for cell in panel.CELLS if cell.name == "digits, 150 labels"]
    for line in panel.read_results(panel.RESULTS):
        if (line["name"], line["arm"], line["seed"]) == (cell.name, arm, 13):
            expected = line["accuracy"]
    again = train(cell, arm, 13, argparse.Namespace(data=None, validation=False))
    assert again["accuracy"] == pytest.approx(expected, abs=0.01)  # Other processors round otherwise.
