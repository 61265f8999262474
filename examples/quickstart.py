"""Quickstart: does it help? A small residual network learns handwritten digits, plain and wrapped.

    KERAS_BACKEND=torch python examples/quickstart.py      # or tensorflow, or jax

The digits come with scikit-learn. For your own data change the three functions below.
"""

from pathlib import Path

import keras
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_collab

EPOCHS, BATCH_SIZE = 50, 25  # 500 steps, in which the default weights rise.
OUTPUT = Path("quickstart_output")  # Runs that are kept here are not done again.


def digits():
    """(images, labels) for training, validation and test: 250, 350 and 1,197, stratified."""
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
    x, rest_x, y, rest_y = train_test_split(images, labels, train_size=250, stratify=labels, random_state=0)
    val_x, test_x, val_y, test_y = train_test_split(rest_x, rest_y, train_size=350, stratify=rest_y, random_state=0)
    return (x, y), (val_x, val_y), (test_x, test_y)


def build_network():
    """Three stages of one residual block each, at 8×8, 4×4 and 2×2 positions."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(16, 3, padding="same")(inputs)
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        shortcut = layers.Conv2D(filters, 1, strides=strides)(x)
        x = layers.Conv2D(filters, 3, strides=strides, padding="same")(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU()(x)
        x = layers.Conv2D(filters, 3, padding="same")(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.Add()([x, shortcut])
        x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(10, activation="softmax")(x)
    return keras.Model(inputs, outputs, name="residual_network")


def compile(model):
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])


def main(epochs=EPOCHS, seeds=3):
    train, validation, test = digits()
    comparison = keras_collab.compare(
        build_network,
        train,
        validation,
        compile=compile,
        epochs=epochs,
        seeds=seeds,
        batch_size=BATCH_SIZE,
        directory=OUTPUT / "runs",
    )
    print(comparison)
    comparison.figure().savefig(OUTPUT / "quickstart.png")
    network = comparison.best()
    network.save(OUTPUT / "network.keras")  # The plain network: it loads where keras_collab is not installed.
    images, labels = test
    predictions = network.predict(images, verbose=0).argmax(axis=-1)
    accuracy = (predictions == labels).mean()
    print(f"The best network, on test images that chose nothing: {accuracy:.1%} accuracy.")


if __name__ == "__main__":
    main()
