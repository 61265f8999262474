"""Training over several devices: each test is a program, since devices are set up before a backend starts."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

BACKEND = keras.backend.backend()

COMMON = """
import sys; sys.path.insert(0, TESTS)
import keras, numpy as np, keras_collab
from helpers import small_data, small_network

x, y = small_data(samples=28)

def build():
    keras.utils.set_random_seed(5)
    # Kernels whole, so that there are no draws that differ between replicas.
    terms = [keras_collab.IntermediateConsistency(), keras_collab.KernelSimilarity(2.0, max_filters=16)]
    network = small_network()
    for index in range(3):  # Batch normalization in inference mode: the same statistics on every replica.
        network.get_layer(f"bn{index}").trainable = False
    model = keras_collab.wrap(network, terms[KINDS])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    return model

def train(model):
    history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    return model.network.get_weights(), history
"""


def run(program, kinds="slice(None)", **environment):
    program = COMMON.replace("TESTS", repr(str(Path(__file__).parent))).replace("KINDS", kinds) + program
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(BACKEND != "jax", reason="keras.distribution.DataParallel is tested on JAX")
def test_data_parallel_equals_one_device():
    run(
        """
expected, expected_history = train(build())
outside = small_network()
keras.distribution.set_distribution(keras.distribution.DataParallel())
got, history = train(build())
for one, other in zip(got, expected):
    np.testing.assert_allclose(one, other, atol=1e-4)  # Eight steps amplify rounding; a term that counts twice is 1e-2.
for column in expected_history:
    np.testing.assert_allclose(history[column], expected_history[column], rtol=1e-3)
try:
    keras_collab.wrap(outside)
except ValueError as error:
    assert "was built outside the distribution" in str(error), error
else:
    raise AssertionError("no error")
""",
        XLA_FLAGS=f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4",
    )


@pytest.mark.skipif(BACKEND != "jax", reason="jax.checking_leaks")
def test_no_tracer_leaks_and_several_outputs_of_a_jitted_step():
    run(
        """
import jax
with jax.checking_leaks():
    build().train_on_batch(x[:8], y[:8])
"""
    )


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.distribute.MirroredStrategy")
def test_mirrored_strategy_equals_one_device_and_needs_its_scope():
    run(
        """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
expected, expected_history = train(build())
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = build()
got, history = train(model)
for one, other in zip(got, expected):
    np.testing.assert_allclose(one, other, atol=1e-4)  # As above.
for column in expected_history:
    np.testing.assert_allclose(history[column], expected_history[column], rtol=1e-3, err_msg=column)
layers = keras.layers  # Dense ones: oneDNN's convolutions (TensorFlow 2.21) fail at no samples on some processors.
with strategy.scope():
    dense = [layers.Dense(6, "relu"), layers.Dense(6, "relu"), layers.Dense(3, "softmax")]
    network = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), *dense])
    model = keras_collab.wrap(network, keras_collab.recipes.strong())
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
losses = model.fit(x[:9], y[:9], batch_size=8, verbose=0).history  # A replica has none of the last batch.
assert np.isfinite(list(losses.values())).all(), losses
outside = small_network()
try:
    with strategy.scope():
        keras_collab.wrap(outside)
except ValueError as error:
    assert "was built outside the distribution" in str(error), error
else:
    raise AssertionError("no error")
""",
        kinds="1:",  # Kernels alone: relations between samples are within a replica's batch.
    )
