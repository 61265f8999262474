"""Networks of the literature that keras.applications lacks."""

from typing import Any

import keras
from keras import layers


def resnet18(
    input_shape: tuple[int, int, int] = (32, 32, 3), classes: int = 10, *, width: int = 64, name: str = "resnet18"
) -> keras.Model:
    """ResNet-18 with the stem for small images (He et al., 2016, arXiv 1512.03385; one 3×3 convolution, no pooling).

    Args:
        input_shape: height, width and channels; 32×32 is what the stem is meant for.
        classes: number of classes; the network ends in a softmax over them.
        width: channels of the first stage, doubled from stage to stage. 64 and 10 classes give 11,173,962 trainable
            parameters, as in the literature.
        name: name of the network.
    """
    inputs = keras.Input(input_shape)
    x = _convolve(inputs, width, 3, 1, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    for stage in range(4):
        for block in range(2):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _basic_block(x, width * 2**stage, stride, f"stage{stage + 1}_block{block + 1}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(classes, activation="softmax", name="head")(x), name=name)


def _basic_block(x: Any, filters: int, stride: int, name: str) -> Any:
    shortcut = x if stride == 1 and x.shape[-1] == filters else _convolve(x, filters, 1, stride, f"{name}_shortcut")
    y = layers.ReLU(name=f"{name}_relu")(_convolve(x, filters, 3, stride, f"{name}_conv1"))
    y = layers.Add(name=f"{name}_add")([_convolve(y, filters, 3, 1, f"{name}_conv2"), shortcut])
    return layers.ReLU(name=f"{name}_out")(y)


def _convolve(x: Any, filters: int, size: int, stride: int, name: str) -> Any:
    x = layers.Conv2D(
        filters, size, strides=stride, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)
