"""A saved model goes on as if never stopped, what cannot be saved or read is refused, and the network is exported."""

import importlib.util
import json
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
from helpers import FEW_STEPS, Unsaved, compile_model, small_data, small_network
from keras import ops

import keras_collab

BACKEND = keras.backend.backend()
SAME = {"rtol": 1e-4, "atol": 2e-6}


def test_round_trip_restores_all_and_fit_goes_on_as_if_never_stopped(tmp_path):
    x, y = small_data(22)
    terms = [
        keras_collab.OutputConsistency(0.7),
        keras_collab.IntermediateConsistency(0.3, layers=["relu0", "relu2"]),
        keras_collab.RepresentationSimilarity(2.0, layers=lambda layer: layer.name == "relu1"),
        keras_collab.KernelSimilarity(keras_collab.schedules.Ramp(4.0, steps=9), layers=r"conv\d"),
    ]
    model = compile_model(keras_collab.wrap(small_network(), terms))
    model.fit(x, y, batch_size=8, shuffle=False, verbose=0)
    model.terms["output_consistency"].weight = 0.25
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    np.testing.assert_array_equal(restored.predict(x, verbose=0), model.predict(x, verbose=0))
    assert restored.terms["output_consistency"].weight == 0.25
    assert restored.terms["kernel_similarity"].weight.steps == 9
    assert restored.terms["representation_similarity"].layers == ["relu1"]
    histories = [m.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history for m in (model, restored)]
    for column, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][column], rtol=1e-5, err_msg=column)
    assert histories[1]["kernel_similarity_weight"][0] == pytest.approx(4 * (3 * 8 + 4 * 8 + 5 * 6) / 22 / 9)
    for one, other in zip(model.weights, restored.weights, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(one), ops.convert_to_numpy(other), **SAME)


class Interruption(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


def test_backup_and_restore_after_an_interruption(tmp_path):
    x, y = small_data()

    def train(callbacks):
        keras.utils.set_random_seed(3)
        model = compile_model(keras_collab.wrap(small_network()), metrics=None)
        model.fit(x, y, batch_size=8, epochs=4, shuffle=False, verbose=0, callbacks=callbacks)
        return model

    through = train([])
    backup = str(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        train([keras.callbacks.BackupAndRestore(backup), Interruption()])
    resumed = train([keras.callbacks.BackupAndRestore(backup)])
    for one, other in zip(through.weights, resumed.weights, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(one), ops.convert_to_numpy(other), **SAME)


def test_weight_files_go_from_wrapped_to_plain_and_say_unwrap_the_other_way(tmp_path):
    x, y = small_data(16)
    model = compile_model(keras_collab.wrap(small_network()))
    model.fit(x, y, verbose=0)
    wrapped, plain = str(tmp_path / "wrapped.weights.h5"), str(tmp_path / "plain.weights.h5")
    model.save_weights(wrapped)
    model.unwrap().save_weights(plain)
    network = small_network()
    network.load_weights(wrapped)
    for one, other in zip(network.get_weights(), model.unwrap().get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    again = compile_model(keras_collab.wrap(small_network()))
    again.optimizer.build(again.trainable_variables)
    variables = [*again.variables, *again.optimizer.variables]
    before = [ops.convert_to_numpy(variable).copy() for variable in variables]
    with pytest.raises(ValueError, match=r"Nothing was loaded from .*: model.unwrap\(\).load_weights"):
        again.load_weights(plain)
    renamed = compile_model(keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity(name="other")]))
    renamed.fit(x, y, verbose=0)
    renamed.save_weights(str(tmp_path / "renamed.weights.h5"))
    with pytest.raises(ValueError, match="Nothing was loaded from"):
        again.load_weights(str(tmp_path / "renamed.weights.h5"))
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
    again.unwrap().load_weights(plain)
    np.testing.assert_array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))


# What is refused.


def test_a_failed_save_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"the last good checkpoint")
    model = keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity(lambda step: 1.0)])
    with pytest.raises(ValueError, match=r"'kernel_similarity' is a function that cannot be saved"):
        model.save(path)
    assert path.read_bytes() == b"the last good checkpoint"


def test_what_is_compiled_and_cannot_be_saved_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"the last good checkpoint")
    model = keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity()])
    model.compile(keras.optimizers.SGD(Unsaved()), "sparse_categorical_crossentropy")
    with pytest.raises(NotImplementedError, match="get_config"):
        model.save(path)
    assert path.read_bytes() == b"the last good checkpoint"


def test_saving_with_a_lambda_schedule(tmp_path):
    model = keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity(lambda step: 0.5)])
    with pytest.raises(ValueError, match=r"'kernel_similarity' is a function that cannot be saved.*schedules"):
        model.save(tmp_path / "model.keras")
    assert not (tmp_path / "model.keras").exists()


def test_a_file_of_keras_older_format_is_refused(tmp_path):
    model = keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity()])
    with pytest.raises(ValueError, match=r"saved as a .keras file. Received: .*model.h5"):
        model.save(tmp_path / "model.h5")
    assert not (tmp_path / "model.h5").exists()


@pytest.mark.parametrize("part", ["name", "network", "terms"])
def test_a_config_without_a_part(part):
    config = keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity()]).get_config()
    del config[part]
    with pytest.raises(ValueError, match=f"config of a CollabModel has '{part}'.*Received: {part}=None"):
        keras_collab.CollabModel.from_config(config)


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
    ],
)
def test_a_file_whose_terms_were_changed_is_refused(change, message, tmp_path):
    terms = [keras_collab.OutputConsistency(), keras_collab.KernelSimilarity()]
    keras_collab.wrap(small_network(), terms).save(tmp_path / "model.keras")
    change_terms(tmp_path / "model.keras", change)
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        keras.saving.load_model(tmp_path / "model.keras")


# The network alone.


def test_unwrap_is_the_network_and_its_file_needs_no_keras_collab(tmp_path):
    network = small_network()
    model = compile_model(keras_collab.wrap(network), **FEW_STEPS)
    x, y = small_data()
    model.train_on_batch(x, y)
    assert model.unwrap() is network is model.network
    network.save(tmp_path / "plain.keras")
    np.save(tmp_path / "x.npy", x)
    program = (
        "import sys; sys.modules['keras_collab'] = None\n"
        "import keras, numpy\n"
        f"model = keras.saving.load_model(r'{tmp_path / 'plain.keras'}')\n"
        f"numpy.save(r'{tmp_path / 'y.npy'}', model.predict(numpy.load(r'{tmp_path / 'x.npy'}'), verbose=0))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), network.predict(x, verbose=0), atol=1e-6)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="Keras writes SavedModels through TensorFlow")
def test_export_is_the_networks(tmp_path):
    import tensorflow as tf

    x, y = small_data()
    model = compile_model(keras_collab.wrap(small_network()), **FEW_STEPS)
    model.train_on_batch(x, y)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.serve(x), model.predict(x, verbose=0), atol=1e-6)


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
    model = compile_model(keras_collab.wrap(small_network()))
    model.fit(x, y, verbose=0)
    exact = 5e-3 if kind == "openvino" else 1e-6  # It may compute in half precision.
    for index, exported in enumerate((model, model.unwrap())):
        path = str(tmp_path / f"{index}{ENDINGS[kind]}")
        exported.export(path, format=kind, verbose=False)
        expected = model.predict(x, verbose=0)  # Not before: the network has only been trained.
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


def test_a_network_that_was_quantized_afterwards_is_saved_alone(tmp_path):
    model = keras_collab.wrap(small_network())
    model.save(tmp_path / "model.keras")
    model.network.layers[-1].quantize("int8")
    with pytest.raises(ValueError, match=r"quantized.*to save, save the network: model\.unwrap\(\)\.save"):
        model.save(tmp_path / "model.keras")
    keras.saving.load_model(tmp_path / "model.keras")
    model.unwrap().save(tmp_path / "network.keras")
    keras.saving.load_model(tmp_path / "network.keras")
