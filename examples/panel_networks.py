"""The networks and augmentations of the panel: small, and of different kinds."""

import keras
from keras import layers

from keras_collab import models
from keras_collab.datasets import RandomPadCrop


def convolve(x, filters, size=3, strides=1, norm=True):
    x = layers.Conv2D(
        filters, size, strides=strides, padding="same", use_bias=not norm, kernel_initializer="he_normal"
    )(x)
    if norm:
        x = layers.BatchNormalization(momentum=0.9)(x)
    return layers.ReLU()(x)


def classify(inputs, x, classes):
    return keras.Model(inputs, layers.Dense(classes, activation="softmax")(x))


def residual(shape, classes, width=8, stages=3, large=False):
    inputs = keras.Input(shape)
    x = convolve(inputs, width, 7, 2) if large else convolve(inputs, width)
    if large:
        x = layers.MaxPooling2D(3, 2, padding="same")(x)
    for stage in range(stages):
        filters, strides = width * 2**stage, 1 if stage == 0 else 2
        shortcut = x if stage == 0 else layers.Conv2D(filters, 1, strides=strides, use_bias=False)(x)
        y = convolve(x, filters, 3, strides)
        y = layers.Conv2D(filters, 3, padding="same", use_bias=False)(y)
        y = layers.BatchNormalization(momentum=0.9)(y)
        x = layers.ReLU()(layers.Add()([y, shortcut]))
    return classify(inputs, layers.GlobalAveragePooling2D()(x), classes)


def plain(shape, classes, width=16, norm=False):
    inputs = x = keras.Input(shape)
    for filters in (width, 2 * width, 4 * width):
        x = convolve(convolve(x, filters, norm=norm), filters, norm=norm)
        x = layers.MaxPooling2D()(x)
    if norm:
        x = layers.GlobalAveragePooling2D()(x)
    else:
        x = layers.Dropout(0.3)(layers.Dense(64, activation="relu")(layers.Flatten()(x)))
    return classify(inputs, x, classes)


def depthwise(shape, classes, width=24):
    inputs = keras.Input(shape)
    x = convolve(inputs, width, strides=2)
    for filters, strides in ((width, 1), (2 * width, 2), (2 * width, 1), (4 * width, 2)):
        x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
        x = convolve(x, filters, 1)
    return classify(inputs, layers.GlobalAveragePooling2D()(x), classes)


def transformer(shape, classes, patch=4, width=48, depth=4, heads=3):
    inputs = keras.Input(shape)
    x = layers.Conv2D(width, patch, strides=patch)(inputs)
    x = layers.Reshape((-1, width))(x)
    x = x + layers.Embedding(x.shape[1], width)(keras.ops.arange(x.shape[1])[None])
    for _ in range(depth):
        y = layers.LayerNormalization()(x)
        x = layers.Add()([x, layers.MultiHeadAttention(heads, width // heads)(y, y)])
        y = layers.Dense(2 * width, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(width)(y)])
    return classify(inputs, layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x)), classes)


NETWORKS = {
    "residual": residual,
    "residual_large": lambda shape, classes: residual(shape, classes, width=16, stages=4, large=True),
    "plain": plain,
    "plain_bn": lambda shape, classes: plain(shape, classes, width=12, norm=True),
    "depthwise": depthwise,
    "transformer": transformer,
    "resnet10": lambda shape, classes: models.resnet10(shape, classes),
    "resnet18": lambda shape, classes: models.resnet18(shape, classes, width=32),
    "resnet18_narrow": lambda shape, classes: models.resnet18(shape, classes, width=16),
    "resnet18_wide": lambda shape, classes: models.resnet18(shape, classes),
    "vgg16": lambda shape, classes: models.vgg16(shape, classes, width=10),
}


def augmentation(kind, shape):
    """Layers that change training images: none, shift, flip (pad, crop and mirror) or rand (RandAugment)."""
    if kind == "none":
        return []
    if kind == "shift":
        return [layers.RandomTranslation(0.1, 0.1)]
    crop = [RandomPadCrop(max(1, shape[0] // 8)), layers.RandomFlip("horizontal")]
    if kind == "rand":
        crop.append(layers.RandAugment(value_range=(0, 255), num_ops=2, factor=0.4))
    return crop
