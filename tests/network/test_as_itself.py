"""A network that wraps trains as itself: with weights of 0 its losses and weights are those of plain training."""

import functools

import keras
import numpy as np
import pytest
from helpers import zero_weights
from keras import layers, ops

from keras_collab import (
    IntermediateConsistency,
    KernelSimilarity,
    NetworkReader,
    OutputConsistency,
    RepresentationSimilarity,
    describe,
    wrap,
)
from keras_collab.network.head import read_head

# Keras 3.15 warns of every nested model that a mask enters, though the layers inside see it.
pytestmark = pytest.mark.filterwarnings("ignore:Layer '(body|pairs)' .* was passed an input with a mask")

BACKEND = keras.backend.backend()
SAMPLES = 6
LABELS = np.array([0, 1, 2, 0, 1, 2])


def uniform(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(SAMPLES, *shape)).astype("float32")


def tokens(length=8, words=9, seed=0):
    """Sequences that end in padding of zeros."""
    x = np.random.default_rng(seed).integers(1, words, size=(SAMPLES, length))
    return np.where(np.arange(length) < np.array([8, 6, 4, 3, 5, 7])[:, None], x, 0).astype("int32")


def head(x, name="head"):
    return layers.Dense(3, activation="softmax", name=name)(x)


# 1. Frames, patches or windows folded into the batch.


def frames():
    inputs = keras.Input((4, 16, 16, 3))
    x = ops.reshape(inputs, (-1, 16, 16, 3))
    for name in ("first", "second"):
        x = layers.Conv2D(8, 3, strides=2, name=name)(x)
    x = ops.mean(ops.reshape(layers.GlobalAveragePooling2D()(x), (-1, 4, 8)), axis=1)
    return keras.Model(inputs, head(layers.Dense(6, activation="relu", name="mixed")(x))), uniform(4, 16, 16, 3)


class Fold(layers.Layer):
    """Folds the frames into the batch, and says of it what it makes, with None for the first axis."""

    def call(self, x):
        return ops.reshape(x, (-1, x.shape[-1]))

    def compute_output_shape(self, shape):
        return (None, shape[-1])


def frames_folded_by_layers():
    inputs = keras.Input((4, 5))
    x = layers.Dense(6, activation="relu", name="frame")(Fold()(inputs))
    x = layers.Lambda(lambda x: ops.reshape(x, (-1, 4, 6)), output_shape=(4, 6))(x)
    return keras.Model(inputs, head(layers.Dense(6, activation="relu", name="mixed")(ops.mean(x, axis=1)))), uniform(
        4, 5
    )


def time_first():
    """Steps of a sequence come first inside, samples second."""
    inputs = keras.Input((5, 4))
    x = layers.Dense(6, activation="relu", name="steps")(ops.transpose(inputs, (1, 0, 2)))
    x = ops.mean(x, axis=0)
    return keras.Model(inputs, head(layers.Dense(6, activation="relu", name="mixed")(x))), uniform(5, 4)


# 2. Nested models that do more than to run their layers.


def encoder(words=9, mask_zero=False):
    inputs = keras.Input((8,), dtype="int32")
    x = layers.Embedding(words, 6, mask_zero=mask_zero)(inputs)
    return keras.Model(inputs, layers.LSTM(6, return_sequences=True, name="lstm")(x), name="encoder")


def nested_with_mask():
    """The mask is another input, given to the nested model by name."""
    features = keras.Input((8, 4))
    valid = keras.Input((8,), dtype="bool")
    inner = keras.Input((8, 4))
    pooled = layers.GlobalAveragePooling1D(name="pool")(layers.Dense(6, name="dense")(inner))
    body = keras.Model(inner, pooled, name="body")
    x = layers.Dense(6, activation="relu", name="mixed")(body(features, mask=valid))
    return keras.Model([features, valid], head(x)), [uniform(8, 4), tokens() > 0]


def nested_behind_a_mask():
    """The mask comes with the tensor, as Keras attaches it."""
    inner = keras.Input((8, 6))
    pooled = layers.GlobalAveragePooling1D(name="pool")(layers.Dense(6, activation="relu", name="dense")(inner))
    body = keras.Model(inner, pooled, name="body")
    inputs = keras.Input((8,), dtype="int32")
    x = body(layers.Embedding(9, 6, mask_zero=True)(inputs))
    return keras.Model(inputs, head(layers.Dense(6, activation="relu", name="mixed")(x))), tokens()


def nested_with_a_key_too_many():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    inner = keras.Input((4,), name="a")
    body = keras.Model([inner], layers.Dense(6, activation="relu", name="dense")(inner), name="body")
    x = layers.Dense(6, activation="relu", name="mixed")(body({"a": a, "b": b}))
    x = layers.Concatenate()([x, b])
    return keras.Model([a, b], head(x)), [uniform(4), uniform(4, seed=1)]


class Inference(keras.Model):
    """A backbone whose batch normalization never trains, whoever calls it."""

    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **{**kwargs, "training": False})


def nested_that_forces_inference():
    inner = keras.Input((5,))
    x = layers.Dropout(0.5, seed=1)(layers.Dense(6, name="dense")(inner))
    body = Inference(inner, layers.BatchNormalization(name="norm")(x), name="body")
    inputs = keras.Input((5,))
    return keras.Model(inputs, head(layers.Dense(6, activation="relu", name="mixed")(body(inputs)))), uniform(5)


# 4. Sizes left open.


def raw_audio():
    inputs = keras.Input((None, 1))
    x = layers.Conv1D(8, 80, strides=4, activation="relu", name="first")(inputs)
    for name in ("second", "third", "fourth"):
        x = layers.Conv1D(8, 3, activation="relu", padding="same", name=name)(layers.MaxPooling1D(4)(x))
    return keras.Model(inputs, head(layers.GlobalAveragePooling1D()(x))), uniform(2000, 1)


def learned_positions():
    """A table of 128 positions, of which as many are taken as there are tokens."""

    class Positions(layers.Layer):
        def build(self, input_shape):
            self.table = self.add_weight(shape=(128, input_shape[-1]), name="table")

        def call(self, inputs):
            if inputs.shape[1] is not None and inputs.shape[1] > 128:
                raise ValueError("at most 128 tokens")
            return inputs + self.table[: ops.shape(inputs)[1]]

        def compute_output_shape(self, input_shape):
            if input_shape[1] is not None and input_shape[1] > 128:
                raise ValueError("at most 128 tokens")
            return input_shape

    inputs = keras.Input((None,), dtype="int32")
    x = Positions(name="positions")(layers.Embedding(9, 6)(inputs))
    for name in ("a", "b"):
        x = layers.Dense(6, activation="relu", name=name)(x)
    return keras.Model(inputs, head(layers.GlobalAveragePooling1D()(x))), tokens()


def windows():
    inputs = keras.Input((None, 4))
    x = layers.Reshape((-1, 10, 4))(inputs)
    x = layers.Conv2D(6, (1, 3), activation="relu", name="first")(x)
    x = layers.Conv2D(6, (1, 3), strides=(1, 2), activation="relu", name="second")(x)
    return keras.Model(inputs, head(layers.GlobalAveragePooling2D()(x))), uniform(30, 4)


def spectrogram():
    inputs = keras.Input((None, 20))
    x = layers.Reshape((-1, 20, 1))(inputs)
    for name in ("first", "second"):
        x = layers.Conv2D(6, 3, padding="same", activation="relu", name=name)(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.GRU(6, name="gru")(layers.Reshape((-1, 5 * 6))(x))
    return keras.Model(inputs, head(x)), uniform(16, 20)


# 5. Channels on axis 1, then elsewhere.


def patches_of_channels_first():
    inputs = keras.Input((3, 8, 8))
    x = layers.Conv2D(12, 2, 2, data_format="channels_first", name="patches")(inputs)
    x = layers.Permute((2, 1), name="turn")(layers.Reshape((12, 16), name="flat")(x))
    for name in ("a", "b"):
        y = layers.Dense(12, activation="relu", name=f"dense_{name}")(layers.LayerNormalization()(x))
        x = layers.Add(name=f"add_{name}")([x, y])
    x = layers.LayerNormalization(name="norm")(x)
    return keras.Model(inputs, head(layers.GlobalAveragePooling1D()(x))), uniform(3, 8, 8)


# 8. Masks of Keras.


def masked():
    inputs = keras.Input((8,), dtype="int32")
    x = layers.Embedding(9, 6, mask_zero=True)(inputs)
    for name in ("a", "b"):
        x = layers.Dense(6, activation="relu", name=name)(x)
    return keras.Model(inputs, head(layers.GlobalAveragePooling1D()(x))), tokens()


def masked_recurrent():
    inputs = keras.Input((8, 4))
    x = layers.Masking()(inputs)
    x = layers.LSTM(6, return_sequences=True, name="first")(x)
    x = layers.LSTM(6, name="second")(x)
    return keras.Model(inputs, head(x)), uniform(8, 4) * (tokens() > 0)[..., None]


def nested_with_a_constant():
    """A query that is the same for every sample: the layers on it train, so that they must run in every step."""
    features, query = keras.Input((8,)), keras.Input(batch_shape=(1, 8))
    joined = ops.multiply(layers.Dense(8)(features), layers.Dense(8, name="query")(query))
    body = keras.Model([features, query], joined, name="body")
    inputs = keras.Input((8,))
    return keras.Model(inputs, head(body([inputs, ops.ones((1, 8))]))), uniform(8)


CASES = [
    frames_folded_by_layers,
    nested_with_a_constant,
    frames,
    time_first,
    nested_with_mask,
    nested_behind_a_mask,
    nested_with_a_key_too_many,
    nested_that_forces_inference,
    raw_audio,
    learned_positions,
    windows,
    spectrogram,
    patches_of_channels_first,
    masked,
    masked_recurrent,
]


def train(model, x):
    model.compile(
        keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", jit_compile=False, run_eagerly=BACKEND != "jax"
    )
    return model.fit(x, LABELS, batch_size=SAMPLES // 2, epochs=2, shuffle=False, verbose=0).history


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_weights_of_zero_train_as_plain(make):
    if make is patches_of_channels_first and BACKEND == "tensorflow":
        pytest.skip("TensorFlow has no channels-first convolutions on the CPU.")
    (plain, x), (network, _) = make(), make()  # The same seeds of dropout.
    network.set_weights(plain.get_weights())
    start = network.get_weights()
    expected = train(plain, x)
    reader = NetworkReader(network)
    terms = zero_weights()
    terms = [term for term in terms if not isinstance(term, KernelSimilarity) or _has_kernels(reader)]
    history = train(wrap(network, terms), x)
    np.testing.assert_allclose(history["task_loss"], expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)
    assert any(not np.array_equal(old, new) for old, new in zip(start, network.get_weights(), strict=True))
    for weight, one, other in zip(plain.weights, plain.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-6, err_msg=weight.path)


def _has_kernels(reader):
    try:
        return bool(reader.kernels())
    except ValueError:
        return False


@pytest.mark.parametrize("make", [windows, spectrogram])
def test_size_left_open_inside_the_network_is_described(make):
    (term,) = describe(wrap(make()[0], [RepresentationSimilarity()]), verbose=False).terms
    assert term.taps == {tap.path: tap.shape for tap in NetworkReader(make()[0]).taps()}
    assert None in term.taps["first"][1:]


def test_folded_layer_is_refused_by_name():
    network, _ = frames()
    with pytest.raises(ValueError, match=r"layer 'second' .* first axis does not count the samples"):
        wrap(network, [RepresentationSimilarity(layers=["second"])])
    assert [tap.path for tap in NetworkReader(network).taps()] == ["mixed"]


def test_folded_frames_are_no_taps_whatever_layers_declare():
    assert [tap.path for tap in NetworkReader(frames_folded_by_layers()[0]).taps()] == ["mixed"]


def test_a_batch_of_fixed_size_is_told_from_an_axis_of_this_length():
    inputs = keras.Input(batch_shape=(6, 6, 4))
    x = layers.Dense(4, activation="relu", name="steps")(ops.transpose(inputs, (1, 0, 2)))
    x = layers.Dense(4, activation="relu", name="mixed")(ops.mean(x, axis=0))
    assert [tap.path for tap in NetworkReader(keras.Model(inputs, head(x))).taps()] == ["mixed"]


def test_positions_on_four_axes():
    inputs = keras.Input((3, 4, 4, 4, 1))
    x = layers.TimeDistributed(layers.Conv3D(4, 3, padding="same"), name="volumes")(inputs)
    x = layers.GRU(4)(layers.TimeDistributed(layers.GlobalAveragePooling3D())(x))
    model = wrap(keras.Model(inputs, head(x)), [RepresentationSimilarity(layers=["volumes"])])
    assert np.isfinite(train(model, uniform(3, 4, 4, 4, 1))["representation_similarity"]).all()


def test_nested_model_called_with_a_mask_is_one_layer():
    network, _ = nested_with_mask()
    paths = [call.path for call in NetworkReader(network).graph.calls]
    assert paths == ["body", "mixed", "head"]


def test_nested_model_behind_a_mask_is_opened():
    network, _ = nested_behind_a_mask()
    assert "body/dense" in [call.path for call in NetworkReader(network).graph.calls]


# 3. Overrides that wrapping would pass by.


def task(**methods):
    inputs = keras.Input((4,))
    cls = type("Task", (keras.Model,), methods)
    return cls(inputs, head(layers.Dense(6, activation="relu")(inputs)), name="task")


@pytest.mark.parametrize("method", ["fit", "predict_step", "evaluate", "train_on_batch", "compile", "__call__"])
def test_override_that_would_be_passed_by_is_refused(method):
    def preprocessing(self, *args, **kwargs):
        return getattr(keras.Model, method)(self, *args, **kwargs)

    with pytest.raises(ValueError, match=rf"'task' \(Task\) overrides {method}.*keras.Model\(network.inputs"):
        wrap(task(**{method: preprocessing}))


def test_an_overridden_property_and_a_copied_name_are_overrides():
    def penalized(self):
        return [ops.sum(ops.square(self.layers[-1].kernel))]

    @functools.wraps(keras.Model.compute_loss)
    def tenfold(self, *args, **kwargs):
        return 10 * keras.Model.compute_loss(self, *args, **kwargs)

    for name, method in (("losses", property(penalized)), ("compute_loss", tenfold)):
        with pytest.raises(ValueError, match=rf"'task' \(Task\) overrides {name}"):
            wrap(task(**{name: method}))
    network = task()
    network.compute_loss = tenfold
    with pytest.raises(ValueError, match=r"'task' \(Task\) overrides compute_loss"):
        wrap(network)


class Augmented(keras.Sequential):
    """Trains on noisy data, whatever its subclasses add to it."""

    def train_on_batch(self, x, y=None, **kwargs):
        return super().train_on_batch(x + 0.1, y, **kwargs)

    def evaluate(self, x=None, y=None, **kwargs):
        return super().evaluate(x - 0.1, y, **kwargs)


class Renamed(Augmented):
    pass


def test_inherited_overrides_of_a_sequential_are_refused():
    network = Renamed([keras.Input((4,)), layers.Dense(6, activation="relu"), layers.Dense(3)], name="renamed")
    with pytest.raises(ValueError, match=r"'renamed' \(Renamed\) overrides evaluate, train_on_batch"):
        wrap(network)


def test_own_methods_beside_those_of_keras_are_no_overrides():
    network = task(embed=lambda self, x: self.layers[1](x), get_config=lambda self: {})
    assert wrap(network, zero_weights()).unwrap() is network


def test_what_the_refusal_advises_works():
    network = task(predict_step=lambda self, data: self(2 * data))
    model = wrap(keras.Model(network.inputs, network.outputs), zero_weights())
    assert model.unwrap().layers == network.layers


# 6. Kernels as their layers apply them.


class Cosine(layers.Dense):
    """A classifier by cosines of features and kernel."""

    def call(self, inputs):
        return ops.matmul(ops.normalize(inputs), ops.normalize(self.kernel, axis=0))


def ending_in(last):
    inputs = keras.Input((5,))
    return keras.Model(inputs, last(layers.Dense(8, activation="relu", name="hidden")(inputs)))


def quantized():
    last = layers.Dense(3, name="head")
    network = ending_in(last)
    last.quantize("int8")
    last.enable_lora(2)
    return network


@pytest.mark.parametrize(
    "network",
    [
        lambda: ending_in(Cosine(3, name="head")),
        quantized,
        lambda: ending_in(layers.SpectralNormalization(layers.Dense(3), name="head")),
    ],
    ids=["cosine", "int8 and LoRA", "spectral normalization"],
)
def test_layer_that_applies_its_kernel_in_its_own_way_is_no_head(network):
    with pytest.raises(ValueError, match=r"Term 'output_consistency': no classifier .* layer 'head'"):
        wrap(network(), [OutputConsistency()])


def test_filters_of_a_layer_that_applies_them_in_its_own_way_are_not_read():
    network = ending_in(Cosine(3, name="head"))
    with pytest.raises(ValueError, match="no name of a layer with a kernel matches 'head'"):
        NetworkReader(network).kernels(["head"])


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


def test_head_with_lora_gives_back_what_the_network_says():
    last = layers.Dense(3, name="head")
    network = ending_in(last)
    last.enable_lora(2)
    last.lora_kernel_b.assign(np.ones((2, 3)))
    read = NetworkReader(network).head()
    features = keras.Model(network.input, read.features)(uniform(5))
    logits = ops.convert_to_numpy(read_head(read, features).logits)
    np.testing.assert_allclose(logits, ops.convert_to_numpy(network(uniform(5))), rtol=1e-4, atol=1e-5)


# 7. Networks that are changed afterwards.


def stack():
    hidden = layers.Dense(6, activation="relu", name="hidden")
    return keras.Sequential([keras.Input((5,)), hidden, layers.Dense(3, name="head")], name="stack")


def test_sequential_that_is_changed_is_noticed():
    network = stack()
    graph = NetworkReader(network).graph
    graph.check_unchanged()
    network.pop()
    network.add(layers.Dense(4, name="other"))
    with pytest.raises(ValueError, match=r"Network 'stack' was changed after it was wrapped.*Wrap the network again"):
        graph.check_unchanged()


def test_a_changed_network_is_noticed_in_a_loop_of_ones_own():
    network = stack()
    model = wrap(network, [KernelSimilarity()])
    model.compile("sgd", "mse")
    network.pop()
    network.add(layers.Dense(3))
    with pytest.raises(ValueError, match="Network 'stack' was changed after it was wrapped"):
        model.loss_and_terms(uniform(5), uniform(3))


def test_nested_sequential_that_is_changed_is_noticed():
    body = stack()
    inputs = keras.Input((5,))
    graph = NetworkReader(keras.Model(inputs, head(body(inputs), name="top"))).graph
    graph.check_unchanged()
    body.add(layers.Dense(3))
    with pytest.raises(ValueError, match="Network 'stack' was changed"):
        graph.check_unchanged()


def test_network_that_is_quantized_is_noticed():
    network = stack()
    graph = NetworkReader(network).graph
    network.layers[-1].quantize("int8")
    with pytest.raises(ValueError, match="Network 'stack' was changed"):
        graph.check_unchanged()


def convolutional():
    first = layers.Conv2D(4, 3, activation="relu", name="first")
    pooled = [layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax", name="head")]
    return keras.Sequential([keras.Input((8, 8, 3)), first, *pooled], name="pictures")


def take_the_head_off(network):
    network.pop()


def add_a_layer(network):
    network.add(layers.Dense(3, activation="softmax"))


def add_a_layer_after_another(network):
    network.pop()
    network.add(layers.Dense(3, activation="softmax", name="head"))


@pytest.mark.parametrize("change", [take_the_head_off, add_a_layer, add_a_layer_after_another])
def test_changed_network_is_refused_before_it_trains(change):
    network = convolutional()
    model = wrap(network, [OutputConsistency()])
    change(network)
    with pytest.raises(ValueError, match=r"Network 'pictures' was changed after it was wrapped"):
        train(model, uniform(8, 8, 3))


def test_network_that_changes_between_two_fits_is_refused():
    network = convolutional()
    model = wrap(network, [OutputConsistency()])
    train(model, uniform(8, 8, 3))
    add_a_layer_after_another(network)
    with pytest.raises(ValueError, match=r"Network 'pictures' was changed after it was wrapped"):
        model.fit(uniform(8, 8, 3), LABELS, verbose=0)


# 8. Masks of Keras.


def in_both_directions():
    inputs = keras.Input((8,), dtype="int32")
    x = layers.Embedding(9, 6, mask_zero=True, name="embedding")(inputs)
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True), name="both")(x)
    x = layers.Dense(6, activation="relu", name="mixed")(x)
    return keras.Model(inputs, head(layers.GlobalAveragePooling1D()(x))), tokens()


@pytest.mark.parametrize("make", [masked, in_both_directions])
def test_embedding_of_padding_changes_no_term(make):
    values = []
    for padding in (0.0, 5.0):
        keras.utils.clear_session(free_memory=False)
        keras.utils.set_random_seed(3)
        network, x = make()
        table = next(layer for layer in network.layers if isinstance(layer, layers.Embedding)).embeddings
        start = ops.convert_to_numpy(table).copy()
        start[0] = padding
        table.assign(start)
        model = wrap(network, [RepresentationSimilarity(), IntermediateConsistency()])
        history = train(model, x)
        values.append([history["representation_similarity"][0], history["intermediate_consistency"][0]])
    np.testing.assert_allclose(values[1], values[0], rtol=1e-4)
    assert min(values[0]) > 0


@pytest.mark.parametrize(("make", "layer"), [(masked, "b"), (masked_recurrent, "first")])
def test_tap_knows_which_positions_count(make, layer):
    network, x = make()
    reader = NetworkReader(network)
    (tap,) = reader.taps([layer])
    mask = reader.graph.tapped([tap.mask])(x)["taps"][0]
    np.testing.assert_array_equal(ops.convert_to_numpy(mask), tokens() > 0)


def test_tap_without_a_mask():
    network, _ = windows()
    assert [tap.mask for tap in NetworkReader(network).taps()] == [None, None]


def test_mask_of_another_length_is_left_out():
    inputs = keras.Input((8,), dtype="int32")
    x = layers.Embedding(9, 6, mask_zero=True)(inputs)
    x = layers.Activation("relu", name="relu")(x)
    x = layers.Reshape((4, 12), name="pairs")(x)
    reader = NetworkReader(keras.Model(inputs, head(layers.GlobalMaxPooling1D()(x))))
    relu, pairs = reader.taps(["relu", "pairs"])
    assert relu.mask is not None
    assert pairs.mask is None
