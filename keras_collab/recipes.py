"""Ready-made lists of terms for `keras_collab.wrap`.

>>> model = keras_collab.wrap(network, keras_collab.recipes.strong())

What each recipe gained and lost, and on which data, is in examples/results/panel.md.
"""

from keras_collab._checks import check_range
from keras_collab.schedules import Ramp
from keras_collab.terms.intermediate_consistency import IntermediateConsistency
from keras_collab.terms.kernel_similarity import KernelSimilarity
from keras_collab.terms.output_consistency import OutputConsistency
from keras_collab.terms.representation_similarity import RepresentationSimilarity
from keras_collab.terms.term import Term

__all__ = ["gentle", "strong"]

_WARMUP_STEPS = 500
_FULL_WIDTH = 128


def gentle(width: int = _FULL_WIDTH) -> list[Term]:
    """Two terms with small weights, which rise from 0 over the first 500 steps: the default of `wrap`.

    They are meant to lower accuracy on no job. A narrow network has no features to spare: there the weights are
    smaller, in proportion to its width. The other two terms are left out: `OutputConsistency` competes with the task in
    a network that is too small to fit its training data, `RepresentationSimilarity` with Adam where the features of the
    data are themselves correlated. A training of fewer steps ends before the weights have risen.

    Args:
        width: integer, >= 1. Channels of the network's widest stage; `wrap` counts them. Below 128 the weights are in
            proportion to it. Defaults to 128.
    """
    share = min(1.0, check_range(gentle, width=width, least=1, whole=True) / _FULL_WIDTH)
    return [
        IntermediateConsistency(Ramp(0.05 * share, steps=_WARMUP_STEPS)),
        KernelSimilarity(Ramp(10.0 * share, steps=_WARMUP_STEPS)),
    ]


def strong() -> list[Term]:
    """All four terms at full weight from the first step.

    For photographs with augmentation and few labels, or many wrong ones, a network with batch normalization that is
    large enough to memorize them, and SGD. They may lower accuracy with Adam, without augmentation and on a small
    network: run `keras_collab.compare` first.
    """
    return [
        OutputConsistency(0.1),
        IntermediateConsistency(0.1),
        RepresentationSimilarity(10.0),
        KernelSimilarity(10.0),
    ]
