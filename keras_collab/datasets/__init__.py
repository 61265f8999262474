"""Image data sets in memory, with splits that stay what they are and the augmentation that the field uses.

Each function returns a `Dataset`, downloads nothing, leaves the test split alone and takes by keyword:

- `validation`: training images cut off for validation: a share (>= 0.0 and < 1.0) or a number. Defaults to a tenth.
- `subset`: number of the other training images to keep, at least one a class. Defaults to all of them.
- `seed`: which images these are. Of one seed, a larger subset holds every smaller one.

Both cuts are stratified: each class keeps its share.

>>> data = keras_collab.datasets.digits(subset=100)
>>> data
Dataset(name='digits', train=100 images, validation=144 images, test=360 images, classes=10, input_shape=(8, 8, 1))
>>> model = keras.Sequential([keras.Input(data.input_shape), *data.preprocessing(), network])
"""

from keras_collab.datasets.dataset import Dataset, RandomPadCrop, Split
from keras_collab.datasets.image_folder import image_folder
from keras_collab.datasets.sources import cifar10, cifar100, digits, fashion_mnist, imagenet32, load, stl10

__all__ = [
    "Dataset",
    "RandomPadCrop",
    "Split",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "image_folder",
    "imagenet32",
    "load",
    "stl10",
]
