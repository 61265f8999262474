"""Calls of layers come after all that they depend on, and Keras' own methods are told from a subclass's."""

import keras
import pytest
from keras import layers

from keras_collab.network.calls import is_keras_own, topological_calls


def test_a_call_comes_after_all_that_it_depends_on():
    """`late` is called first and needed last; `shared` is called twice."""
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    early = shared(inputs)
    late = layers.ReLU(name="late")(early)
    again = shared(early)
    output = layers.Add(name="sum")([again, late])
    calls = topological_calls(inputs, output, {id(late): "body/late"})
    assert [call.path for call in calls] == ["shared", "shared", "body/late", "sum"]
    assert [call.output for call in calls] == [early, again, late, output]
    assert [call.path for call in topological_calls([early, late], output, {})] == ["shared", "sum"]


class Doubled(layers.Dense):
    def call(self, inputs):
        return 2 * super().call(inputs)


class Inherited(Doubled):
    pass


@pytest.mark.parametrize(
    ("kind", "method", "own"),
    [
        (layers.Dense, "call", True),
        (Doubled, "call", False),
        (Inherited, "call", False),
        (Inherited, "build", True),
        (keras.Sequential, "losses", True),
    ],
)
def test_methods_of_keras_own(kind, method, own):
    assert is_keras_own(kind, method) == own
