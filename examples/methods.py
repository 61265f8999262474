"""The names of methods, terms and networks, in the order in which the tables show them.

`all_four` are the terms of `recipes.strong()`, which the panel, whose arms are named by recipes, calls `strong`.
"""

TERMS = ("output_consistency", "intermediate_consistency", "representation_similarity", "kernel_similarity")
CONTROLS = ("plain", "label_smoothing", "gce")  # Plain training, with another loss or without.
RIVALS = ("song_chai_2", "song_chai_4", "r_drop", "exits", "byot")  # keras_collab.baselines
METHODS = ("plain", "all_four", *TERMS, "label_smoothing", "gce", *RIVALS, "terms")
# The panel's.
ARMS = ("plain", "plain_half", "default", "strong", "label_smoothing", "gce", "strong_gce", "song_chai_2")
NETWORKS = ("resnet8", "resnet10", "resnet14", "resnet18", "resnet20", "vgg16")
NOISES = ("none", "symmetric", "asymmetric", "pair_flip")
LOSSES = ("label_smoothing", "gce")


def terms_of(method):
    """The terms that a method may have."""
    if method in ("all_four", "terms"):
        return TERMS
    return (method,) if method in TERMS else ()


def is_control(method):
    """Whether a method, with or without the name of a variant, is a control."""
    return method.partition(" (")[0] in CONTROLS


def words(name):
    """A name as a reader sees it."""
    return name.replace("_", " ")
