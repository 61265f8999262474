"""The head: which layer classifies, and that its own kernel gives back what the network says."""

import re

import keras
import numpy as np
import pytest
from helpers import FEW_STEPS, normal, small_network
from keras import layers, ops

from keras_collab import NetworkReader, OutputConsistency, Selection, Term, describe, wrap
from keras_collab.network.head import read_head


class HeadGap(Term):
    """How far what the head's kernel makes of its features is from what the network says, in every training step."""

    def select(self, reader):
        return Selection(head=reader.head())

    def call(self, tensors):
        said, logits = ops.cast(tensors.outputs, "float32"), tensors.head.logits
        if tensors.head.source.activation == "softmax":
            # Logits up to a constant for each sample, which log-softmax takes away.
            said, found = ops.log(said), ops.log_softmax(logits, axis=-1)
        elif tensors.head.source.activation == "sigmoid":
            found = ops.softmax(logits, axis=-1)[..., 1]
        else:
            found = logits[..., 1] if tensors.head.source.two_way else logits
        return ops.max(ops.abs(ops.reshape(said, ops.shape(found)) - found))


def head_gap(network, x):
    model = wrap(network, [HeadGap(weight=0.0)])
    model.compile(keras.optimizers.SGD(0.0), "mse", **FEW_STEPS)
    return model.train_on_batch(x, np.zeros((len(x), *network.output_shape[1:])), return_dict=True)["head_gap"]


def network_ending_in(*end):
    return keras.Sequential([keras.Input((5,)), layers.Dense(7, activation="relu", name="features"), *end], name="net")


def nested(*end):
    return keras.Sequential([keras.Input((7,)), *end], name="top")


# What the network ends in, made when it is tested, and the head's activation, classes and path.
HEADS = {
    "softmax": (lambda: [layers.Dense(3, activation="softmax", name="head")], "softmax", 3, "head"),
    "logits": (lambda: [layers.Dense(3, name="head")], "linear", 3, "head"),
    "no bias": (lambda: [layers.Dense(3, activation="softmax", use_bias=False, name="head")], "softmax", 3, "head"),
    "sigmoid": (lambda: [layers.Dense(4, activation="sigmoid", name="head")], "sigmoid", 4, "head"),
    "one logit": (lambda: [layers.Dense(1, name="head")], "linear", 1, "head"),
    "one sigmoid": (lambda: [layers.Dense(1, activation="sigmoid", name="head")], "sigmoid", 1, "head"),
    "activation layer": (lambda: [layers.Dense(3, name="head"), layers.Activation("softmax")], "softmax", 3, "head"),
    "sigmoid layer": (lambda: [layers.Dense(3, name="head"), layers.Activation("sigmoid")], "sigmoid", 3, "head"),
    "softmax layer": (lambda: [layers.Dense(3, name="head"), layers.Softmax()], "softmax", 3, "head"),
    "linear, then softmax": (
        lambda: [layers.Dense(3, name="head"), layers.Activation("linear"), layers.Activation("softmax")],
        "softmax",
        3,
        "head",
    ),
    "dropout before": (
        lambda: [layers.Dropout(0.5), layers.Dense(3, activation="softmax", name="head")],
        "softmax",
        3,
        "head",
    ),
    "nested": (lambda: [nested(layers.Dense(3, name="head"), layers.Softmax())], "softmax", 3, "top/head"),
    "1×1 convolution": (
        lambda: [layers.Reshape((1, 1, 7)), layers.Conv2D(3, 1, name="head"), layers.Flatten(), layers.Softmax()],
        "softmax",
        3,
        "head",
    ),
    "convolution over one position": (
        lambda: [layers.Reshape((1, 7)), layers.Conv1D(3, 1, activation="softmax", name="head"), layers.Reshape((3,))],
        "softmax",
        3,
        "head",
    ),
}


@pytest.mark.parametrize("case", HEADS)
def test_head(case):
    end, activation, classes, path = HEADS[case]
    network = network_ending_in(*end())
    head = NetworkReader(network).head()
    assert (head.path, head.activation, head.classes, head.size) == (path, activation, classes, 7)
    assert head.two_way == (activation == "sigmoid" or classes == 1)
    assert head.layer.name == "head"

    x = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
    assert np.ptp(network.predict(x, verbose=0), axis=0).min() > 0.01  # There is something to give back.
    assert head_gap(network, x) < 1e-5


@pytest.mark.parametrize(
    ("make", "path", "size"),
    [
        (lambda **kwargs: keras.applications.MobileNet(alpha=0.25, **kwargs), "conv_preds", 256),
        (lambda **kwargs: keras.applications.MobileNetV3Small(alpha=0.75, **kwargs), "logits", 1024),
    ],
    ids=["MobileNet", "MobileNetV3Small"],
)
def test_convolution_as_head(make, path, size):
    network = make(input_shape=(32, 32, 3), weights=None, classes=4)
    reader = NetworkReader(network)
    head = reader.head()
    assert (head.path, head.activation, head.classes, head.size) == (path, "softmax", 4, size)

    x = np.random.default_rng(0).uniform(-1, 1, size=(3, 32, 32, 3)).astype("float32")
    said, features = keras.Model(reader.graph.inputs, [reader.graph.outputs, head.features]).predict(x, verbose=0)
    logits = ops.convert_to_numpy(read_head(head, features).logits).astype("float64")
    np.testing.assert_allclose(np.log(said) - np.log(said[:, :1]), logits - logits[:, :1], rtol=1e-4, atol=1e-5)


def test_network_with_a_dot_in_its_name():
    network = keras.applications.MobileNetV2(alpha=0.35, input_shape=(32, 32, 3), weights=None, classes=4)
    assert network.name == "mobilenetv2_0.35_32"
    model = wrap(network, [OutputConsistency()])
    assert describe(model, verbose=False).terms[0].head == "predictions"
    assert model.terms["output_consistency"].selection.head.size == 1280


def test_half_precision_softmax_is_no_detour():
    """Logits come from the kernel, so that a probability that float16 rounds to 0 does no harm."""
    network = network_ending_in(layers.Dense(3, activation="softmax", dtype="mixed_float16", name="head"))
    network.get_layer("head").set_weights([np.full((7, 3), [-50.0, 0.0, 50.0]), np.zeros(3)])
    model = wrap(network, [OutputConsistency()])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", **FEW_STEPS)
    values = model.train_on_batch(np.ones((4, 5), "float32"), np.array([0, 1, 2, 0]), return_dict=True)
    assert np.isfinite(values["output_consistency"])


def test_head_with_lora_gives_back_what_the_network_says():
    last = layers.Dense(3, name="head")
    network = network_ending_in(last)
    last.enable_lora(2)
    last.lora_kernel_b.assign(np.ones((2, 3)))
    reader = NetworkReader(network)
    read = reader.head()
    features = keras.Model(reader.graph.inputs, read.features)(normal(5))
    logits = ops.convert_to_numpy(read_head(read, features).logits)
    np.testing.assert_allclose(logits, ops.convert_to_numpy(network(normal(5))), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("squeeze", [lambda x: ops.squeeze(x, axis=-1), lambda x: ops.reshape(x, (-1,))])
def test_squeezed_logit(squeeze):
    inputs = keras.Input((5,))
    logit = layers.Dense(1, name="head")(layers.Dense(7, activation="relu")(inputs))
    network = keras.Model(inputs, squeeze(logit))
    assert NetworkReader(network).head().path == "head"
    model = wrap(network, [OutputConsistency(1.0)])
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    x = np.random.default_rng(0).normal(size=(6, 5)).astype("float32")
    logs = model.train_on_batch(x, np.array([0, 1, 0, 1, 1, 0]), return_dict=True)
    assert logs["output_consistency"] > 0


def test_an_index_that_is_no_class_is_nan():
    head = NetworkReader(small_network()).head()
    labels = ops.convert_to_numpy(head.label_distributions(ops.convert_to_tensor([1, 3, -1])))
    np.testing.assert_array_equal(labels, [[0, 1, 0], [np.nan] * 3, [np.nan] * 3])


# Which of several outputs.


def two_outputs(structure):
    inputs = keras.Input((5,))
    x = layers.Dense(7, activation="relu")(inputs)
    zeta = layers.Dense(3, activation="softmax", name="zeta")(x)
    alpha = layers.Activation("sigmoid", name="alpha")(layers.Dense(2, name="alpha_logits")(x))
    return keras.Model(inputs, structure(zeta, alpha), name="net")


@pytest.mark.parametrize(
    ("structure", "zeta", "alpha"),
    [
        (lambda zeta, alpha: [zeta, alpha], "zeta", "alpha"),
        (lambda zeta, alpha: [alpha, zeta], "zeta", "alpha"),
        (lambda zeta, alpha: {"what": zeta, "how": alpha}, "what", "how"),
        (lambda zeta, alpha: {"both": [alpha, zeta]}, "zeta", "alpha"),
        (lambda zeta, alpha: {"both": {"what": zeta, "how": alpha}}, "what", "how"),
    ],
    ids=["list", "other order", "dict", "list in dict", "dict in dict"],
)
def test_heads_of_several_outputs(structure, zeta, alpha):
    network = two_outputs(structure)
    made_by = [output._keras_history.operation.name for output in keras.tree.flatten(network.output)]
    head = NetworkReader(network).head(zeta)
    assert (head.path, head.name, head.classes, head.activation) == ("zeta", zeta, 3, "softmax")
    assert made_by[head.index] == "zeta"
    head = NetworkReader(network).head(alpha)
    assert (head.path, head.name, head.classes, head.activation) == ("alpha_logits", alpha, 2, "sigmoid")
    assert made_by[head.index] == "alpha"


def test_output_of_a_nested_model_has_the_name_that_keras_gives_it():
    inputs = keras.Input((7,))
    first = nested(layers.Dense(3, activation="softmax", name="inner"))
    second = keras.Sequential([keras.Input((7,)), layers.Dense(2, name="inner")], name="bottom")
    network = keras.Model(inputs, [first(inputs), second(inputs)])
    assert network.output_names == ["top", "bottom"]
    heads = [NetworkReader(network).head(name) for name in network.output_names]
    assert [head.path for head in heads] == ["top/inner", "bottom/inner"]


# Errors.


def test_several_outputs_need_a_choice():
    network = two_outputs(lambda zeta, alpha: [zeta, alpha])
    with pytest.raises(ValueError, match=r"network 'net' has 2 outputs; choose one with output=\.") as error:
        NetworkReader(network).head()
    assert "Outputs with a classifier: ['zeta', 'alpha']" in str(error.value)
    with pytest.raises(ValueError, match=r"^Term 'output_consistency': network 'net' has 2 outputs"):
        wrap(network, [OutputConsistency()])


@pytest.mark.parametrize("name", ["gamma", "alpha_logits"])
def test_unknown_output(name):
    network = two_outputs(lambda zeta, alpha: [zeta, alpha])
    with pytest.raises(ValueError, match=f"no classifier makes an output named '{name}' in network 'net'") as error:
        NetworkReader(network).head(name)
    assert "Outputs with a classifier: ['zeta', 'alpha']" in str(error.value)


def test_output_without_classifier_among_several():
    inputs = keras.Input((5,))
    x = layers.Dense(7, activation="relu", name="features")(inputs)
    network = keras.Model(inputs, [x, layers.Dense(3, name="head")(x)])
    assert NetworkReader(network).head("head").index == 1
    with pytest.raises(ValueError, match=r"named 'features' .* Outputs with a classifier: \['head'\]"):
        NetworkReader(network).head("features")


def test_backbone_has_no_head():
    with keras.StatelessScope(initialize_variables=False):
        network = keras.applications.MobileNet(input_shape=(32, 32, 3), weights=None, include_top=False)
    with pytest.raises(ValueError, match=r"layer 'conv_pw_13' \(Conv2D\)|layer 'conv_pw_13_relu' \(ReLU\)") as error:
        NetworkReader(network).head()
    assert "no classifier ends network" in str(error.value)
    assert "or end the network with such a layer" in str(error.value)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda: [layers.Dense(3, activation="relu", name="head")], "ends in activation 'relu', not in softmax"),
        (lambda: [layers.Dense(3, name="head"), layers.Activation("tanh")], "ends in activation 'tanh'"),
        (lambda: [layers.Dense(3, activation=lambda x: 2 * x, name="head")], "ends in activation '<function"),
        (lambda: [layers.Dense(3, activation=layers.LeakyReLU(), name="head")], "ends in activation '<LeakyReLU"),
        (lambda: [layers.Dense(3, name="head"), layers.LayerNormalization(name="last")], "layer 'last' (LayerNorm"),
        (
            lambda: [layers.Dense(6), layers.Reshape((2, 3)), layers.Softmax()],
            "'softmax' acts on the 6 outputs of layer 'dense' reshaped to (None, 2, 3)",
        ),
        (lambda: [layers.Dense(3, activation="sigmoid", name="head"), layers.Softmax()], "two activations, 'sigmoid'"),
        (lambda: [layers.Dense(3, name="head"), layers.Softmax(), layers.Softmax()], "two activations, 'softmax'"),
        (lambda: [layers.Dense(4), layers.Reshape((4, 1)), layers.Softmax(), layers.Flatten()], "reshaped to (None, 4"),
        (lambda: [layers.Dense(3, name="head"), layers.Softmax(axis=0)], "comes from layer 'softmax"),
        (lambda: [layers.Reshape((7, 1)), layers.Dense(3, name="head")], "features of shape (None, 7, 1)"),
        (
            lambda: [layers.Reshape((1, 1, 7)), layers.Conv2D(3, 3, padding="same", name="head"), layers.Flatten()],
            "layer 'head' (Conv2D) reads features of shape (None, 1, 1, 7), one vector is expected",
        ),
        (
            lambda: [layers.Reshape((1, 7, 1)), layers.Conv2D(3, (1, 7), name="head"), layers.Flatten()],
            "layer 'head' (Conv2D) reads features of shape (None, 1, 7, 1)",
        ),
        (
            lambda: [layers.Reshape((1, 1, 7)), layers.Conv2DTranspose(7, 1, name="head"), layers.Flatten()],
            "layer 'head' (Conv2DTranspose) reads features",
        ),
        (
            lambda: [layers.Reshape((1, 1, 7)), layers.DepthwiseConv2D(1, name="head"), layers.Flatten()],
            "layer 'head' (DepthwiseConv2D) reads features",
        ),
        (
            lambda: [layers.Reshape((1, 1, 7)), layers.SeparableConv2D(3, 1, name="head"), layers.Flatten()],
            "layer 'head' (SeparableConv2D) reads features",
        ),
    ],
)
def test_no_head(end, reason):
    with pytest.raises(ValueError, match="no classifier ends network 'net': .*" + re.escape(reason)):
        NetworkReader(network_ending_in(*end())).head()


def test_network_whose_output_is_its_input():
    inputs = keras.Input((5,), name="same")
    network = keras.Model(inputs, [inputs, layers.Dense(3, name="head")(inputs)])
    assert NetworkReader(network).head("head").path == "head"
    alone = keras.Model(inputs, layers.Identity(name="identity")(inputs))
    with pytest.raises(ValueError, match="output 'identity' comes from an input, with no layer that classifies"):
        NetworkReader(alone).head()


class Cosine(layers.Dense):
    """A classifier by cosines of features and kernel."""

    def call(self, inputs):
        return ops.matmul(ops.normalize(inputs), ops.normalize(self.kernel, axis=0))


def quantized():
    last = layers.Dense(3, name="head")
    network = network_ending_in(last)
    last.quantize("int8")
    last.enable_lora(2)
    return network


@pytest.mark.parametrize(
    "network",
    [
        lambda: network_ending_in(Cosine(3, name="head")),
        quantized,
        lambda: network_ending_in(layers.SpectralNormalization(layers.Dense(3), name="head")),
    ],
    ids=["cosine", "int8 and LoRA", "spectral normalization"],
)
def test_layer_that_applies_its_kernel_in_its_own_way_is_no_head(network):
    with pytest.raises(ValueError, match=r"Term 'output_consistency': no classifier .* layer 'head'"):
        wrap(network(), [OutputConsistency()])


def test_sum_of_classifiers_is_no_head():
    inputs = keras.Input((5,))
    total = layers.Add(name="total")([layers.Dense(3)(inputs), layers.Dense(3)(inputs)])
    with pytest.raises(ValueError, match=r"output 'total' comes from layer 'total' \(Add\)"):
        NetworkReader(keras.Model(inputs, total)).head()


@pytest.mark.parametrize(
    ("end", "activation"),
    [
        (lambda x: ops.softmax(layers.Dense(3)(x)), "softmax"),
        (lambda x: ops.sigmoid(layers.Dense(3)(x)), "sigmoid"),
        (lambda x: layers.Dense(3, activation=layers.Softmax())(x), "softmax"),
    ],
)
def test_activation_as_an_operation_or_a_layer(end, activation):
    inputs = keras.Input((8,))
    assert NetworkReader(keras.Model(inputs, end(layers.Dense(6)(inputs)))).head().activation == activation
