"""Checks of arguments: what passes is returned, what does not is one readable error."""

import numpy as np
import pytest

from keras_collab import IntermediateConsistency, OutputConsistency
from keras_collab._checks import check_choice, check_range


class Owner:
    pass


@pytest.mark.parametrize("value", [0, 0.0, 1, 2.5, np.float32(0.1), np.int64(3), 3.4e38, -3.4e38, 1.2e-38])
def test_numbers_that_float32_holds_are_returned_as_floats(value):
    assert check_range(Owner(), size=value) == float(value)
    assert np.isfinite(np.float32(check_range(Owner(), size=value)))


@pytest.mark.parametrize("value", [3.5e38, -1e308, 1e-300, -1e-39, np.float64(1e39), 10**40])
def test_numbers_that_float32_does_not_hold(value):
    """NumPy's finfo: float32 ends at 3.4028235e38, its smallest normal number is 1.1754944e-38."""
    with pytest.raises(
        ValueError, match=r"Owner: `size` is used as float32, which holds 0 and sizes from 1.2e-38 to 3.4e"
    ):
        check_range(Owner(), size=value)


@pytest.mark.parametrize("value", ["1", None, True, float("nan"), float("inf"), np.zeros(3), [1.0], 1j])
def test_what_is_no_number(value):
    with pytest.raises(ValueError, match=r"Owner: `size` must be a number > 0. Received: size="):
        check_range(Owner(), size=value, above=0)


@pytest.mark.parametrize(
    ("bounds", "good", "bad", "stated"),
    [
        ({"above": 0}, 0.1, 0, "> 0"),
        ({"least": 0}, 0, -0.1, ">= 0"),
        ({"most": 1}, 1, 1.1, "<= 1"),
        ({"below": 1}, 0.9, 1, "< 1"),
        ({"least": 2, "most": 4}, 4, 5, ">= 2 and <= 4"),
    ],
)
def test_bounds(bounds, good, bad, stated):
    assert check_range(Owner(), size=good, **bounds) == good
    with pytest.raises(ValueError, match=rf"must be a number {stated}. Received: size={bad}"):
        check_range(Owner(), size=bad, **bounds)


def test_integers_are_not_bound_to_float32():
    assert check_range(Owner(), seed=10**40, whole=True) == 10**40
    with pytest.raises(ValueError, match=r"Owner: `seed` must be an integer >= 1. Received: seed=1.0"):
        check_range(Owner(), seed=1.0, least=1, whole=True)


def test_choices():
    assert check_choice(Owner(), choices=("a", "b"), kind="a") == "a"
    with pytest.raises(ValueError, match=r"Owner: `kind` must be one of \('a', 'b'\). Received: kind='c'"):
        check_choice(Owner(), choices=("a", "b"), kind="c")
    for other in (np.array(["a", "b"]), ["a"], 1, None):
        with pytest.raises(TypeError, match=r"Owner: `kind` must be one of \('a', 'b'\). Received: kind="):
            check_choice(Owner(), choices=("a", "b"), kind=other)


def test_a_term_refuses_what_would_be_zero_in_its_own_precision():
    with pytest.raises(
        ValueError, match=r"OutputConsistency: `temperature` must be a number >= 0.0001.*temperature=1e-300"
    ):
        OutputConsistency(temperature=1e-300)


@pytest.mark.parametrize("make", [OutputConsistency, IntermediateConsistency])
@pytest.mark.parametrize("temperature", [1e-30, 1e30])
def test_a_temperature_whose_square_float32_does_not_hold(make, temperature):
    """NumPy: float32(1e-30) ** 2 is 0, float32(1e30) ** 2 is inf."""
    with pytest.raises(ValueError, match=r"`temperature` must be a number >= 0.0001 and <= 10000.0. Received: temp"):
        make(temperature=temperature)
    assert make(temperature=1e-4).temperature == 1e-4
