"""keras_collab: the parts of one Keras network teach each other while it trains."""

from keras_collab import datasets, label_noise, models, schedules
from keras_collab.balancing import Balance, balance
from keras_collab.collab_model import CollabModel, wrap
from keras_collab.collaboration import Collaboration, Seen
from keras_collab.diagnosis import Diagnosis, diagnose
from keras_collab.intermediate_consistency import IntermediateConsistency
from keras_collab.kernel_similarity import KernelSimilarity
from keras_collab.output_consistency import OutputConsistency
from keras_collab.reader import Found, NetworkReader
from keras_collab.representation_similarity import RepresentationSimilarity

__version__ = "0.1.0"

__all__ = [
    "Balance",
    "CollabModel",
    "Collaboration",
    "Diagnosis",
    "Found",
    "IntermediateConsistency",
    "KernelSimilarity",
    "NetworkReader",
    "OutputConsistency",
    "RepresentationSimilarity",
    "Seen",
    "balance",
    "datasets",
    "diagnose",
    "label_noise",
    "models",
    "schedules",
    "wrap",
]
