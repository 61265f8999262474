"""Arrays in batches: the same order at each measurement, another at each epoch of a comparison."""

import numpy as np
import pytest

from keras_collab import balance
from keras_collab.tools._batches import Shuffled, first_batches

X, Y = np.arange(20), 10 * np.arange(20)


def test_arrays_are_shuffled_always_in_the_same_way():
    batches = list(first_batches(balance, (X, Y), count=9, size=8))
    assert [len(x) for x, _, _ in batches] == [8, 8, 4]
    for x, y, sample_weight in batches:
        np.testing.assert_array_equal(y, 10 * x)
        assert sample_weight is None
    order = np.concatenate([x for x, _, _ in batches])
    assert order.tolist() != X.tolist()
    assert sorted(order) == X.tolist()
    again = list(first_batches(balance, (X, Y), count=2, size=8))
    assert np.concatenate([x for x, _, _ in again]).tolist() == order[:16].tolist()


def test_a_single_batch_keeps_its_order():
    ((x, y, sample_weight),) = first_batches(balance, X, count=1, size=None)
    assert x.tolist() == X.tolist()
    assert y is sample_weight is None


def test_an_epoch_is_shuffled_anew():
    data = Shuffled((X, Y), batch_size=8)
    assert len(data) == 3
    epochs = []
    for _ in range(2):
        data.on_epoch_begin()
        batches = [data[index] for index in range(3)]
        for x, y in batches:
            np.testing.assert_array_equal(y, 10 * x)
        epochs.append(np.concatenate([x for x, _ in batches]).tolist())
    assert sorted(epochs[0]) == sorted(epochs[1]) == X.tolist()
    assert epochs[0] != epochs[1]


def test_sample_weights_without_labels_are_refused():
    with pytest.raises(ValueError, match="Received None before an array: give labels too"):
        list(first_batches(balance, (X, None, Y), count=1, size=8))
