"""Where `layers="auto"` taps the networks of keras.applications: at the end of each of their stages."""

from itertools import pairwise

import keras
import pytest

from keras_collab import NetworkReader, models

# Keras 3.15, default input sizes. Read off the architectures: the last block at each resolution; the names of layers
# that Keras numbers itself hold for the first network of a session.
RESNET_V1 = "conv2_block3_out conv3_block{}_out conv4_block{}_out conv5_block3_out"
RESNET_V2 = "conv2_block2_out conv3_block{}_out conv4_block{}_out post_relu"  # A V2 stack strides in its last block.
DENSENET = "pool2_relu pool3_relu pool4_relu relu"
NORMALISED = "convnext_{0}_downsampling_block_{1}/convnext_{0}_downsampling_layernorm_{1}"  # Right after the last sum.
STAGES = {
    **{
        f"ConvNeXt{size}": [*(NORMALISED.format(size.lower(), block) for block in range(3)), last]
        for size, last in {
            "Tiny": "add_17",
            "Small": "add_35",
            "Base": "add_35",
            "Large": "add_35",
            "XLarge": "add_35",
        }.items()
    },
    "DenseNet121": DENSENET.split(),
    "DenseNet169": DENSENET.split(),
    "DenseNet201": DENSENET.split(),
    # B0's first stage has a single block, with nothing to add up, as has MobileNetV2's.
    "EfficientNetB0": ["block2b_add", "block3b_add", "block5c_add", "top_activation"],
    "EfficientNetB1": ["block1b_add", "block2c_add", "block3c_add", "block5d_add", "top_activation"],
    "EfficientNetB2": ["block1b_add", "block2c_add", "block3c_add", "block5d_add", "top_activation"],
    "EfficientNetB3": ["block1b_add", "block2c_add", "block3c_add", "block5e_add", "top_activation"],
    "EfficientNetB4": ["block1b_add", "block2d_add", "block3d_add", "block5f_add", "top_activation"],
    "EfficientNetB5": ["block1c_add", "block2e_add", "block3e_add", "block5g_add", "top_activation"],
    "EfficientNetB6": ["block1c_add", "block2f_add", "block3f_add", "block5h_add", "top_activation"],
    "EfficientNetB7": ["block1d_add", "block2g_add", "block3g_add", "block5j_add", "top_activation"],
    "EfficientNetV2B0": ["block2b_add", "block3b_add", "block5e_add", "top_activation"],
    "EfficientNetV2B1": ["block1b_add", "block2c_add", "block3c_add", "block5f_add", "top_activation"],
    "EfficientNetV2B2": ["block1b_add", "block2c_add", "block3c_add", "block5f_add", "top_activation"],
    "EfficientNetV2B3": ["block1b_add", "block2c_add", "block3c_add", "block5g_add", "top_activation"],
    "EfficientNetV2L": ["block1d_add", "block2g_add", "block3g_add", "block5s_add", "top_activation"],
    "EfficientNetV2M": ["block1c_add", "block2e_add", "block3e_add", "block5n_add", "top_activation"],
    "EfficientNetV2S": ["block1b_add", "block2d_add", "block3d_add", "block5i_add", "top_activation"],
    "InceptionResNetV2": ["block35_10_ac", "block17_20_ac", "conv_7b_ac"],
    "InceptionV3": ["mixed2", "mixed7", "mixed10"],
    "MobileNet": ["conv_pw_1_relu", "conv_pw_3_relu", "conv_pw_5_relu", "conv_pw_11_relu", "conv_pw_13_relu"],
    "MobileNetV2": ["block_2_add", "block_5_add", "block_12_add", "out_relu"],
    "MobileNetV3Large": [
        "expanded_conv_add",
        "expanded_conv_2_add",
        "expanded_conv_5_add",
        "expanded_conv_11_add",
        "activation_19",  # After `conv_1`; the layer has no name of its own.
    ],
    "MobileNetV3Small": ["expanded_conv_2_add", "expanded_conv_7_add", "activation_17"],
    "NASNetLarge": ["reduction_concat_stem_1", "activation_94", "activation_177", "activation_259"],
    "NASNetMobile": ["reduction_concat_stem_1", "normal_concat_3", "normal_concat_8", "activation_187"],
    "ResNet50": RESNET_V1.format(4, 6).split(),
    "ResNet101": RESNET_V1.format(4, 23).split(),
    "ResNet152": RESNET_V1.format(8, 36).split(),
    "ResNet50V2": RESNET_V2.format(3, 5).split(),
    "ResNet101V2": RESNET_V2.format(3, 22).split(),
    "ResNet152V2": RESNET_V2.format(7, 35).split(),
    "VGG16": ["block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"],
    "VGG19": ["block1_conv2", "block2_conv2", "block3_conv4", "block4_conv4", "block5_conv4"],
    "Xception": ["add", "add_1", "add_10", "block14_sepconv2_act"],
}


def read(make):
    """A reader of the network that `make` returns, whose weights are never filled."""
    keras.backend.clear_session(free_memory=False)  # Starts Keras' numbering of unnamed layers again.
    with keras.StatelessScope(initialize_variables=False):
        return NetworkReader(make())


def crossed_by_every_path(reader, tap):
    """Whether the outputs can be computed from the tap alone, by Keras' own judgement."""
    try:
        keras.Function(tap.tensor, reader.graph.outputs)
    except ValueError:
        return False
    return True


def test_table_names_every_application():
    assert set(STAGES) == {name for name in dir(keras.applications) if name[0].isupper()}


@pytest.mark.parametrize("name", STAGES)
def test_application(name):
    if name == "NASNetMobile" and keras.backend.backend() == "torch":
        pytest.skip("Keras 3.15 refuses to build NASNetMobile on torch.")
    reader = read(lambda: getattr(keras.applications, name)(weights=None))
    taps = reader.taps()
    assert [tap.path for tap in taps] == STAGES[name]

    sizes = [tap.positions[0] for tap in taps]
    assert all(after <= (before + 1) // 2 for before, after in pairwise(sizes)), sizes
    skipping = set(STAGES[name][:-1]) if name.startswith("NASNet") else set()
    assert {tap.path for tap in taps if not crossed_by_every_path(reader, tap)} == skipping


@pytest.mark.parametrize(
    ("name", "size"), [("ResNet50", 32), ("ResNet50", 48), ("MobileNetV2", 72), ("DenseNet121", 32)]
)
def test_small_images_have_the_same_stages(name, size):
    """At 48 pixels the last stages of ResNet50 are of 3 and 2, at 32 of 2 and 1."""
    reader = read(lambda: getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3)))
    assert [tap.path for tap in reader.taps()] == STAGES[name]


def test_open_sizes_have_the_same_stages():
    reader = read(lambda: keras.applications.ResNet50(weights=None, include_top=False, pooling="avg"))
    taps = reader.taps()
    assert {tap.path: tap.shape for tap in taps} == {
        "conv2_block3_out": (None, None, None, 256),
        "conv3_block4_out": (None, None, None, 512),
        "conv4_block6_out": (None, None, None, 1024),
        "conv5_block3_out": (None, None, None, 2048),
    }


@pytest.mark.parametrize("name", ["ResNet50", "MobileNet", "EfficientNetB0"])
def test_output_of_a_network_without_classifier_ends_its_last_stage(name):
    reader = read(lambda: getattr(keras.applications, name)(weights=None, include_top=False, input_shape=(64, 64, 3)))
    assert [tap.path for tap in reader.taps()] == STAGES[name]


def test_resnet18_of_this_package():
    taps = read(lambda: models.resnet18(width=4)).taps()
    assert [tap.path for tap in taps] == [f"stage{stage}_block2_out" for stage in (1, 2, 3, 4)]
