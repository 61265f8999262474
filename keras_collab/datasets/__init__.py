"""Image data sets in memory, with reproducible splits and standard augmentation.

Each function returns a `Dataset` and downloads nothing. The test split is always complete. Keyword arguments choose
from the training images:

- `validation`: float in [0, 1) or integer. Share or number of images for the validation split. Defaults to 0.1.
- `subset`: integer. Number of the other images to keep for training, at least one for each class. Defaults to all.
- `seed`: integer seed of the choice. With the same seed, a larger subset contains every smaller one. Defaults to 0.

Both choices are stratified: each class keeps its share.

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
