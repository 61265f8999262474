"""The divergence of the parts from the whole head, against its formula in float64 NumPy."""

import numpy as np
from keras import ops
from numerics import check, gradient, kl, softmax, tensor

from keras_collab.terms.output_consistency import consistency_divergence

RNG = np.random.default_rng(5)
LOGITS, PARTS = RNG.normal(size=(5, 4)), RNG.normal(size=(3, 5, 4))


def test_consistency_is_the_scaled_divergence_from_the_whole_to_its_parts():
    check(
        lambda z: ops.mean(consistency_divergence(tensor(LOGITS), z, 2.0)),
        lambda z: 4.0 * kl(softmax(LOGITS / 2), softmax(z / 2)).mean(),
        PARTS,
    )


def test_consistency_gives_the_whole_no_gradient():
    got = gradient(lambda z: ops.mean(consistency_divergence(z, tensor(PARTS), 2.0)), LOGITS)
    np.testing.assert_array_equal(got, np.zeros_like(LOGITS))
