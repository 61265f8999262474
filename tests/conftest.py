"""Settings and fixtures of all tests."""

import gc
import os
import tempfile

# Compiling, not computing, takes the time of these tests: XLA's optimizations cost more than they save.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# What one test has compiled, the others and the programs that they start find there.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.TemporaryDirectory(prefix="compiled-")  # Removed when this process ends.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# The tests run in one process a core, so few threads in each. Not one: with one thread the gradient of a narrow
# convolution crashes torch 2.13 on some processors (segmentation fault in plain Keras).
os.environ.setdefault("OMP_NUM_THREADS", "2")

import keras
import pytest
from helpers import TERMS

if keras.backend.backend() == "tensorflow":

    def build_first(trainer, iterator=None, data_batch=None):
        """Builds optimizer and metrics before the first step, as Keras does on the other backends.

        On TensorFlow the first step makes them, and is traced a second time because it did.
        """
        if iterator is not None:
            data_batch = next(next(iter(iterator))[-1])
        trainer._symbolic_build(data_batch=data_batch)

    keras.Model._maybe_symbolic_build = build_first

# The collector need not walk through what the imports have made again and again.
gc.freeze()
gc.set_threshold(100_000)


@pytest.fixture(params=TERMS)
def make_term(request):
    """Each term, in each of its forms, as a function of its weight."""
    return TERMS[request.param]


@pytest.fixture
def built_in_the_first_step(monkeypatch):
    """On TensorFlow the first step makes optimizer and metrics, as it does for a user, and no batch is read before."""
    monkeypatch.setattr(keras.Model, "_maybe_symbolic_build", lambda model, **data: None, raising=False)


@pytest.fixture(autouse=True)
def fresh_session():
    keras.utils.clear_session(free_memory=False)  # Collecting garbage takes seconds.
    keras.utils.set_random_seed(7)


def pytest_collection_modifyitems(items):
    """The longest tests begin first, so that no process waits for another at the end."""
    items.sort(key=lambda item: item.path.parent.name not in ("tuning", "examples"))
