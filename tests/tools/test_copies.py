"""A measurement has new terms of the same settings, and the network as it was afterwards."""

import keras
import numpy as np
import pytest
from helpers import small_network, zero_weights

from keras_collab import wrap
from keras_collab.tools._copies import terms_like, unchanged


def test_terms_like_those_of_a_model():
    model = wrap(small_network(), zero_weights())
    model.terms["kernel_similarity"].weight = 2.0
    copies = terms_like(model)
    assert [term.get_config() for term in copies] == [term.get_config() for term in model.terms.values()]
    assert not any(term.built for term in copies)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="The generator is PyTorch's.")
def test_pytorch_draws_as_if_nothing_had_been_measured():
    import torch

    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    with unchanged(small_network()):
        torch.rand(3)
    assert torch.rand(3).tolist() == expected.tolist()


def test_a_network_is_as_it_was_also_after_an_error():
    network = small_network(dropout=0.5)
    before = network.get_weights()

    def train_a_step_that_fails():
        with unchanged(network):
            for variable in network.variables:
                variable.assign(variable + 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_a_step_that_fails()
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
