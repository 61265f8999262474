"""The ready-made lists of terms."""

import keras
import pytest
from keras import layers, ops

import keras_collab
from keras_collab import recipes


def heights(terms):
    return {term.name: term.weight.value for term in terms}


@pytest.mark.parametrize(("width", "share"), [(32, 0.25), (128, 1.0), (512, 1.0)])
def test_gentle_is_the_default_and_smaller_for_a_narrow_network(width, share):
    model = keras_collab.wrap(keras_collab.models.resnet10((32, 32, 3), 10, width=width // 8))
    weights = {"intermediate_consistency": 0.05 * share, "kernel_similarity": 10.0 * share}
    assert heights(model.terms.values()) == weights
    assert heights(recipes.gentle(width)) == weights


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras 3.15 on torch; `pytest.warns` warns it anew.
def test_the_default_follows_the_filters_where_no_stage_can_be_read():
    inputs = keras.Input((4, 8, 8, 3))
    x = ops.reshape(inputs, (-1, 8, 8, 3))  # Frames go into the batch: no layer before the head is read per sample.
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(32, 3)(layers.Conv2D(16, 3)(x)))
    network = keras.Model(inputs, layers.Dense(3)(ops.reshape(x, (-1, 4 * 32))))
    with pytest.warns(UserWarning, match="'intermediate_consistency': 1 layers are needed"):
        model = keras_collab.wrap(network)
    assert heights(model.terms.values()) == {"kernel_similarity": 2.5}


def test_gentle_rises():
    for term, height in zip(recipes.gentle(), (0.05, 10.0), strict=True):
        assert [float(term.weight(step)) for step in (0, 250, 500, 501)] == pytest.approx(
            [0.0, height / 2, height, height]
        )


def test_gentle_checks_its_width():
    with pytest.raises(ValueError, match=r"`width` must be an integer >= 1\. Received: width=0"):
        recipes.gentle(0)


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
