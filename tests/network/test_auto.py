"""Where `layers="auto"` taps a network: at the end of each of its stages."""

import keras
import pytest
from helpers import tap_paths
from keras import layers

from keras_collab import IntermediateConsistency, NetworkReader, wrap
from keras_collab.network.auto import whole_blocks


def convolve(x, filters, name, strides=1, padding="same", size=3, **settings):
    return layers.Conv2D(filters, size, strides=strides, padding=padding, name=name, **settings)(x)


def classify(inputs, x):
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def test_blocks_without_branches_end_after_normalization_and_activation():
    inputs = keras.Input((16, 16, 3))
    x = layers.RandomFlip()(layers.Rescaling(1 / 255)(inputs))
    for stage in (1, 2, 3):
        for block in (1, 2):
            x = convolve(x, 4, f"conv{stage}_{block}")
            x = layers.BatchNormalization(name=f"norm{stage}_{block}")(x)
            x = layers.Activation("relu", name=f"relu{stage}_{block}")(x)
        x = layers.Dropout(0.1)(layers.MaxPooling2D()(x))
    assert tap_paths(classify(inputs, x)) == ["relu1_2", "relu2_2", "relu3_2"]


def test_activation_inside_the_convolution():
    network = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            layers.Conv2D(4, 3, activation="relu", name="first"),
            layers.MaxPooling2D(),
            layers.Conv2D(4, 3, activation="relu", name="second"),
            layers.Flatten(),
            layers.Dense(8, name="hidden"),
            layers.Dense(3),
        ]
    )
    assert tap_paths(network) == ["first", "second"]


def squeeze_and_excite(x, name):
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = convolve(gate, x.shape[-1], f"{name}_excite", size=1, activation="sigmoid")
    return layers.Multiply(name=f"{name}_gated")([x, gate])


def test_gate_is_no_merge():
    """EfficientNet: neither squeeze-and-excitation nor the expansion at the start of the next block closes a block."""
    inputs = keras.Input((16, 16, 3))
    x = convolve(inputs, 4, "stem", activation="relu")
    for stage, strides in (("a", 1), ("b", 2), ("c", 2)):
        for block, step in ((f"{stage}1", strides), (f"{stage}2", 1)):
            y = convolve(x, 8, f"{block}_expand", size=1, activation="relu")
            y = layers.DepthwiseConv2D(3, strides=step, padding="same", name=f"{block}_depthwise")(y)
            y = convolve(squeeze_and_excite(y, block), 4, f"{block}_project", size=1)
            x = layers.Add(name=f"{block}_add")([x, y]) if step == 1 else y
    x = layers.ReLU(name="top_relu")(convolve(x, 16, "top", size=1))
    assert tap_paths(classify(inputs, x)) == ["a2_add", "b2_add", "top_relu"]


def test_product_of_same_sizes_is_no_merge_either():
    """Gated convolutions, without a sum anywhere, are blocks without branches."""
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for name, strides in (("a", 1), ("b", 2)):
        gate = convolve(x, 4, f"{name}_gate", strides, activation="sigmoid")
        x = layers.Multiply(name=f"{name}_gated")([convolve(x, 4, f"{name}_value", strides), gate])
        x = convolve(x, 4, f"{name}_mix", activation="relu")
    assert tap_paths(classify(inputs, x)) == ["a_mix", "b_mix"]


def test_next_blocks_first_activation_ends_no_stage():
    """ResNetV2: the sum ends a block; the activation after it belongs to one branch of the next."""
    inputs = keras.Input((16, 16, 3))
    x = convolve(inputs, 4, "stem")
    for stage, strides in ((1, 1), (2, 2), (3, 2)):
        for block in (1, 2):
            name = f"stage{stage}_block{block}"
            step = strides if block == 1 else 1
            y = layers.ReLU(name=f"{name}_preactivation")(x)
            shortcut = convolve(y, 4 * stage, f"{name}_shortcut", step, size=1) if block == 1 else x
            x = layers.Add(name=f"{name}_out")([shortcut, convolve(y, 4 * stage, f"{name}_conv", step)])
    x = layers.ReLU(name="post_relu")(x)
    # After stage 2's last sum every path goes through the activation that both branches of stage 3 start from.
    assert tap_paths(classify(inputs, x)) == ["stage2_block1_preactivation", "stage3_block1_preactivation", "post_relu"]


def test_neighbouring_odd_sizes_are_one_stage():
    """Inception: a convolution without padding takes a pixel or two off each side."""
    inputs = keras.Input((41, 41, 3))
    x = inputs
    for name, strides in (("a", 1), ("b", 1), ("c", 2), ("d", 1), ("e", 2)):
        branches = [convolve(x, 4, f"{name}_left", strides, "valid"), convolve(x, 4, f"{name}_right", strides, "valid")]
        x = layers.Concatenate(name=f"{name}_mixed")(branches)
    network = classify(inputs, x)
    assert [network.get_layer(f"{name}_mixed").output.shape[1] for name in "abcde"] == [39, 37, 18, 16, 7]
    assert tap_paths(network) == ["b_mixed", "d_mixed", "e_mixed"]


def test_cells_that_skip_over_each_other_end_in_their_widest_tensor():
    """NASNet: a cell reads the two cells before it, so that no tensor of a stage is on every path."""
    inputs = keras.Input((16, 16, 3))
    before, x = inputs, convolve(inputs, 4, "stem")
    for stage in (1, 2):
        for cell in (1, 2, 3):
            name = f"stage{stage}_cell{cell}"
            inner = layers.Add(name=f"{name}_add")([convolve(before, 4, f"{name}_a"), convolve(x, 4, f"{name}_b")])
            before, x = x, layers.Concatenate(name=f"{name}_concat")([inner, convolve(x, 4, f"{name}_c")])
        before, x = (layers.MaxPooling2D(name=f"stage{stage}_{side}_pool")(y) for side, y in (("a", before), ("b", x)))
    x = layers.ReLU(name="top_relu")(layers.Add(name="top_add")([convolve(before, 8, "top_a"), x]))
    assert tap_paths(classify(inputs, x)) == ["stage1_cell3_concat", "stage2_cell3_concat", "top_relu"]


def test_channels_first_concatenation_is_a_merge():
    inputs = keras.Input((3, 16, 16))
    x = convolve(inputs, 4, "stem", data_format="channels_first")
    for stage in (1, 2):
        for layer in (1, 2):
            name = f"stage{stage}_layer{layer}"
            y = convolve(x, 2, f"{name}_conv", data_format="channels_first")
            x = layers.Concatenate(axis=1, name=f"{name}_concat")([x, y])
        x = convolve(x, 4, f"stage{stage}_squeeze", size=1, data_format="channels_first")
        x = layers.AveragePooling2D(2, data_format="channels_first", name=f"stage{stage}_pool")(x)
    x = layers.GlobalAveragePooling2D(data_format="channels_first")(x)
    taps = NetworkReader(keras.Model(inputs, layers.Dense(3)(x))).taps()
    assert [tap.path for tap in taps] == ["stage1_layer2_concat", "stage2_squeeze"]
    assert [(tap.channels, tap.positions) for tap in taps] == [(8, (16, 16)), (4, (8, 8))]


def test_decoder_is_read_in_the_order_of_the_network():
    """The deepest tap is the last computed, also where resolutions grow."""
    code = keras.Input((4, 4, 8))
    x = code
    for name in ("coarse", "middle", "fine"):
        x = layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu", name=name)(x)
    assert tap_paths(keras.Model(code, convolve(x, 3, "image"))) == ["coarse", "middle", "fine"]


def test_second_input_that_joins_late_hides_no_stage():
    image, tabular = keras.Input((8, 8, 3)), keras.Input((5,))
    x = convolve(image, 4, "first", activation="relu")
    x = convolve(layers.MaxPooling2D()(x), 4, "second", activation="relu")
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.Dense(4, name="table")(tabular)])
    for inputs in ([image, tabular], [tabular, image]):
        assert tap_paths(keras.Model(inputs, layers.Dense(3)(x))) == ["first", "second"]


def test_auxiliary_output_does_not_count_as_a_path():
    inputs = keras.Input((16, 16, 3))
    x = convolve(inputs, 4, "first", activation="relu")
    middle = convolve(layers.MaxPooling2D()(x), 4, "second", activation="relu")
    auxiliary = layers.Dense(3, name="auxiliary")(layers.GlobalAveragePooling2D()(middle))
    x = convolve(layers.MaxPooling2D()(middle), 4, "third", activation="relu")
    main = layers.Dense(3, name="main")(layers.GlobalAveragePooling2D()(x))
    assert tap_paths(keras.Model(inputs, [auxiliary, main])) == ["first", "second", "third"]


def test_text_convolutions():
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4)(tokens)
    for name in ("first", "second"):
        x = layers.MaxPooling1D()(layers.Conv1D(4, 3, padding="same", activation="relu", name=name)(x))
    taps = NetworkReader(keras.Model(tokens, layers.Dense(3)(layers.GlobalMaxPooling1D()(x)))).taps()
    assert {tap.path: tap.shape for tap in taps} == {"first": (None, None, 4), "second": (None, None, 4)}


# Networks of one resolution get four taps, evenly spaced over their blocks, the last block included.


def transformer(blocks):
    tokens = keras.Input((6,), dtype="int32")
    x = layers.Embedding(10, 4)(tokens)
    for block in range(1, blocks + 1):
        y = layers.LayerNormalization(name=f"norm_a{block}")(x)
        x = layers.Add(name=f"attend{block}")([x, layers.MultiHeadAttention(1, 4, name=f"attention{block}")(y, y)])
        y = layers.LayerNormalization(name=f"norm_b{block}")(x)
        y = layers.Dense(4, name=f"narrow{block}")(layers.Dense(8, activation="gelu", name=f"widen{block}")(y))
        x = layers.Add(name=f"feed{block}")([x, y])
    x = layers.LayerNormalization(name="norm")(x)
    return keras.Model(tokens, layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling1D()(x)))


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        (1, ["norm"]),
        (2, ["feed1", "norm"]),  # Whole blocks, not halves.
        (4, ["feed1", "feed2", "feed3", "norm"]),
        (6, ["feed1", "feed3", "feed4", "norm"]),
    ],
)
def test_transformer(blocks, expected):
    assert tap_paths(transformer(blocks)) == expected


def perceptron(*units):
    hidden = [layers.Dense(n, activation="relu", name=f"hidden{i}") for i, n in enumerate(units, 1)]
    return keras.Sequential([keras.Input((5,)), *hidden, layers.Dropout(0.1), layers.Dense(3, name="head")])


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, ["hidden1"]),
        (2, ["hidden1", "hidden2"]),
        (4, ["hidden1", "hidden2", "hidden3", "hidden4"]),
        (6, ["hidden1", "hidden3", "hidden4", "hidden6"]),
        (8, ["hidden2", "hidden4", "hidden6", "hidden8"]),
    ],
)
def test_stack_of_dense_layers(count, expected):
    assert tap_paths(perceptron(*[4] * count)) == expected


def test_residual_stack_at_one_resolution():
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU(name="stem_relu")(convolve(inputs, 4, "stem"))
    for block in range(1, 8):
        y = convolve(layers.ReLU()(convolve(x, 4, f"first{block}")), 4, f"second{block}")
        x = layers.ReLU(name=f"out{block}")(layers.Add()([x, y]))
    assert tap_paths(classify(inputs, x)) == ["out1", "out3", "out5", "out7"]


def single_convolution():
    inputs = keras.Input((8, 8, 3))
    return classify(inputs, layers.ReLU(name="relu")(layers.BatchNormalization()(convolve(inputs, 4, "convolution"))))


def test_single_convolution_is_a_single_tap():
    assert tap_paths(single_convolution()) == ["relu"]


def test_single_tap_is_too_little_to_compare_layers():
    with pytest.raises(ValueError, match=r"2 layers are needed, .* has 1 for layers='auto': 'relu'"):
        wrap(single_convolution(), [IntermediateConsistency(target="deepest")])


def test_linear_classifier_has_no_taps():
    network = keras.Sequential([keras.Input((5,)), layers.Dense(3, name="head")], name="linear")
    with pytest.raises(ValueError, match=r"1 layers are needed, network 'linear' has 0"):
        NetworkReader(network).taps()


# Whole blocks among the ends of halves.

ATTENTION, DENSE, CONVOLUTION = ["MultiHeadAttention"], ["Dense", "Dense"], ["Conv2D"]


@pytest.mark.parametrize(
    ("layers", "ends"),
    [
        ([["Conv2D", *ATTENTION], DENSE, ATTENTION, DENSE], [1, 3]),  # A transformer: patches first.
        ([["Conv2D", *ATTENTION], DENSE], [1]),  # One block of it.
        ([["Conv2D"], ATTENTION, DENSE, ATTENTION, DENSE], [2, 4]),  # The patches end in a sum, too.
        ([CONVOLUTION, CONVOLUTION, CONVOLUTION], [0, 1, 2]),  # Blocks without halves.
        ([ATTENTION, CONVOLUTION, DENSE, ATTENTION, CONVOLUTION, DENSE], [2, 5]),  # Three thirds.
        ([ATTENTION, DENSE, CONVOLUTION], [1, 2]),  # Nothing repeats, so that attention makes a half.
        ([CONVOLUTION, DENSE, ATTENTION], [0, 1, 2]),  # Nothing is behind attention.
        ([ATTENTION, DENSE, ATTENTION, DENSE, ATTENTION, ATTENTION, DENSE], [1, 3, 6]),  # An encoder and a decoder.
        ([DENSE], [0]),
        ([], []),
    ],
)
def test_whole_blocks(layers, ends):
    assert whole_blocks(layers) == ends
