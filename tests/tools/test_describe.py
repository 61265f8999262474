"""`describe`: what terms read is named, what is frozen is said, times are measured, and nothing changes."""

import keras
import numpy as np
import pytest
from helpers import FEW_STEPS, Unsaved, small_data, small_network
from keras import layers, ops

import keras_collab
from keras_collab import IntermediateConsistency, KernelSimilarity, describe, recipes, wrap


def compiled(model, optimizer="sgd"):
    model.compile(optimizer, "sparse_categorical_crossentropy", **FEW_STEPS)
    return model


def test_what_the_four_terms_read(capsys):
    network = small_network()
    description = describe(wrap(network, recipes.strong()))
    output, intermediate, representation, kernel = description.terms
    assert output.head == "head"
    assert intermediate.taps == {"relu0": (None, 8, 8, 6), "relu1": (None, 4, 4, 8), "relu2": (None, 2, 2, 10)}
    assert representation.taps == intermediate.taps
    assert kernel.kernels == ("conv1", "conv2")
    assert kernel.weight == 10.0
    printed = " ".join(capsys.readouterr().out.split())
    for text in ("small: 1,", "output_consistency", "relu1 4×4×8", "head head", "kernel conv1"):
        assert text in printed
    assert "frozen" not in printed
    assert "no term can change" not in printed
    assert (description.plain_seconds, description.wrapped_seconds) == (None, None)


def test_a_schedule_is_named(capsys):
    model = wrap(small_network(), [KernelSimilarity(keras_collab.schedules.Ramp(1.0, steps=5))])
    assert describe(model).terms[0].weight.steps == 5
    assert "Ramp 1" in capsys.readouterr().out


def test_frozen_layers_are_said(capsys):
    network = small_network()
    for name in ("conv0", "bn0", "conv1"):
        network.get_layer(name).trainable = False
    description = describe(wrap(network, [IntermediateConsistency(), KernelSimilarity()]))
    taps, kernels = description.terms
    assert taps.frozen == ("relu0",)  # The second is behind bn1, which trains.
    assert kernels.frozen == ("conv1",)
    assert capsys.readouterr().out.count("frozen: 1 of these") == 2
    assert str(description).count("frozen: 1 of these") == 2


def test_a_layer_that_is_called_twice_has_two_taps_and_its_weights_count_once():
    inputs = keras.Input((8, 8, 3))
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    x = shared(layers.MaxPooling2D()(shared(inputs)))
    network = keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))
    description = describe(wrap(network, [IntermediateConsistency(layers=["shared"])]), verbose=False)
    assert description.terms[0].taps == {"shared": (None, 8, 8, 3), "shared (call 2)": (None, 4, 4, 3)}
    assert description.trainable == shared.count_params() + 3 * 3 + 3


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_times_are_measured_and_nothing_changes(policy, capsys):
    network, data = small_network(dropout=0.3, dtype=policy), small_data()
    model = compiled(wrap(network))
    model.fit(*data, verbose=0)
    before = [ops.convert_to_numpy(variable).copy() for variable in model.variables]
    optimizer = [ops.convert_to_numpy(variable).copy() for variable in model.optimizer.variables]
    description = describe(model, data)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value, err_msg=variable.path)
    for variable, value in zip(model.optimizer.variables, optimizer, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value, err_msg=variable.path)
    assert description.plain_seconds > 0
    assert description.wrapped_seconds > 0
    assert "ms plain" in " ".join(capsys.readouterr().out.split())
    assert model.fit(*data, verbose=0).history["loss"][0] > 0


def test_the_timed_steps_are_those_of_the_two_models(monkeypatch):
    """One batch, with all its samples: the same number of steps plain and with the terms, in turn."""
    steps = []
    step = keras_collab.CollabModel.train_on_batch

    def recorded(model, x, *args, **kwargs):
        steps.append((list(model.terms), len(x)))
        return step(model, x, *args, **kwargs)

    monkeypatch.setattr(keras_collab.CollabModel, "train_on_batch", recorded)
    describe(compiled(wrap(small_network(), [KernelSimilarity()])), small_data(samples=40), verbose=False)
    assert steps[::2] == [([], 40)] * (len(steps) // 2)
    assert steps[1::2] == [(["kernel_similarity"], 40)] * (len(steps) // 2)


class Own(keras.optimizers.SGD):
    """An optimizer that Keras does not know."""


def test_times_of_what_cannot_be_saved():
    model = compiled(wrap(small_network(), [KernelSimilarity(lambda step: 0.5)]), Own(0.1))
    assert describe(model, small_data(), verbose=False).wrapped_seconds > 0


def test_bad_input():
    network, data = small_network(), small_data()
    with pytest.raises(TypeError, match=r"`describe` takes a wrapped network.*keras_collab.wrap"):
        describe(network)
    with pytest.raises(ValueError, match=r"call model.compile"):
        describe(wrap(network), data)
    with pytest.raises(TypeError, match=r"describe: data must be arrays.*Received: 128"):
        describe(compiled(wrap(network)), 128)
    with pytest.raises(ValueError, match=r"at least one batch"):
        describe(compiled(wrap(network)), iter([]))
    with pytest.raises(TypeError, match=r"`describe` needs labels.*describe\(model, \(x, y\)\)"):
        describe(compiled(wrap(network)), data[0])
    with pytest.raises(ValueError, match=r"cannot be copied: .*Leave `data` out"):
        describe(compiled(wrap(network), keras.optimizers.SGD(Unsaved())), data)
