"""Networks that keras.applications lacks: small ResNets, and a VGG-16 with batch normalization."""

from typing import Any

import keras
from keras import layers

from keras_collab._checks import check_range
from keras_collab._types import Structure, Tensor

__all__ = ["resnet8", "resnet10", "resnet14", "resnet18", "resnet20", "vgg16"]

Shape = tuple[int, int, int]

# The stages of VGG-16: channels in units of the first stage's, and number of convolutions.
_VGG16 = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))


def resnet18(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    width: int = 64,
    dropout: float = 0.0,
    name: str = "resnet18",
) -> keras.Model:
    """ResNet-18 (He et al., 2016, arXiv 1512.03385): four stages of two blocks.

    Images with a side of less than 64 pixels get the usual stem for small images, one 3×3 convolution. Larger ones get
    the stem of the paper, a 7×7 convolution and max pooling, both with stride 2. With a width of 64 there are
    11,173,962 trainable parameters for 10 classes and 32×32 images, 11,689,512 for 1,000 classes and 224×224.

    Args:
        input_shape: three integers: height, width and channels. Defaults to (32, 32, 3).
        classes: integer, >= 1. Number of classes. The network ends in a softmax over them. Defaults to 10.
        width: integer, >= 1. Channels of the first stage; each later stage has twice as many. Defaults to 64.
        dropout: float in [0, 1). Dropout rate before the classifier. Defaults to 0, no Dropout layer.
        name: name of the network.

    Returns:
        A `keras.Model` from images `(batch, height, width, channels)` to probabilities `(batch, classes)`.

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
    """ResNet-20 for small images (He et al., 2016, section 4.2): three stages of three blocks.

    272,474 trainable parameters for 10 classes and 32×32 images.

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
    """ResNet-14: `resnet20` with two blocks in each stage, 175,258 trainable parameters."""
    return _residual(resnet14, input_shape, classes, width, 3, 2, dropout, name)


def resnet10(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    width: int = 16,
    dropout: float = 0.0,
    name: str = "resnet10",
) -> keras.Model:
    """ResNet-10: `resnet18` with one block in each stage and a default width of 16, 308,826 trainable parameters."""
    return _residual(resnet10, input_shape, classes, width, 4, 1, dropout, name)


def resnet8(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    width: int = 16,
    dropout: float = 0.0,
    name: str = "resnet8",
) -> keras.Model:
    """ResNet-8: `resnet20` with one block in each stage, 78,042 trainable parameters."""
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

    The thirteen convolutions of the paper are followed by global average pooling and one Dense layer, instead of
    three. The last two stages have eight times the channels of the first. With a width of 64 and 10 classes there are
    14,728,266 trainable parameters. Arguments as for `resnet18`.
    """
    _check(vgg16, input_shape, classes, width, dropout)
    inputs = x = keras.Input(input_shape)
    for stage, (factor, convolutions) in enumerate(_VGG16, start=1):
        for index in range(1, convolutions + 1):
            convolution = f"stage{stage}_conv{index}"
            x = _convolve(x, width * factor, 3, 1, convolution, use_bias=True)
            x = layers.ReLU(name=f"stage{stage}_relu{index}")(x)
        # The padding only matters where a side is odd.
        x = layers.MaxPooling2D(padding="same", data_format="channels_last", name=f"stage{stage}_out")(x)
    return _classify(inputs, x, classes, dropout, name)


def _residual(
    owner: Any,
    shape: Shape,
    classes: int,
    width: int,
    stages: int,
    blocks: int,
    dropout: float,
    name: str,
) -> keras.Model:
    _check(owner, shape, classes, width, dropout)
    inputs = keras.Input(shape)
    if min(shape[:2]) < 64:
        x = _convolve(inputs, width, 3, 1, "stem")
        x = layers.ReLU(name="stem_relu")(x)
    else:
        x = _convolve(inputs, width, 7, 2, "stem")
        x = layers.ReLU(name="stem_relu")(x)
        pooling = layers.MaxPooling2D(3, strides=2, padding="same", data_format="channels_last", name="stem_pool")
        x = pooling(x)
    for stage in range(stages):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _basic_block(x, width * 2**stage, stride, f"stage{stage + 1}_block{block + 1}")
    return _classify(inputs, x, classes, dropout, name)


def _check(
    owner: Any,
    shape: Any,
    classes: Any,
    width: Any,
    dropout: Any,
) -> None:
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


def _basic_block(x: Tensor, filters: int, stride: int, name: str) -> Tensor:
    shortcut = x
    if stride > 1 or x.shape[-1] != filters:
        shortcut = _convolve(x, filters, 1, stride, f"{name}_shortcut")
    y = _convolve(x, filters, 3, stride, f"{name}_conv1")
    y = layers.ReLU(name=f"{name}_relu")(y)
    y = _convolve(y, filters, 3, 1, f"{name}_conv2")
    y = layers.Add(name=f"{name}_add")([y, shortcut])
    return layers.ReLU(name=f"{name}_out")(y)


def _convolve(
    x: Tensor,
    filters: int,
    size: int,
    stride: int,
    name: str,
    use_bias: bool = False,
) -> Tensor:
    """A convolution and batch normalization."""
    convolution = layers.Conv2D(
        filters,
        size,
        strides=stride,
        padding="same",
        data_format="channels_last",
        use_bias=use_bias,
        kernel_initializer="he_normal",
        name=name,
    )
    normalization = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")
    return normalization(convolution(x))


def _classify(inputs: Structure, x: Tensor, classes: int, dropout: float, name: str) -> keras.Model:
    x = layers.GlobalAveragePooling2D(data_format="channels_last", name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    head = layers.Dense(classes, activation="softmax", name="head")
    return keras.Model(inputs, head(x), name=name)
