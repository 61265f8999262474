"""Networks of the literature that keras.applications lacks: residual ones and a VGG for images of 32 and 96 pixels."""

from typing import Any

import keras
from keras import layers

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

    Images smaller than 64 pixels get the usual stem for small images, one 3×3 convolution; larger ones that of the
    paper, a 7×7 convolution and a pooling of stride 2 each.

    Args:
        input_shape: height, width and channels.
        classes: number of classes; the network ends in a softmax over them.
        width: channels of the first stage, doubled from stage to stage. With 64 there are 11,173,962 trainable
            parameters for 10 classes and 32×32 images, 11,689,512 for 1,000 classes and 224×224.
        dropout: rate of a dropout before the classifier; 0 for none.
        name: name of the network.
    """
    return _residual(input_shape, classes, width, 4, 2, dropout, name)


def resnet20(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    width: int = 16,
    dropout: float = 0.0,
    name: str = "resnet20",
) -> keras.Model:
    """ResNet-20 for small images (He et al., 2016, section 4.2): three stages of three blocks, 272,474 parameters.

    Shortcuts that change the shape are 1×1 convolutions. Arguments as for `resnet18`.
    """
    return _residual(input_shape, classes, width, 3, 3, dropout, name)


def resnet14(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    width: int = 16,
    dropout: float = 0.0,
    name: str = "resnet14",
) -> keras.Model:
    """ResNet-14: as `resnet20` with two blocks a stage, 175,258 parameters."""
    return _residual(input_shape, classes, width, 3, 2, dropout, name)


def resnet10(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    width: int = 16,
    dropout: float = 0.0,
    name: str = "resnet10",
) -> keras.Model:
    """ResNet-10: as `resnet18` with one block a stage and 16 channels in the first, 308,826 parameters."""
    return _residual(input_shape, classes, width, 4, 1, dropout, name)


def resnet8(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    width: int = 16,
    dropout: float = 0.0,
    name: str = "resnet8",
) -> keras.Model:
    """ResNet-8: as `resnet20` with one block a stage, 78,042 parameters."""
    return _residual(input_shape, classes, width, 3, 1, dropout, name)


def vgg16(
    input_shape: Shape = (32, 32, 3),
    classes: int = 10,
    *,
    width: int = 64,
    dropout: float = 0.0,
    name: str = "vgg16",
) -> keras.Model:
    """VGG-16 with batch normalization (Simonyan & Zisserman, 2015, arXiv 1409.1556) for small images.

    The thirteen convolutions of the paper, then global average pooling and one dense layer instead of three: 14,728,266
    trainable parameters with a width of 64 and 10 classes. Arguments as for `resnet18`; the last two stages have eight
    times the channels of the first.
    """
    inputs = x = keras.Input(input_shape)
    for stage, (factor, convolutions) in enumerate([(1, 2), (2, 2), (4, 3), (8, 3), (8, 3)], start=1):
        for index in range(1, convolutions + 1):
            x = _convolve(x, width * factor, 3, 1, f"stage{stage}_conv{index}", use_bias=True)
            x = layers.ReLU(name=f"stage{stage}_relu{index}")(x)
        x = layers.MaxPooling2D(padding="same", name=f"stage{stage}_out")(x)  # As without it where the side is even.
    return _classify(inputs, x, classes, dropout, name)


def _residual(
    shape: Shape, classes: int, width: int, stages: int, blocks: int, dropout: float, name: str
) -> keras.Model:
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
