"""Label noise has the rate and the kind that was asked for, and the same seed gives the same labels."""

import numpy as np
import pytest

from keras_collab import label_noise
from keras_collab.label_noise import asymmetric, memorization, pair_flip, symmetric

LABELS = np.random.default_rng(3).permutation(np.repeat(np.arange(10), 2_000)).astype("int32")


@pytest.mark.parametrize(("inclusive", "expected"), [(True, 0.45), (False, 0.5)])
def test_symmetric(inclusive, expected):
    noisy = symmetric(LABELS, 0.5, 10, inclusive=inclusive, seed=1)
    assert noisy.rate == pytest.approx(expected, abs=0.01)
    np.testing.assert_array_equal(noisy.wrong, noisy.labels != LABELS)
    assert noisy.labels.dtype == LABELS.dtype
    wrong_as = np.bincount((noisy.labels - LABELS)[noisy.wrong] % 10, minlength=10)
    assert wrong_as[0] == 0
    np.testing.assert_allclose(wrong_as[1:] / wrong_as.sum(), 1 / 9, atol=0.01)  # All other classes alike.


@pytest.mark.parametrize("inclusive", [True, False])
def test_a_narrow_dtype_holds_all_its_classes(inclusive):
    labels = np.arange(256, dtype="uint8").repeat(40)
    noisy = symmetric(labels, 1.0, 256, inclusive=inclusive)
    assert noisy.labels.dtype == "uint8"
    assert set(noisy.labels) == set(range(256))
    expected = 255 / 256 if inclusive else 1.0
    assert noisy.rate == pytest.approx(expected, abs=0.005)


def test_asymmetric_turns_only_what_is_easily_taken_for_another():
    noisy = asymmetric(LABELS, 0.4)
    turned = {(int(a), int(b)) for a, b in zip(LABELS[noisy.wrong], noisy.labels[noisy.wrong], strict=True)}
    assert turned == {(9, 1), (2, 0), (4, 7), (3, 5), (5, 3)}
    assert noisy.rate == pytest.approx(0.2)


def test_pair_flip_turns_each_class_into_the_next():
    noisy = pair_flip(LABELS, 0.45, 10)
    assert noisy.rate == pytest.approx(0.45)
    np.testing.assert_array_equal(noisy.labels[noisy.wrong], (LABELS[noisy.wrong] + 1) % 10)


@pytest.mark.parametrize("make", [symmetric, asymmetric, pair_flip])
def test_seed_decides_and_what_is_given_stays_as_it_is(make):
    given = LABELS.copy()
    np.random.seed(0)
    state = np.random.get_state()[1].copy()
    first, again, other = make(given, 0.3, 10, seed=5), make(given, 0.3, 10, seed=5), make(given, 0.3, 10, seed=6)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert (first.labels != other.labels).any()
    np.testing.assert_array_equal(given, LABELS)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    assert make(given, 0.0, 10).rate == 0.0
    assert set(make(given, 1.0, 10).labels) <= set(range(10))


def test_memorization():
    clean, noisy = np.array([0, 1, 2, 0]), np.array([0, 2, 2, 1])
    predictions = np.eye(3)[[0, 2, 1, 0]]
    assert memorization(predictions, clean, noisy) == {"clean_accuracy": 0.5, "wrong_fit": 0.5}
    assert np.isnan(memorization(predictions, clean, clean)["wrong_fit"])
    with pytest.raises(ValueError, match=r"same samples. Received 4, 4 and 3"):
        memorization(predictions, clean, noisy[:3])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: symmetric(LABELS, 1.5, 10), r"symmetric: `rate` must be a number >= 0 and <= 1. Received: rate=1.5"),
        (lambda: symmetric(LABELS, float("nan"), 10), r"Received: rate=nan"),
        (lambda: symmetric(LABELS, 0.5, 9), r"0 to 8 for classes=9. Received: 0 to 9"),
        (lambda: pair_flip(np.eye(10)[LABELS], 0.5, 10), r"argmax"),
        (lambda: pair_flip(LABELS[:, None], 0.5, 10), r"Give labels\.reshape\(-1\)"),
        (lambda: symmetric(np.zeros(9, "uint8"), 0.5, 300), r"classes 0 to 299. Received: uint8, which ends at 255"),
        (lambda: pair_flip(np.zeros(9, "int8"), 0.5, 129), r"classes 0 to 128. Received: int8, which ends at 127"),
        (lambda: symmetric(LABELS, 0.5, 1), r"`classes` must be an integer >= 2. Received: classes=1"),
        (lambda: asymmetric(LABELS % 5, 0.4, 5), r"into other ones.*Give the pairs"),
        (lambda: asymmetric(LABELS, 0.4, 100), r"ten classes into other ones. Received: classes=100. Give the pairs"),
        (lambda: asymmetric(LABELS, 0.4, 10, pairs={1: 1}), r"into other ones"),
        (lambda: asymmetric(LABELS, 0.4, 10, pairs={1: 2.7}), r"into other ones. Received: \{1: 2.7\}"),
        (lambda: symmetric(LABELS, 0.4, 10, seed=-1), r"symmetric: `seed` must be an integer >= 0. Received: seed=-1"),
        (lambda: pair_flip(LABELS, 0.4, 10, seed=None), r"`seed` must be an integer >= 0. Received: seed=None"),
        (lambda: memorization([[0.9], [0.1]], [1, 0], [1, 0]), r"must have a column for each class"),
        (lambda: memorization([0.9, 0.1], [1, 0], [1, 0]), r"scores of shape \(samples, classes\).*\(2,\)"),
        (lambda: memorization(np.full((2, 3), np.nan), [1, 0], [1, 0]), r"must be finite scores"),
        (lambda: memorization(None, [1, 0], [1, 0]), r"must be finite scores.*object"),
        (lambda: memorization(np.eye(2), ["a", "b"], [1, 0]), r"`labels` must be class indices"),
        (lambda: memorization(np.eye(2), [2, 0], [1, 0]), r"0 to 1 for classes=2. Received: 0 to 2"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_cifar10_pairs_are_a_constant_of_the_field():
    assert asymmetric(LABELS, 0.4, 20, pairs=label_noise.CIFAR10_PAIRS).wrong.any()
    assert label_noise.CIFAR10_PAIRS == {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
