"""Networks that read images."""

import keras
from keras import layers, ops
from zoo import Block, Gate, Shortcut, classify, convolve, expected, feed, residual, transform


@expected("first", "second", "third")
def plain_convolutions():
    inputs = x = keras.Input((16, 16, 3))
    for name in ("first", "second", "third"):
        x = layers.MaxPooling2D()(convolve(x, 4, name))
    return classify(inputs, x)


@expected("b2", "c2", "d2")
def residual_with_a_stem():
    inputs = keras.Input((32, 32, 3))
    x = layers.MaxPooling2D()(convolve(inputs, 4, "stem"))
    for stage, filters in (("b", 4), ("c", 6), ("d", 8)):
        x = residual(x, filters, f"{stage}1", 1 if stage == "b" else 2)
        x = residual(x, filters, f"{stage}2")
    return classify(inputs, x)


@expected("a_out", "b_out")
def convnext_v2():
    """Global response normalization divides and multiplies (Woo et al., 2023, arXiv 2301.00808)."""
    inputs = x = keras.Input((16, 16, 3))
    for name in ("a", "b"):
        x = convolve(x, 8, f"{name}_down", 2, activation=None)
        y = layers.Dense(16, activation="gelu", name=f"{name}_widen")(layers.DepthwiseConv2D(3, padding="same")(x))
        length = ops.sqrt(ops.sum(ops.square(y), axis=(1, 2), keepdims=True) + 1e-6)
        y = y * (length / (ops.mean(length, axis=-1, keepdims=True) + 1e-6)) + y
        x = layers.Add(name=f"{name}_out")([x, layers.Dense(8, name=f"{name}_narrow")(y)])
    return classify(inputs, x)


@expected("a", "b", "c")
def squeeze_and_excite():
    inputs = x = keras.Input((16, 16, 3))
    for name in ("a", "b", "c"):
        x = convolve(x, 8, f"{name}_conv", 2)
        gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
        gate = convolve(convolve(gate, 2, f"{name}_squeeze", size=1), 8, f"{name}_gate", size=1, activation="sigmoid")
        x = convolve(layers.Multiply()([x, gate]), 8, name, size=1)
    return classify(inputs, x)


@expected("a", "b", "c")
def attention_over_channels_and_space():
    """CBAM (Woo et al., 2018, arXiv 1807.06521) in a VGG."""
    inputs = x = keras.Input((16, 16, 3))
    for name in ("a", "b", "c"):
        x = convolve(x, 8, f"{name}_conv")
        narrow, wide = layers.Dense(2, activation="relu"), layers.Dense(8)
        pooled = [layers.GlobalAveragePooling2D(keepdims=True)(x), layers.GlobalMaxPooling2D(keepdims=True)(x)]
        gate = layers.Activation("sigmoid")(layers.Add()([wide(narrow(y)) for y in pooled]))
        x = layers.Multiply()([x, gate])
        maps = [ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)]
        gate = convolve(layers.Concatenate()(maps), 1, f"{name}_where", size=7, activation="sigmoid")
        x = layers.MaxPooling2D()(convolve(layers.Multiply()([x, gate]), 8, name))
    return classify(inputs, x)


@expected("bottleneck", "up2_b", "up1_b")
def u_net():
    inputs = keras.Input((16, 16, 3))
    fine = convolve(inputs, 4, "down1")
    middle = convolve(layers.MaxPooling2D()(fine), 6, "down2")
    x = convolve(layers.MaxPooling2D()(middle), 8, "bottleneck")
    for name, skip in (("up2", middle), ("up1", fine)):
        x = layers.Concatenate(name=f"{name}_joined")([layers.UpSampling2D()(x), skip])
        x = convolve(x, 6, f"{name}_b")
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid", name="head")(x))


@expected("bottleneck", "up2", "up1")
def u_net_of_residual_blocks():
    """Zhang et al., 2018, arXiv 1711.10684."""
    inputs = keras.Input((16, 16, 3))
    fine = residual(inputs, 4, "down1")
    middle = residual(fine, 6, "down2", 2)
    x = residual(middle, 8, "bottleneck", 2)
    for name, skip in (("up2", middle), ("up1", fine)):
        x = residual(layers.Concatenate()([layers.UpSampling2D()(x), skip]), 6, name)
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid", name="head")(x))


@expected("b", "c", "joined_conv")
def features_of_the_first_stage_skip_ahead():
    """DeepLab V3+ (Chen et al., 2018, arXiv 1802.02611): a skip stays alive beside residual blocks."""
    inputs = keras.Input((32, 32, 3))
    x = first = residual(inputs, 4, "a", 2)
    for name in ("b", "c"):
        shortcut = convolve(x, 8, f"{name}_shortcut", 2, size=1, activation=None)
        y = convolve(convolve(x, 8, f"{name}_in", size=1), 8, f"{name}_out", 2, activation=None)
        x = layers.ReLU(name=name)(layers.Add(name=f"{name}_sum")([shortcut, y]))
    x = layers.Concatenate(name="joined")([layers.UpSampling2D(4)(x), convolve(first, 4, "skip", size=1)])
    return classify(inputs, convolve(x, 8, "joined_conv"))


@expected("p4", "p3", "smooth")
def feature_pyramid():
    """Lin et al., 2017, arXiv 1612.03144."""
    inputs = keras.Input((32, 32, 3))
    c2 = residual(inputs, 4, "c2", 2)
    c3 = residual(c2, 6, "c3", 2)
    x = convolve(residual(c3, 8, "c4", 2), 8, "p4", size=1, activation=None)
    for name, maps in (("p3", c3), ("p2", c2)):
        lateral = convolve(maps, 8, f"{name}_lateral", size=1, activation=None)
        x = layers.Add(name=name)([layers.UpSampling2D()(x), lateral])
    return classify(inputs, convolve(x, 8, "smooth"))


@expected("a2", "b2", "c2")
def dense_connections():
    """Huang et al., 2017, arXiv 1608.06993."""
    inputs = keras.Input((16, 16, 3))
    x = convolve(inputs, 4, "stem")
    for stage in ("a", "b", "c"):
        x = x if stage == "a" else layers.AveragePooling2D(2)(convolve(x, 4, f"{stage}_transition", size=1))
        for name in (f"{stage}1", f"{stage}2"):
            x = layers.Concatenate(name=name)([x, convolve(x, 4, f"{name}_conv")])
    return classify(inputs, x)


@expected("a_relu", "b_relu", "c_relu")
def dense_connections_activated_first():
    inputs = keras.Input((16, 16, 3))
    x = convolve(inputs, 4, "stem")
    for stage in ("a", "b", "c"):
        outputs = [x]
        for name in ("1", "2"):
            x = layers.ReLU()(layers.BatchNormalization()(x))
            outputs.append(convolve(x, 4, f"{stage}{name}", activation=None))
            x = layers.Concatenate()(outputs)
        x = layers.ReLU(name=f"{stage}_relu")(layers.BatchNormalization()(x))
        if stage != "c":
            x = layers.AveragePooling2D(2)(convolve(x, 4, f"{stage}_transition", size=1))
    return classify(inputs, x)


@expected("a", "b", "c")
def gates_of_half_the_resolution():
    """As in GhostNetV2 (Tang et al., 2022, arXiv 2211.12905)."""
    inputs = x = keras.Input((32, 32, 3))
    for name in ("a", "b", "c"):
        x = convolve(x, 8, f"{name}_conv", 2)
        gate = convolve(layers.AveragePooling2D(2)(x), 8, f"{name}_gate", activation=None)
        gate = layers.UpSampling2D()(layers.Activation("sigmoid")(layers.BatchNormalization()(gate)))
        x = layers.Add(name=name)([x, layers.Multiply()([convolve(x, 8, f"{name}_value"), gate])])
    return classify(inputs, x)


@expected("mixed1", "mixed2", "mixed3", "mixed4")
def convolutional_mixer():
    """A block is a sum and a convolution behind it (Trockman & Kolter, 2022, arXiv 2201.09792)."""
    inputs = keras.Input((16, 16, 3))
    x = convolve(inputs, 8, "patches", 4, size=4)
    for name in ("1", "2", "3", "4"):
        y = layers.DepthwiseConv2D(3, padding="same", activation="gelu")(x)
        x = layers.Add(name=f"sum{name}")([x, y])
        x = layers.BatchNormalization(name=f"mixed{name}")(convolve(x, 8, f"point{name}", size=1))
    return classify(inputs, x)


@expected("stems", "b", "c", "d", "e")
def two_stems_then_plain_stages():
    inputs = keras.Input((64, 64, 3))
    x = layers.Concatenate(name="stems")([convolve(inputs, 4, "narrow", 2), convolve(inputs, 4, "wide", 2, size=5)])
    for name in ("b", "c", "d", "e"):
        x = convolve(x, 8, name, 2)
    return classify(inputs, x)


@expected("right1", "right2", "fused", "d")
def two_streams():
    left, right = keras.Input((32, 32, 3)), keras.Input((32, 32, 1))
    x, y = left, right
    for name in ("1", "2", "3"):
        x, y = convolve(x, 4, f"left{name}", 2), convolve(y, 4, f"right{name}", 2)
    x = layers.Concatenate(name="fused")([y, x])
    return classify([right, left], convolve(x, 8, "d", 2))


@expected("conv2", "conv3", "whole")
def hybrid_of_pixels_and_tokens():
    inputs = keras.Input((56, 56, 3))
    x = convolve(convolve(inputs, 4, "conv2", 2), 8, "conv3", 2)
    x = layers.Reshape((49, 8))(convolve(x, 8, "conv4", 2))
    x = layers.LayerNormalization(name="whole")(transform(x, 2))
    return classify(inputs, x)


@expected("a", "b", "c")
def tokens_between_pixels():
    """Positions are cut into windows and put back by six axes, as in MobileViT (Mehta & Rastegari, 2021)."""
    inputs = x = keras.Input((32, 32, 3))
    for name, side in (("a", 8), ("b", 4), ("c", 2)):
        x = convolve(x, 8, f"{name}_conv", 2)
        y = ops.transpose(ops.reshape(x, (-1, side, 2, side, 2, 8)), (0, 2, 4, 1, 3, 5))
        y = transform(ops.reshape(y, (-1, 4, side * side, 8)), 1) if name == "a" else feed(y, f"{name}_fed")
        y = ops.transpose(ops.reshape(y, (-1, 2, 2, side, side, 8)), (0, 3, 1, 4, 2, 5))
        x = layers.Add(name=name)([x, ops.reshape(y, (-1, 2 * side, 2 * side, 8))])
    return classify(inputs, x)


@expected("block_b", "block_c", "block_d")
def composite_blocks():
    inputs = keras.Input((32, 32, 3))
    x = convolve(inputs, 4, "stem", 2)
    for name in ("b", "c", "d"):
        x = Block(8, 2, name=f"block_{name}")(x)
    return classify(inputs, x)


@expected("dense1", "dense2", "dense3")
def spectral_normalization():
    inputs = x = keras.Input((16, 16, 3))
    for name in ("1", "2", "3"):
        convolution = layers.Conv2D(4, 3, strides=2, padding="same", name=f"inner{name}")
        x = layers.SpectralNormalization(convolution, name=f"spectral{name}")(x)
        x = layers.LeakyReLU(name=f"dense{name}")(x)
    return classify(inputs, x)


@expected("both1_active", "both2_active", "both3_active")
def recurrent_layers_normalized_and_activated():
    """Normalization and activation belong to the block before them; dropout does not."""
    inputs = x = keras.Input((12, 4))
    for name in ("1", "2", "3"):
        x = layers.Bidirectional(layers.GRU(3, return_sequences=True), name=f"both{name}")(x)
        x = layers.Activation("tanh", name=f"both{name}_active")(layers.BatchNormalization()(x))
        x = layers.SpatialDropout1D(0.1)(x)
    return classify(inputs, x)


@expected("a_sum", "b4")
def gates_and_shortcuts_of_ones_own():
    inputs = x = keras.Input((16, 16, 3))
    for name in ("a", "b"):
        x = convolve(x, 6, f"{name}1", 2)
        y = Gate(name=f"{name}_gate")([convolve(x, 6, f"{name}2"), convolve(x, 6, f"{name}3")])
        x = Shortcut(name=f"{name}_sum")([x, y])
        x = convolve(x, 6, f"{name}4")
        x = Gate(name=f"{name}_last")([x, convolve(x, 6, f"{name}5")])
    return classify(inputs, x)


@expected("conv", "lstm")
def convolution_before_a_recurrent_layer():
    inputs = keras.Input((16, 3))
    x = layers.MaxPooling1D()(layers.Conv1D(8, 3, activation="relu", name="conv")(inputs))
    return classify(inputs, layers.LSTM(8, name="lstm")(x))


@expected("frames", "lstm")
def frames_read_by_a_nested_model():
    frame = keras.Sequential([keras.Input((16, 16, 3)), layers.Conv2D(8, 3, 2), layers.GlobalAveragePooling2D()])
    inputs = keras.Input((4, 16, 16, 3))
    return classify(inputs, layers.LSTM(6, name="lstm")(layers.TimeDistributed(frame, name="frames")(inputs)))


@expected("sum1", "sum2", "sum3", "sum4")
def attention_with_shortcuts_from_an_embedding():
    tokens = keras.Input((12,), dtype="int32")
    x = layers.Embedding(20, 8)(tokens)
    for name in ("1", "2", "3", "4"):
        x = layers.Add(name=f"sum{name}")([x, layers.MultiHeadAttention(2, 4)(x, x)])
    return classify(tokens, layers.GlobalAveragePooling1D()(x))


@expected("sum1", "sum2", "sum3")
def shortcuts_from_a_table():
    inputs = x = keras.Input((8,))
    for name in ("1", "2", "3"):
        x = layers.Add(name=f"sum{name}")([x, layers.Dense(8, activation="relu")(x)])
    return classify(inputs, x)


@expected("both", "dense")
def tags_of_tokens():
    """The output layer is no classifier of one vector; its filters are no hidden layer's all the same."""
    tokens = keras.Input((12,), dtype="int32")
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True), name="both")(layers.Embedding(20, 8)(tokens))
    x = layers.Dense(6, activation="relu", name="dense")(x)
    return keras.Model(tokens, layers.Dense(5, activation="softmax", name="tags")(x))


@expected("a_relu", "b_relu")
def activations_as_operations():
    inputs = x = keras.Input((16, 16, 3))
    for name in ("a", "b"):
        x = layers.BatchNormalization(name=f"{name}_norm")(convolve(x, 4, f"{name}_conv", 2, activation=None))
        x = layers.Lambda(ops.relu, name=f"{name}_relu")(x)
    return classify(inputs, x)


@expected("first", "second")
def volumes():
    inputs = x = keras.Input((8, 8, 8, 1))
    for name in ("first", "second"):
        x = layers.MaxPooling3D()(layers.Conv3D(4, 3, padding="same", activation="relu", name=name)(x))
    return classify(inputs, x)


@expected("frames1", "frames2", "lstm")
def video():
    inputs = x = keras.Input((4, 16, 16, 3))
    for name, inner in (("frames1", "earlier"), ("frames2", "later")):
        convolution = layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name=inner)
        x = layers.TimeDistributed(convolution, name=name)(x)
    x = layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)
    return classify(inputs, layers.LSTM(6, name="lstm")(x))


@expected("mixed")
def frames_in_the_batch():
    inputs = keras.Input((4, 16, 16, 3))
    x = ops.reshape(inputs, (-1, 16, 16, 3))
    x = layers.GlobalAveragePooling2D()(convolve(convolve(x, 8, "first", 2), 8, "second", 2))
    x = ops.mean(ops.reshape(x, (-1, 4, 8)), axis=1)
    return classify(inputs, layers.Dense(6, activation="relu", name="mixed")(x))


@expected("encode3", "decode1", "decode2", "decode3")
def autoencoder_with_a_flat_code():
    inputs = x = keras.Input((16, 16, 3))
    for name in ("encode1", "encode2", "encode3"):
        x = convolve(x, 8, name, 2)
    x = layers.Dense(4, name="code")(layers.Flatten()(x))
    x = layers.Reshape((2, 2, 8))(layers.Dense(32)(x))
    for name in ("decode1", "decode2", "decode3"):
        x = layers.Conv2DTranspose(8, 3, strides=2, padding="same", activation="relu", name=name)(x)
    return keras.Model(inputs, layers.Conv2D(3, 3, padding="same", name="image")(x))


@expected("first", "second", "third")
def normalization_behind_pooling():
    """At the resolution of the last pooling no layer computes."""
    inputs = x = keras.Input((32, 32, 3))
    for name in ("first", "second", "third"):
        x = layers.MaxPooling2D()(convolve(x, 8, name, activation=None))
        x = layers.ReLU()(layers.BatchNormalization()(x))
    return classify(inputs, x)


@expected("a", "b")
def split_attention():
    """Two branches are weighed by a softmax over them (ResNeSt, Zhang et al., 2020, arXiv 2004.08955)."""
    inputs = x = keras.Input((16, 16, 3))
    for name in ("a", "b"):
        x = convolve(x, 8, f"{name}_down", 2)
        one, other = convolve(x, 8, f"{name}_one"), convolve(x, 8, f"{name}_other")
        weights = layers.Dense(16)(layers.GlobalAveragePooling2D()(one + other))
        weights = ops.softmax(layers.Reshape((2, 8))(weights), axis=1)
        one = one * layers.Reshape((1, 1, 8))(weights[:, 0])
        other = other * layers.Reshape((1, 1, 8))(weights[:, 1])
        x = layers.Add(name=name)([x, one + other])
    return classify(inputs, x)


@expected("first", "second")
def pooling_by_a_mean():
    inputs = keras.Input((16, 16, 3))
    x = ops.mean(convolve(convolve(inputs, 8, "first", 2), 8, "second", 2), axis=(1, 2), keepdims=True)
    return classify(inputs, convolve(x, 16, "hidden", size=1))


@expected("first", "attended", "third", "fourth")
def attention_in_one_stage():
    inputs = x = keras.Input((64, 64, 3))
    for name in ("first", "second", "third", "fourth"):
        x = convolve(x, 8, name, 2)
        if name == "second":
            x = layers.Add(name="attended")([x, convolve(x, 8, "value", size=1)])
    return classify(inputs, x)


@expected("a4", "b1")
def one_block_behind_a_deep_stage():
    inputs = keras.Input((16, 16, 3))
    x = convolve(inputs, 8, "stem")
    for name in ("a1", "a2", "a3", "a4", "b1"):
        x = residual(x, 8, name, strides=2 if name == "b1" else 1)
    return classify(inputs, x)


@expected("conv", "block2")
def few_blocks_with_an_activation_behind():
    """A sum and the activation right behind it end one block: two blocks leave a stage without blocks its tap."""
    inputs = keras.Input((32, 32, 3))
    x = convolve(layers.MaxPooling2D()(convolve(inputs, 8, "conv")), 8, "in", 2)
    for name in ("block1", "block2"):
        y = convolve(convolve(x, 8, f"{name}_conv1"), 8, f"{name}_conv2", activation=None)
        x = layers.ReLU(name=name)(layers.Add()([x, y]))
    return classify(inputs, x)


@expected("a", "b", "c")
def attention_over_rows_and_columns():
    """One strip of rows and columns makes two factors of the product (Hou et al., 2021, arXiv 2103.02907)."""
    inputs = x = keras.Input((32, 32, 3))
    for name, filters in (("a", 8), ("b", 12), ("c", 16)):
        x = convolve(x, filters, f"{name}_in", 2)
        y = convolve(x, filters, f"{name}_mid")
        rows, columns = ops.mean(y, 2, keepdims=True), ops.mean(y, 1, keepdims=True)
        strip = layers.Concatenate(axis=1)([rows, ops.transpose(columns, (0, 2, 1, 3))])
        rows, columns = ops.split(convolve(strip, 4, f"{name}_strip", size=1), 2, axis=1)
        for factor in (rows, ops.transpose(columns, (0, 2, 1, 3))):
            y = y * layers.Conv2D(filters, 1, activation="sigmoid")(factor)
        x = layers.Add(name=name)([x, y])
    return classify(inputs, x)


@expected("a", "b", "c")
def gate_with_channels_as_positions():
    """A convolution over the pooled channels is a gate (ECA, Wang et al., 2020, arXiv 1910.03151)."""
    inputs = keras.Input((32, 32, 3))
    x = convolve(inputs, 8, "stem")
    for name, filters in (("a", 16), ("b", 24), ("c", 32)):
        y = convolve(convolve(x, filters, f"{name}_conv1", 2), filters, f"{name}_conv2", activation=None)
        gate = layers.Reshape((filters, 1))(layers.GlobalAveragePooling2D()(y))
        gate = layers.Conv1D(1, 3, padding="same", activation="sigmoid")(gate)
        y = layers.Multiply()([y, layers.Reshape((1, 1, filters))(gate)])
        x = layers.ReLU(name=name)(layers.Add()([layers.Conv2D(filters, 1, strides=2)(x), y]))
    return classify(inputs, x)
