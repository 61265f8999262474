"""Where `layers="auto"` taps networks of kimm and of keras-hub, built from their classes with random weights.

Read off the architectures: the last block of each stage; layers without a name of their own are numbered by Keras.
"""

import keras
import pytest
from keras import layers

from keras_collab import NetworkReader, wrap

# `blocks_9`, `conv_head` and `final_conv` end in a convolution after the last block; `stages_1_downsample_0` is the
# normalization right after the last sum of a stage.
KIMM = {
    "ConvMixer736D32": ["blocks_7_3", "blocks_15_3", "blocks_23_3", "blocks_31_3"],  # Whole blocks.
    "ConvNeXtAtto": ["stages_1_downsample_0", "stages_2_downsample_0", "stages_3_downsample_0", "add_11"],
    "DenseNet121": ["re_lu_6", "re_lu_19", "re_lu_44", "re_lu_61"],
    "EfficientNetLiteB0": ["add", "add_1", "add_5", "conv_head"],
    "GhostNetV2W100": ["blocks_0_0", "blocks_2_0", "blocks_4_0", "blocks_6_4", "blocks_9"],  # No gates.
    "LCNet035": [f"blocks_{block}_conv_pw" for block in ("0_0", "1_1", "2_1", "4_3", "5_1")],
    "MobileViTXXS": ["add", "add_2", "concatenate", "concatenate_1", "final_conv"],  # Tokens in between.
    "MobileViTV2W050": ["add", "stages_2_1_norm", "stages_3_1_norm", "stages_4_1_conv_proj_bn"],
    "RegNetY002": ["s1_b1", "s2_b1", "s3_b4", "s4_b7"],
    "RepVGGA0": ["stem", "stages_0_1", "stages_1_3", "stages_2_13", "stages_3_0"],  # Blocks are layers.
    "ResNet18": ["layer1_1", "layer2_1", "layer3_1", "layer4_1"],
    "VisionTransformerTiny32": ["add_5", "add_11", "add_17", "norm"],
}


def taps(make):
    """The taps of the network that `make` returns, whose weights are never filled."""
    keras.backend.clear_session(free_memory=False)  # Starts Keras' numbering of unnamed layers again.
    with keras.StatelessScope(initialize_variables=False):
        return [tap.path for tap in NetworkReader(make()).taps()]


@pytest.mark.filterwarnings("ignore:.*doesn't have pretrained weights")
@pytest.mark.parametrize("name", KIMM)
def test_kimm(name):
    kimm = pytest.importorskip("kimm", reason="kimm is not installed")
    assert taps(lambda: getattr(kimm.models, name)(weights=None, classes=3)) == KIMM[name]


TOKENS = {"vocabulary_size": 20, "num_layers": 4, "hidden_dim": 8, "intermediate_dim": 16}
IMAGE = (32, 32, 3)
STAGED = {"layerwise_strides": [4, 2, 2], "layerwise_patch_sizes": [7, 3, 3], "layerwise_sr_ratios": [4, 2, 1]}
STACKS = ["functional/stack1_block0_out", "functional/stack2_block0_out"]
RESNET = ([64], [7], [64, 16, 24], [2, 2, 2], [1, 2, 2])


def deep_lab(models):
    encoder = models.ResNetBackbone(
        [8], [7], [64, 16, 24, 32], [1, 1, 1, 1], [1, 2, 2, 2], "bottleneck_block", image_shape=(64, 64, 3)
    )
    return models.DeepLabV3Backbone(
        encoder, "P5", upsampling_size=8, dilation_rates=[6], low_level_feature_key="P2", image_shape=(64, 64, 3)
    )


def numbered(name):
    return [f"{name}_{number}" for number in range(4)]


KERAS_HUB = {
    "ResNet": (
        lambda models: models.ResNetBackbone(*RESNET, "basic_block", image_shape=IMAGE),
        ["stack0_block1_out", "stack1_block1_out", "stack2_block1_out"],
    ),
    "VGG": (
        lambda models: models.VGGBackbone([1, 1, 2], [4, 8, 8], image_shape=IMAGE),
        ["block1_conv1", "block2_conv1", "block3_conv2"],
    ),
    "DenseNet": (
        lambda models: models.DenseNetBackbone(
            [2, 2, 3], compression_ratio=0.5, growth_rate=4, image_shape=(64, 64, 3)
        ),
        ["transition1_relu", "transition2_relu", "relu"],
    ),
    # Of a DeepLab the first stage is skipped ahead, so that no tensor of the later ones is on every path.
    "DeepLabV3": (
        deep_lab,
        [*STACKS, "spatial_pyramid_pooling", "segmentation_head_relu"],
    ),
    # The encoder is one layer.
    "ViT": (
        lambda models: models.ViTBackbone(IMAGE, (8, 8), 4, 2, 8, 16),
        ["vit_patching_and_embedding", "vit_encoder"],
    ),
    "MiT": (
        lambda models: models.MiTBackbone(
            [1, 2, 1], 3, [1, 2, 2], max_drop_path_rate=0.1, hidden_dims=[8, 16, 24], image_shape=(64, 64, 3), **STAGED
        ),
        ["layer_normalization_4", "layer_normalization_12", "layer_normalization_16"],
    ),
    "Bert": (
        lambda models: models.BertBackbone(num_heads=2, max_sequence_length=12, **TOKENS),
        numbered("transformer_layer"),
    ),
    "Albert": (  # One layer, called four times.
        lambda models: models.AlbertBackbone(num_heads=2, embedding_dim=8, **TOKENS),
        ["group_0_inner_layer_0"] * 4,
    ),
    "GPT2": (
        lambda models: models.GPT2Backbone(num_heads=2, max_sequence_length=12, **TOKENS),
        [*numbered("transformer_layer")[:3], "layer_norm"],
    ),
    "FNet": (lambda models: models.FNetBackbone(**TOKENS), numbered("f_net_layer")),
    "XLNet": (  # Layers with weights read the mask, and all blocks read what they make of it.
        lambda models: models.XLNetBackbone(num_heads=2, **TOKENS),
        numbered("xlnet_encoder"),
    ),
}


def classifier(body):
    x = body.output
    x = x["sequence_output"] if isinstance(x, dict) else x
    pooling = getattr(layers, f"GlobalAveragePooling{len(x.shape) - 2}D")
    return keras.Model(body.input, layers.Dense(3, name="head")(pooling()(x)))


@pytest.mark.parametrize("name", KERAS_HUB)
def test_keras_hub(name):
    hub = pytest.importorskip("keras_hub", reason="keras-hub, or one of the packages that it needs, is not installed")
    build, expected = KERAS_HUB[name]
    assert taps(lambda: classifier(build(hub.models))) == expected


def test_task_of_keras_hub_is_refused():
    """Its preprocessor works in `fit` and `predict`, which a wrapped network does without."""
    hub = pytest.importorskip("keras_hub", reason="keras-hub, or one of the packages that it needs, is not installed")
    task = hub.models.ViTImageClassifier(KERAS_HUB["ViT"][0](hub.models), num_classes=3, name="task")
    with pytest.raises(ValueError, match=r"'task' \(ViTImageClassifier\) overrides .*fit.*made of its backbone"):
        wrap(task)
