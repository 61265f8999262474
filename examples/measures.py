"""The loss of a control, and what is measured of a network before and after training."""

import keras
import numpy as np
from keras import ops

import keras_collab
from keras_collab.terms.kernel_similarity import kernel_similarity
from keras_collab.terms.representation_similarity import representation_similarity


def smoothed(labels, probabilities):
    """Cross-entropy with label smoothing 0.1 (Szegedy et al., 2016, arXiv 1512.00567)."""
    labels = ops.reshape(labels, (-1,))
    one_hot = ops.one_hot(labels, probabilities.shape[-1])
    return keras.losses.categorical_crossentropy(one_hot, probabilities, label_smoothing=0.1)


def test(network, split):
    """Accuracy, mean negative log-likelihood in nats, and expected calibration error with 15 bins."""
    probabilities = network.predict(split.images, batch_size=500, verbose=0)
    confidence = probabilities.max(axis=-1)
    right = probabilities.argmax(axis=-1) == split.labels
    of_label = probabilities[np.arange(len(right)), split.labels]
    log_likelihoods = np.log(np.maximum(of_label, 1e-12))
    ece = float("nan")
    if np.isfinite(confidence).all():
        bins = np.minimum((confidence * 15).astype(int), 14)
        ece = float(np.abs(np.bincount(bins, right - confidence)).sum() / len(right))
    return {
        "accuracy": float(np.mean(right)),
        "nll": float(-np.mean(log_likelihoods)),
        "ece": ece,
    }


def redundancy(network, images):
    """By layer: mean squared correlation of channels at the stage ends, mean squared cosine of kernels."""
    reader = keras_collab.NetworkReader(network)
    taps = reader.taps("auto")
    outputs = [tap.tensor for tap in taps]
    model = keras.Model(reader.graph.inputs, outputs)
    maps = model(images[:256], training=False)
    channels = {}
    for tap, values in zip(taps, maps, strict=True):
        channels[tap.path] = float(representation_similarity(values))
    kernels = {}
    for kernel in reader.kernels():
        kernels[kernel.path] = float(kernel_similarity(kernel.read()))
    return {"channels": channels, "kernels": kernels}
