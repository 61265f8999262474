"""What is said of arms follows from the numbers: intervals, sentences, the table and the figure."""

import io

import pytest
from rich.console import Console

from keras_collab.tools.comparison import Comparison, Run, is_larger_better, paired_difference


def comparison_of(values, metric="val_accuracy"):
    runs = []
    for arm, of_seed in values.items():
        for seed, value in enumerate(of_seed):
            runs.append(Run(arm, seed, {metric: [0.0, value]}, 0.1))
    return Comparison(runs, list(values), metric, lambda arm, seed: (arm, seed))


def test_interval_is_students():
    # Mean 2, standard deviation 1, t(2; 0.975) = 4.302653 (Student's table): half width 4.302653/√3 = 2.484138.
    difference = paired_difference([1.0, 2.0, 3.0])
    assert difference.mean == 2
    assert (difference.low, difference.high) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-6)
    assert not difference.clear
    assert paired_difference([1.9, 2.0, 2.1]).clear


@pytest.mark.parametrize(
    ("plain", "wrapped", "sentence"),
    [
        ([0.80, 0.81, 0.82], [0.82, 0.831, 0.839], "wrapped: better by +2.0 (+1.8 to +2.2)."),
        ([0.80, 0.81, 0.82], [0.78, 0.789, 0.801], "wrapped: worse by -2.0 (-2.2 to -1.8): train plain."),
        ([0.80, 0.81, 0.82], [0.80, 0.82, 0.81], "wrapped: no difference that 3 seeds can show, +0.0 (-2.5 to +2.5)."),
        ([0.80], [0.90], "wrapped: +10.0 with one seed, which can be chance: run more seeds."),
        ([0.80, 0.81], [0.79, 0.80], "wrapped: -1.0 with each of 2 seeds, too alike for an interval: run more"),
        ([0.800, 0.8123, 0.82], [0.803, 0.8153, 0.8230000001], "wrapped: +0.3 with each of 3 seeds, too alike"),
        ([0.80, 0.81, 0.82], [0.80, 0.81, 0.82], "wrapped: +0.0 with each of 3 seeds, too alike"),
        ([0.80, 0.81], [0.80, float("nan")], "wrapped: no answer, since a training ended with NaN."),
    ],
)
def test_sentences(plain, wrapped, sentence):
    assert comparison_of({"plain": plain, "wrapped": wrapped}).conclusion("wrapped").startswith(sentence)


@pytest.mark.parametrize(
    ("metric", "larger"),
    [
        ("val_accuracy", True),
        ("val_auc", True),
        ("val_mean_io_u", True),
        ("val_loss", False),
        ("val_mean_squared_error", False),
        ("val_mae", False),
        ("val_age_mae", False),
        ("val_my_rmse", False),
        ("val_false_positives", False),
        ("val_wer", False),
        ("val_image_quality", True),
        ("val_smape", False),
        ("val_KLDivergence", False),
        ("val_sparse_categorical_crossentropy", False),
        ("val_error_type_accuracy", True),
        ("val_distance_auc_2", True),
        ("val_top1_err", False),
        ("val_brier_score", False),
        ("val_nrmse", False),
        ("val_wmape", False),
        ("val_negative_log_likelihood", False),
        ("val_negloglik", False),
        ("val_misclassification_rate", False),
        ("val_mean_absolute_deviation", False),
    ],
)
def test_whether_larger_is_better(metric, larger):
    comparison = comparison_of({"plain": [0.1, 0.2, 0.31], "wrapped": [0.2, 0.3, 0.4]}, metric)
    assert comparison.larger_is_better == larger
    assert ("better by" in comparison.conclusion("wrapped")) == larger
    assert comparison.best() == (("wrapped", 2) if larger else ("plain", 0))


@pytest.mark.parametrize(
    ("metric", "metric_class", "larger"),
    [
        ("val_bce", "BinaryCrossentropy", False),
        ("val_mine", "FalsePositives", False),
        ("val_error", "SparseCategoricalAccuracy", True),
        ("val_ce", "MeanMetricWrapper", False),
        ("val_mine", "MeanMetricWrapper", True),
    ],
)
def test_the_class_of_a_metric_says_whether_larger_is_better(metric, metric_class, larger):
    assert is_larger_better(metric, metric_class) == larger


def test_table_has_a_row_an_arm_and_a_sentence_an_arm():
    comparison = comparison_of({"plain": [0.80, 0.81, 0.82], "a": [0.82, 0.831, 0.839], "b": [0.8, 0.8, 0.8]})
    rows = [line.split() for line in str(comparison).splitlines()]
    assert ["plain", "81.0", "±", "1.0", "2", "×1.00", "3"] in rows
    assert ["a", "83.0", "±", "1.0", "+2.0", "+1.8", "to", "+2.2", "2", "×1.00", "3"] in rows
    assert [row[0] for row in rows if row and row[0] in ("a:", "b:")] == ["a:", "b:"]
    with Console(file=None, quiet=True) as console:
        console.print(comparison)


def test_table_loses_no_number_where_it_is_narrow():
    values = {"plain": [0.8, 0.81, 0.82], "representation_similarity": [0.82, 0.831, 0.839]}
    comparison = comparison_of(values, "val_mse")
    text = io.StringIO()
    Console(file=text, width=50).print(comparison)
    assert "\u2026" not in text.getvalue()
    assert "\u2026" not in str(comparison)


def test_losses_that_ended_with_nan_are_told_of():
    runs = [Run("plain", 0, {"val_accuracy": [0.1], "loss": [float("nan")]}, 0.1)]
    assert "plain: the loss of a training ended with NaN." in str(Comparison(runs, ["plain"], "val_accuracy", None))


def test_figure_has_a_line_a_run_and_one_an_arm():
    axis = comparison_of({"plain": [0.80, 0.81], "wrapped": [0.82, 0.83]}).figure().axes[0]
    assert len(axis.lines) == 6
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["plain", "wrapped"]
