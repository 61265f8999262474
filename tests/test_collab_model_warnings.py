"""A wrapped model that another trains, or that is cloned, warns that its terms do not count."""

import warnings

import keras
import pytest
from helpers import FEW_STEPS, small_data, small_network
from keras import layers, ops

import keras_collab

BACKEND = keras.backend.backend()
# Keras 3.15 reads variables with it; `pytest.warns` warns it anew.
WARNED_ANEW = pytest.mark.filterwarnings("ignore:__array__ implementation")


def in_a_sequential(inner, x, y):
    outer = keras.Sequential([keras.Input(x.shape[1:]), inner])
    outer.compile("sgd", "sparse_categorical_crossentropy", **FEW_STEPS)
    outer.fit(x, y, batch_size=8, verbose=0)


def as_a_student(inner, x, y):
    teacher = small_network(name="teacher")
    loss = keras.distillation.LogitsDistillation()
    distiller = keras.distillation.Distiller(teacher, inner, loss, student_loss_weight=0.5)
    distiller.compile("sgd", "sparse_categorical_crossentropy", **FEW_STEPS)
    distiller.fit(x, y, batch_size=8, verbose=0)


def in_a_loop(inner, x, y):
    """A loop of one's own, as Keras' guides write it for each backend."""
    for _ in range(2):
        if BACKEND == "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                loss = ops.mean(keras.losses.sparse_categorical_crossentropy(y, inner(x, training=True)))
            tape.gradient(loss, inner.trainable_weights)
        elif BACKEND == "torch":
            ops.mean(keras.losses.sparse_categorical_crossentropy(y, inner(x, training=True))).backward()
        else:
            state = [variable.value for variable in inner.trainable_variables]
            others = [variable.value for variable in inner.non_trainable_variables]
            inner.stateless_call(state, others, x, training=True)


@WARNED_ANEW
@pytest.mark.parametrize("train", [in_a_sequential, as_a_student, in_a_loop])
def test_training_by_another_than_fit_warns_once(train):
    x, y = small_data(16)
    inner = keras_collab.wrap(small_network(), [keras_collab.KernelSimilarity()])
    with pytest.warns(UserWarning, match=r"'small' is called with training=True outside.*loss_and_terms") as caught:
        train(inner, x, y)
    assert len([warning for warning in caught if "loss_and_terms" in str(warning.message)]) == 1


def model_of_flat_images():
    flat = keras.Sequential([keras.Input((8 * 8 * 3,)), layers.Reshape((8, 8, 3)), *small_network().layers[1:]])
    model = keras_collab.wrap(flat, [keras_collab.KernelSimilarity()])
    model.compile("sgd", "categorical_crossentropy", **FEW_STEPS)
    return model


def test_a_classifier_of_scikit_learn_that_makes_the_model_trains_with_the_terms():
    pytest.importorskip("sklearn")
    x, y = small_data(16)

    def build(X, y):  # noqa: N803
        return model_of_flat_images()

    classifier = keras.wrappers.SKLearnClassifier(build, fit_kwargs={"verbose": 0})
    classifier.fit(x.reshape(16, -1), y)
    assert classifier.history_.history["kernel_similarity"][0] > 0


@WARNED_ANEW
def test_a_classifier_of_scikit_learn_that_clones_the_model_warns():
    pytest.importorskip("sklearn")
    x, y = small_data(16)
    classifier = keras.wrappers.SKLearnClassifier(model_of_flat_images(), fit_kwargs={"verbose": 0})
    with pytest.warns(UserWarning, match=r"cloned. The clone has no terms.*wrap a clone of model\.unwrap"):
        classifier.fit(x.reshape(16, -1), y)


def test_a_wrapped_model_in_a_graph_of_layers_is_no_clone():
    model = keras_collab.wrap(small_network())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outer = keras.Sequential([keras.Input((8, 8, 3)), model])
        assert outer.output_shape == model.compute_output_shape((None, 8, 8, 3)) == (None, 3)
