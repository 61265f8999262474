"""The ready-made lists of terms."""

import pytest
from helpers import small_network

import keras_collab
from keras_collab import recipes


def test_gentle_is_the_default_and_rises():
    model = keras_collab.wrap(small_network())
    assert list(model.terms) == [term.name for term in recipes.gentle()]
    assert list(model.terms) == ["intermediate_consistency", "kernel_similarity"]
    for term, height in zip(model.terms.values(), (0.05, 10.0), strict=True):
        assert [float(term.weight(step)) for step in (0, 250, 500, 501)] == pytest.approx(
            [0.0, height / 2, height, height]
        )


def test_strong_has_all_four_at_full_weight():
    weights = {term.name: term.weight for term in recipes.strong()}
    assert weights == {
        "output_consistency": 0.1,
        "intermediate_consistency": 0.1,
        "representation_similarity": 10.0,
        "kernel_similarity": 10.0,
    }


def test_each_call_makes_new_terms():
    first, second = recipes.gentle(), recipes.gentle()
    for one, other in zip(first, second, strict=True):
        assert one is not other
