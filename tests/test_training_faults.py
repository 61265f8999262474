"""Nothing is silent: what training warns of, refuses, or leaves out of the loss."""

import importlib.util
import json
import warnings
import zipfile

import keras
import numpy as np
import pytest
from helpers import small_data, small_network
from keras import layers, ops

import keras_collab

BACKEND = keras.backend.backend()
# Keras 3.15 reads variables with it; `pytest.warns` warns it anew.
WARNED_ANEW = pytest.mark.filterwarnings("ignore:__array__ implementation")


def compiled(network, terms, loss="sparse_categorical_crossentropy", **kwargs):
    model = keras_collab.wrap(network, terms)
    model.compile(keras.optimizers.SGD(0.05), loss, **kwargs)
    return model


def regression(outputs):
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, strides=2, activation="relu")(layers.Conv2D(4, 3, activation="relu")(inputs))
    return keras.Model(inputs, layers.Dense(outputs, name="size")(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.parametrize(
    ("outputs", "loss"), [(1, "mse"), (4, "mse"), (4, keras.losses.Huber()), (1, [keras.losses.MeanAbsoluteError()])]
)
def test_a_regression_loss_under_output_consistency_warns(outputs, loss):
    with pytest.warns(UserWarning, match=r"'output_consistency' reads the outputs of 'size' as logits.*regression"):
        compiled(regression(outputs), [keras_collab.OutputConsistency()], loss)


def test_classification_losses_do_not_warn():
    compiled(regression(4), [keras_collab.OutputConsistency()], keras.losses.CategoricalCrossentropy(from_logits=True))
    compiled(regression(1), [keras_collab.KernelSimilarity()], "mse")
    compiled(small_network(), [keras_collab.OutputConsistency()], "mse")  # Of probabilities: the Brier score.


def test_what_is_frozen_adds_nothing():
    x, y = small_data()
    network = small_network()
    for name in ("conv0", "bn0", "conv1", "bn1"):
        network.get_layer(name).trainable = False
    whole = keras_collab.wrap(network, [keras_collab.RepresentationSimilarity(layers=["relu0", "relu1", "relu2"])])
    whole.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    logs = whole.train_on_batch(x, y, return_dict=True)
    last = compiled(network, [keras_collab.RepresentationSimilarity(layers=["relu2"], max_positions=64)])
    assert [tap.path for tap in last.terms["representation_similarity"].selection.taps] == ["relu2"]
    assert 0 < logs["representation_similarity"] < 1
    with pytest.warns(UserWarning, match=r"'kernel_similarity' reads only what is frozen.*Unfreeze"):
        frozen = compiled(network, [keras_collab.KernelSimilarity(100.0, layers=["conv0", "conv1"])])
    history = frozen.fit(x, y, verbose=0).history
    assert history["kernel_similarity"] == [0.0]
    assert history["loss"] == pytest.approx(history["task_loss"], abs=1e-6)
    network.get_layer("conv1").trainable = True
    frozen.compile("sgd", "sparse_categorical_crossentropy")
    assert frozen.fit(x, y, verbose=0).history["kernel_similarity"][0] > 0


def test_a_frozen_backbone_with_a_new_head_trains():
    x, y = small_data()
    network = small_network()
    for layer in network.layers[:-1]:
        layer.trainable = False
    with pytest.warns(UserWarning, match="reads only what is frozen") as caught:
        model = compiled(network, keras_collab.recipes.strong())
    assert sorted(str(warning.message).split("'")[1] for warning in caught) == [
        "intermediate_consistency",
        "kernel_similarity",
        "representation_similarity",
    ]
    history = model.fit(x, y, verbose=0).history
    assert history["output_consistency"][0] > 0
    assert history["intermediate_consistency"] == history["representation_similarity"] == [0.0]


def in_a_sequential(inner, x, y):
    outer = keras.Sequential([keras.Input(x.shape[1:]), inner])
    outer.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    outer.fit(x, y, batch_size=8, verbose=0)


def as_a_student(inner, x, y):
    teacher = small_network(name="teacher")
    loss = keras.distillation.LogitsDistillation()
    distiller = keras.distillation.Distiller(teacher, inner, loss, student_loss_weight=0.5)
    distiller.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
    distiller.fit(x, y, batch_size=8, verbose=0)


def in_a_loop(inner, x, y):
    """A loop of one's own, as Keras' guides write it for each backend."""
    for _ in range(2):
        if BACKEND == "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                loss = ops.mean(keras.losses.sparse_categorical_crossentropy(y, inner(x, training=True)))
            tape.gradient(loss, inner.trainable_weights)
        elif BACKEND == "torch":
            ops.mean(keras.losses.sparse_categorical_crossentropy(y, inner(x, training=True))).backward()
        else:
            state = [variable.value for variable in inner.trainable_variables]
            others = [variable.value for variable in inner.non_trainable_variables]
            inner.stateless_call(state, others, x, training=True)


@WARNED_ANEW
@pytest.mark.parametrize("train", [in_a_sequential, as_a_student, in_a_loop])
def test_training_by_another_than_fit_warns_once(train):
    x, y = small_data(16)
    inner = keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity()])
    with pytest.warns(UserWarning, match=r"'small' is called with training=True outside.*loss_and_terms") as caught:
        train(inner, x, y)
    assert len([warning for warning in caught if "loss_and_terms" in str(warning.message)]) == 1


def model_of_flat_images():
    flat = keras.Sequential([keras.Input((8 * 8 * 3,)), layers.Reshape((8, 8, 3)), *small_network().layers[1:]])
    return compiled(flat, [keras_collab.KernelSimilarity()], "categorical_crossentropy", run_eagerly=True)


def test_a_classifier_of_scikit_learn_that_makes_the_model_trains_with_the_terms():
    pytest.importorskip("sklearn")
    x, y = small_data(16)

    def build(X, y):  # noqa: N803
        return model_of_flat_images()

    classifier = keras.wrappers.SKLearnClassifier(build, fit_kwargs={"verbose": 0})
    classifier.fit(x.reshape(16, -1), y)
    assert classifier.history_.history["kernel_similarity"][0] > 0


@WARNED_ANEW
def test_a_classifier_of_scikit_learn_that_clones_the_model_warns():
    pytest.importorskip("sklearn")
    x, y = small_data(16)
    classifier = keras.wrappers.SKLearnClassifier(model_of_flat_images(), fit_kwargs={"verbose": 0})
    with pytest.warns(UserWarning, match=r"cloned. The clone has no terms.*wrap a clone of model\.unwrap"):
        classifier.fit(x.reshape(16, -1), y)


def test_a_wrapped_model_in_a_graph_of_layers_is_no_clone():
    model = keras_collab.wrap(small_network())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outer = keras.Sequential([keras.Input((8, 8, 3)), model])
        assert outer.output_shape == model.compute_output_shape((None, 8, 8, 3)) == (None, 3)


def test_loss_and_terms_are_those_of_a_training_step():
    x, y = small_data(16)
    terms = [keras_collab.OutputConsistency(seed=3), keras_collab.KernelSimilarity(seed=4)]
    model = compiled(small_network(dropout=0.0), terms, run_eagerly=True)
    with keras.StatelessScope(state_mapping=[]):  # Nothing moves: neither statistics nor the step.
        total, values = model.loss_and_terms(x, y)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert float(ops.stop_gradient(total)) == pytest.approx(logs["loss"], rel=1e-5)
    assert list(values) == ["output_consistency", "kernel_similarity"]
    for name, value in values.items():
        assert float(ops.stop_gradient(value)) == pytest.approx(logs[name], rel=1e-5)


def multi_label():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, strides=2, activation="relu")(layers.Conv2D(4, 3, activation="relu")(inputs))
    outputs = layers.Dense(3, activation="sigmoid", name="head")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs)


def test_weights_of_single_labels_weigh_the_parts_as_the_task():
    def elementwise(y, p):
        return keras.losses.binary_crossentropy(ops.expand_dims(y, -1), ops.expand_dims(p, -1))

    x, _ = small_data(16)
    y = (np.arange(48).reshape(16, 3) % 2).astype("float32")
    network = multi_label()

    def value(weight):
        model = compiled(network, [keras_collab.OutputConsistency(seed=3)], elementwise, run_eagerly=True)
        model.optimizer.learning_rate = 0.0
        return model.train_on_batch(x, y, sample_weight=weight, return_dict=True)["output_consistency"]

    ones = np.ones((16, 3), "float32")
    singles = [value(ones * (np.arange(3) == label)) for label in range(3)]
    assert value(ones) == pytest.approx(value(None), rel=1e-4)
    assert sum(singles) == pytest.approx(value(ones), rel=1e-4)
    assert len(set(singles)) == 3


@pytest.mark.parametrize("labels", ["labels", "sample_weight"])
def test_labels_of_another_output_are_not_taken(labels):
    image = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, strides=2, activation="relu")(layers.Conv2D(4, 3, activation="relu")(image))
    x = layers.GlobalAveragePooling2D()(x)
    outputs = {"kind": layers.Dense(3, activation="softmax", name="kind")(x), "size": layers.Dense(1, name="size")(x)}
    model = compiled(keras.Model(image, outputs), [keras_collab.OutputConsistency(output="kind")], {"size": "mse"})
    x, y = small_data(16)
    sizes = {"size": y.astype("float32")[:, None]}
    assert model.fit(x, sizes, verbose=0).history["output_consistency"][0] > 0  # It needs no labels.
    with pytest.raises(ValueError, match=r"output 'kind' are needed. Received a dict of \['size'\]"):
        model.fit(x, sizes, sample_weight={"size": np.ones(16, "float32")}, verbose=0)


class SetsWeight(keras.callbacks.Callback):
    def __init__(self, model=None):
        super().__init__()
        self.given = model

    def on_train_batch_begin(self, batch, logs=None):
        model = self.given or self.model
        model.terms["kernel_similarity"].weight = float(batch)


def test_a_weight_set_for_each_batch():
    x, y = small_data(16)
    model = compiled(small_network(), [keras_collab.KernelSimilarity(9.0)])
    history = model.fit(x, y, batch_size=4, shuffle=False, verbose=0, callbacks=[SetsWeight()]).history
    added = history["loss"][0] - history["task_loss"][0]
    assert added == pytest.approx(1.5 * history["kernel_similarity"][0], rel=0.2)
    assert model.terms["kernel_similarity"].weight == 3.0


@pytest.mark.skipif(BACKEND != "jax", reason="JAX alone takes the values out of the variables while fit runs")
def test_a_weight_set_past_the_callbacks_own_model_is_an_error():
    x, y = small_data(16)
    model = compiled(small_network(), [keras_collab.KernelSimilarity(9.0)])
    with pytest.raises(RuntimeError, match=r"inside a running `fit` on JAX.*self.model.terms"):
        model.fit(x, y, batch_size=4, verbose=0, callbacks=[SetsWeight(model)])


@pytest.mark.parametrize("samples", [1, 4])
def test_a_small_last_batch_does_not_jolt(samples):
    """One step with the default weight moves the weights by about what a step of the task does."""
    x, y = small_data(samples)
    steps = []
    for terms in ([], [keras_collab.RepresentationSimilarity(10.0)]):
        keras.utils.set_random_seed(5)
        model = keras_collab.wrap(small_network(), terms)
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", run_eagerly=True)
        before = [ops.convert_to_numpy(weight) for weight in model.trainable_weights]
        model.train_on_batch(x, y)
        after = [ops.convert_to_numpy(weight) for weight in model.trainable_weights]
        steps.append(np.sqrt(sum(np.sum((a - b) ** 2) for a, b in zip(after, before, strict=True))))
    assert steps[1] < 3 * steps[0]


def test_seeds_and_steps_never_draw_alike():
    draws = set()
    for seed in (0, 1, 16, 256):
        term = keras_collab.OutputConsistency(seed=seed)
        keras_collab.wrap(small_network(), [term])
        for step in (0, 1, 16):
            term.draw_at(ops.convert_to_tensor(step, dtype="int32"))
            for _ in range(20):
                value = keras.random.uniform((), dtype="float32", seed=term.seed_generator)
                draws.add(float(ops.convert_to_numpy(value)))
    assert len(draws) == 4 * 3 * 20


# What each backend exports and runs here (Keras 3.15), the package it takes, and how exact it is. On JAX ONNX takes
# jax2onnx, and OpenVINO converts no function of it. Keras' export from torch as a SavedModel, or for batches of any
# size, fails for plain networks as well.
FORMATS = {
    "tensorflow": [("tf_saved_model", "tensorflow"), ("onnx", "tf2onnx"), ("litert", "tensorflow")],
    "jax": [("tf_saved_model", "tensorflow")],
    "torch": [("onnx", "onnx"), ("torch", "torch")],
}
OPENVINO = [("openvino", "openvino")] if BACKEND != "jax" else []
ENDINGS = {"tf_saved_model": "", "onnx": ".onnx", "litert": ".tflite", "torch": ".pt2", "openvino": ".xml"}


@pytest.mark.filterwarnings("ignore")  # Of the exporters.
@pytest.mark.parametrize(("kind", "package"), FORMATS[BACKEND] + OPENVINO)
def test_exports_after_fit(kind, package, tmp_path):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    x, y = small_data(1 if kind == "torch" else 8)
    model = compiled(small_network(), None)
    model.fit(x, y, verbose=0)
    expected = model.predict(x, verbose=0)
    exact = 5e-3 if kind == "openvino" else 1e-6  # It may compute in half precision.
    for index, exported in enumerate((model, model.unwrap())):
        path = str(tmp_path / f"{index}{ENDINGS[kind]}")
        exported.export(path, format=kind, verbose=False)
        np.testing.assert_allclose(_run(kind, path, x), expected, rtol=1e-4, atol=exact)


def _run(kind, path, x):
    if kind == "tf_saved_model":
        import tensorflow as tf

        loaded = tf.saved_model.load(path)  # Kept: its variables go with it.
        return loaded.serve(x).numpy()
    if kind == "onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(path)
        return session.run(None, {session.get_inputs()[0].name: x})[0]
    if kind == "openvino":
        import openvino

        return openvino.Core().compile_model(path, "CPU")(x)[0]
    if kind == "torch":
        import torch

        return torch.export.load(path).module()(torch.as_tensor(x)).detach().numpy()
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(path)
    (entry,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(entry["index"], x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(entry["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def test_weight_files_go_from_wrapped_to_plain_and_say_unwrap_the_other_way(tmp_path):
    x, y = small_data(16)
    model = compiled(small_network(), None)
    model.fit(x, y, verbose=0)
    wrapped, plain = str(tmp_path / "wrapped.weights.h5"), str(tmp_path / "plain.weights.h5")
    model.save_weights(wrapped)
    model.unwrap().save_weights(plain)
    network = small_network()
    network.load_weights(wrapped)
    for one, other in zip(network.get_weights(), model.unwrap().get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    again = keras_collab.wrap(small_network())
    with pytest.raises(ValueError, match=r"model.unwrap\(\).load_weights"):
        again.load_weights(plain)
    again.unwrap().load_weights(plain)
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


def test_saved_patterns_are_names():
    term = keras_collab.KernelSimilarity(layers=r"conv[12]")
    keras_collab.wrap(small_network(), [term])
    assert term.get_config()["layers"] == ["conv1", "conv2"]


def change_terms(path, change):
    """Rewrites the list of terms in the config of a .keras file."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    change(config["config"]["terms"])
    files["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda terms: terms.pop(), r"those of terms \['output_consistency', 'kernel_similarity'\], the model has"),
        (lambda terms: terms.reverse(), r"the model has \['kernel_similarity', 'output_consistency'\]"),
        (lambda terms: terms.append(3), r"Entry 2 of 'terms' in the config of 'small'.*Received: 3"),
        (lambda terms: terms[1]["config"].update(weight="heavy"), r"Entry 1 of 'terms' in the config of 'small'"),
        (
            lambda terms: terms[1]["config"].update(layers="(a+)+c"),
            r"'kernel_similarity': layers='\(a\+\)\+c' may",
        ),
    ],
)
def test_a_file_whose_terms_were_changed_is_refused(change, message, tmp_path):
    terms = [keras_collab.OutputConsistency(), keras_collab.KernelSimilarity()]
    keras_collab.wrap(small_network(), terms).save(tmp_path / "model.keras")
    change_terms(tmp_path / "model.keras", change)
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        keras.saving.load_model(tmp_path / "model.keras")


def test_a_wrong_name_of_a_term_has_close_matches():
    model = keras_collab.wrap(small_network(), [keras_collab.OutputConsistency()])
    with pytest.raises(KeyError, match=r"no term 'outputconsistency'\. Close matches: 'output_consistency'"):
        model.terms["outputconsistency"]
