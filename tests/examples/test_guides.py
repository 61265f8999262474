"""The guides run again, with shorter trainings, and their kept output is that of a whole run."""

import re
from pathlib import Path

import keras
import nbclient
import nbformat
import pytest

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "examples" / "guides"
NAMES = [
    "choosing_and_weighing_terms",
    "fine_tuning",
    "own_term_and_training_loop",
    "wrong_labels",
    "your_own_photographs",
]
# Most of the time is what TensorFlow takes to trace each network's first step, so few networks.
SHORTER = {
    r"\bepochs=\d+": "epochs=2",
    r"\bseeds=\d+": "seeds=1",
    r"for seed in range\(\d+\)": "for seed in range(1)",
}


def read(name):
    return nbformat.read(GUIDES / f"{name}.ipynb", as_version=4)


def test_all_guides_are_tested():
    assert sorted(path.stem for path in GUIDES.glob("*.ipynb")) == NAMES


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="One backend is enough: the other tests run on all three."
)
@pytest.mark.parametrize("name", NAMES)
def test_guide_runs_and_leaves_nothing_behind(name, tmp_path, monkeypatch):
    workplace, temporary = tmp_path / "workplace", tmp_path / "temporary"
    workplace.mkdir()
    temporary.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # The kernel is a process of its own.
    monkeypatch.setenv("TMPDIR", str(temporary))
    guide = read(name)
    for cell in guide.cells:
        for long, short in SHORTER.items():
            cell.source = re.sub(long, short, cell.source)
    resources = {"metadata": {"path": str(workplace)}}
    nbclient.NotebookClient(guide, timeout=600, kernel_name="python3", resources=resources).execute()
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize("name", NAMES)
def test_kept_output_is_that_of_a_whole_run(name):
    assert (GUIDES / f"{name}.ipynb").stat().st_size < 150_000
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text
