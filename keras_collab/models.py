"""Networks that keras.applications lacks: ResNets and a VGG for images of 32 and 96 pixels."""

from typing import Any

import keras
from keras import layers

from keras_collab._checks import check_range

Shape = tuple[int, int, int]


def resnet18(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    width: int = 64,
    dropout: float = 0.0,
    name: str = "resnet18",
) -> keras.Model:
    """ResNet-18 (He et al., 2016, arXiv 1512.03385): four stages of two blocks.

    Images of less than 64 pixels get the usual stem for small images, one 3×3 convolution. Larger ones get the stem of
    the paper, a 7×7 convolution and a pooling, both of stride 2. With a width of 64 there are 11,173,962 trainable
    parameters for 10 classes and 32×32 images, 11,689,512 for 1,000 classes and 224×224.

    Args:
        input_shape: three integers: height, width and channels. Defaults to (32, 32, 3).
        classes: integer, >= 1. Number of classes. The network ends in a softmax over them. Defaults to 10.
        width: integer, >= 1. Channels of the first stage; each later stage has twice as many. Defaults to 64.
        dropout: float in [0, 1). Rate of a dropout before the classifier. Defaults to 0, no dropout.
        name: name of the network.

    Returns:
        A `keras.Model` that turns images `(batch, height, width, channels)` into probabilities `(batch, classes)`.

    Raises:
        ValueError: if an argument is outside its range.
    """
    return _residual(resnet18, input_shape, classes, width, 4, 2, dropout, name)


def resnet20(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    width: int = 16,
    dropout: float = 0.0,
    name: str = "resnet20",
) -> keras.Model:
    """ResNet-20 for small images (He et al., 2016, section 4.2): three stages of three blocks, 272,474 parameters.

    A shortcut that changes the shape is a 1×1 convolution. Arguments as for `resnet18`.
    """
    return _residual(resnet20, input_shape, classes, width, 3, 3, dropout, name)


def resnet14(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    width: int = 16,
    dropout: float = 0.0,
    name: str = "resnet14",
) -> keras.Model:
    """ResNet-14: as `resnet20` with two blocks a stage, 175,258 parameters."""
    return _residual(resnet14, input_shape, classes, width, 3, 2, dropout, name)


def resnet10(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    width: int = 16,
    dropout: float = 0.0,
    name: str = "resnet10",
) -> keras.Model:
    """ResNet-10: as `resnet18` with one block a stage and 16 channels in the first, 308,826 parameters."""
    return _residual(resnet10, input_shape, classes, width, 4, 1, dropout, name)


def resnet8(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    width: int = 16,
    dropout: float = 0.0,
    name: str = "resnet8",
) -> keras.Model:
    """ResNet-8: as `resnet20` with one block a stage, 78,042 parameters."""
    return _residual(resnet8, input_shape, classes, width, 3, 1, dropout, name)


def vgg16(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    width: int = 64,
    dropout: float = 0.0,
    name: str = "vgg16",
) -> keras.Model:
    """VGG-16 with batch normalization (Simonyan & Zisserman, 2015, arXiv 1409.1556) for small images.

    The thirteen convolutions of the paper, then global average pooling and one dense layer instead of three. The last
    two stages have eight times the channels of the first. With a width of 64 and 10 classes there are 14,728,266
    trainable parameters. Arguments as for `resnet18`.
    """
    _check(vgg16, input_shape, classes, width, dropout)
    inputs = x = keras.Input(input_shape)
    for stage, (factor, convolutions) in enumerate([(1, 2), (2, 2), (4, 3), (8, 3), (8, 3)], start=1):
        for index in range(1, convolutions + 1):
            x = _convolve(x, width * factor, 3, 1, f"stage{stage}_conv{index}", use_bias=True)
            x = layers.ReLU(name=f"stage{stage}_relu{index}")(x)
        x = layers.MaxPooling2D(padding="same", name=f"stage{stage}_out")(x)  # As without it where the side is even.
    return _classify(inputs, x, classes, dropout, name)


def _residual(
    owner: Any, shape: Shape, classes: int, width: int, stages: int, blocks: int, dropout: float, name: str
) -> keras.Model:
    _check(owner, shape, classes, width, dropout)
    inputs = keras.Input(shape)
    small = min(shape[:2]) < 64
    x = _convolve(inputs, width, 3 if small else 7, 1 if small else 2, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    if not small:
        x = layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    for stage in range(stages):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _basic_block(x, width * 2**stage, stride, f"stage{stage + 1}_block{block + 1}")
    return _classify(inputs, x, classes, dropout, name)


def _check(owner: Any, shape: Any, classes: Any, width: Any, dropout: Any) -> None:
    if isinstance(classes, list | tuple):
        raise ValueError(
            f"{owner.__name__}: `classes` must be the number of classes. Received: {len(classes)} names, "
            f"{list(classes[:3])} and so on. Give their number, classes={len(classes)}."
        )
    if not isinstance(shape, list | tuple) or len(shape) != 3:
        raise ValueError(f"{owner.__name__}: `input_shape` must be (height, width, channels). Received: {shape!r}.")
    for size in shape:
        check_range(owner, input_shape=size, least=1, whole=True)
    check_range(owner, classes=classes, least=1, whole=True)
    check_range(owner, width=width, least=1, whole=True)
    check_range(owner, dropout=dropout, least=0, below=1)


def _basic_block(x: Any, filters: int, stride: int, name: str) -> Any:
    shortcut = x if stride == 1 and x.shape[-1] == filters else _convolve(x, filters, 1, stride, f"{name}_shortcut")
    y = layers.ReLU(name=f"{name}_relu")(_convolve(x, filters, 3, stride, f"{name}_conv1"))
    y = layers.Add(name=f"{name}_add")([_convolve(y, filters, 3, 1, f"{name}_conv2"), shortcut])
    return layers.ReLU(name=f"{name}_out")(y)


def _convolve(x: Any, filters: int, size: int, stride: int, name: str, use_bias: bool = False) -> Any:
    x = layers.Conv2D(
        filters, size, strides=stride, padding="same", use_bias=use_bias, kernel_initializer="he_normal", name=name
    )(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def _classify(inputs: Any, x: Any, classes: int, dropout: float, name: str) -> keras.Model:
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax", name="head")(x), name=name)
