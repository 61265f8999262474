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


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("baselines", ["Baseline", "Exits", "MultiHead", "RDrop"]),
        ("callbacks", ["Backup"]),
        ("label_noise", ["CIFAR10_PAIRS", "NoisyLabels", "asymmetric", "memorization", "pair_flip", "symmetric"]),
        ("models", ["resnet10", "resnet14", "resnet18", "resnet20", "resnet8", "vgg16"]),
        ("recipes", ["gentle", "strong"]),
        ("schedules", ["Ramp", "RampDown"]),
    ],
)
def test_public_names_of_a_module(module, names):
    module = getattr(keras_collab, module)
    assert sorted(module.__all__) == names
    for name in names:
        assert hasattr(module, name)


def test_reachable_from_the_package_and_imported_only_when_asked_for():
    pytest.importorskip("keras_tuner")
    code = """
        import sys, keras_collab
        assert "keras_tuner" not in sys.modules
        keras_collab.tuner.CollabHyperModel
        assert not hasattr(keras_collab, "tunr")
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, capture_output=True)
