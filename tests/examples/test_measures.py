"""What is measured of a network after training."""

import math
import types

import numpy as np
import pytest
from measures import test as measure


def measured(probabilities):
    network = types.SimpleNamespace(predict=lambda images, **options: np.array(probabilities))
    labels = np.zeros(len(probabilities), "int64")
    return measure(network, types.SimpleNamespace(images=None, labels=labels))


def test_calibration_error_by_hand():
    """Confidences 0.95 and 0.97 share the last bin, where both are right; 0.6 has a bin of its own and is wrong."""
    found = measured([[0.95, 0.05], [0.97, 0.03], [0.4, 0.6]])
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["ece"] == pytest.approx((0.05 + 0.03 + 0.6) / 3)
    assert found["nll"] == pytest.approx(-np.mean(np.log([0.95, 0.97, 0.4])))


def test_a_run_that_diverged_is_not_calibrated():
    assert math.isnan(measured([[0.5, 0.5], [math.nan, math.nan]])["ece"])
