"""What the networks in the files zoo_*.py are made of. They are kinds that people build."""

import keras
from keras import layers, ops


def expected(*taps):
    """The taps that `layers="auto"` must stand for in the network that a function builds."""

    def with_taps(build):
        build.taps = list(taps)
        return build

    return with_taps


def convolve(x, filters, name, strides=1, size=3, **settings):
    settings = {"padding": "same", "activation": "relu", **settings}
    return layers.Conv2D(filters, size, strides=strides, name=name, **settings)(x)


def classify(inputs, x):
    if len(x.shape) > 2:
        x = getattr(layers, f"GlobalAveragePooling{len(x.shape) - 2}D")()(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x))


def attend(x, name, heads=2, **settings):
    y = layers.LayerNormalization(name=f"{name}_norm1")(x)
    y = layers.MultiHeadAttention(heads, 4, name=f"{name}_attention")(y, y, **settings)
    return layers.Add(name=f"{name}_attended")([x, y])


def feed(x, name):
    y = layers.LayerNormalization(name=f"{name}_norm2")(x)
    y = layers.Dense(16, activation="gelu", name=f"{name}_widen")(y)
    return layers.Add(name=name)([x, layers.Dense(x.shape[-1], name=f"{name}_narrow")(y)])


def transform(x, blocks=4, **settings):
    for block in range(1, blocks + 1):
        x = feed(attend(x, f"block{block}", **settings), f"block{block}")
    return x


def residual(x, filters, name, strides=1):
    y = convolve(convolve(x, filters, f"{name}_a", strides), filters, f"{name}_b", activation=None)
    if strides > 1 or x.shape[-1] != filters:
        x = convolve(x, filters, f"{name}_shortcut", strides, size=1, activation=None)
    return layers.ReLU(name=name)(layers.Add(name=f"{name}_sum")([x, y]))


class Positions(layers.Layer):
    """Adds learned positions."""

    def build(self, input_shape):
        self.positions = self.add_weight(shape=(1, *input_shape[1:]), name="positions")

    def call(self, inputs):
        return inputs + self.positions


class ClassToken(layers.Layer):
    """Puts a learned token before the others."""

    def build(self, input_shape):
        self.token = self.add_weight(shape=(1, 1, input_shape[-1]), name="token")

    def call(self, inputs):
        token = ops.broadcast_to(self.token, (ops.shape(inputs)[0], 1, inputs.shape[-1]))
        return ops.concatenate([token, inputs], axis=1)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[1] + 1, input_shape[2])


class Block(layers.Layer):
    """A residual block as a layer of its own."""

    def __init__(self, filters, strides=1, **settings):
        super().__init__(**settings)
        self.convolution = layers.Conv2D(filters, 3, strides=strides, padding="same", name="convolution")
        self.shortcut = layers.Conv2D(filters, 1, strides=strides, name="shortcut")

    def build(self, input_shape):
        self.convolution.build(input_shape)
        self.shortcut.build(input_shape)

    def call(self, inputs):
        return ops.relu(self.convolution(inputs) + self.shortcut(inputs))

    def compute_output_shape(self, input_shape):
        return self.convolution.compute_output_shape(input_shape)


class TransformerBlock(layers.Layer):
    """An encoder block as a layer of its own."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.attention = layers.MultiHeadAttention(2, 4, name="attention")
        self.narrow = layers.Dense(8, name="narrow")

    def build(self, input_shape):
        self.attention.build(input_shape, input_shape)
        self.narrow.build(input_shape)

    def call(self, inputs):
        x = inputs + self.attention(inputs, inputs)
        return x + self.narrow(x)

    def compute_output_shape(self, input_shape):
        return input_shape


class Gate(layers.Layer):
    """A product, without weights of its own."""

    def call(self, inputs):
        return inputs[0] * ops.sigmoid(inputs[1])


class Shortcut(layers.Layer):
    """A sum, without weights of its own."""

    def call(self, inputs):
        return ops.relu(inputs[0] + 0.5 * inputs[1])


class GraphConvolution(layers.Layer):
    """Features averaged over neighbours, then a matrix (Kipf & Welling, 2017, arXiv 1609.02907)."""

    def __init__(self, units, **settings):
        super().__init__(**settings)
        self.dense = layers.Dense(units, activation="relu", name="dense")

    def build(self, features_shape, adjacency_shape):
        self.dense.build(features_shape)

    def call(self, features, adjacency):
        return self.dense(ops.matmul(adjacency, features))

    def compute_output_shape(self, features_shape, adjacency_shape):
        return (*features_shape[:-1], self.dense.units)
