"""Networks of every shape are read, trained, evaluated and unwrapped."""

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_collab import (
    IntermediateConsistency,
    KernelSimilarity,
    NetworkReader,
    OutputConsistency,
    RepresentationSimilarity,
    Selection,
    Term,
    describe,
    recipes,
    wrap,
)

BACKEND = keras.backend.backend()
SAMPLES = 6


def compile_model(model, loss, run_eagerly=BACKEND != "jax"):
    """What takes least time for a few steps: without XLA, which eager JAX, compiling each operation, cannot avoid."""
    optimizer = keras.optimizers.SGD(0.05)
    if model.dtype_policy.name == "mixed_float16":  # Its first scale, 2**15, overflows here, and the step is left out.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=64.0)
    model.compile(optimizer, loss, run_eagerly=run_eagerly, jit_compile=BACKEND == "jax" and not run_eagerly)


def residual(input_shape=(8, 8, 3), name="backbone"):
    """Two stages of one block, with batch normalization, as ResNets begin."""
    inputs = keras.Input(input_shape, name="image")
    x = layers.Conv2D(4, 3, padding="same", name="stem")(inputs)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_norm")(x))
    for stage, strides in ((1, 1), (2, 2)):
        y = layers.Conv2D(6, 3, strides=strides, padding="same", name=f"conv{stage}")(x)
        y = layers.BatchNormalization(name=f"norm{stage}")(y)
        shortcut = layers.Conv2D(6, 1, strides=strides, name=f"shortcut{stage}")(x)
        x = layers.ReLU(name=f"out{stage}")(layers.Add(name=f"add{stage}")([y, shortcut]))
    return keras.Model(inputs, x, name=name)


RESIDUAL_TAPS = ["out1", "out2"]
RESIDUAL_KERNELS = ["conv1", "conv2"]


def inside(prefix, names):
    return [f"{prefix}/{name}" for name in names]


def classifier(x, classes=3, name="head", activation="softmax"):
    x = layers.GlobalAveragePooling2D(name=f"{name}_pool")(x)
    return layers.Dense(classes, activation=activation, name=name)(x)


def images(shape=(8, 8, 3), seed=0):
    return np.random.default_rng(seed).normal(size=(SAMPLES, *shape)).astype("float32")


LABELS = np.array([0, 1, 2, 0, 1, 2])


@dataclasses.dataclass
class Case:
    """A network, data for it, and what should be found in it."""

    network: keras.Model
    taps: list[str]
    kernels: list[str]
    x: Any = dataclasses.field(default_factory=images)
    y: Any = dataclasses.field(default_factory=lambda: LABELS)
    loss: str = "sparse_categorical_crossentropy"
    head: str = "head"
    comparable: bool = True  # Draws no random numbers, and calls each layer once.
    tolerance: float = 1e-5


def sequential():
    network = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Rescaling(0.5),
            layers.Conv2D(4, 3, padding="same", activation="relu", name="first"),
            layers.MaxPooling2D(),
            layers.Conv2D(6, 3, padding="same", name="second"),
            layers.ReLU(name="second_relu"),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(3, activation="softmax", name="head"),
        ]
    )
    return Case(network, ["first", "second_relu"], ["second"], comparable=False)


def transfer_learning():
    network = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.RandomFlip("horizontal"),
            residual(),
            layers.GlobalAveragePooling2D(),
            layers.Dropout(0.2),
            layers.Dense(3, activation="softmax", name="head"),
        ]
    )
    return Case(network, inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS), comparable=False)


def backbone_extended_on_its_own_input():
    body = residual()
    return Case(keras.Model(body.input, classifier(body.output)), RESIDUAL_TAPS, RESIDUAL_KERNELS)


def backbone_called_on_its_own_input():
    body = residual()
    network = keras.Model(body.input, classifier(body(body.input)))
    return Case(network, inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS))


def backbone_of_open_size():
    inputs = keras.Input((8, 8, 3))
    network = keras.Model(inputs, classifier(residual((None, None, 3))(inputs)))
    return Case(network, inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS))


def open_size():
    inputs = keras.Input((None, None, 3))
    network = keras.Model(inputs, classifier(residual((None, None, 3))(inputs)))
    return Case(network, inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS))


def nested_twice():
    encoder = keras.Sequential([keras.Input((8, 8, 3)), residual(), layers.Dropout(0.0)], name="encoder")
    inputs = keras.Input((8, 8, 3))
    network = keras.Model(inputs, classifier(encoder(inputs)))
    return Case(network, inside("encoder/backbone", RESIDUAL_TAPS), inside("encoder/backbone", RESIDUAL_KERNELS))


def nested_head():
    inputs = keras.Input((8, 8, 3))
    top = keras.Sequential([keras.Input((6,)), layers.Dense(3, activation="softmax", name="head")], name="top")
    network = keras.Model(inputs, top(layers.GlobalAveragePooling2D()(residual()(inputs))))
    kernels = inside("backbone", RESIDUAL_KERNELS)
    return Case(network, inside("backbone", RESIDUAL_TAPS), kernels, head="top/head")


def siamese():
    """Taps of a backbone that is called twice are those of its first call; its filters count once."""
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    body, pool = residual(), layers.GlobalAveragePooling2D()
    distance = layers.Subtract()([pool(body(left)), pool(body(right))])
    network = keras.Model([left, right], layers.Dense(1, activation="sigmoid", name="head")(distance))
    y = np.array([[0.0], [1], [1], [0], [1], [0]])
    taps, kernels = inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS)
    x = [images(seed=0), images(seed=1)]
    return Case(network, taps, kernels, x, y, "binary_crossentropy", comparable=False)


def shared_layer():
    inputs = keras.Input((8, 8, 3))
    again = layers.Conv2D(4, 3, padding="same", activation="relu", name="again")
    x = again(again(layers.Conv2D(4, 3, padding="same", name="first")(inputs)))
    x = layers.Conv2D(6, 3, strides=2, activation="relu", name="last")(x)
    return Case(keras.Model(inputs, classifier(x)), ["again", "last"], ["again", "last"], comparable=False)


def with_table(structure):
    image, table = keras.Input((8, 8, 3), name="photo"), keras.Input((5,), name="table")
    x = layers.GlobalAveragePooling2D()(residual()(image))
    x = layers.Concatenate()([x, layers.Dense(4, activation="relu", name="table_dense")(table)])
    outputs = layers.Dense(3, activation="softmax", name="head")(x)
    given = {"photo": image, "table": table}
    return keras.Model(structure(given), outputs), structure({"photo": images(), "table": images((5,))})


def several_inputs():
    network, x = with_table(lambda given: [given["table"], given["photo"]])
    return Case(network, inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS), x)


def dict_inputs():
    network, x = with_table(lambda given: given)
    return Case(network, inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS), x)


def nested_model_called_by_name():
    """Its inputs are a list in one order; it is called with a dict in the other."""
    first, second = keras.Input((4,), name="first"), keras.Input((4,), name="second")
    difference = layers.Subtract()([layers.Dense(6, name="a")(first), layers.Dense(6, name="b")(second)])
    inner = keras.Model([second, first], layers.ReLU(name="relu")(difference), name="inner")
    p, q = keras.Input((4,), name="p"), keras.Input((4,), name="q")
    network = keras.Model([p, q], layers.Dense(3, activation="softmax", name="head")(inner({"first": p, "second": q})))
    x = [images((4,), 0), images((4,), 1)]
    return Case(network, ["inner/a", "inner/relu"], ["inner/a", "inner/b"], x)


def multi_label():
    inputs = keras.Input((8, 8, 3))
    network = keras.Model(inputs, classifier(residual()(inputs), 4, activation="sigmoid"))
    y = np.random.default_rng(0).integers(0, 2, size=(SAMPLES, 4)).astype("float32")
    taps, kernels = inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS)
    return Case(network, taps, kernels, y=y, loss="binary_crossentropy")


def channels_first():
    inputs = keras.Input((3, 8, 8))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", data_format="channels_first", name="first")(inputs)
    x = layers.BatchNormalization(axis=1)(layers.MaxPooling2D(data_format="channels_first")(x))
    x = layers.Conv2D(6, 3, padding="same", activation="relu", data_format="channels_first", name="second")(x)
    x = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    network = keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(x))
    return Case(network, ["first", "second"], ["second"], images((3, 8, 8)))


def text():
    """A nested encoder whose embedding masks: the mask reaches the pooling behind it."""
    encoder = keras.Sequential(
        [
            keras.Input((8,), dtype="int32"),
            layers.Embedding(9, 6, mask_zero=True),
            layers.Dense(6, activation="relu", name="a"),
            layers.Dense(6, activation="relu", name="b"),
        ],
        name="encoder",
    )
    tokens = keras.Input((8,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(encoder(tokens))
    network = keras.Model(tokens, layers.Dense(3, activation="softmax", name="head")(x))
    x = np.random.default_rng(0).integers(0, 3, size=(SAMPLES, 8))
    return Case(network, ["encoder/a", "encoder/b"], ["encoder/a", "encoder/b"], x)


def text_convolutions():
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(9, 6)(tokens)
    for name in ("first", "second", "third"):
        x = layers.MaxPooling1D()(layers.Conv1D(6, 3, padding="same", activation="relu", name=name)(x))
    network = keras.Model(tokens, layers.Dense(3, activation="softmax", name="head")(layers.GlobalMaxPooling1D()(x)))
    x = np.random.default_rng(0).integers(0, 9, size=(SAMPLES, 16))
    return Case(network, ["first", "second", "third"], ["first", "second", "third"], x)


def dense():
    hidden = [layers.Dense(6, activation="relu", name=name) for name in ("a", "b", "c")]
    network = keras.Sequential([keras.Input((5,)), *hidden, layers.Dense(3, activation="softmax", name="head")])
    return Case(network, ["a", "b", "c"], ["a", "b", "c"], images((5,)))


def mixed_float16():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input((8, 8, 3))
        x = layers.Dense(3, name="head")(layers.GlobalAveragePooling2D()(residual()(inputs)))
        network = keras.Model(inputs, layers.Softmax(dtype="float32")(x))
    finally:
        keras.config.set_dtype_policy("float32")
    taps, kernels = inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS)
    return Case(network, taps, kernels, tolerance=5e-3)


def integer_images():
    """Keras converts to the nested model's dtype when it calls it."""
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    network = keras.Model(inputs, classifier(residual()(inputs)))
    x = np.random.default_rng(0).integers(0, 255, size=(SAMPLES, 8, 8, 3), dtype="uint8")
    return Case(network, inside("backbone", RESIDUAL_TAPS), inside("backbone", RESIDUAL_KERNELS), x)


def layers_of_the_same_name():
    inputs = keras.Input((8, 8, 3))
    x = layers.Concatenate(name="both")([residual(name="one")(inputs), residual(name="two")(inputs)])
    x = layers.ReLU(name="out1")(layers.Conv2D(6, 3, name="conv1")(x))
    kernels = [*inside("one", RESIDUAL_KERNELS), *inside("two", RESIDUAL_KERNELS), "conv1"]
    # No tensor of the first stage is on all paths: it lies in two branches.
    return Case(keras.Model(inputs, classifier(x)), ["two/out1", "both", "out1"], kernels)


def opaque_block():
    """A model with a `call` of its own is a block: tapped as a whole; its filters are read."""

    class Block(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.convolution = layers.Conv2D(6, 3, padding="same", name="conv2d")

        def call(self, inputs):
            return ops.relu(self.convolution(inputs))

    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(inputs)
    x = layers.Conv2D(6, 3, strides=2, activation="relu", name="second")(Block(name="block")(x))
    return Case(keras.Model(inputs, classifier(x)), ["block", "second"], ["block/conv2d", "second"])


CASES = [
    sequential,
    transfer_learning,
    backbone_extended_on_its_own_input,
    backbone_called_on_its_own_input,
    backbone_of_open_size,
    open_size,
    nested_twice,
    nested_head,
    siamese,
    shared_layer,
    several_inputs,
    dict_inputs,
    nested_model_called_by_name,
    multi_label,
    channels_first,
    text,
    text_convolutions,
    dense,
    mixed_float16,
    integer_images,
    layers_of_the_same_name,
    opaque_block,
]


def loss_by_numpy(loss, y, outputs):
    probabilities = np.clip(ops.convert_to_numpy(outputs).astype("float64"), 1e-7, 1 - 1e-7)
    if loss == "binary_crossentropy":
        return -np.mean(y * np.log(probabilities) + (1 - y) * np.log(1 - probabilities))
    return -np.mean(np.log(probabilities[np.arange(len(y)), y]))


def arrays(weights):
    return [ops.convert_to_numpy(weight).copy() for weight in weights]


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_reads(make):
    case = make()
    every_term = [OutputConsistency(), IntermediateConsistency(), RepresentationSimilarity(), KernelSimilarity()]
    terms = {term.name: term for term in describe(wrap(case.network, every_term), verbose=False).terms}
    assert list(terms["intermediate_consistency"].taps) == case.taps
    assert list(terms["representation_similarity"].taps) == case.taps
    assert terms["output_consistency"].head == case.head
    assert sorted(terms["kernel_similarity"].kernels) == sorted(case.kernels)


def skip_channels_first_on_tensorflow(make):
    if make is channels_first and BACKEND == "tensorflow":
        pytest.skip("TensorFlow has no channels-first convolutions on the CPU.")


class MeanSquares(Term):
    """Reads all that there is to read, and tells the sum of its mean squares."""

    def select(self, network):
        return Selection(taps=network.taps(), head=network.head(), kernels=network.kernels())

    def call(self, tensors):
        read = [*tensors.taps, tensors.head.features, *(kernel.read() for kernel in tensors.kernels)]
        return sum(ops.mean(ops.square(ops.cast(values, "float32"))) for values in read)


def layer_at(network, path):
    for name in path.split("/"):
        network = network.get_layer(name)
    return network


def mean_squares(case, monkeypatch):
    """The same by recording what goes through the network's layers when it is called in training."""
    values = [arrays([layer_at(case.network, path).kernel])[0] for path in case.kernels]
    with monkeypatch.context() as patch:
        for path in (*case.taps, case.head):
            layer = layer_at(case.network, path)

            def call(*args, layer=layer, is_head=path == case.head, call=layer.call, **kwargs):
                outputs = call(*args, **kwargs)
                values.append(ops.convert_to_numpy(args[0] if is_head else outputs).astype("float32"))
                return outputs

            patch.setattr(layer, "call", call)
        outputs = case.network(case.x, training=True)
    assert len(values) == len(case.kernels) + len(case.taps) + 1
    return sum(np.mean(np.square(value)) for value in values), outputs


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_trains(make, monkeypatch):
    if make is channels_first and BACKEND == "tensorflow":
        pytest.skip("TensorFlow has no channels-first convolutions on the CPU.")
    case = make()
    network, x, y = case.network, case.x, case.y
    model = wrap(network, [MeanSquares(0.01)])
    compile_model(model, case.loss)
    if case.comparable:
        expected, outputs = mean_squares(case, monkeypatch)
    before = arrays([layer_at(network, case.head).kernel])[0]

    history = model.fit(x, y, batch_size=SAMPLES, epochs=2, verbose=0).history
    assert set(history) == {"loss", "task_loss", "mean_squares"}
    total = np.array(history["task_loss"]) + 0.01 * np.array(history["mean_squares"])
    np.testing.assert_allclose(history["loss"], total, rtol=1e-5)
    if case.comparable:  # The tapped network computes what the network does.
        task = loss_by_numpy(case.loss, y, outputs)
        np.testing.assert_allclose(history["task_loss"][0], task, rtol=case.tolerance)
        np.testing.assert_allclose(history["mean_squares"][0], expected, rtol=case.tolerance)
    assert not np.array_equal(arrays([layer_at(network, case.head).kernel])[0], before)

    task = loss_by_numpy(case.loss, y, network(x, training=False))
    evaluated = model.evaluate(x, y, batch_size=SAMPLES, verbose=0, return_dict=True)
    assert set(evaluated) == {"loss"}
    np.testing.assert_allclose(evaluated["loss"], task, rtol=case.tolerance)
    assert model.unwrap() is network


COMPILED = [transfer_learning, open_size, text_convolutions]


FROZEN = pytest.mark.filterwarnings("ignore:.*reads only what is frozen:UserWarning")  # As some of these networks are.


@FROZEN
@pytest.mark.parametrize("make", COMPILED, ids=lambda make: make.__name__)
def test_trains_with_all_terms_compiled(make):
    case = make()
    model = wrap(case.network, recipes.strong())
    compile_model(model, case.loss, run_eagerly=False)
    history = model.fit(case.x, case.y, batch_size=SAMPLES, epochs=2, verbose=0).history
    assert set(history) == {"loss", "task_loss", *model.terms}
    assert max(min(history[name]) for name in model.terms) > 0
    total = sum(term.weight * np.array(history[name]) for name, term in model.terms.items())
    np.testing.assert_allclose(history["loss"], history["task_loss"] + total, rtol=1e-5)
    expected = loss_by_numpy(case.loss, case.y, case.network(case.x, training=False))
    np.testing.assert_allclose(model.evaluate(case.x, case.y, verbose=0), expected, rtol=case.tolerance)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_is_the_network(make):
    network = make().network
    model = wrap(network, name="wrapped")
    own, wrapped = [], []
    network.summary(print_fn=lambda line, **_: own.append(line))
    model.summary(print_fn=lambda line, **_: wrapped.append(line))
    assert wrapped == own
    assert model.name == "wrapped"
    assert model.input_shape == network.input_shape
    assert model.output_shape == network.output_shape
    for layer in network.layers:
        assert model.get_layer(layer.name) is layer
    assert [id(weight) for weight in model.trainable_weights] == [id(weight) for weight in network.trainable_weights]
    assert {id(weight) for weight in network.weights} <= {id(weight) for weight in model.weights}


def test_shapes_of_taps_in_a_network_of_open_size():
    fixed, free = (
        describe(wrap(make().network, [RepresentationSimilarity()]), verbose=False).terms[0].taps
        for make in (backbone_of_open_size, open_size)
    )
    assert fixed == {"backbone/out1": (None, 8, 8, 6), "backbone/out2": (None, 4, 4, 6)}
    assert free == {"backbone/out1": (None, None, None, 6), "backbone/out2": (None, None, None, 6)}


def test_keras_application_as_backbone():
    """As Keras' guide to transfer learning has it."""
    with keras.StatelessScope(initialize_variables=False):  # To be read its weights need not be filled.
        body = keras.applications.MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, weights=None, include_top=False)
        network = keras.Sequential(
            [
                keras.Input((32, 32, 3)),
                layers.RandomFlip("horizontal"),
                body,
                layers.GlobalAveragePooling2D(),
                layers.Dropout(0.2),
                layers.Dense(3, activation="softmax", name="head"),
            ]
        )
        reader = NetworkReader(network)
    stages = ["block_2_add", "block_5_add", "block_12_add", "out_relu"]
    assert [tap.path for tap in reader.taps()] == inside(body.name, stages)
    assert reader.head().path == "head"
    kernels = [kernel.path for kernel in reader.kernels()]
    assert kernels[0] == f"{body.name}/expanded_conv_project"
    assert kernels[-1] == f"{body.name}/Conv_1"
    assert not any("depthwise" in path for path in kernels)


# Frozen backbones and batch normalization.


def on_backbone(trainable, **call):
    hidden = [layers.Dense(6, name="first"), layers.BatchNormalization(), layers.Dense(6, activation="relu")]
    body = keras.Sequential([keras.Input((5,)), *hidden], name="backbone")
    body.trainable = trainable
    inputs = keras.Input((5,))
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="head")(body(inputs, **call)))


@FROZEN
def test_frozen_backbone_does_not_change():
    network = on_backbone(trainable=False, training=False)
    body = network.get_layer("backbone")
    model = wrap(network)
    compile_model(model, "sparse_categorical_crossentropy")
    before, head = arrays(body.weights), arrays([network.get_layer("head").kernel])
    history = model.fit(images((5,)), LABELS, batch_size=3, epochs=2, verbose=0).history
    for weight, old, new in zip(body.weights, before, arrays(body.weights), strict=True):
        np.testing.assert_array_equal(new, old, err_msg=weight.path)
    assert history["kernel_similarity"] == [0.0, 0.0]  # All of its kernels are frozen.
    assert not np.array_equal(arrays([network.get_layer("head").kernel]), head)


@FROZEN
@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize("training", [None, False])
def test_batch_normalization_in_a_backbone_moves_as_in_plain_keras(trainable, training):
    """Keras 3.15 heeds `trainable`; `training=False` is overridden while a network trains (keras issue 20285)."""
    plain, network = on_backbone(trainable, training=training), on_backbone(trainable, training=training)
    network.set_weights(plain.get_weights())
    start = plain.get_weights()
    for model in (plain, wrap(network, [MeanSquares(0.0)])):
        compile_model(model, "sparse_categorical_crossentropy")
        for seed in (0, 1):
            model.train_on_batch(images((5,), seed), LABELS)
    assert not np.array_equal(plain.get_layer("head").get_weights()[0], start[-2])
    for weight, expected, found in zip(plain.weights, plain.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=weight.path)


# One forward pass a step.


class Counter(layers.Layer):
    calls = 0

    def call(self, inputs):
        self.calls += 1
        return inputs

    def compute_output_shape(self, input_shape):
        return input_shape


@pytest.mark.parametrize("nested", [False, True])
def test_one_forward_pass_a_step(nested):
    inputs = keras.Input((5,))
    x = Counter(name="counter")(layers.Dense(6, activation="relu", name="first")(inputs))
    body = keras.Model(inputs, layers.Dense(6, activation="relu", name="second")(x), name="body")
    outer = keras.Input((5,))
    start, features = (outer, body(outer)) if nested else (inputs, body.output)
    network = keras.Model(start, layers.Dense(3, activation="softmax", name="head")(features))
    model = wrap(network, [MeanSquares(0.01)])
    compile_model(model, "sparse_categorical_crossentropy", run_eagerly=True)
    counter, x = body.get_layer("counter"), images((5,))
    model.train_on_batch(x, LABELS)
    for steps in (1, 2):
        counter.calls = 0
        model.fit(x, LABELS, batch_size=SAMPLES // steps, verbose=0)
        assert counter.calls == steps
    counter.calls = 0
    model.test_on_batch(x, LABELS)
    assert counter.calls == 1


# Several outputs.


class MeanLabel(Term):
    """The mean class of one head's labels, weighted as its task loss weighs the samples."""

    def __init__(self, head):
        super().__init__(weight=0.5)
        self.head = head

    def select(self, network):
        return Selection(head=network.head(self.head))

    def call(self, tensors):
        return tensors.mean_over_samples(
            ops.matmul(tensors.labels, ops.arange(tensors.head.head.classes, dtype="float32"))
        )


ZETA, ALPHA = np.array([0, 1, 2, 2, 2, 2]), np.array([3, 3, 0, 1, 3, 3])
ZETA_WEIGHT, ALPHA_WEIGHT = np.array([1.0, 2, 0, 1, 1, 1]), np.array([0.5, 1, 1, 3, 0, 1])


def two_outputs(structure, nested):
    inputs = keras.Input((5,))
    x = layers.Dense(7, activation="relu", name="hidden")(inputs)
    outputs = {}
    for name, classes in (("zeta", 3), ("alpha", 4)):
        head = layers.Dense(classes, activation="softmax", name="head" if nested else name)
        outputs[name] = keras.Sequential([keras.Input((7,)), head], name=name)(x) if nested else head(x)
    return keras.Model(inputs, structure(outputs))


def as_dict(values):
    return values


def as_list(values):
    return [values["zeta"], values["alpha"]]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("head", ["zeta", "alpha"])
@pytest.mark.parametrize(
    ("outputs", "labels", "weights"),
    [
        (as_list, as_list, None),
        (as_list, as_list, as_list),
        (as_list, as_dict, None),
        (as_dict, as_dict, None),
        (as_dict, as_dict, as_dict),
    ],
    ids=lambda structure: structure.__name__ if structure else "unweighted",
)
def test_head_of_several_outputs_gets_its_own_labels_and_weights(outputs, labels, weights, head, nested):
    network = two_outputs(outputs, nested)
    model = wrap(network, [MeanLabel(head), OutputConsistency(2.0, output=head)])
    losses = outputs({"zeta": "sparse_categorical_crossentropy", "alpha": "sparse_categorical_crossentropy"})
    compile_model(model, losses)
    y = {"zeta": ZETA, "alpha": ALPHA}
    w = {"zeta": ZETA_WEIGHT, "alpha": ALPHA_WEIGHT}
    x = images((5,))
    before = model.predict(x, verbose=0)
    before = before if outputs is as_dict else dict(zip(("zeta", "alpha"), before, strict=True))
    values = model.train_on_batch(x, labels(y), sample_weight=weights(w) if weights else None, return_dict=True)

    weighted = {name: w[name] if weights else np.ones(SAMPLES) for name in y}
    np.testing.assert_allclose(values["mean_label"], np.mean(y[head] * weighted[head]), rtol=1e-5)
    task = -sum(np.mean(np.log(before[name][np.arange(SAMPLES), y[name]]) * weighted[name]) for name in y)
    np.testing.assert_allclose(values["task_loss"], task, rtol=1e-4)
    total = values["task_loss"] + 0.5 * values["mean_label"] + 2.0 * values["output_consistency"]
    np.testing.assert_allclose(values["loss"], total, rtol=1e-5)
