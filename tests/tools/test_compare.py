"""Arms are compared from the same starts and batches, and a comparison that was stopped goes on."""

import shutil

import keras
import numpy as np
import pytest
from helpers import FEW_STEPS, compare_tiny, compile_model, small_data, small_network, tiny_network

import keras_collab
from keras_collab._files import write_whole


@keras.saving.register_keras_serializable("test")
class Order(keras.metrics.Metric):
    """A number that depends on which labels come, and in which order."""

    def __init__(self, name="order", **kwargs):
        super().__init__(name=name, **kwargs)
        self.state = self.add_weight(shape=(), initializer="zeros", name="state")

    def update_state(self, y_true, y_pred, sample_weight=None):
        labels = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "float32")
        places = keras.ops.arange(1, keras.ops.shape(labels)[0] + 1, dtype="float32")
        self.state.assign(0.5 * self.state + keras.ops.sum(labels * places))

    def result(self):
        return 1.0 * self.state  # A copy: on torch the tensor itself goes on to change.


def compile(model):
    compile_model(model, optimizer="adam", metrics=["accuracy", Order()], **FEW_STEPS)


def zero_terms():
    return [keras_collab.KernelSimilarity(0.0)]


def run(**changes):
    return compare_tiny(**{"compile": compile, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("whole")


@pytest.fixture(scope="module")
def whole(folder):
    """A comparison of two seeds that was not stopped."""
    return run(seeds=2, directory=folder)


class Batches(keras.utils.PyDataset):
    def __init__(self):
        super().__init__()
        self.x, self.y = small_data(40)
        self.order = np.random.permutation(40)

    def __len__(self):
        return 5

    def __getitem__(self, index):
        rows = self.order[8 * index : 8 * index + 8]
        return self.x[rows], self.y[rows]

    def on_epoch_end(self):
        self.order = np.random.permutation(40)


def loader():
    import torch

    x, y = small_data(40)
    data = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    return torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)


def tf_dataset():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices(small_data(40)).shuffle(40).batch(8)


DATA = {
    "arrays": small_data(40),
    "sample weights": (*small_data(40), np.linspace(0, 2, 40).astype("float32")),
    "PyDataset": Batches,
    "DataLoader": loader,
    "tf.data": tf_dataset,
}


ON_TORCH = pytest.mark.skipif(keras.backend.backend() != "torch", reason="Keras seeds torch's order on torch only")
KINDS = [pytest.param(kind, marks=ON_TORCH if kind == "DataLoader" else ()) for kind in DATA]


@pytest.mark.parametrize("kind", KINDS)
def test_an_arm_that_changes_nothing_differs_by_nothing(kind):
    comparison = run(train=DATA[kind], arms={"plain": None, "zero": zero_terms}, seeds=2)
    histories = {(run.arm, run.seed): run.history for run in comparison.runs}
    for seed in range(2):
        plain, zero = histories["plain", seed], histories["zero", seed]
        assert plain["order"] == zero["order"]
        np.testing.assert_allclose(zero["val_loss"], plain["val_loss"], rtol=1e-5)
    assert histories["plain", 0]["order"] != histories["plain", 1]["order"]
    assert histories["plain", 0]["order"][0] != histories["plain", 0]["order"][1]
    assert comparison.difference("zero").mean == 0


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Only TensorFlow has text.")
def test_text_is_compared_and_resumed(tmp_path):
    def text():
        return np.array([" ".join(words) for words in ("abc", "bcd", "cde", "aaa")] * 4, object)

    numbers = keras.layers.TextVectorization(20, output_sequence_length=4)
    numbers.adapt(text())

    def build_on_text():
        inputs = keras.Input((), dtype="string")
        x = keras.layers.Embedding(20, 8)(numbers(inputs))
        x = keras.layers.Conv1D(8, 2, activation="relu")(keras.layers.Conv1D(8, 2, activation="relu")(x))
        return keras.Model(inputs, keras.layers.Dense(2, "softmax")(keras.layers.GlobalAveragePooling1D()(x)))

    labels = np.array([0, 1, 0, 1] * 4)
    for seeds in (1, 2):  # The second call has other strings of the same letters.
        comparison = run(
            build_network=build_on_text,
            train=(text(), labels),
            validation=(text(), labels),
            compile=lambda model: model.compile("adam", "sparse_categorical_crossentropy"),
            seeds=seeds,
            directory=tmp_path,
        )
        assert comparison.difference("wrapped").seeds == seeds


def test_lists_of_numbers_are_refused():
    x, y = small_data(40)
    with pytest.raises(ValueError, match=r"Data must be arrays.*numpy\.asarray"):
        run(train=(x, y.tolist()))


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras 3.15 on torch; `pytest.warns` warns it anew.
def test_data_that_go_on_where_the_last_run_left_them_are_told_of():
    with pytest.warns(UserWarning, match="so that the runs are not pairs.*train= as a function"):
        run(train=Batches(), arms={"plain": None, "again": None}, epochs=1)


class StopError(Exception):
    pass


def stopped_after_training(directory):
    """A comparison that ends between the last epoch of its first run and the file of its weights."""

    def write(path, write_part):
        if path.name == "seed0-plain.weights.h5":
            raise StopError
        write_whole(path, write_part)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("keras_collab.tools._trainer.write_whole", write)
        with pytest.raises(StopError):
            run(directory=directory, arms=["plain"])


def test_resumes_where_only_the_record_is_missing(tmp_path, whole):
    stopped_after_training(tmp_path)
    resumed = run(directory=tmp_path, arms=["plain"])
    assert resumed.metric == whole.metric
    assert resumed.values("plain")[0] == pytest.approx(whole.values("plain")[0])


@pytest.mark.parametrize("stop", [0, 3])
def test_resumes_as_if_never_stopped(stop, tmp_path, monkeypatch, whole):
    ends = []

    def end(self, epoch, logs=None):
        if len(ends) == stop:
            raise StopError
        ends.append(epoch)

    with monkeypatch.context() as patched:
        patched.setattr(keras_collab.callbacks.Backup, "on_epoch_begin", end)
        with pytest.raises(StopError):
            run(directory=tmp_path / "stopped")
    resumed = run(directory=tmp_path / "stopped")
    for ours, theirs in zip(resumed.runs, whole.runs[:2], strict=True):
        assert (ours.arm, ours.seed) == (theirs.arm, theirs.seed)
        assert {name: len(column) for name, column in ours.history.items()} == dict.fromkeys(theirs.history, 2)
        np.testing.assert_allclose(ours.history["loss"], theirs.history["loss"], rtol=1e-4)
    assert not list(tmp_path.glob("*/*backup*"))
    assert not list(tmp_path.glob("*/.part-*"))


def test_what_is_done_is_not_done_again_and_seeds_are_added(folder, whole, tmp_path, monkeypatch):
    shutil.copytree(folder, tmp_path / "copy")
    with monkeypatch.context() as patched:
        patched.setattr("keras_collab.tools._trainer.Trainer.fit", None)
        assert run(directory=tmp_path / "copy").runs == whole.runs[:2]
        assert run(directory=tmp_path / "copy", seeds=2).runs == whole.runs
    more = run(directory=tmp_path / "copy", seeds=3)
    assert more.runs[:4] == whole.runs
    assert [(run.arm, run.seed) for run in more.runs[4:]] == [("plain", 2), ("wrapped", 2)]


def test_best_is_the_trained_plain_network(whole):
    network = whole.best()
    assert not isinstance(network, keras_collab.CollabModel)
    compile(network)
    accuracy = network.evaluate(*small_data(40), verbose=0, return_dict=True)["accuracy"]
    values = {arm: whole.values(arm) for arm in whole.arms}
    best = max(values.values(), key=lambda of_seed: sum(of_seed.values()))
    assert accuracy == pytest.approx(max(best.values()))


def test_the_network_of_a_run_is_that_of_its_arm_and_seed(whole):
    for trained in whole.runs:
        network = whole.network(trained.arm, trained.seed)
        compile(network)
        loss = network.evaluate(*small_data(40), verbose=0, return_dict=True)["loss"]
        assert loss == pytest.approx(trained.history["val_loss"][-1], rel=1e-4)
    with pytest.raises(ValueError, match="no run of arm 'plain' and seed 2"):
        whole.network("plain", 2)


def test_a_first_metric_of_several_values_is_named(monkeypatch):
    def compile_with_f1(model):
        model.compile("adam", "categorical_crossentropy", metrics=[keras.metrics.F1Score()])

    x, y = small_data(40)
    data = (x, keras.utils.to_categorical(y, 3))
    with pytest.raises(ValueError, match=r"first metric must be one number. Received: val_f1_score=.*average='macro'"):
        run(train=data, validation=data, compile=compile_with_f1, arms=["plain"])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"arms": ["plain", "wraped"]}, ValueError, "no arm 'wraped'. Available: plain, wrapped, output_consistency"),
        ({"arms": {"plain": 3}}, TypeError, "Arm 'plain' must be None .*Received: 3"),
        ({"validation": None}, ValueError, "`validation` must be data.*Received an object of type NoneType"),
        ({"train": iter([])}, ValueError, "`train` must be data that `fit` takes, more than once"),
        ({"train": [small_data(8), small_data(8)]}, ValueError, "`train` must be data.*of type list"),
        ({"epochs": 0}, ValueError, "`epochs` must be an integer >= 1"),
        ({"seeds": 1.5}, ValueError, "`seeds` must be an integer >= 1"),
        ({"compile": lambda model: None}, ValueError, "`compile` must call model.compile"),
        ({"compile": None}, TypeError, "`compile` must be a function. Received: compile=None"),
        ({"build_network": lambda: None}, TypeError, "`build_network` must return a network. Received: None"),
        (
            {"build_network": lambda: keras.Sequential([keras.layers.Dense(3)])},
            ValueError,
            "must return a built network",
        ),
        ({"batch_size": 0}, ValueError, "`batch_size` must be an integer >= 1. Received: batch_size=0"),
        ({"batch_size": "8"}, ValueError, "`batch_size` must be an integer"),
        ({"train": np.ones((4, 8, 8, 3))}, ValueError, r"`train` must be data.*: \(x, y\)"),
        ({"arms": ()}, TypeError, r"`arms` must be names.*Received: \(\)"),
        ({"arms": {}}, TypeError, "`arms` must be names"),
        ({"arms": None}, TypeError, "`arms` must be names.*Received: None"),
        ({"arms": {1: None}}, TypeError, "names of arms must be strings. Received: 1"),
        ({"arms": {"mine": keras_collab.KernelSimilarity()}}, TypeError, "Arm 'mine' must be None.*KernelSimilarity"),
        ({"arms": {"mine": lambda network: None}}, TypeError, "Arm 'mine' must return a model.*Received: None"),
        (
            {"arms": {"mine": lambda network: tiny_network()}},
            TypeError,
            "Arm 'mine' must return a model that trains the netw",
        ),
    ],
)
def test_wrong_arguments_are_named_before_any_training(changes, error, message, monkeypatch):
    monkeypatch.setattr("keras_collab.tools._trainer.Trainer.fit", None)
    with pytest.raises(error, match=message):
        run(**changes)


def test_networks_share_only_what_is_frozen():
    base = small_network()
    features = keras.Model(base.input, base.layers[-2].output)

    def build():
        return keras.Sequential([features, keras.layers.Dense(3, activation="softmax")])

    with pytest.raises(ValueError, match=r"must make a new network.*frozen may be shared. Received.*kernel"):
        run(build_network=build)
    features.trainable = False
    assert len(run(build_network=build, arms=["plain", "output_consistency"], epochs=1).runs) == 2
    noise = keras.layers.GaussianNoise(0.1)
    with pytest.raises(ValueError, match="augmentation included"):
        run(build_network=lambda: keras.Sequential([keras.Input((8, 8, 3)), noise, small_network()]))


def test_optimizers_are_new(monkeypatch):
    monkeypatch.setattr("keras_collab.tools._trainer.Trainer.fit", None)
    optimizer = keras.optimizers.Adam()
    with pytest.raises(ValueError, match="`compile` must make a new optimizer at each call"):
        run(compile=lambda model: model.compile(optimizer, "sparse_categorical_crossentropy"))


def test_a_network_is_fresh_and_not_compiled():
    data, network = small_data(), small_network()
    with pytest.raises(ValueError, match="must make a new network"):
        keras_collab.compare(lambda: network, data, data, compile=compile, epochs=1, verbose=False, arms=["plain"] * 2)
    compile(network)
    with pytest.raises(ValueError, match="must not compile"):
        keras_collab.compare(lambda: network, data, data, compile=compile, epochs=1, verbose=False)


def test_stops_early_where_all_is_clear(monkeypatch):
    monkeypatch.setattr("keras_collab.tools.compare._clear", lambda comparison: True)
    comparison = run(arms=["plain"], seeds=5, epochs=1, stop_early=True)
    assert len(comparison.runs) == 3
    assert "Stopping at the first clear difference" in " ".join(str(comparison).split())


def test_weights_that_have_not_risen_are_told_of_and_the_direction_can_be_given():
    def accumulate(model):
        optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **FEW_STEPS)

    comparison = run(compile=accumulate, arms=["plain", "wrapped"], epochs=1, larger_is_better=False)
    assert [run.risen for run in comparison.runs] == [1.0, pytest.approx(5 / 500)]
    assert "wrapped: its weights rose to 1% only" in str(comparison)
    assert comparison.metric == "val_accuracy"
    assert not comparison.larger_is_better


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # As above.
def test_arms_of_different_losses_need_a_metric():
    def smoothed(network):
        network.compile("adam", keras.losses.CategoricalCrossentropy(label_smoothing=0.1), **FEW_STEPS)
        return network

    def compile_without_metric(model):
        model.compile("adam", "categorical_crossentropy", **FEW_STEPS)

    x, y = small_data(40)
    data = (x, keras.utils.to_categorical(y, 3))
    arms = {"plain": None, "smoothed": smoothed}
    with pytest.warns(UserWarning, match="arms have different losses.*Compile a metric"):
        run(train=data, validation=data, arms=arms, epochs=1, compile=compile_without_metric)


@keras.saving.register_keras_serializable("test")
def dice_loss(y_true, y_pred):
    return 1.0 - keras.ops.mean(y_pred)


def test_metrics_that_keras_numbers_are_one():
    def compile_with_auc(model):
        model.compile("adam", "categorical_crossentropy", metrics=[keras.metrics.AUC()], **FEW_STEPS)

    x, y = small_data(40)
    data = x, keras.utils.to_categorical(y, 3)
    arms = {"plain": None, "again": None}
    comparison = run(train=data, validation=data, arms=arms, epochs=1, compile=compile_with_auc)
    assert comparison.metric.startswith("val_auc")
    assert comparison.difference("again").mean == 0


def test_targets_have_the_type_that_fit_makes_of_them():
    def root(y_true, y_pred):
        return keras.ops.sqrt(keras.ops.mean(keras.ops.square(y_true - y_pred)))

    def compile_with_root(model):
        model.compile("adam", "mse", metrics=[root], **FEW_STEPS)

    x, y = small_data(40)
    data = x, keras.utils.to_categorical(y, 3).astype("float64")
    assert run(train=data, validation=data, arms=["plain"], epochs=1, compile=compile_with_root).metric == "val_root"


def test_data_without_batches_are_named():
    nothing = (small_data(40)[0][:0], small_data(40)[1][:0])
    with pytest.raises(ValueError, match="`train` must have a batch"):
        run(train=lambda: nothing)
    with pytest.raises(ValueError, match="`validation` must be data"):
        run(validation=lambda: None)
    with pytest.raises(ValueError, match="`train` must be data that `fit` takes, more than once"):
        run(train=lambda: iter([small_data(40)]))


def test_a_first_metric_named_as_a_loss_counts():
    def compile_with_dice(model):
        model.compile("adam", "sparse_categorical_crossentropy", metrics=[dice_loss, "accuracy"], **FEW_STEPS)

    assert run(arms=["plain"], epochs=1, compile=compile_with_dice).metric == "val_dice_loss"
