"""The package's public names."""

import subprocess
import sys
import textwrap

import pytest

import keras_collab


def test_public_names():
    assert sorted(keras_collab.__all__) == [
        "Balance",
        "CollabModel",
        "Comparison",
        "Description",
        "Diagnosis",
        "IntermediateConsistency",
        "KernelSimilarity",
        "NetworkReader",
        "OutputConsistency",
        "RepresentationSimilarity",
        "Selection",
        "StepTensors",
        "Term",
        "balance",
        "baselines",
        "callbacks",
        "compare",
        "datasets",
        "describe",
        "diagnose",
        "label_noise",
        "models",
        "recipes",
        "schedules",
        "wrap",
    ]


def test_reachable_from_the_package_and_imported_only_when_asked_for():
    pytest.importorskip("keras_tuner")
    code = """
        import sys, keras_collab
        assert "keras_tuner" not in sys.modules
        keras_collab.tuner.CollabHyperModel
        assert not hasattr(keras_collab, "tunr")
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True)
