"""What a term receives at a step: the labels and the sample weights of its head's output, and means with them."""

import keras
import numpy as np
import pytest
from helpers import FEW_STEPS, SAMPLES, normal, small_data, small_network
from keras import layers, ops

from keras_collab import OutputConsistency, Selection, Term, wrap


def test_a_term_without_a_head_trains_with_sample_weights():
    class Size(Term):
        def select(self, reader):
            return Selection(taps=reader.taps("relu1"))

        def call(self, tensors):
            return tensors.mean_over_samples(ops.mean(ops.square(tensors.taps[0]), axis=(1, 2, 3)))

    model = wrap(small_network(), [Size()])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", **FEW_STEPS)
    x, y = small_data()
    plain = model.train_on_batch(x, y, return_dict=True)["size"]
    model.reset_metrics()
    double = model.train_on_batch(x, y, sample_weight=np.full(len(x), 2.0, "float32"), return_dict=True)["size"]
    assert double == pytest.approx(2 * plain, rel=1e-4)


def multi_label():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, strides=2, activation="relu")(layers.Conv2D(4, 3, activation="relu")(inputs))
    outputs = layers.Dense(3, activation="sigmoid", name="head")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs)


def test_weights_of_single_labels_weigh_the_parts_as_the_task():
    def elementwise(y, p):
        return keras.losses.binary_crossentropy(ops.expand_dims(y, -1), ops.expand_dims(p, -1))

    x, _ = small_data(16)
    y = (np.arange(48).reshape(16, 3) % 2).astype("float32")
    network = multi_label()

    def value(weight):
        model = wrap(network, [OutputConsistency(seed=3)])
        model.compile(keras.optimizers.SGD(0.0), elementwise, **FEW_STEPS)
        return model.train_on_batch(x, y, sample_weight=weight, return_dict=True)["output_consistency"]

    ones = np.ones((16, 3), "float32")
    singles = [value(ones * (np.arange(3) == label)) for label in range(3)]
    assert value(ones) == pytest.approx(value(None), rel=1e-4)
    assert sum(singles) == pytest.approx(value(ones), rel=1e-4)
    assert len(set(singles)) == 3


def test_labels_of_another_output_are_not_taken():
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, strides=2, activation="relu")(layers.Conv2D(4, 3, activation="relu")(image))
    x = layers.GlobalAveragePooling2D()(x)
    outputs = {"kind": layers.Dense(3, activation="softmax", name="kind")(x), "size": layers.Dense(1, name="size")(x)}
    model = wrap(keras.Model(image, outputs), [OutputConsistency(output="kind")])
    model.compile(keras.optimizers.SGD(0.05), {"size": "mse"})
    x, y = small_data(16)
    sizes = {"size": y.astype("float32")[:, None]}
    assert model.fit(x, sizes, verbose=0).history["output_consistency"][0] > 0  # It needs no labels.
    with pytest.raises(ValueError, match=r"output 'kind' are needed. Received a dict of \['size'\]"):
        model.fit(x, sizes, sample_weight={"size": np.ones(16, "float32")}, verbose=0)


class MeanLabel(Term):
    """The mean class of one head's labels, weighted as its task loss weighs the samples."""

    def __init__(self, head):
        super().__init__(weight=0.5)
        self.head = head

    def select(self, reader):
        return Selection(head=reader.head(self.head))

    def call(self, tensors):
        return tensors.mean_over_samples(
            ops.matmul(tensors.labels, ops.arange(tensors.head.source.classes, dtype="float32"))
        )


ZETA, ALPHA = np.array([0, 1, 2, 2, 2, 2]), np.array([3, 3, 0, 1, 3, 3])
ZETA_WEIGHT, ALPHA_WEIGHT = np.array([1.0, 2, 0, 1, 1, 1]), np.array([0.5, 1, 1, 3, 0, 1])


def two_outputs(structure, nested):
    inputs = keras.Input((5,))
    x = layers.Dense(7, activation="relu", name="hidden")(inputs)
    outputs = {}
    for name, classes in (("zeta", 3), ("alpha", 4)):
        head = layers.Dense(classes, activation="softmax", name="head" if nested else name)
        outputs[name] = keras.Sequential([keras.Input((7,)), head], name=name)(x) if nested else head(x)
    return keras.Model(inputs, structure(outputs))


def as_dict(values):
    return values


def as_list(values):
    return [values["zeta"], values["alpha"]]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("head", ["zeta", "alpha"])
@pytest.mark.parametrize(
    ("outputs", "labels", "weights"),
    [
        (as_list, as_list, None),
        (as_list, as_list, as_list),
        (as_list, as_dict, None),
        (as_dict, as_dict, None),
        (as_dict, as_dict, as_dict),
    ],
    ids=lambda structure: structure.__name__ if structure else "unweighted",
)
def test_head_of_several_outputs_gets_its_own_labels_and_weights(outputs, labels, weights, head, nested):
    network = two_outputs(outputs, nested)
    model = wrap(network, [MeanLabel(head), OutputConsistency(2.0, output=head)])
    losses = outputs({"zeta": "sparse_categorical_crossentropy", "alpha": "sparse_categorical_crossentropy"})
    model.compile(keras.optimizers.SGD(0.05), losses, **FEW_STEPS)
    y = {"zeta": ZETA, "alpha": ALPHA}
    w = {"zeta": ZETA_WEIGHT, "alpha": ALPHA_WEIGHT}
    x = normal(5)
    before = model.predict(x, verbose=0)
    before = before if outputs is as_dict else dict(zip(("zeta", "alpha"), before, strict=True))
    values = model.train_on_batch(x, labels(y), sample_weight=weights(w) if weights else None, return_dict=True)

    weighted = {name: w[name] if weights else np.ones(SAMPLES) for name in y}
    np.testing.assert_allclose(values["mean_label"], np.mean(y[head] * weighted[head]), rtol=1e-5)
    task = -sum(np.mean(np.log(before[name][np.arange(SAMPLES), y[name]]) * weighted[name]) for name in y)
    np.testing.assert_allclose(values["task_loss"], task, rtol=1e-4)
    total = values["task_loss"] + 0.5 * values["mean_label"] + 2.0 * values["output_consistency"]
    np.testing.assert_allclose(values["loss"], total, rtol=1e-5)
