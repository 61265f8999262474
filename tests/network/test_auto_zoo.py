"""What `layers="auto"` stands for in networks of many kinds; see zoo_*.py."""

import pytest
import zoo_images
import zoo_outputs
import zoo_signals
import zoo_tokens

from keras_collab import NetworkReader

NETWORKS = {}
for module in (zoo_images, zoo_tokens, zoo_signals, zoo_outputs):
    for name, build in vars(module).items():
        if hasattr(build, "taps"):
            NETWORKS[name] = build

# Kernels to be compared, of networks that are convolutional in part: where patches are cut, or words are read.
KERNELS = {
    "vision_transformer": [f"block{block}_{side}" for block in (1, 2, 3, 4) for side in ("widen", "narrow")],
    "convolutional_mixer": ["point1", "point2", "point3", "point4"],
    "hybrid_of_pixels_and_tokens": ["conv3", "conv4"],
    "convnext_v2": ["b_down"],
    "text_convolutions_side_by_side": ["width3", "width4", "width5"],
    "composite_blocks": ["block_b/convolution", "block_c/convolution", "block_d/convolution"],
    "graph_convolutions": ["layer1/dense", "layer2/dense", "layer3/dense", "layer4/dense"],
    "video": ["frames2/later"],
    "tags_of_tokens": ["dense"],
    "detector_at_two_scales": ["b"],
    "boxes_at_two_scales": ["b"],
    "value_and_advantages": ["hidden"],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_taps(name):
    build = NETWORKS[name]
    assert [tap.path for tap in NetworkReader(build()).taps()] == build.taps


@pytest.mark.parametrize("name", KERNELS)
def test_kernels(name):
    network = NETWORKS[name]()
    assert [kernel.path for kernel in NetworkReader(network).kernels()] == KERNELS[name]


@pytest.mark.parametrize("name", ["recurrent_in_both_directions", "einsum_layers"])
def test_networks_without_kernels_to_compare(name):
    """Keras' recurrent layers and EinsumDense have no filters that are read."""
    network = NETWORKS[name]()
    with pytest.raises(ValueError, match="has 0 layers with two or more filters"):
        NetworkReader(network).kernels()


@pytest.mark.parametrize("name", ["last_layer_is_no_dense", "einsum_layers"])
def test_einsum_dense_is_no_head(name):
    network = NETWORKS[name]()
    with pytest.raises(ValueError, match=r"layer 'head' \(EinsumDense\)"):
        NetworkReader(network).head()
