"""The models of overhead.py: the networks, and the kinds of model that are made of them."""

import gc
from collections import namedtuple
from functools import partial

import keras

import keras_collab as kc
from keras_collab.baselines import Exits, MultiHead, RDrop
from keras_collab.models import resnet18, vgg16

SMALL = {"weights": None, "input_shape": (32, 32, 3), "classes": 10}
LARGE = {"weights": None, "input_shape": (96, 96, 3), "classes": 10}
NETWORKS = {
    "resnet18": ("ResNet-18, 32×32", resnet18),
    "resnet50": ("ResNet-50, 32×32", partial(keras.applications.ResNet50, **SMALL)),
    "vgg16_bn": ("VGG-16 with BatchNorm, 32×32", vgg16),
    "vgg16": ("VGG16, 32×32", partial(keras.applications.VGG16, **SMALL)),
    "resnet50_96": ("ResNet-50, 96×96", partial(keras.applications.ResNet50, **LARGE)),
}
TERMS = {
    "output_consistency": [kc.OutputConsistency],
    "intermediate_consistency": [kc.IntermediateConsistency],
    "representation_similarity": [kc.RepresentationSimilarity],
    "kernel_similarity": [kc.KernelSimilarity],
    "all four": [kc.OutputConsistency, kc.IntermediateConsistency, kc.RepresentationSimilarity, kc.KernelSimilarity],
}
RIVALS = {
    "R-Drop": RDrop,
    "exits": Exits,
    "exits with bottlenecks (BYOT)": partial(Exits, bottleneck=True),
    "Song & Chai, 2 heads": partial(MultiHead, splits=1),
    "Song & Chai, 4 heads": partial(MultiHead, splits=2),
}
Rows = namedtuple("Rows", "file variants networks batches")
ROWS = {
    "terms": Rows(
        "overhead",
        ["default", *TERMS, "unwrapped", "Keras' Distiller"],
        ["resnet18", "resnet50", "vgg16", "resnet50_96"],
        [128, 32],
    ),
    "methods": Rows("methods", ["all four", *RIVALS], ["resnet18", "vgg16_bn"], [128]),
}


def new_terms(variant):
    """The terms as they are by default, but for their seeds, which would be drawn at random."""
    terms = [term() for term in TERMS.get(variant, [])]
    for term in terms:
        term.seed = 0
    return terms


def configs(variant):
    """What the terms of a variant are made of."""
    if variant != "default":
        return [term.get_config() for term in new_terms(variant)]
    configs = []
    for term in kc.recipes.gentle():
        configs.append({**term.get_config(), "seed": None})
    return configs


def make(variant, task):
    """A new model of the kind, compiled like all others."""
    keras.backend.clear_session()  # It forgets the dtype too.
    gc.collect()  # The model before this one.
    keras.config.set_dtype_policy(task.dtype)
    _, build = NETWORKS[task.network]
    network = build(dropout=0.3) if variant == "R-Drop" else build()  # R-Drop's two passes differ by dropout.
    if variant == "default":
        model = kc.wrap(network)
    elif variant in TERMS:
        model = kc.wrap(network, new_terms(variant))
    elif variant in RIVALS:
        model = RIVALS[variant](network)
    elif variant == "unwrapped":
        model = kc.wrap(network).unwrap()
    elif variant == "Keras' Distiller":  # The last map is the feature.
        for layer in network.layers:
            if len(layer.output.shape) == 4:
                last = layer.name
        feature = keras.distillation.FeatureDistillation("mse", teacher_layer_name=last, student_layer_name=last)
        teacher = build()  # A twin of the network, since a teacher gets frozen.
        model = keras.distillation.Distiller(teacher, network, feature)
    else:
        model = network
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy")
    return model
