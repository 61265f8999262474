"""The hypermodel under keras-tuner's own searches, on digits."""

import os
import subprocess
import sys

import keras
import pytest
from helpers import FEW_STEPS, small_network
from keras import layers

import keras_collab
from keras_collab import IntermediateConsistency, KernelSimilarity, OutputConsistency

keras_tuner = pytest.importorskip("keras_tuner")
from keras_collab.tuner import CollabHyperModel  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def digits_network():
    inputs = keras.Input((8, 8, 1))
    x = layers.Rescaling(1 / 255)(inputs)
    for filters in (4, 6):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.Flatten()(x)))


@pytest.fixture(scope="module")
def data():
    digits = keras_collab.datasets.digits(subset=200, validation=100)
    return {
        "x": digits.train.images,
        "y": digits.train.labels,
        "validation_data": (digits.validation.images, digits.validation.labels),
        "epochs": 2,
        "batch_size": 50,
        "verbose": 0,
    }


def terms():
    return [OutputConsistency(), KernelSimilarity(max_filters=4)]


def compile(hp, model):
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], **FEW_STEPS)


def hypermodel(**kwargs):
    return CollabHyperModel(digits_network, **{"terms": terms(), "balance": False, "compile": compile, **kwargs})


def statuses(tuner):
    return [trial.status for trial in tuner.oracle.trials.values()]


SEARCHES = {
    "random": lambda model, where: keras_tuner.RandomSearch(
        model, objective="val_accuracy", max_trials=1, executions_per_trial=2, directory=where, seed=0
    ),
    "hyperband": lambda model, where: keras_tuner.Hyperband(
        model, objective="val_accuracy", max_epochs=2, factor=2, directory=where, seed=0
    ),
}


@pytest.mark.parametrize("search", ["random", "hyperband"])
def test_searches_end_with_a_trained_model(search, data, tmp_path):
    tuner = SEARCHES[search](hypermodel(), tmp_path)
    tuner.search(**data)
    assert set(statuses(tuner)) == {"COMPLETED"}
    (trial,) = tuner.oracle.get_best_trials(1)
    best = tuner.get_best_models()[0]
    weight = trial.hyperparameters.get("kernel_similarity_weight")
    assert 1 <= weight <= 100  # A tenth of the default, 10, to ten times it.
    assert best.terms["kernel_similarity"].weight == pytest.approx(weight)
    logs = best.evaluate(*data["validation_data"], return_dict=True, verbose=0)
    # The score is the mean over the executions, of which the best one is kept.
    assert trial.score <= logs["accuracy"] + 1e-6
    if tuner.executions_per_trial == 1:
        assert trial.score == pytest.approx(logs["accuracy"])
    assert best.fit(data["x"], data["y"], verbose=0).history["kernel_similarity"]
    best.unwrap().save(tmp_path / "network.keras")
    assert keras.saving.load_model(tmp_path / "network.keras").output_shape == (None, 10)


def test_the_tuner_needs_an_objective(data, tmp_path):
    tuner = keras_tuner.RandomSearch(hypermodel(), max_trials=1, directory=tmp_path)
    with pytest.raises(keras_tuner.errors.FatalTypeError, match="when `objective` is left unspecified"):
        tuner.search(**data)


@pytest.mark.parametrize("objective", ["loss", [keras_tuner.Objective("val_accuracy", "max"), "loss"]])
def test_the_weighted_loss_is_no_objective(objective, data, tmp_path):
    tuner = keras_tuner.RandomSearch(hypermodel(), objective=objective, max_trials=3, directory=tmp_path)
    with pytest.raises(keras_tuner.errors.FatalValueError, match=r"Received: 'loss'.*Give objective='val_accuracy'"):
        tuner.search(**data)
    assert len(tuner.oracle.trials) == 1  # It has not begun to train.


def test_of_a_ramp_the_height_is_searched():
    ramp = keras_collab.schedules.Ramp(4.0, steps=9)
    given = [KernelSimilarity(ramp), OutputConsistency(keras_collab.schedules.RampDown(0.5, steps=2, begin=1))]
    hp = keras_tuner.HyperParameters()
    model = CollabHyperModel(small_network, given, balance=False).build(hp)
    assert hp.values["kernel_similarity_weight"] == pytest.approx(4.0)
    assert hp.values["output_consistency_weight"] == pytest.approx(0.5)
    hp.values["kernel_similarity_weight"] = 7.0
    model = CollabHyperModel(small_network, given, balance=False).build(hp)
    assert model.terms["kernel_similarity"].weight.get_config() == {"value": 7.0, "steps": 9, "begin": 0}
    assert ramp.value == 4.0
    polynomial = keras.optimizers.schedules.PolynomialDecay(1.0, decay_steps=5)
    with pytest.raises(ValueError, match=r"weight of 'kernel_similarity' must be a number, a Ramp or a RampDown"):
        CollabHyperModel(small_network, [KernelSimilarity(polynomial)], balance=False)


def test_every_other_column_is_kept(data, tmp_path):
    tuner = keras_tuner.RandomSearch(hypermodel(), objective="val_loss", max_trials=1, directory=tmp_path)
    tuner.search(**data)
    (trial,) = tuner.oracle.trials.values()
    expected = {"accuracy", "val_accuracy", "val_loss", "task_loss", "output_consistency", "kernel_similarity"}
    assert expected <= trial.metrics.metrics.keys()


def test_what_is_searched():
    hp = keras_tuner.HyperParameters()
    settings = {
        "output_consistency.temperature": (1.0, 8.0),
        "intermediate_consistency.layers": ["auto", "conv[01]"],
        "output_consistency.parts": [2, 4],
    }
    given = [OutputConsistency(), IntermediateConsistency(0.5)]
    model = CollabHyperModel(small_network, given, balance=False, settings=settings, choose_terms=True).build(hp)
    assert list(model.terms) == ["output_consistency", "intermediate_consistency"]
    assert hp.values["output_consistency_temperature"] == 2.0  # The term's own.
    assert hp.values["intermediate_consistency_weight"] == pytest.approx(0.5)
    assert hp.values["output_consistency_parts"] == 2
    hp.values |= {"output_consistency": False, "intermediate_consistency_layers": "conv[01]"}
    model = CollabHyperModel(small_network, given, balance=False, settings=settings, choose_terms=True).build(hp)
    (term,) = model.terms.values()
    assert term.get_config()["layers"] == ["conv0", "conv1"]
    assert not given[0].built


def test_networks_and_optimizers_have_hyperparameters(data):
    def build_network(hp):
        return small_network(classes=hp.Choice("classes", [10, 3]))

    def compile_model(hp, model):
        model.compile(keras.optimizers.SGD(hp.Float("learning_rate", 1e-3, 1, sampling="log")), "mse")

    hp = keras_tuner.HyperParameters()
    model = CollabHyperModel(build_network, [], balance=True, compile=compile_model).build(hp)
    assert model.output_shape == (None, 10)
    assert model.terms == {}
    assert sorted(hp.values) == ["classes", "learning_rate"]


def test_ranges_are_measured(data):
    given = hypermodel(balance=True, data=(data["x"], data["y"]))
    (low, high) = given.ranges["kernel_similarity"]
    assert high == pytest.approx(100 * low)
    assert (low, high) != pytest.approx((1.0, 100.0), rel=1e-3)
    hp = keras_tuner.HyperParameters()
    given.build(hp)
    assert hp.values["kernel_similarity_weight"] == pytest.approx((low * high) ** 0.5)


def test_a_network_that_cannot_be_wrapped_fails_its_trial_aloud(data, tmp_path):
    def build_network(hp):
        if hp.Boolean("flat"):
            inputs = keras.Input((8, 8, 1))
            return keras.Model(inputs, layers.GlobalAveragePooling2D()(inputs))
        return digits_network()

    tuner = keras_tuner.RandomSearch(
        CollabHyperModel(build_network, [OutputConsistency()], balance=False),
        objective="val_accuracy",
        max_trials=2,
        directory=tmp_path,
        seed=1,
    )
    flats = [False, True]
    tuner.oracle.populate_space = lambda trial_id: {
        "status": "RUNNING",
        "values": {"flat": flats.pop(), "output_consistency_weight": 1.0},
    }
    with pytest.warns(UserWarning, match=r"cannot be wrapped.*output_consistency"):
        tuner.search(**data)
    assert statuses(tuner) == ["FAILED", "COMPLETED"]
    (failed, _) = tuner.oracle.trials.values()
    assert "cannot be wrapped" in failed.message


def test_a_trial_without_a_number_fails_and_the_search_goes_on(data, tmp_path):
    def compile_model(hp, model):
        model.compile(
            keras.optimizers.SGD(hp.Choice("rate", [1e20, 0.1])),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )

    tuner = keras_tuner.GridSearch(
        hypermodel(compile=compile_model, terms=[KernelSimilarity()]),
        objective=keras_tuner.Objective("val_loss", "min"),
        max_trials=20,
        directory=tmp_path,
    )
    rates = [0.1, 1e20]
    tuner.oracle.populate_space = lambda trial_id: (
        {"status": "RUNNING", "values": {"rate": rates.pop(), "kernel_similarity_weight": 1.0}}
        if rates
        else {"status": "STOPPED"}
    )
    tuner.search(**data)
    assert statuses(tuner) == ["FAILED", "COMPLETED"]


def test_bad_input():
    with pytest.raises(ValueError, match=r"Give data=\(x, y\), or balance=False"):
        CollabHyperModel(digits_network)
    with pytest.raises(ValueError, match=r"no setting 'kernel_similarity.temperature'.*output_consistency.temperature"):
        hypermodel(settings={"kernel_similarity.temperature": (1.0, 2.0)})
    with pytest.raises(ValueError, match=r"a range \(low, high\).*Received: output_consistency.temperature=\(4, 1\)"):
        hypermodel(settings={"output_consistency.temperature": (4, 1)})
    for values in (4, [], ("outputs", "deepest"), [["conv"], ["dense"]]):
        with pytest.raises(ValueError, match=r"must be a list of choices, which are numbers, strings or booleans"):
            hypermodel(settings={"output_consistency.temperature": values})


def test_a_whole_setting_is_searched_in_whole_numbers():
    hp = keras_tuner.HyperParameters()
    hypermodel(settings={"output_consistency.parts": (2, 8), "output_consistency.temperature": (1, 8)}).build(hp)
    kinds = {hyperparameter.name: type(hyperparameter).__name__ for hyperparameter in hp.space}
    assert (kinds["output_consistency_parts"], kinds["output_consistency_temperature"]) == ("Int", "Float")
    assert hp.get("output_consistency_parts") == 2


def test_without_keras_tuner_the_error_names_the_extra(tmp_path):
    code = "import sys; sys.modules['keras_tuner'] = None; import keras_collab.tuner"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ)
    assert "pip install 'keras-collab[tuner]'" in result.stderr
