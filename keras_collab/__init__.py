"""keras_collab: loss terms by which the parts of one Keras network teach each other while it trains."""

import importlib
from types import ModuleType

from keras_collab import baselines, callbacks, datasets, label_noise, models, recipes, schedules
from keras_collab.collab_model import CollabModel, wrap
from keras_collab.network.select import NetworkReader, Selection
from keras_collab.terms.intermediate_consistency import IntermediateConsistency
from keras_collab.terms.kernel_similarity import KernelSimilarity
from keras_collab.terms.output_consistency import OutputConsistency
from keras_collab.terms.representation_similarity import RepresentationSimilarity
from keras_collab.terms.step_tensors import StepTensors
from keras_collab.terms.term import Term
from keras_collab.tools.balance import Balance, balance
from keras_collab.tools.compare import compare
from keras_collab.tools.comparison import Comparison
from keras_collab.tools.describe import Description, describe
from keras_collab.tools.diagnose import diagnose
from keras_collab.tools.diagnosis import Diagnosis

__version__ = "0.1.0"

__all__ = [
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


def __getattr__(name: str) -> ModuleType:
    """Imports `keras_collab.tuner`, which needs keras-tuner, when it is first asked for."""
    if name == "tuner":
        return importlib.import_module("keras_collab.tuner")
    raise AttributeError(f"module 'keras_collab' has no attribute {name!r}")
