"""Kernels as filters: every kind of layer with a kernel, as the layer applies it, and frozen layers."""

import contextlib

import keras
import numpy as np
import pytest
from helpers import FEW_STEPS, kernel_paths
from keras import layers, ops

from keras_collab import KernelSimilarity, NetworkReader, wrap

# For each layer the input it reads, and its filters by NumPy: for each group `(size, filters)`.
KINDS = {
    "Dense": (lambda: layers.Dense(5), (4,), lambda w: [w]),
    "Conv1D": (lambda: layers.Conv1D(5, 3), (8, 4), lambda w: [w.reshape(3 * 4, 5)]),
    "Conv2D": (lambda: layers.Conv2D(5, (3, 2)), (8, 8, 4), lambda w: [w.reshape(3 * 2 * 4, 5)]),
    "Conv3D": (lambda: layers.Conv3D(5, 2), (4, 4, 4, 3), lambda w: [w.reshape(8 * 3, 5)]),
    "grouped": (
        lambda: layers.Conv2D(6, 3, groups=2),
        (8, 8, 4),
        # The first half of the filters reads the first half of the channels.
        lambda w: [w[..., :3].reshape(9 * 2, 3), w[..., 3:].reshape(9 * 2, 3)],
    ),
    "depthwise": (
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
        (8, 8, 4),
        lambda w: [w[:, :, channel].reshape(9, 2) for channel in range(4)],
    ),
    "depthwise 1D": (
        lambda: layers.DepthwiseConv1D(3, depth_multiplier=2),
        (8, 4),
        lambda w: [w[:, channel] for channel in range(4)],
    ),
    "transposed": (
        lambda: layers.Conv2DTranspose(5, (3, 2)),
        (8, 8, 4),
        lambda w: [np.stack([w[:, :, i, :].ravel() for i in range(5)], axis=1)],  # (height, width, filters, channels)
    ),
    "transposed 1D": (
        lambda: layers.Conv1DTranspose(5, 3),
        (8, 4),
        lambda w: [np.stack([w[:, i, :].ravel() for i in range(5)], axis=1)],
    ),
    "transposed 3D": (
        lambda: layers.Conv3DTranspose(5, 2),
        (4, 4, 4, 3),
        lambda w: [np.stack([w[..., i, :].ravel() for i in range(5)], axis=1)],
    ),
    "separable": (lambda: layers.SeparableConv2D(5, 3), (8, 8, 4), lambda w: [w.reshape(4, 5)]),
    "separable 1D": (lambda: layers.SeparableConv1D(5, 3, depth_multiplier=2), (8, 4), lambda w: [w.reshape(8, 5)]),
}


def kernel_of(layer, input_shape):
    layer.name = "layer"
    network = keras.Sequential([keras.Input(input_shape), layer, layers.Flatten(), layers.Dense(2, name="head")])
    (kernel,) = NetworkReader(network).kernels(["layer"])
    return kernel


@pytest.mark.parametrize("kind", KINDS)
def test_filters_are_columns(kind):
    make, input_shape, filters_by_numpy = KINDS[kind]
    layer = make()
    kernel = kernel_of(layer, input_shape)
    weight = next(w for w in reversed(layer.weights) if w.name.endswith("kernel"))  # A separable layer's pointwise one.
    expected = filters_by_numpy(keras.ops.convert_to_numpy(weight))
    assert kernel.groups == len(expected)
    assert (kernel.size, kernel.filters) == expected[0].shape
    filters = ops.convert_to_numpy(kernel.read())
    np.testing.assert_array_equal(filters, expected[0] if len(expected) == 1 else np.stack(expected))


def test_a_filter_is_what_makes_one_output_channel():
    """Zeroing the column of a filter of a group silences the channel of that filter, and no other."""
    layer = layers.Conv2D(6, 3, groups=2, use_bias=False)
    kernel = kernel_of(layer, (8, 8, 4))
    weight = ops.convert_to_numpy(layer.kernel).copy()
    weight[..., 1 * kernel.filters + 2] = 0
    layer.kernel.assign(weight)
    assert np.abs(ops.convert_to_numpy(kernel.read())[1]).sum(axis=0).argmin() == 2
    channels = np.abs(ops.convert_to_numpy(layer(np.ones((1, 8, 8, 4), "float32")))).sum(axis=(0, 1, 2))
    assert [channel for channel in range(6) if channels[channel] == 0] == [5]


def test_subclass_of_a_layer_has_its_kernel():
    class Standardized(layers.Conv2D):
        pass

    kernel = kernel_of(Standardized(5, 3), (8, 8, 4))
    assert (kernel.size, kernel.filters) == (36, 5)


class Cosine(layers.Dense):
    """A classifier by cosines of features and kernel."""

    def call(self, inputs):
        return ops.matmul(ops.normalize(inputs), ops.normalize(self.kernel, axis=0))


def test_filters_of_a_layer_that_applies_them_in_its_own_way_are_not_read():
    network = keras.Sequential([keras.Input((5,)), layers.Dense(8), Cosine(3, name="head")])
    with pytest.raises(ValueError, match="no name of a layer with a kernel matches 'head'"):
        kernel_paths(network, ["head"])


@pytest.mark.parametrize("make", [lambda: layers.Dense(6), lambda: layers.Conv1D(6, 3)], ids=["Dense", "Conv1D"])
def test_lora_is_read_as_it_acts(make):
    layer = make()
    layer.name = "layer"
    network = keras.Sequential([keras.Input((8, 4)), layer, layers.GlobalAveragePooling1D(), layers.Dense(3)])
    (kernel,) = NetworkReader(network).kernels(["layer"])
    plain = ops.convert_to_numpy(kernel.read())
    layer.enable_lora(2)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=layer.lora_kernel_a.shape), rng.normal(size=layer.lora_kernel_b.shape)
    layer.lora_kernel_a.assign(a)
    layer.lora_kernel_b.assign(b)
    expected = plain + (a @ b).reshape(plain.shape)  # lora_alpha / lora_rank is 1.
    np.testing.assert_allclose(ops.convert_to_numpy(kernel.read()), expected, rtol=1e-5, atol=1e-6)
    assert not layer._kernel.trainable
    assert kernel.trainable


# Frozen layers.


def backbone():
    names = ("first", "second", "third")
    convolutions = [layers.Conv2D(5, 3, padding="same", activation="relu", name=name) for name in names]
    return keras.Sequential([keras.Input((4, 4, 2)), *convolutions], name="backbone")


def transfer(body):
    top = [
        layers.Conv2D(6, 3, padding="same", name="top"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, activation="softmax"),
    ]
    return keras.Sequential([keras.Input((4, 4, 2)), body, *top], name="net")


def test_trainable_follows_the_layer():
    network = transfer(backbone())
    kernels = {kernel.path: kernel for kernel in NetworkReader(network).kernels()}
    assert list(kernels) == ["backbone/second", "backbone/third", "top"]
    assert all(kernel.trainable for kernel in kernels.values())

    network.get_layer("backbone").get_layer("third").trainable = False
    assert [path for path, kernel in kernels.items() if kernel.trainable] == ["backbone/second", "top"]
    network.get_layer("backbone").trainable = False
    assert [path for path, kernel in kernels.items() if kernel.trainable] == ["top"]
    network.trainable = False
    assert not any(kernel.trainable for kernel in kernels.values())
    network.trainable = True
    assert all(kernel.trainable for kernel in kernels.values())


@pytest.mark.parametrize("kind", ["depthwise", "separable", "transposed", "grouped"])
def test_trainable_of_every_kind(kind):
    make, input_shape, _ = KINDS[kind]
    layer = make()
    kernel = kernel_of(layer, input_shape)
    assert kernel.trainable
    layer.trainable = False
    assert not kernel.trainable


def similarity(*weights):
    """Mean over layers of the mean over i != j of cos², less Welch's bound, in float64."""
    values = []
    for weight in weights:
        filters = weight.astype("float64").reshape(-1, weight.shape[-1])
        size, count = filters.shape
        filters /= np.linalg.norm(filters, axis=0)
        squares = (filters.T @ filters) ** 2
        bound = max(0.0, (count - size) / (size * (count - 1)))
        values.append((squares.sum() - count) / (count * (count - 1)) - bound)
    return np.mean(values)


@pytest.mark.parametrize(
    ("frozen", "penalised"),
    [
        ([], ["second", "third", "top"]),
        (["second"], ["third", "top"]),
        (["backbone"], ["top"]),
        (["backbone", "top"], []),
    ],
)
def test_frozen_layers_take_no_penalty(frozen, penalised):
    body = backbone()
    network = transfer(body)
    of_name = {layer.name: layer for layer in [*body.layers, *network.layers]}
    for name in frozen:
        of_name[name].trainable = False
    model = wrap(network, [KernelSimilarity(weight=100.0, max_filters=64)])  # All filters in every step.
    warned = contextlib.nullcontext() if penalised else pytest.warns(UserWarning, match="trains nothing")
    with warned:
        model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy", **FEW_STEPS)
    before = {name: ops.convert_to_numpy(of_name[name].kernel).copy() for name in ("first", "second", "third", "top")}
    x = np.random.default_rng(0).normal(size=(4, 4, 4, 2)).astype("float32")
    values = model.train_on_batch(x, np.array([0, 1, 2, 0]), return_dict=True)

    expected = similarity(*(before[name] for name in penalised)) if penalised else 0.0
    np.testing.assert_allclose(values["kernel_similarity"], expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(values["loss"], values["task_loss"] + 100 * values["kernel_similarity"], rtol=1e-5)
    still = ["first", "second", "third"] if "backbone" in frozen else []
    for name in [*still, *(name for name in frozen if name != "backbone")]:
        np.testing.assert_array_equal(ops.convert_to_numpy(of_name[name].kernel), before[name])
    for name in penalised:
        assert not np.array_equal(ops.convert_to_numpy(of_name[name].kernel), before[name])
