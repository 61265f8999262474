"""Grids and results files: what is refused, what is read, and what is left to do."""

import inspect
from pathlib import Path

import grid
import pytest
import records
import settings

import keras_collab

EXAMPLES = Path(__file__).parents[2] / "examples"
GRIDS = sorted((EXAMPLES / "grids").glob("*.toml"))
CLASSES = {
    "output_consistency": keras_collab.OutputConsistency,
    "intermediate_consistency": keras_collab.IntermediateConsistency,
    "representation_similarity": keras_collab.RepresentationSimilarity,
    "kernel_similarity": keras_collab.KernelSimilarity,
}


def write_grid(folder, text):
    path = folder / "grid.toml"
    path.write_text(f"dataset = 'digits'\nnetwork = 'resnet8'\n{text}\n")
    return path


def result(run):
    return {"settings": run.model_dump(), "history": {"val_accuracy": [0.5]}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods = 'plain'", r"no setting 'methods'. Settings: dataset"),
        ("method = 'all_five'", r"method: Input should be 'plain'.*Received: 'all_five'"),
        ("augment = 'no'", r"augment: Input should be a valid boolean. Received: 'no'"),
        ("augment = 0", r"augment: Input should be a valid boolean. Received: 0"),
        ("learning_rate = nan", r"learning_rate: Input should be a finite number. Received: nan"),
        ("weight_decay = inf", r"weight_decay: Input should be a finite number"),
        ("epochs = 1.6", r"epochs: Input should be a valid integer. Received: 1.6"),
        ("batch_size = 0", r"batch_size: Input should be greater than or equal to 1. Received: 0"),
        ("train_size = -5", r"train_size: Input should be greater than or equal to 1. Received: -5"),
        ("seed = true", r"seed: Input should be a valid integer. Received: True"),
        ("validation = 1.0", r"validation: Input should be less than 1"),
        ("noise = 'symmetric'", r"noise_rate must be 0 with noise.*Received: noise='symmetric', noise_rate=0.0"),
        ("noise = 'symmetric'\nnoise_rate = 1.5", r"noise_rate: Input should be less than or equal to 1"),
        ("loss = 'hinge'", r"loss: Input should be 'label_smoothing' or 'gce'. Received: 'hinge'"),
        ("epochs_factor = 0.01", r"epochs times epochs_factor must be 1 or more.*epochs_factor=0.01"),
        ("balance = 0.1", r"balance sets weights of terms, which 'plain' has none of"),
        ("method = 'terms'", r"terms of method 'terms' must be some of output_consistency.*Received: \[\]"),
        ("terms.kernels = {weight = 1}", r"must be a table of some of output_consistency.*Received: \{'kernels'"),
        ("[[runs]]\nterms.kernel_similarity = {weight = 1}", r"method 'plain' must be some of none"),
        ("method = 'all_four'\nterms.kernel_similarity = {weight = nan}", r"finite number"),
        ("method = 'all_four'\nterms.kernel_similarity = {max_filters = 'all'}", r"max_filters.*valid integer"),
        ("method = 'all_four'\nterms.kernel_similarity = {temperature = 2.0}", r"no setting 'temperature'"),
        ("method = 'all_four'\nterms.kernel_similarity = {weight = {Ramp = {value = 1.0}}}", r"epochs: Field required"),
        ("learning_rate = [0.1, 0.2]", r"differ in other settings. Give each a variant"),
        ("terms = 3", r"terms must be a table of some of output_consistency.*Received: 3"),
        ("seed = []", r"an empty list makes no run"),
        ("method = 'all_four'\nterms.kernel_similarity = {weight = {}}", r"weight"),
        ("method = 'all_four'\nterms.kernel_similarity = {layers = []}", r"layers.*Received: \[\]"),
        ("method = 'all_four'\nterms.output_consistency = {temperature = 1e-9}", r"greater than or equal to 0.0001"),
        ("runs = 3", r"runs must be tables, \[\[runs\]\]. Received: 3"),
        ("dataset = 'twice'", r"is no TOML file"),
    ],
)
def test_bad_grids_are_refused_before_anything_runs(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        grid.read_grid(write_grid(tmp_path, text))


def test_a_product_without_end_is_refused_at_once(tmp_path):
    hundred = list(range(1, 101))
    text = "".join(f"{name} = {hundred}\n" for name in ("seed", "width", "train_size", "epochs"))
    with pytest.raises(ValueError, match=r"has 100,000,000 runs. Expected at most 10,000"):
        grid.read_grid(write_grid(tmp_path, text))


def test_each_cell_has_all_runs(tmp_path):
    cells = "[[cells]]\ntrain_size = 100\nepochs = 4\nepochs_factor = 1.25\n[[cells]]\ntrain_size = 50\nepochs = 2\n"
    runs = grid.read_grid(write_grid(tmp_path, f'{cells}[[runs]]\nmethod = ["plain", "gce"]'))
    assert [(run.method, run.train_size, run.all_epochs) for run in runs] == [
        ("plain", 100, 5),
        ("gce", 100, 5),
        ("plain", 50, 2),
        ("gce", 50, 2),
    ]


def test_shared_terms_are_for_the_methods_that_have_them(tmp_path):
    text = 'method = ["plain", "kernel_similarity", "all_four"]\n'
    text += "[terms]\noutput_consistency = {weight = 3}\nkernel_similarity = {weight = 5}"
    plain, kernels, four = grid.read_grid(write_grid(tmp_path, text))
    assert plain.terms == {}
    assert kernels.terms == {"kernel_similarity": {"weight": 5}}
    assert four.terms == {"output_consistency": {"weight": 3}, "kernel_similarity": {"weight": 5}}


@pytest.mark.parametrize(
    "history", ["[1]", "null", '{"val_accuracy": 3}', '{"val_accuracy": "abc"}', "9" * 5000, "[" * 100_000]
)
def test_a_line_with_an_odd_history_is_named_and_skipped(history, tmp_path):
    path = tmp_path / "results.jsonl"
    line = '{"settings": {"dataset": "digits", "network": "resnet8"}, "history": '
    path.write_text(f"{line}{history}}}\n{line}{{}}}}\n")
    results, messages = grid.read_results(path)
    assert [number for _, _, number in results] == [2]
    (message,) = messages
    assert f"{path}:1" in message
    assert grid.standing(results) == "No result yet."


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_results_in_the_repository_go_with_their_grids(path):
    results_path = EXAMPLES / "results" / f"{path.stem}.jsonl"
    runs, (results, messages) = grid.read_grid(path), grid.read_results(results_path)
    assert messages == []
    assert len(grid.still_to_do(runs, results, results_path)) == len(runs) - len(results)


@pytest.mark.parametrize("path", sorted((EXAMPLES / "results").glob("cho*.jsonl")), ids=lambda path: path.stem)
def test_lines_of_forms_that_were_removed_are_read(path):
    results, messages = grid.read_results(path)
    assert messages == []
    assert len(results) == len(path.read_text().splitlines())


def test_the_form_that_was_the_default_has_no_name_and_the_relational_one_is_a_target():
    common = {"dataset": "digits", "network": "resnet8", "method": "all_four"}
    old = {"intermediate_consistency": {"weight": 0.1, "form": "outputs"}}
    assert settings.Settings(**common, terms=old) == settings.Settings(
        **common, terms={"intermediate_consistency": {"weight": 0.1}}
    )
    old = {"intermediate_consistency": {"weight": 0.2, "form": "relational"}}
    run = settings.Settings(**common, terms=old)
    assert run.terms == {"intermediate_consistency": {"weight": 0.2, "target": "deepest"}}
    assert run.retired is None
    old = {"kernel_similarity": {"weight": 0.2, "form": "angle"}}
    assert settings.Settings(**common, terms=old).retired == "angle"


@pytest.mark.parametrize("name", CLASSES)
def test_arguments_of_terms_are_those_of_their_classes(name):
    fields = set(settings.TERM_SETTINGS[name].model_fields) - {"form"}
    assert fields <= set(inspect.signature(CLASSES[name]).parameters)


def test_results_with_other_settings_are_refused(tmp_path):
    results = tmp_path / "results.jsonl"
    runs = grid.read_grid(write_grid(tmp_path, 'method = ["plain", "all_four"]'))
    records.append(results, result(runs[0]))
    assert grid.still_to_do(runs, grid.read_results(results)[0], results) == runs[1:]
    records.append(results, result(runs[1]))
    changed = grid.read_grid(write_grid(tmp_path, 'method = "all_four"\nlearning_rate = 0.2'))
    with pytest.raises(ValueError, match=r"learning_rate: 0.1, now 0.2.*--results FILE"):
        grid.still_to_do(changed, grid.read_results(results)[0], results)


def test_foreign_lines_are_named_and_the_rest_is_used(tmp_path):
    path = tmp_path / "results.jsonl"
    first, second = grid.read_grid(write_grid(tmp_path, "seed = [0, 1]"))
    strange = result(first)
    strange["settings"] |= {"seed": 7, "colour": "red"}
    old = result(first)
    old["settings"] |= {"seed": 8, "method": "all_five"}
    with path.open("w", encoding="utf-8-sig") as file:
        file.write(records.json.dumps(result(first)) + '\n3\n{}\n{"settings": 3}\n')
    for record in (strange, old, result(first), result(second)):
        records.append(path, record)
    with path.open("a") as file:
        file.write('{"settings": {"data')
    results, messages = grid.read_results(path)
    assert [(run.seed, line) for run, _, line in results] == [(0, 1), (1, 8)]
    expected = [
        ":2 is no JSON object and was skipped: 3",
        ":9 is cut off or no JSON and was skipped.",
        ":3 is no result of a run and was skipped: it has no settings.",
        ":4 is no result of a run and was skipped: it has no settings.",
        ":5 was skipped. There is no setting 'colour'.",
        ":6 was skipped. method: Input should be 'plain'",
        ":7 was skipped: 'digits all resnet8 plain seed 0' is in line 1 already.",
    ]
    for message, text in zip(messages, expected, strict=True):
        assert message.startswith(f"{path}{text}")


def test_numbers_that_json_does_not_have_are_null(tmp_path):
    path = tmp_path / "results.jsonl"
    records.append(path, {"loss": [1.0, float("nan")], "worst": float("inf")})
    assert path.read_text() == '{"loss": [1.0, null], "worst": null}\n'
