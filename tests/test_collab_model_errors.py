"""Bad input: what was received, what was expected, how to mend it; and the network is as it was."""

import keras
import numpy as np
import pytest
from helpers import small_data, small_network
from keras import layers

import keras_collab


def unbuilt():
    return keras.Sequential([layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)], name="lazy")


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="pythonic")
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


class OwnStep(keras.Model):
    def train_step(self, *args, **kwargs):
        return super().train_step(*args, **kwargs)


def headless():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="first")(inputs)
    return keras.Model(inputs, layers.Conv2D(4, 3, strides=2, name="second")(x), name="backbone")


def with_own_step():
    network = small_network()
    return OwnStep(network.inputs, network.outputs)


def narrow():
    inputs = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(inputs))
    return keras.Model(inputs, layers.Dense(3)(x))


OUTPUT, INTERMEDIATE = keras_collab.OutputConsistency, keras_collab.IntermediateConsistency
REPRESENTATION, KERNEL = keras_collab.RepresentationSimilarity, keras_collab.KernelSimilarity


@pytest.mark.parametrize(
    ("make_network", "make_terms", "error", "message"),
    [
        (
            lambda: "resnet",
            lambda: None,
            TypeError,
            r"must be a Functional or Sequential keras.Model. Received: 'resnet'",
        ),
        (unbuilt, lambda: None, ValueError, r"'lazy' was never built.*keras.Input"),
        (
            Subclassed,
            lambda: None,
            ValueError,
            r"'pythonic' is a subclassed model \(Subclassed\).*no graph.*keras.Model",
        ),
        (with_own_step, lambda: None, ValueError, r"overrides train_step.*Wrap keras.Model"),
        (
            headless,
            lambda: [OUTPUT()],
            ValueError,
            r"'output_consistency': no classifier ends network 'backbone'.*Dense",
        ),
        (
            small_network,
            lambda: [KERNEL(layers="conv_1")],
            ValueError,
            r"'kernel_similarity': no name of a layer with a kernel matches 'conv_1'.*Close matches: 'conv1'.*`layers`",
        ),
        (
            small_network,
            lambda: [INTERMEDIATE(layers=["relu0", "relu7"])],
            ValueError,
            r"'intermediate_consistency': no name of a layer matches 'relu7'.*Close matches: 'relu2', 'relu1'",
        ),
        (
            small_network,
            lambda: [REPRESENTATION(layers=r"block\d+_out")],
            ValueError,
            r"'representation_similarity': no name of a layer matches 'block\\\\d\+_out'",
        ),
        (small_network, lambda: [REPRESENTATION(layers="(")], ValueError, r"layers='\(' is not a regular expression"),
        (
            small_network,
            lambda: [REPRESENTATION(layers=lambda layer: False)],
            ValueError,
            r"function given as layers= did not choose a layer in network",
        ),
        (small_network, lambda: [REPRESENTATION(layers=3)], TypeError, r"`layers` takes a list of names.*layers=3"),
        (
            small_network,
            lambda: [INTERMEDIATE(layers="relu1", target="deepest")],
            ValueError,
            r"2 layers are needed, .* has 1.*'relu1'",
        ),
        (narrow, lambda: [INTERMEDIATE(target="deepest")], ValueError, r"2 layers are needed, .* has 1.*layers='auto'"),
        (narrow, lambda: [KERNEL()], ValueError, r"has 0 layers with two or more filters to compare"),
        (small_network, lambda: [KERNEL(), KERNEL()], ValueError, r"two columns named 'kernel_similarity'.*own name="),
        (
            small_network,
            lambda: [KERNEL(keras_collab.schedules.Ramp(1.0, steps=3)), OUTPUT(name="kernel_similarity_weight")],
            ValueError,
            r"two columns named 'kernel_similarity_weight'",
        ),
        (small_network, lambda: [KERNEL(name="loss")], ValueError, r"two columns named 'loss'.*are taken"),
        (small_network, lambda: [KERNEL(name="task_loss")], ValueError, r"two columns named 'task_loss'.*are taken"),
        (small_network, lambda: [layers.Dense(3)], TypeError, r"must be a list of keras_collab.Term.*Dense"),
        (small_network, lambda: [KERNEL], TypeError, r"must be a list of keras_collab.Term objects"),
        (
            small_network,
            lambda: [OUTPUT(output="tail")],
            ValueError,
            r"no classifier makes an output named 'tail'.*head",
        ),
    ],
)
def test_wrap_says_what_is_wrong_and_leaves_the_network_as_it_was(make_network, make_terms, error, message):
    network = make_network()
    before = vars(network).copy() if isinstance(network, keras.Model) else None
    terms = make_terms()
    with pytest.raises(error, match=message):
        keras_collab.wrap(network, terms)
    if before is not None:
        assert vars(network) == before
    for term in terms or []:
        assert not getattr(term, "built", False)  # None is half-wrapped: it can be used again.


def test_a_name_that_is_no_string():
    with pytest.raises(TypeError, match=r"`name` must be a string. Received: name=3"):
        keras_collab.wrap(small_network(), name=3)
    with pytest.raises(TypeError, match=r"KernelSimilarity: `name` must be a string. Received: name=3"):
        KERNEL(name=3)


class Raises(keras_collab.Term):
    def call(self, tensors):
        raise ValueError("this term fails")


class ReadsLabels(keras_collab.Term):
    def select(self, reader):
        return keras_collab.Selection(head=reader.head())

    def call(self, tensors):
        return tensors.mean_over_samples(keras.ops.sum(tensors.labels, axis=-1))


@pytest.mark.parametrize(("term", "message"), [(Raises, "this term fails"), (ReadsLabels, "Labels for head 'head'")])
@pytest.mark.parametrize("steps_before", [0, 1])
def test_an_error_in_a_step_leaves_the_weights(term, message, steps_before):
    """Keras 3.15 on JAX takes the values out of the variables while `fit` runs."""
    x, y = small_data(16)
    plain = keras_collab.wrap(small_network(), [])
    plain.compile("sgd", "sparse_categorical_crossentropy")
    plain.fit(x, y, epochs=steps_before, verbose=0)
    model = keras_collab.wrap(plain.unwrap(), [term()])
    model.compile("sgd", loss=lambda y, p: keras.ops.mean(p, axis=-1))
    weights = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    with pytest.raises(ValueError, match=message):
        model.fit(x, np.zeros((16, 7), "float32"), verbose=0)
    for one, other in zip(model.trainable_weights, weights, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), other)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
