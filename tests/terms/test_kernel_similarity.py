"""The cosines of filters, against their formula in float64 NumPy, and their smallest possible value."""

import numpy as np
import pytest
from helpers import check, gradient, off_diagonal, tensor

from keras_collab.terms.kernel_similarity import kernel_similarity, welch_bound

RNG = np.random.default_rng(5)


def test_kernel_similarity_is_the_mean_squared_cosine():
    def formula(w):
        w = w / np.linalg.norm(w, axis=0)
        return np.mean(off_diagonal(w.T @ w) ** 2)

    filters = RNG.normal(size=(7, 4))
    check(kernel_similarity, formula, filters)
    assert float(kernel_similarity(tensor(7 * filters))) == pytest.approx(formula(filters), rel=1e-5)


def test_kernel_gradient_is_orthogonal_to_the_filters():
    filters = RNG.normal(size=(7, 4))
    got = gradient(kernel_similarity, filters)
    np.testing.assert_allclose((got * filters).sum(0), np.zeros(4), atol=1e-6)
    assert abs(got).max() > 1e-3


def test_welch_bound_is_reached_by_a_tight_frame():
    angles = np.arange(5) * np.pi / 5  # Five directions evenly spread over the plane.
    frame = np.stack([np.cos(angles), np.sin(angles)])
    assert welch_bound(5, 2) == pytest.approx((5 - 2) / (2 * 4))
    assert float(kernel_similarity(tensor(frame))) == pytest.approx(0, abs=1e-6)
