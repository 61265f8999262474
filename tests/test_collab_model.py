"""The contract: what training with terms leaves as it is, and what it adds. On every backend."""

import keras
import numpy as np
import pytest
from helpers import FEW_STEPS, JIT, compile_model, small_data, small_network, twin, zero_weights
from keras import layers, ops

import keras_collab

BACKEND = keras.backend.backend()

# With weight 0 training is the plain network's bit for bit on TensorFlow's graph and on torch; XLA reorders sums.
SAME = {"rtol": 1e-4, "atol": 2e-6}


def assert_same_weights(first, second):
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, **SAME)


def train_both(network, data, compile_kwargs=None, **fit_kwargs):
    """Trains a network plainly, and its twin wrapped with all weights 0; returns both and their histories."""
    plain, wrapped = network, keras_collab.wrap(twin(network), zero_weights())
    histories = []
    for model in (plain, wrapped):
        compile_model(model, **(compile_kwargs or {}))
        histories.append(model.fit(*data, batch_size=8, epochs=2, shuffle=False, verbose=0, **fit_kwargs).history)
    return plain, wrapped, *histories


def assert_same_training(plain, wrapped, plain_history, wrapped_history):
    assert_same_weights(plain, wrapped.network)
    for one, other in zip(plain.optimizer.variables, wrapped.optimizer.variables, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(one), ops.convert_to_numpy(other), **SAME)
    for column, values in plain_history.items():
        np.testing.assert_allclose(values, wrapped_history[column], rtol=1e-4, err_msg=column)


# All weights 0: the same training as the plain network.


def test_weight_0_trains_as_the_plain_network():
    assert_same_training(*train_both(small_network(dropout=0.3, regularizer="l2"), small_data(22)))


def test_each_term_with_weight_0_trains_as_the_plain_network(make_term):
    x, y = small_data()
    plain = compile_model(small_network(), **FEW_STEPS)
    wrapped = compile_model(keras_collab.wrap(twin(plain), [make_term(weight=0.0)]), **FEW_STEPS)
    for model in (plain, wrapped):
        model.train_on_batch(x, y)
    assert_same_weights(plain, wrapped.network)


# One forward pass a step, no parameters.


@keras.saving.register_keras_serializable("keras_collab_tests")
@pytest.mark.usefixtures("built_in_the_first_step")
@pytest.mark.parametrize("kind", [list, tuple])
def test_one_output_in_a_list(kind):
    inputs = keras.Input((8, 8, 3))
    outputs = layers.Dense(3, activation="softmax")(layers.Flatten()(layers.Conv2D(4, 3)(inputs)))
    model = keras_collab.wrap(keras.Model(inputs, kind([outputs])), [keras_collab.OutputConsistency()])
    compile_model(model, optimizer=keras.optimizers.SGD(0.0), **FEW_STEPS)
    x, y = small_data(8)
    history = model.fit(x, y, batch_size=8, validation_data=(x, y), verbose=0).history
    np.testing.assert_allclose(history["val_loss"], history["task_loss"], rtol=1e-5)


class Counting(layers.Layer):
    """Counts how often it is called with real data."""

    calls = 0

    def call(self, x):
        Counting.calls += not isinstance(x, keras.KerasTensor)
        return x


def test_one_forward_pass_a_step_and_no_parameters():
    inputs = keras.Input((8, 8, 3))
    x = Counting(name="counting")(layers.Conv2D(4, 3)(inputs))
    x = layers.Conv2D(4, 3, strides=2)(x)
    network = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))
    model = keras_collab.wrap(network)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    compile_model(model, loss, run_eagerly=True)
    x, y = small_data()
    model.train_on_batch(x, y)
    Counting.calls = 0
    for _ in range(3):
        model.train_on_batch(x, y)
    assert Counting.calls == 3
    assert [tuple(w.shape) for w in model.trainable_weights] == [tuple(w.shape) for w in network.trainable_weights]
    added = [w for w in model.weights if not any(w is other for other in network.weights)]
    assert model.count_params() - network.count_params() == len(added) == 5  # Two a term, and the step.
    assert all(w.shape == () and not w.trainable for w in added)


# evaluate and predict are the network's own.


def test_evaluate_and_predict_are_the_networks_own():
    x, y = small_data()
    network = compile_model(small_network())
    model = compile_model(keras_collab.wrap(network))
    model.fit(x, y, batch_size=8, verbose=0)
    before = network.get_weights() + [ops.convert_to_numpy(w) for w in model.weights]
    first = model.evaluate(x, y, verbose=0, return_dict=True)
    assert first == model.evaluate(x, y, verbose=0, return_dict=True)
    assert list(first) == ["accuracy", "loss"] or list(first) == ["loss", "accuracy"]
    expected = network.evaluate(x, y, verbose=0, return_dict=True)
    assert first == pytest.approx(expected, rel=1e-5)
    assert model.test_on_batch(x, y, return_dict=True) == pytest.approx(expected, rel=1e-4)
    np.testing.assert_array_equal(model.predict(x, verbose=0), network.predict(x, verbose=0))
    after = network.get_weights() + [ops.convert_to_numpy(w) for w in model.weights]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_validation_has_the_tasks_columns_only():
    x, y = small_data()
    model = compile_model(keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity()]), **FEW_STEPS)
    history = model.fit(x, y, epochs=2, validation_split=0.3, verbose=0).history
    assert {c for c in history if c.startswith("val_")} == {"val_loss", "val_accuracy"}
    assert set(history) == {"loss", "accuracy", "task_loss", "kernel_similarity", "val_loss", "val_accuracy"}


# What Keras weighs and adds keeps its meaning.


def test_sample_weight_and_class_weight():
    x, y = small_data()
    weight = np.linspace(0, 2, len(x)).astype("float32")
    assert_same_training(
        *train_both(small_network(), (x, y), sample_weight=weight, compile_kwargs={"weighted_metrics": ["accuracy"]})
    )
    assert_same_training(*train_both(small_network(), (x, y), class_weight={0: 1.0, 1: 3.0, 2: 0.5}))


class ActivationPenalty(layers.Layer):
    def call(self, x):
        self.add_loss(0.01 * ops.mean(ops.square(x)))
        return x


def two_headed(outputs_as):
    image, extra = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="extra")
    x = layers.Conv2D(4, 3, activation="relu", activity_regularizer="l2", kernel_regularizer="l2")(image)
    x = layers.Conv2D(6, 3, strides=2, activation="relu")(x)
    x = ActivationPenalty()(layers.GlobalAveragePooling2D()(x))
    x = layers.Concatenate()([x, extra])
    kind, size = layers.Dense(3, activation="softmax", name="kind")(x), layers.Dense(1, name="size")(x)
    outputs = {"kind": kind, "size": size} if outputs_as is dict else [kind, size]
    return keras.Model({"image": image, "extra": extra}, outputs)


@pytest.mark.parametrize("outputs_as", [dict, list])
def test_several_outputs_loss_weights_dict_inputs_add_loss_and_regularizers(outputs_as):
    x, y = small_data()
    inputs = {"image": x, "extra": x[:, 0, :2, :2].reshape(len(x), 4)}
    losses, labels = ["sparse_categorical_crossentropy", "mse"], [y, y.astype("float32")[:, None]]
    names = ["kind", "size"]
    as_given = (lambda values: dict(zip(names, values, strict=True))) if outputs_as is dict else list
    sample_weight = as_given([np.linspace(0, 2, len(x)).astype("float32"), np.ones(len(x), "float32")])
    network = two_headed(outputs_as)
    wrapped = keras_collab.wrap(two_headed(outputs_as), zero_weights(output="kind"))
    wrapped.network.set_weights(network.get_weights())
    kwargs = {"loss_weights": as_given([1.0, 0.2]), "metrics": None}
    histories = []
    for model in (network, wrapped):
        compile_model(model, as_given(losses), **kwargs)
        fit = model.fit(inputs, as_given(labels), batch_size=8, shuffle=False, verbose=0, sample_weight=sample_weight)
        histories.append(fit.history)
    assert_same_training(network, wrapped, *histories)
    assert "kind_loss" in histories[1]
    assert histories[1]["loss"][0] > histories[1]["task_loss"][0]


def test_a_sample_weight_for_one_of_two_outputs():
    x, y = small_data()
    inputs = {"image": x, "extra": np.zeros((len(x), 4), "float32")}
    weight = np.linspace(0, 2, len(x)).astype("float32")
    model = keras_collab.wrap(two_headed(list), [keras_collab.OutputConsistency(output="kind")])
    compile_model(model, ["sparse_categorical_crossentropy", "mse"], metrics=None, **FEW_STEPS)
    labels = [y, y.astype("float32")[:, None]]
    logs = model.train_on_batch(inputs, labels, sample_weight=[None, weight], return_dict=True)
    assert logs["output_consistency"] > 0
    logs = model.train_on_batch(inputs, labels, sample_weight=[0 * weight, weight], return_dict=True)
    assert logs["output_consistency"] == 0


@pytest.mark.parametrize("taken", ["accuracy", "task_loss"])
def test_a_column_of_the_tasks_own_is_not_overwritten(taken):
    x, y = small_data()
    if taken == "accuracy":
        model = keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity(name="accuracy")])
        compile_model(model)
    else:
        inputs = keras.Input((8, 8, 3))
        features = layers.Flatten()(layers.Conv2D(4, 3)(layers.Conv2D(4, 3)(inputs)))
        outputs = {name: layers.Dense(3, activation="softmax", name=name)(features) for name in ("task", "other")}
        model = keras_collab.wrap(keras.Model(inputs, outputs), [keras_collab.KernelSimilarity()])
        compile_model(model, dict.fromkeys(outputs, "sparse_categorical_crossentropy"), metrics=None)
        y = dict.fromkeys(outputs, y)
    with pytest.raises(ValueError, match=f"two columns named '{taken}'"):
        model.fit(x, y, verbose=0)


def test_open_sizes_train():
    x, y = small_data()
    inputs = keras.Input((None, None, 3))
    features = layers.Conv2D(6, 3, strides=2)(layers.Conv2D(4, 3)(inputs))
    network = keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(features)))
    model = keras_collab.wrap(network, keras_collab.recipes.strong())
    compile_model(model)
    assert np.isfinite(model.fit(x, y, batch_size=8, verbose=0).history["representation_similarity"]).all()


# The total loss is a sum.


def test_the_columns_add_up():
    x, y = small_data(samples=22)  # The last batch has 6 samples, the others 8.
    terms = [
        keras_collab.OutputConsistency(0.7),
        keras_collab.IntermediateConsistency(0.3),
        keras_collab.RepresentationSimilarity(2.0),
        keras_collab.KernelSimilarity(keras_collab.schedules.Ramp(4.0, steps=2)),
    ]
    model = keras_collab.wrap(small_network(regularizer=keras.regularizers.L2(0.01)), terms)
    compile_model(model, metrics=None)
    model.optimizer.learning_rate = 0.0  # Regularizers stay as they are.
    weight = np.linspace(0, 2, len(x)).astype("float32")
    history = model.fit(x, y, batch_size=8, epochs=2, sample_weight=weight, verbose=0).history
    regularizers = sum(float(ops.convert_to_numpy(loss)) for loss in model.network.losses)
    assert regularizers > 0.01
    weights = [0.7, 0.3, 2.0, 4.0]
    total = history["task_loss"][1] + sum(w * history[t.name][1] for w, t in zip(weights, terms, strict=True))
    assert history["loss"][1] == pytest.approx(total + regularizers, abs=1e-5)
    assert all(history[term.name][1] > 0 for term in terms)
    assert history["kernel_similarity_weight"] == pytest.approx([(0 * 8 + 2 * 8 + 4 * 6) / 22, 4.0])


def test_total_of_one_step_is_the_sum_for_each_term(make_term):
    x, y = small_data()
    model = compile_model(keras_collab.wrap(small_network(), [make_term(weight=3.0)]), metrics=None, **FEW_STEPS)
    logs = model.train_on_batch(x, y, sample_weight=np.ones(len(x), "float32"), return_dict=True)
    (name,) = model.terms
    assert logs["loss"] == pytest.approx(logs["task_loss"] + 3.0 * logs[name], abs=1e-5)
    assert logs[name] > 0


def test_loss_and_terms_are_those_of_a_training_step():
    x, y = small_data(16)
    terms = [keras_collab.OutputConsistency(seed=3), keras_collab.KernelSimilarity(seed=4)]
    model = compile_model(keras_collab.wrap(small_network(), terms), **FEW_STEPS)
    with keras.StatelessScope(state_mapping=[]):  # Nothing moves: neither statistics nor the step.
        total, values = model.loss_and_terms(x, y)
    logs = model.train_on_batch(x, y, return_dict=True)
    assert float(ops.stop_gradient(total)) == pytest.approx(logs["loss"], rel=1e-5)
    assert list(values) == ["output_consistency", "kernel_similarity"]
    for name, value in values.items():
        assert float(ops.stop_gradient(value)) == pytest.approx(logs[name], rel=1e-5)


def test_loss_and_terms_of_a_model_that_is_not_compiled():
    with pytest.raises(ValueError, match=r"needs a compiled model: call model\.compile"):
        keras_collab.wrap(small_network()).loss_and_terms(*small_data())


def test_samples_of_weight_0_do_not_count_in_output_consistency():
    x, y = small_data()
    term = keras_collab.OutputConsistency(1.0)
    model = compile_model(keras_collab.wrap(small_network(), [term]), metrics=None, **FEW_STEPS)
    logs = model.train_on_batch(x, y, sample_weight=np.zeros(len(x), "float32"), return_dict=True)
    assert logs["output_consistency"] == 0
    assert logs["loss"] == 0


# Other precisions.


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_stays_finite(policy):
    keras.config.set_dtype_policy(policy)
    try:
        network = small_network()
    finally:
        keras.config.set_dtype_policy("float32")
    model = keras_collab.wrap(network)
    assert model.dtype_policy.name == policy
    network.get_layer("bn1").gamma.assign([1e4] * 4 + [0.0] * 4)  # Activations of 1e4, and dead channels.
    compile_model(model, metrics=None)
    x, y = small_data(17)
    x[:8] = x[0]  # A batch of equal samples; the last batch has one sample.
    history = model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    assert all(np.isfinite(weight).all() for weight in model.network.get_weights())
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")


NO_FLOAT64 = pytest.mark.skipif(BACKEND == "jax", reason="JAX has no float64 unless JAX_ENABLE_X64 is set")


def hybrid_network():
    """A convolution with batch normalization, then two blocks of a transformer over its positions."""
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(6, 3, strides=2)(inputs))
    x = layers.Reshape((9, 6))(x)
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(2, 3)(y, y)
        x = x + layers.Dense(6)(layers.Dense(12, "gelu")(layers.LayerNormalization()(x)))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


@pytest.mark.parametrize("floatx", [pytest.param("float64", marks=NO_FLOAT64), "bfloat16"])
def test_another_floatx_trains_as_the_plain_network(floatx):
    x, y = small_data()
    keras.config.set_floatx(floatx)
    try:
        plain, wrapped, *_ = train_both(hybrid_network(), (x, y), compile_kwargs={"metrics": None, "jit_compile": JIT})
        terms = [keras_collab.OutputConsistency(), *keras_collab.recipes.gentle()]
        model = compile_model(keras_collab.wrap(hybrid_network(), terms), metrics=None, jit_compile=JIT)
        history = model.fit(x, y, batch_size=8, verbose=0).history
    finally:
        keras.config.set_floatx("float32")
    for one, other in zip(plain.weights, wrapped.network.weights, strict=True):
        one, other = ops.convert_to_numpy(ops.cast(one, "float32")), ops.convert_to_numpy(ops.cast(other, "float32"))
        np.testing.assert_allclose(one, other, rtol=2e-2, atol=2e-2)
    for values in history.values():
        assert np.isfinite([float(value) for value in values]).all()
    assert history["output_consistency"][0] > 0
