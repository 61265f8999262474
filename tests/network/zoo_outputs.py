"""Networks with outputs of many kinds, and without a head: what makes the outputs is no feature."""

import keras
from keras import layers, ops
from zoo import convolve, expected, feed, residual, transform


def up_and_down(inputs):
    """A U-Net without its last layer."""
    down = convolve(inputs, 4, "down")
    x = convolve(layers.MaxPooling2D()(down), 8, "neck")
    return convolve(layers.Concatenate()([layers.UpSampling2D()(x), down]), 6, "up")


def boxes_of_two_scales(inputs, size):
    a = convolve(inputs, 4, "a", 2)
    b = convolve(a, 8, "b", 2)
    boxes = []
    for name, x in (("a", a), ("b", b)):
        x = layers.Conv2D(2 * size, 3, padding="same", name=f"boxes_{name}")(x)
        boxes.append(layers.Reshape((-1, size))(x))
    return layers.Concatenate(axis=1)(boxes)


@expected("neck", "up")
def activation_behind_the_last_convolution():
    """A U-Net as mixed precision asks for it."""
    inputs = keras.Input((16, 16, 3))
    x = up_and_down(inputs)
    return keras.Model(inputs, layers.Activation("sigmoid", dtype="float32")(layers.Conv2D(1, 1, name="mask")(x)))


@expected("a", "b")
def logits_that_are_upsampled():
    inputs = keras.Input((16, 16, 3))
    x = convolve(convolve(inputs, 4, "a", 2), 8, "b", 2)
    return keras.Model(inputs, layers.UpSampling2D(4)(layers.Conv2D(5, 1, name="logits")(x)))


@expected("a", "b")
def scores_that_are_pooled():
    """Network in network (Lin et al., 2014, arXiv 1312.4400)."""
    inputs = keras.Input((16, 16, 3))
    x = convolve(convolve(inputs, 4, "a", 2), 8, "b", 2)
    scores = convolve(x, 3, "scores", size=1)
    return keras.Model(inputs, layers.Softmax()(layers.GlobalAveragePooling2D()(scores)))


@expected("a", "b")
def detector_at_two_scales():
    """Boxes of all scales are joined (SSD, Liu et al., 2016, arXiv 1512.02325)."""
    inputs = keras.Input((16, 16, 3))
    return keras.Model(inputs, layers.Softmax()(boxes_of_two_scales(inputs, 5)))


@expected("a", "b")
def boxes_at_two_scales():
    """The same without an activation behind them."""
    inputs = keras.Input((16, 16, 3))
    return keras.Model(inputs, boxes_of_two_scales(inputs, 4))


@expected("neck", "up")
def residual_of_the_image():
    inputs = keras.Input((16, 16, 3))
    x = up_and_down(inputs)
    return keras.Model(inputs, layers.Add(name="image")([inputs, layers.Conv2D(3, 1, name="noise")(x)]))


@expected("hidden")
def value_and_advantages():
    """A dueling network (Wang et al., 2016, arXiv 1511.06581)."""
    inputs = keras.Input((8,))
    x = layers.Dense(8, activation="relu", name="hidden")(inputs)
    value, advantages = layers.Dense(1, name="value")(x), layers.Dense(4, name="advantages")(x)
    return keras.Model(inputs, value + (advantages - ops.mean(advantages, axis=-1, keepdims=True)))


@expected("block1", "block2", "block3", "norm")
def encoder_without_a_head():
    tokens = keras.Input((12,), dtype="int32")
    x = transform(layers.Embedding(20, 8)(tokens))
    return keras.Model(tokens, layers.LayerNormalization(name="norm")(x))


@expected("block1", "block2", "block3", "block4")
def residual_stack_without_a_head():
    inputs = keras.Input((8,))
    x = layers.Dense(8, name="start")(inputs)
    for name in ("block1", "block2", "block3", "block4"):
        x = feed(x, name)
    return keras.Model(inputs, x)


@expected("a", "b")
def backbone_that_pools():
    inputs = keras.Input((16, 16, 3))
    x = residual(residual(inputs, 4, "a", 2), 8, "b", 2)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


@expected("a", "b")
def plain_backbone():
    inputs = keras.Input((16, 16, 3))
    return keras.Model(inputs, layers.MaxPooling2D()(convolve(convolve(inputs, 4, "a", 2), 8, "b", 2)))


@expected("grown1", "grown2", "grown3")
def generator_with_styles():
    """A style scales the channels of every resolution (Karras et al., 2019, arXiv 1812.04948)."""
    noise = keras.Input((8,))
    style = layers.Dense(8, activation="relu", name="style")(noise)
    x = layers.Reshape((4, 4, 8))(layers.Dense(128)(ops.zeros_like(noise[:, :1])))
    for name in ("1", "2", "3"):
        x = convolve(layers.UpSampling2D()(x), 8, f"convolution{name}", activation=None)
        scale = layers.Reshape((1, 1, 8))(layers.Dense(8)(style))
        x = layers.ReLU(name=f"grown{name}")(layers.Multiply()([x, scale]))
    return keras.Model(noise, layers.Conv2D(3, 1, name="image")(x))


@expected("hidden1", "hidden2", "hidden3")
def positive_number():
    inputs = x = keras.Input((8,))
    for name in ("hidden1", "hidden2", "hidden3"):
        x = layers.Dense(8, activation="relu", name=name)(x)
    return keras.Model(inputs, layers.Dense(1, activation="softplus", name="price")(x))


@expected("hidden1", "hidden2", "hidden3")
def classes_by_a_layer_as_activation():
    inputs = x = keras.Input((8,))
    for name in ("hidden1", "hidden2", "hidden3"):
        x = layers.Dense(8, activation="relu", name=name)(x)
    return keras.Model(inputs, layers.Dense(3, activation=layers.Softmax(), name="classes")(x))


@expected("a", "b")
def scaled_shortcuts_without_a_head():
    inputs = keras.Input((16, 16, 3))
    x = convolve(inputs, 8, "stem", 2)
    for name in ("a", "b"):
        if name == "b":
            x = convolve(x, 8, "down", 2)
        y = layers.Conv2D(8, 1)(convolve(x, 16, f"{name}_widen", size=1))
        x = layers.Add(name=name)([layers.BatchNormalization()(x), y])
    return keras.Model(inputs, x)
