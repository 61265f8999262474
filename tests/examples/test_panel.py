"""The panel's page is that of its lines, and a line trained again gives the same accuracy."""

import argparse

import keras
import numpy as np
import panel
import pytest
from panel_training import batches, mixed, train

PAGE = panel.RESULTS.with_suffix(".md")


def test_the_page_is_that_of_the_lines(tmp_path):
    panel.write_table(panel.read_lines(panel.RESULTS), tmp_path / "panel.md")
    assert (tmp_path / "panel.md").read_text() == PAGE.read_text(), "Run python examples/panel.py --table."


def test_a_page_of_one_seed_has_no_mean_of_jobs(tmp_path):
    lines = [line for line in panel.read_lines(panel.RESULTS) if line["seed"] == 10]
    panel.write_table(lines, tmp_path / "panel.md")
    panel.draw(lines, tmp_path / "panel.svg")
    text = (tmp_path / "panel.md").read_text()
    assert "(1 seed)" in text
    assert "The mean of the default" not in text


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="A PyDataset has orders only while fit runs.")
def test_each_epoch_has_another_order():
    images = np.zeros((10, 8, 8, 3), "uint8")
    keras.utils.set_random_seed(0)
    data = batches(images, np.arange(10, dtype="int32"), 4, seed=0)
    first, second = ([int(label) for _, batch in data for label in batch.numpy()] for _ in range(2))
    assert first != second
    assert sorted(first) == sorted(second) == list(range(10))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Images are mixed by tf.data.")
def test_mixed_images_have_the_labels_of_both():
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3)).astype("uint8")
    keras.utils.set_random_seed(0)
    ((mixed_images, labels),) = mixed(batches(images, np.arange(64, dtype="int32") % 10, 64, seed=0), 10, seed=0)
    assert mixed_images.shape == images.shape
    np.testing.assert_allclose(labels.numpy().sum(axis=-1), 1, atol=1e-5)
    assert labels.numpy().max(axis=-1).min() < 0.99


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="The lines are TensorFlow's.")
@pytest.mark.parametrize("arm", ["plain", "default"])
@pytest.mark.usefixtures("built_in_the_first_step")  # A batch read before costs the data their first order.
def test_a_run_trained_again_gives_the_same_accuracy(arm):
    (job,) = [job for job in panel.JOBS if job.name == "digits, 150 labels"]
    for line in panel.read_lines(panel.RESULTS):
        if (line["name"], line["arm"], line["seed"]) == (job.name, arm, 10):
            expected = line["accuracy"]
    again = train(job, arm, 10, argparse.Namespace(data=None, validation=False))
    assert again["accuracy"] == pytest.approx(expected, abs=0.01)  # Other processors round otherwise.
