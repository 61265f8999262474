"""Trains one run in a process of its own, as reproduce.py starts it: so memory is measured, and nothing is left over.

The job comes as JSON in the first argument: settings, folder, data, jit and skip_unreadable. The result is a file,
record.json, in the folder. After each epoch the folder has all that is needed to go on from there.
"""

import dataclasses
import json
import os
import resource
import statistics
import sys
import threading
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow 2.21 logs it as an error that there is no GPU.

import keras
import numpy as np
from filelock import FileLock, Timeout
from measures import redundancy, smoothed, test
from methods import TERMS, terms_of
from recorder import Recorder
from records import MACHINE, NO_STORAGE, STORAGE_ERRORS, finite, version_of, write
from settings import Settings

import keras_collab
from keras_collab import baselines, datasets, label_noise, models, schedules
from keras_collab.callbacks import Backup, epochs_in

JIT = {"auto": "auto", "on": True, "off": False}
TERM_CLASSES = {term.name: type(term) for term in keras_collab.recipes.strong()}


def load_data(settings, data=None, skip_unreadable=False):
    """The data set with the labels to train with, and the true labels of its training images."""
    arguments = {"subset": settings.train_size, "validation": settings.validation, "seed": settings.seed}
    if data:
        dataset = datasets.image_folder(Path(data), skip_unreadable=skip_unreadable, **arguments)
    else:
        dataset = datasets.load(settings.dataset, **arguments)
    true_labels = dataset.train.labels
    if settings.noise == "none":
        return dataset, true_labels
    splits = {"train": dataset.train, "validation": dataset.validation}
    if settings.clean_validation:
        splits.pop("validation")
    make_noise = getattr(label_noise, settings.noise)
    noisy = {}
    for index, (name, split) in enumerate(splits.items()):
        seed = 2 * settings.seed + index
        labels = make_noise(split.labels, settings.noise_rate, len(dataset.classes), seed=seed).labels
        noisy[name] = datasets.Split(split.images, labels)
    return dataclasses.replace(dataset, **noisy), true_labels


def new_network(dataset, name, width=None, *, dropout=0.0, augment=True):
    """A network of keras_collab.models behind the layers that the data set asks for; None for its own width."""
    arguments = {"dropout": dropout}
    if width is not None:
        arguments["width"] = width
    build_inner = getattr(models, name)
    inner = build_inner(dataset.input_shape, len(dataset.classes), **arguments)
    inputs = keras.Input(dataset.input_shape)
    layers = [inputs, *dataset.preprocessing(augment=augment), inner]
    return keras.Sequential(layers, name=f"{name}_classifier")


def new_optimizer(learning_rate, weight_decay, steps):
    """SGD with Nesterov momentum; the learning rate warms up for a fifth of the steps, then falls as a cosine to 0."""
    warmup = steps // 5
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warmup, warmup_target=learning_rate, warmup_steps=max(1, warmup)
    )
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def new_term(name, settings, steps):
    """A term with the arguments that the settings give it; `steps` are those of an epoch."""
    arguments = dict(settings.terms.get(name, {}))
    weight = arguments.get("weight")
    if isinstance(weight, dict):
        ((schedule, values),) = weight.items()
        values = {**values, "steps": round(steps * values["epochs"])}
        del values["epochs"]
        arguments["weight"] = getattr(schedules, schedule)(**values)
    return TERM_CLASSES[name](**arguments)


def build(settings, dataset, steps):
    """The network, and the model that trains it; `steps` are those of an epoch."""
    method, dropout = settings.method, settings.dropout
    if method == "r_drop" and not dropout:
        dropout = 0.3
    network = new_network(dataset, settings.network, settings.width, dropout=dropout, augment=settings.augment)
    names = settings.terms if method == "terms" else terms_of(method)
    terms = [new_term(name, settings, steps) for name in TERMS if name in names]
    if terms:
        return network, keras_collab.wrap(network, terms)
    if method == "song_chai_2":
        return network, baselines.MultiHead(network, splits=1)
    if method == "song_chai_4":
        return network, baselines.MultiHead(network, splits=2)
    if method == "r_drop":
        return network, baselines.RDrop(network)
    if method in ("exits", "byot"):
        return network, baselines.Exits(network, bottleneck=method == "byot")
    return network, network


def train(settings, job, folder):
    """Trains one network and returns its record."""
    backend = keras.backend.backend()  # Versions first: what may fail for every run fails before it is trained.
    versions = {"keras_collab": keras_collab.__version__, "keras": version_of("keras"), backend: version_of(backend)}
    keras.utils.set_random_seed(settings.seed)
    dataset, true_labels = load_data(settings, job["data"], job["skip_unreadable"])
    steps = -(-len(dataset.train) // settings.batch_size)
    network, model = build(settings, dataset, steps)
    optimizer = new_optimizer(settings.learning_rate, settings.weight_decay, steps * settings.all_epochs)
    nll = keras.metrics.SparseCategoricalCrossentropy(name="nll")
    losses = {"label_smoothing": smoothed, "gce": keras.losses.CategoricalGeneralizedCrossEntropy(q=0.7)}
    loss = losses.get(settings.loss or settings.method, "sparse_categorical_crossentropy")
    jit = JIT[job["jit"]]
    model.compile(optimizer, loss, metrics=["accuracy", nll], jit_compile=jit)
    if settings.balance:  # Also before a resumed run: the height of a ramp is in no checkpoint.
        data = (dataset.train.images, dataset.train.labels)
        keras_collab.balance(model, data, share=settings.balance, batch_size=settings.batch_size, verbose=False)
    before = redundancy(network, dataset.validation.images)

    backup = Backup(folder / "backup.weights.h5")
    recorder = Recorder(folder, network, steps, backup)
    # A resumed run sees other orders than in its first epochs.
    order = settings.seed + 1000 * epochs_in(backup.path)
    validated = sorted(range(settings.all_epochs, 0, -settings.validate_every))
    model.fit(
        dataset.batches("train", settings.batch_size, seed=order),
        validation_data=dataset.batches("validation", 500, shuffle=False),
        validation_freq=validated,
        epochs=settings.all_epochs,
        callbacks=[recorder, backup],
        shuffle=False,  # The batches come in an order of their own each epoch.
        verbose=0,
    )
    history = backup.history
    seconds = history.pop("seconds_per_step")
    for name, column in history.items():
        if name.startswith("val_"):
            history[name] = [column[epoch - 1] for epoch in validated]
    history["val_epoch"] = validated
    best_epoch = validated[int(np.argmax(history["val_accuracy"]))]
    history["val_loss"] = history.pop("val_nll")  # Of all methods the same, also of label smoothing.
    last = test(network, dataset.test)
    memorization = None
    if settings.noise != "none":
        probabilities = network.predict(dataset.train.images, batch_size=500, verbose=0)
        memorization = label_noise.memorization(probabilities, true_labels, dataset.train.labels)
    after = redundancy(network, dataset.validation.images)
    network.load_weights(recorder.best_weights(best_epoch))
    best = test(network, dataset.test)
    weights, added = {}, 0
    if isinstance(model, keras_collab.CollabModel):
        for name, term in model.terms.items():
            weights[name] = term.get_config()["weight"]
    elif isinstance(model, baselines.Baseline):
        added = model.count_params() - network.count_params()
    redundancies = {}
    for kind, values in before.items():
        before_after = {"before": list(values.values()), "after": list(after[kind].values())}
        redundancies[kind] = {"layers": list(values), **before_after}
    return {
        "settings": settings.model_dump(),
        "versions": versions,
        "backend": backend,
        "jit_compile": model.jit_compile,
        "machine": MACHINE,
        "history": history,
        "best_epoch": best_epoch,
        "test": {"last": last, "best": best},
        "memorization": memorization,
        "weights": weights,
        "seconds_per_step": statistics.median(seconds[1:] or seconds),
        "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "parameters": network.count_params(),
        "added_parameters": added,
        "redundancy": redundancies,
    }


def end_with_parent():
    """Ends this process when the one that started it ends, however it ends: then its end of the pipe is closed."""

    def watch():
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main():
    end_with_parent()
    job = json.loads(sys.argv[1])
    folder = Path(job["folder"])
    try:
        # The run of a program that was killed may take a moment to end.
        with FileLock(folder / "lock", timeout=60):
            record = train(Settings(**job["settings"]), job, folder)
            text = json.dumps(finite(record), allow_nan=False)
            write(folder / "record.json", text)
    except Timeout:
        sys.exit(f"{folder} is in use by another process.")
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        print(error, file=sys.stderr)
        sys.exit(NO_STORAGE)


if __name__ == "__main__":
    main()
