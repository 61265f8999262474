"""The directory of a comparison: it holds one, has one owner, and names a file that it cannot read."""

import json
import shutil

import filelock
import keras
import pytest
from helpers import compare_tiny, small_data, small_network, tiny_network

import keras_collab


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The directory of a comparison that is over."""
    directory = tmp_path_factory.mktemp("finished")
    compare_tiny(directory=directory)
    return directory


def zero_terms():
    return [keras_collab.KernelSimilarity(0.0)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 3}, "epochs: 2, now 3"),
        ({"arms": ["plain", "kernel_similarity"]}, r"arms: \['plain', 'wrapped'\], now \['plain', 'kernel_sim"),
        ({"arms": {"plain": None, "wrapped": zero_terms}}, "training of 'wrapped'"),
        (
            {"compile": lambda model: model.compile("sgd", "sparse_categorical_crossentropy")},
            "training of 'plain'.*SGD",
        ),
        ({"train": small_data(48)}, r"digest of train: \d+, now \d+"),
        ({"validation": (small_data(40)[0], small_data(40)[1][::-1])}, "digest of validation"),
        ({"build_network": lambda: tiny_network("tanh")}, "digest of the network"),
        ({"build_network": small_network}, "parameters: .* now"),
    ],
)
def test_one_directory_holds_one_comparison(changes, message, finished):
    with pytest.raises(ValueError, match=rf"(?s)another comparison.*{message}.*another directory="):
        compare_tiny(directory=finished, **changes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("seed0-plain.json", b'{"metric": "val_acc'),
        ("seed0-plain.json", b"[1]"),
        ("seed0-plain.json", b"\xff\xfe"),
        ("seed0-plain.json", b'{"metric": "val_accuracy", "first_batch": 1, "history": {"val_accuracy": [1, 2, 3]}}'),
        ("comparison.json", b"[]"),
        ("seed0-start.weights.h5", b"cut off"),
    ],
)
def test_a_damaged_file_is_named(name, content, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "copy")
    (tmp_path / "copy" / "seed0-wrapped.json").unlink()  # To be trained again, from the start that is kept.
    (tmp_path / "copy" / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} cannot be read: .*Delete it to train again what it held"):
        compare_tiny(directory=tmp_path / "copy")


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras 3.15 on torch; `pytest.warns` warns it anew.
def test_data_that_are_not_those_of_the_directory_are_told_of(tmp_path):
    def first():
        return small_data(40)

    def other():
        return small_data(40)[0] + 1, small_data(40)[1]

    compare_tiny(directory=tmp_path, train=first, arms=["plain"])
    with pytest.warns(UserWarning, match="different training batches"):
        compare_tiny(directory=tmp_path, train=other, arms=["plain"])


def test_one_directory_has_one_owner(tmp_path):
    with filelock.FileLock(tmp_path / "owner.lock"), pytest.raises(ValueError, match="is in use"):
        compare_tiny(directory=tmp_path)


def diverging(model):
    model.compile(keras.optimizers.SGD(1e30), "sparse_categorical_crossentropy")


def test_records_are_json(tmp_path):
    compare_tiny(directory=tmp_path, compile=diverging, epochs=1, arms=["plain"])
    record = json.loads((tmp_path / "seed0-plain.json").read_text(), parse_constant=pytest.fail)
    assert record["history"]["val_loss"] == [None]
