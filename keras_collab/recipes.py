"""Lists of terms for kinds of jobs, to be given to `keras_collab.wrap`.

>>> model = keras_collab.wrap(network, keras_collab.recipes.strong())

What each recipe gains and costs, on which data, stands in examples/results/panel.md.
"""

from keras_collab.schedules import Ramp
from keras_collab.terms.intermediate_consistency import IntermediateConsistency
from keras_collab.terms.kernel_similarity import KernelSimilarity
from keras_collab.terms.output_consistency import OutputConsistency
from keras_collab.terms.representation_similarity import RepresentationSimilarity
from keras_collab.terms.term import Term

_WARMUP_STEPS = 500


def gentle() -> list[Term]:
    """Three terms with small weights that rise from 0 within the first 500 steps: what `wrap(network)` takes.

    They are meant to cost nothing on any job. A short training ends before they weigh much. Similarity of
    representations is left out: with Adam it competes with the task where the data are redundant by themselves.
    """
    return [
        OutputConsistency(Ramp(0.1, steps=_WARMUP_STEPS)),
        IntermediateConsistency(Ramp(0.05, steps=_WARMUP_STEPS)),
        KernelSimilarity(Ramp(10.0, steps=_WARMUP_STEPS)),
    ]


def strong() -> list[Term]:
    """All four terms at full weight from the first step.

    They gained with few labels, and with labels drawn at random, on CIFAR-10 photographs with pad-crop and flip and
    SGD. On other data, with Adam, with labels that people got wrong, or on a very small network they have cost
    accuracy; a small network without batch normalization learned nothing at all. Compare before use.
    """
    return [
        OutputConsistency(0.1),
        IntermediateConsistency(0.1),
        RepresentationSimilarity(10.0),
        KernelSimilarity(10.0),
    ]
