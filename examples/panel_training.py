"""One run of the panel: the network of a job, plain or wrapped, trained and measured."""

import dataclasses
import time
from pathlib import Path

import keras
import numpy as np
from filelock import FileLock
from measures import smoothed
from panel_data import load
from panel_networks import NETWORKS, augmentation
from records import device
from train_run import new_optimizer

import keras_collab
from keras_collab import datasets
from keras_collab._files import write_whole
from keras_collab.baselines import MultiHead

JIT = keras.backend.backend() == "jax"  # TensorFlow on a processor is faster without.


def optimizer_of(job, steps):
    """The learning rate falls as a cosine; with SGD it first rises for a fifth of the steps."""
    if job.optimizer == "sgd":
        return new_optimizer(job.rate, 5e-3, steps)
    rate = keras.optimizers.schedules.CosineDecay(job.rate, steps)
    if job.optimizer == "adam":
        return keras.optimizers.Adam(rate)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.05)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def model_of(arm, network):
    """The model that trains a network in an arm."""
    if arm == "default":
        return keras_collab.wrap(network)
    if arm in ("strong", "strong_gce"):
        return keras_collab.wrap(network, keras_collab.recipes.strong())
    if arm == "song_chai_2":
        return MultiHead(network)
    if arm[0].isdigit():
        return keras_collab.wrap(network, terms_with_weights(arm))
    return network


def loss_of(arm, job):
    """The loss of an arm."""
    if arm in ("gce", "strong_gce"):
        return keras.losses.CategoricalGeneralizedCrossEntropy(q=0.7)  # It takes integers (Keras 3.15).
    if arm == "label_smoothing":
        return smoothed
    return "categorical_crossentropy" if job.mix else "sparse_categorical_crossentropy"


def train(job, arm, seed, options):
    """Trains one run; returns its line of results."""
    x, y, x_test, y_test = load(job, seed, options.data, options.validation)
    classes, shape = int(y_test.max()) + 1, x.shape[1:]
    keras.utils.set_random_seed(seed)
    network = NETWORKS[job.network](shape, classes)
    if job.backbone:
        copy_backbone(backbone(job, options.data), network)
    model = model_of(arm, augmented(job, network))
    loss = loss_of(arm, job)
    epochs = job.epochs // 2 if arm == "plain_half" else job.epochs
    steps = epochs * -(-len(x) // job.batch)
    data = batches(x, y, job.batch, seed)
    if job.mix:
        data = mixed(data, classes, seed)
    if job.backbone:  # First the new head alone, then the whole network.
        freeze(network, True)
        model.compile(keras.optimizers.AdamW(job.rate), loss, metrics=["accuracy"], jit_compile=JIT)
        model.fit(data, epochs=epochs // 4, shuffle=False, verbose=0)
        freeze(network, False)
    model.compile(optimizer_of(job, steps), loss, metrics=["accuracy"], jit_compile=JIT)
    started = time.perf_counter()
    history = model.fit(data, epochs=epochs, shuffle=False, verbose=0).history
    seconds = time.perf_counter() - started
    probabilities = model.predict(x_test, batch_size=500, verbose=0)
    likelihood = np.maximum(probabilities[np.arange(len(y_test)), y_test], 1e-7)
    return {
        **dataclasses.asdict(job),
        "arm": arm,
        "seed": seed,
        "validation": options.validation,
        "images": len(y_test),
        "accuracy": float(np.mean(probabilities.argmax(-1) == y_test)),
        "nll": float(-np.log(likelihood).mean()),
        "train_accuracy": float(history["accuracy"][-1]),
        "seconds_a_step": seconds / steps,
        "steps": steps,
        "backend": keras.backend.backend(),
        "device": device(keras.backend.backend()),
        "keras": keras.__version__,
        "keras_collab": keras_collab.__version__,
    }


def augmented(job, network):
    """The network behind the layers that change and scale training images."""
    shape = network.input_shape[1:]
    layers = [keras.Input(shape), *augmentation(job.augment, shape), keras.layers.Rescaling(1 / 127.5, -1)]
    return keras.Sequential([*layers, network])


def batches(x, y, size, seed):
    """Batches in another order each epoch; Keras 3.15 on TensorFlow keeps one order of arrays once a seed is set."""
    train, none = datasets.Split(x, y), datasets.Split(x[:0], y[:0])
    classes = tuple(map(str, range(int(y.max()) + 1)))
    return datasets.Dataset("panel", train, none, none, classes).batches("train", size, seed=seed)


def mixed(data, classes, seed):
    """tf.data after CutMix (Yun et al., 2019, arXiv 1905.04899) and MixUp (Zhang et al., 2018, arXiv 1710.09412)."""
    if keras.backend.backend() != "tensorflow":
        raise ValueError("CutMix and MixUp need tf.data. Set KERAS_BACKEND=tensorflow, or choose other --only.")
    cut, blend = keras.layers.CutMix(seed=seed), keras.layers.MixUp(seed=seed)

    def mix(images, labels):
        batch = {"images": keras.ops.cast(images, "float32"), "labels": keras.ops.one_hot(labels, classes)}
        batch = blend(cut(batch))
        return batch["images"], batch["labels"]

    return data.map(mix)


def terms_with_weights(arm):
    """The four terms with the weights that the name of an arm gives, which rise within 500 steps; 0 leaves one out.

    "0.1 0.05 0 10" are those of output and intermediate consistency and of kernel similarity; "0.1 0.05 0 10 at once"
    begins with them.
    """
    weights, at_once, _ = arm.partition(" at once")
    terms = []
    for term, weight in zip(keras_collab.recipes.strong(), map(float, weights.split()), strict=True):
        if weight:
            terms.append(type(term)(weight if at_once else keras_collab.schedules.Ramp(weight, steps=500)))
    return terms


def backbone(job, folder):
    """The job's network, trained on all of its backbone's data; a file in runs/, which git ignores, keeps it."""
    path = Path(__file__).parents[1] / "runs" / f"backbone-{job.backbone}.keras"
    path.parent.mkdir(exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            large = dataclasses.replace(job, data=job.backbone, labels=20000, rate=3e-3, epochs=20, batch=128)
            x, y, _, _ = load(large, 0, folder)
            shape, classes = x.shape[1:], int(y.max()) + 1
            network = NETWORKS[job.network](shape, classes)
            model = augmented(large, network)
            steps = large.epochs * -(-len(x) // large.batch)
            model.compile(optimizer_of(large, steps), "sparse_categorical_crossentropy", jit_compile=JIT)
            model.fit(batches(x, y, large.batch, 0), epochs=large.epochs, shuffle=False, verbose=0)
            write_whole(path, network.save)
    return keras.saving.load_model(path)


def copy_backbone(trained, network):
    for source, target in zip(trained.layers[:-1], network.layers[:-1], strict=True):
        target.set_weights(source.get_weights())


def freeze(network, frozen):
    for layer in network.layers[:-1]:
        layer.trainable = not frozen
