"""The result of `diagnose`: effective numbers, tables and the figure."""

import keras
import numpy as np
import pytest
from helpers import small_data, small_network
from keras import layers

from keras_collab import diagnose
from keras_collab.tools.diagnosis import Channels, Filters


@pytest.mark.parametrize(
    ("similarity", "dead", "effective"),
    [
        (0.0, 0, 4),  # Four channels, uncorrelated.
        (1.0, 0, 1),  # All alike.
        (1 / 6, 0, 16 / 6),  # Two alike and two others, 2 of 12 pairs: 4² / (4 + 2).
        (0.0, 1, 3),
        (0.0, 4, 0),
    ],
)
def test_effective_number_of_channels(similarity, dead, effective):
    assert Channels("layer", 4, similarity, dead).effective == pytest.approx(effective)


def test_effective_number_of_filters():
    assert Filters("layer", 5, 20, 0.0).effective == 5
    assert Filters("layer", 5, 20, 1.0).effective == 1
    assert Filters("layer", 5, 20, 0.25).effective == 2.5  # 5 / (1 + 4 · 0.25).
    assert Filters("layer", 5, 20, 0.25).random == 0.05


def test_tables_and_figure(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    found = diagnose(small_network(), small_data()[0])
    told = capsys.readouterr().out
    assert "conv1" in told
    assert "effective" in told
    found.figure().savefig(tmp_path / "diagnosis.png")
    inputs = keras.Input((6,))
    vectors = np.random.default_rng(0).normal(size=(30, 6))
    diagnose(keras.Model(inputs, layers.Dense(4)(inputs)), vectors, layers="auto").figure()  # Neither maps nor filters.
    assert (tmp_path / "diagnosis.png").stat().st_size > 10_000
