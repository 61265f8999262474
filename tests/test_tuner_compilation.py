"""The hypermodel's models on JAX: trials that differ in numbers alone share what is compiled."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import pytest


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX keeps compilations between models")
def test_trials_of_other_weights_do_not_compile_again(tmp_path):
    """In a process of its own, since JAX reads where to keep compilations once."""
    code = """
        import keras, numpy as np
        from helpers import JIT, small_network
        from keras_collab.tuner import CollabHyperModel
        hypermodel = CollabHyperModel(small_network, balance=False)
        hp = __import__("keras_tuner").HyperParameters()
        for weight in (1.0, 2.0):
            hp.values["kernel_similarity_weight"] = weight
            keras.utils.set_random_seed(0)
            model = hypermodel.build(hp)
            assert model.terms["kernel_similarity"].weight == weight
            model.train_on_batch(np.ones((4, *model.input_shape[1:])), np.arange(4) % 3)
    """
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    kept = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    environment = os.environ | kept | {"PYTHONPATH": paths}
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, env=environment)
    assert len(list(tmp_path.glob("jit_train_step-*-cache"))) == 1
