"""Whole blocks among the ends of halves."""

import pytest
from keras_collab.network.periods import whole_blocks

ATTENTION, DENSE, CONVOLUTION = ["MultiHeadAttention"], ["Dense", "Dense"], ["Conv2D"]


@pytest.mark.parametrize(
    ("layers", "ends"),
    [
        (
            [["Conv2D", *ATTENTION], DENSE, ATTENTION, DENSE],
            [1, 3],
        ),  # A transformer: patches first.
        ([["Conv2D", *ATTENTION], DENSE], [1]),  # One block of it.
        ([["Conv2D"], ATTENTION, DENSE, ATTENTION, DENSE], [2, 4]),  # The patches end in a sum, too.
        ([CONVOLUTION, CONVOLUTION, CONVOLUTION], [0, 1, 2]),  # Blocks without halves.
        ([ATTENTION, CONVOLUTION, DENSE, ATTENTION, CONVOLUTION, DENSE], [2, 5]),  # Three thirds.
        ([ATTENTION, DENSE, CONVOLUTION], [0, 1, 2]),  # Nothing repeats.
        ([DENSE], [0]),
        ([], []),
    ],
)
def test_whole_blocks(layers, ends):
    assert list(range(len(layers)))[whole_blocks(layers)] == ends
