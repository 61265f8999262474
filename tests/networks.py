"""Networks of every shape, with data to train them and what is found in them."""

import dataclasses
from typing import Any

import keras
import numpy as np
from helpers import LABELS, SAMPLES, normal
from keras import layers, ops


def residual(input_shape=(8, 8, 3), name="backbone"):
    """Two stages of one block, with batch normalization, as ResNets begin."""
    inputs = keras.Input(input_shape, name="image")
    x = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_norm")(x))
    for stage, strides in ((1, 1), (2, 2)):
        y = layers.Conv2D(6, 3, strides=strides, padding="same", name=f"conv{stage}")(x)
        y = layers.BatchNormalization(name=f"norm{stage}")(y)
        shortcut = layers.Conv2D(6, 1, strides=strides, name=f"shortcut{stage}")(x)
        x = layers.ReLU(name=f"out{stage}")(layers.Add(name=f"add{stage}")([y, shortcut]))
    return keras.Model(inputs, x, name=name)


RESIDUAL_TAPS = ["out1", "out2"]
RESIDUAL_KERNELS = ["conv1", "conv2"]


def inside(prefix, names):
    return [f"{prefix}/{name}" for name in names]


def classifier(x, classes=3, name="head", activation="softmax"):
    x = layers.GlobalAveragePooling2D(name=f"{name}_pool")(x)
    return layers.Dense(classes, activation=activation, name=name)(x)


@dataclasses.dataclass
class Case:
    """A network, data for it, and what should be found in it."""

    network: keras.Model
    taps: list[str]
    kernels: list[str]
    x: Any = dataclasses.field(default_factory=lambda: normal(8, 8, 3))
    y: Any = dataclasses.field(default_factory=lambda: LABELS)
    loss: str = "sparse_categorical_crossentropy"
    head: str = "head"
    comparable: bool = True  # Draws no random numbers, and calls each layer once.
    tolerance: float = 1e-5


def sequential():
    network = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Rescaling(0.5),
            layers.Conv2D(4, 3, padding="same", activation="relu", name="first"),
            layers.MaxPooling2D(),
            layers.Conv2D(6, 3, padding="same", name="second"),
            layers.ReLU(name="second_relu"),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(3, activation="softmax", name="head"),
        ]
    )
    return Case(network, ["first", "second_relu"], ["second"], comparable=False)


def transfer_learning():
    network = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.RandomFlip("horizontal"),
            residual(),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.2),
            layers.Dense(3, activation="softmax", name="head"),
        ]
    )
    return Case(network, inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS), comparable=False)


def backbone_extended_on_its_own_input():
    body = residual()
    return Case(keras.Model(body.input, classifier(body.output)), RESIDUAL_TAPS, RESIDUAL_KERNELS)


def backbone_called_on_its_own_input():
    body = residual()
    network = keras.Model(body.input, classifier(body(body.input)))
    return Case(network, inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS))


def backbone_of_open_size():
    inputs = keras.Input((8, 8, 3))
    network = keras.Model(inputs, classifier(residual((None, None, 3))(inputs)))
    return Case(network, inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS))


def open_size():
    inputs = keras.Input((None, None, 3))
    network = keras.Model(inputs, classifier(residual((None, None, 3))(inputs)))
    return Case(network, inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS))


def nested_twice():
    encoder = keras.Sequential([keras.Input((8, 8, 3)), residual(), layers.Dropout(0.0)], name="encoder")
    inputs = keras.Input((8, 8, 3))
    network = keras.Model(inputs, classifier(encoder(inputs)))
    return Case(network, inside("encoder/backbone", RESIDUAL_TAPS), inside("encoder/backbone", RESIDUAL_KERNELS))


def nested_head():
    inputs = keras.Input((8, 8, 3))
    top = keras.Sequential([keras.Input((6,)), layers.Dense(3, activation="softmax", name="head")], name="top")
    network = keras.Model(inputs, top(layers.GlobalAveragePooling2D()(residual()(inputs))))
    kernels = inside("backbone", RESIDUAL_KERNELS)
    return Case(network, inside("backbone", RESIDUAL_TAPS), kernels, head="top/head")


def siamese():
    """Taps of a backbone that is called twice are those of its first call; its filters count once."""
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    body, pool = residual(), layers.GlobalAveragePooling2D()
    distance = layers.Subtract()([pool(body(left)), pool(body(right))])
    network = keras.Model([left, right], layers.Dense(1, activation="sigmoid", name="head")(distance))
    y = np.array([[0.0], [1], [1], [0], [1], [0]])
    taps, kernels = inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS)
    x = [normal(8, 8, 3, seed=0), normal(8, 8, 3, seed=1)]
    return Case(network, taps, kernels, x, y, "binary_crossentropy", comparable=False)


def shared_layer():
    inputs = keras.Input((8, 8, 3))
    again = layers.Conv2D(4, 3, padding="same", activation="relu", name="again")
    x = again(again(layers.Conv2D(4, 3, padding="same", name="first")(inputs)))
    x = layers.Conv2D(6, 3, strides=2, activation="relu", name="last")(x)
    return Case(keras.Model(inputs, classifier(x)), ["again", "last"], ["again", "last"], comparable=False)


def with_table(structure):
    image, table = keras.Input((8, 8, 3), name="photo"), keras.Input((5,), name="table")
    x = layers.GlobalAveragePooling2D()(residual()(image))
    x = layers.Concatenate()([x, layers.Dense(4, activation="relu", name="table_dense")(table)])
    outputs = layers.Dense(3, activation="softmax", name="head")(x)
    given = {"photo": image, "table": table}
    return keras.Model(structure(given), outputs), structure({"photo": normal(8, 8, 3), "table": normal(5)})


def several_inputs():
    network, x = with_table(lambda given: [given["table"], given["photo"]])
    return Case(network, inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS), x)


def dict_inputs():
    network, x = with_table(lambda given: given)
    return Case(network, inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS), x)


def nested_model_called_by_name():
    """Its inputs are a list in one order; it is called with a dict in the other."""
    first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second")
    difference = layers.Subtract()([layers.Dense(6, name="a")(first), layers.Dense(6, name="b")(second)])
    inner = keras.Model([second, first], layers.ReLU(name="relu")(difference), name="inner")
    p, q = keras.Input((4,), name="p"), keras.Input((4,), name="q")
    network = keras.Model([p, q], layers.Dense(3, activation="softmax", name="head")(inner({"first": p, "second": q})))
    x = [normal(4, seed=0), normal(4, seed=1)]
    return Case(network, ["inner/a", "inner/relu"], ["inner/a", "inner/b"], x)


def multi_label():
    inputs = keras.Input((8, 8, 3))
    network = keras.Model(inputs, classifier(residual()(inputs), 4, activation="sigmoid"))
    y = np.random.default_rng(0).integers(0, 2, size=(SAMPLES, 4)).astype("float32")
    taps, kernels = inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS)
    return Case(network, taps, kernels, y=y, loss="binary_crossentropy")


def channels_first():
    inputs = keras.Input((3, 8, 8))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", data_format="channels_first", name="first")(inputs)
    x = layers.BatchNormalization(axis=1)(layers.MaxPooling2D(data_format="channels_first")(x))
    x = layers.Conv2D(6, 3, padding="same", activation="relu", data_format="channels_first", name="second")(x)
    x = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    network = keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x))
    return Case(network, ["first", "second"], ["second"], normal(3, 8, 8))


def text():
    """A nested encoder whose embedding masks: the mask reaches the pooling behind it."""
    encoder = keras.Sequential(
        [
            keras.Input((8,), dtype="int32"),
            layers.Embedding(9, 6, mask_zero=True),
            layers.Dense(6, activation="relu", name="a"),
            layers.Dense(6, activation="relu", name="b"),
        ],
        name="encoder",
    )
    tokens = keras.Input((8,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(encoder(tokens))
    network = keras.Model(tokens, layers.Dense(3, activation="softmax", name="head")(x))
    x = np.random.default_rng(0).integers(0, 3, size=(SAMPLES, 8))
    return Case(network, ["encoder/a", "encoder/b"], ["encoder/a", "encoder/b"], x)


def text_convolutions():
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(9, 6)(tokens)
    for name in ("first", "second", "third"):
        x = layers.MaxPooling1D()(layers.Conv1D(6, 3, padding="same", activation="relu", name=name)(x))
    network = keras.Model(tokens, layers.Dense(3, activation="softmax", name="head")(layers.GlobalMaxPooling1D()(x)))
    x = np.random.default_rng(0).integers(0, 9, size=(SAMPLES, 16))
    return Case(network, ["first", "second", "third"], ["first", "second", "third"], x)


def dense():
    hidden = [layers.Dense(6, activation="relu", name=name) for name in ("a", "b", "c")]
    network = keras.Sequential([keras.Input((5,)), *hidden, layers.Dense(3, activation="softmax", name="head")])
    return Case(network, ["a", "b", "c"], ["a", "b", "c"], normal(5))


def mixed_float16():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input((8, 8, 3))
        x = layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(residual()(inputs)))
        network = keras.Model(inputs, layers.Softmax(dtype="float32")(x))
    finally:
        keras.config.set_dtype_policy("float32")
    taps, kernels = inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS)
    return Case(network, taps, kernels, tolerance=5e-3)


def integer_images():
    """Keras converts to the nested model's dtype when it calls it."""
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    network = keras.Model(inputs, classifier(residual()(inputs)))
    x = np.random.default_rng(0).integers(0, 255, size=(SAMPLES, 8, 8, 3), dtype="uint8")
    return Case(network, inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS), x)


def layers_of_the_same_name():
    inputs = keras.Input((8, 8, 3))
    x = layers.Concatenate(name="both")([residual(name="one")(inputs), residual(name="two")(inputs)])
    x = layers.ReLU(name="out1")(layers.Conv2D(6, 3, name="conv1")(x))
    kernels = [*inside("one", RESIDUAL_KERNELS), *inside("two", RESIDUAL_KERNELS), "conv1"]
    # No tensor of the first stage is on all paths: it lies in two branches.
    return Case(keras.Model(inputs, classifier(x)), ["two/out1", "both", "out1"], kernels)


def opaque_block():
    """A model with a `call` of its own is a block: tapped as a whole; its filters are read."""

    class Block(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.convolution = layers.Conv2D(6, 3, padding="same", name="conv2d")

        def call(self, inputs):
            return ops.relu(self.convolution(inputs))

    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(inputs)
    x = layers.Conv2D(6, 3, strides=2, activation="relu", name="second")(Block(name="block")(x))
    return Case(keras.Model(inputs, classifier(x)), ["block", "second"], ["block/conv2d", "second"])


CASES = [
    sequential,
    transfer_learning,
    backbone_extended_on_its_own_input,
    backbone_called_on_its_own_input,
    backbone_of_open_size,
    open_size,
    nested_twice,
    nested_head,
    siamese,
    shared_layer,
    several_inputs,
    dict_inputs,
    nested_model_called_by_name,
    multi_label,
    channels_first,
    text,
    text_convolutions,
    dense,
    mixed_float16,
    integer_images,
    layers_of_the_same_name,
    opaque_block,
]
