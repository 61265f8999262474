"""Networks that read sounds, series, tables and graphs."""

import keras
from keras import layers, ops
from zoo import GraphConvolution, classify, convolve, expected, transform


@expected("both1", "both2", "both3")
def recurrent_in_both_directions():
    inputs = x = keras.Input((12, 4))
    for name in ("1", "2", "3"):
        x = layers.Bidirectional(layers.GRU(3, return_sequences=True), name=f"both{name}")(x)
    return classify(inputs, x)


@expected("block1", "block2", "block3", "block4")
def dilated_convolutions():
    """A temporal convolutional network (Bai et al., 2018, arXiv 1803.01271)."""
    inputs = keras.Input((32, 3))
    x = layers.Conv1D(4, 1, name="start")(inputs)
    for name, dilation in (("block1", 1), ("block2", 2), ("block3", 4), ("block4", 8)):
        settings = {"padding": "causal", "dilation_rate": dilation, "activation": "relu"}
        y = layers.Conv1D(4, 3, name=f"{name}_a", **settings)(x)
        x = layers.Add(name=name)([x, layers.Conv1D(4, 3, name=f"{name}_b", **settings)(y)])
    return classify(inputs, x)


@expected("convolution", "lstm", "mixed")
def layers_of_different_kinds():
    inputs = keras.Input((12, 4))
    x = layers.Conv1D(6, 3, padding="same", activation="relu", name="convolution")(inputs)
    x = layers.LSTM(6, return_sequences=True, name="lstm")(x)
    return classify(inputs, layers.Dense(6, activation="relu", name="mixed")(x))


@expected("first", "second", "third")
def raw_audio():
    inputs = keras.Input((None, 1))
    x = layers.Conv1D(8, 80, strides=4, activation="relu", name="first")(inputs)
    for name in ("second", "third"):
        x = layers.Conv1D(8, 3, activation="relu", padding="same", name=name)(layers.MaxPooling1D(4)(x))
    return classify(inputs, x)


@expected("first", "second")
def windows():
    inputs = keras.Input((None, 4))
    x = layers.Reshape((-1, 10, 4))(inputs)
    x = layers.Conv2D(6, (1, 3), activation="relu", name="first")(x)
    return classify(inputs, layers.Conv2D(6, (1, 3), strides=(1, 2), activation="relu", name="second")(x))


@expected("hidden1", "hidden2")
def table_with_raw_columns_joined():
    ages, incomes = keras.Input((1,)), keras.Input((1,))
    x = layers.Concatenate(name="raw")([ages, incomes])
    for name in ("hidden1", "hidden2"):
        x = layers.Dense(6, activation="relu", name=name)(x)
    return classify([ages, incomes], x)


@expected("deep1", "deep2", "deep3")
def wide_and_deep():
    wide, deep = keras.Input((9,)), keras.Input((5,))
    x = deep
    for name in ("deep1", "deep2", "deep3"):
        x = layers.Dense(6, activation="relu", name=name)(x)
    return classify([wide, deep], layers.Concatenate(name="joined")([wide, x]))


@expected("a", "b", "c")
def feature_wise_modulation():
    """FiLM (Perez et al., 2018, arXiv 1709.07871)."""
    image, text = keras.Input((32, 32, 3)), keras.Input((5,))
    x, condition = image, layers.Dense(6, activation="relu", name="condition")(text)
    for name in ("a", "b", "c"):
        x = convolve(x, 8, f"{name}_conv", 2, activation=None)
        scale = layers.Reshape((1, 1, 8))(layers.Dense(8)(condition))
        shift = layers.Reshape((1, 1, 8))(layers.Dense(8)(condition))
        x = layers.ReLU(name=name)(layers.Add()([layers.Multiply()([x, scale]), shift]))
    return classify([image, text], x)


@expected("layer1", "layer2", "layer3", "layer4")
def graph_convolutions():
    features, adjacency = keras.Input((7, 5)), keras.Input((7, 7))
    x = features
    for name in ("1", "2", "3", "4"):
        x = GraphConvolution(6, name=f"layer{name}")(x, adjacency)
    return classify([features, adjacency], x)


@expected("add_a", "norm")
def patches_of_channels_first():
    inputs = keras.Input((3, 8, 8))
    x = layers.Conv2D(12, 2, 2, data_format="channels_first", name="patches")(inputs)
    x = layers.Permute((2, 1))(layers.Reshape((12, 16))(x))
    for name in ("a", "b"):
        y = layers.Dense(12, activation="relu")(layers.LayerNormalization()(x))
        x = layers.Add(name=f"add_{name}")([x, y])
    return classify(inputs, layers.LayerNormalization(name="norm")(x))


@expected("block1", "block2", "block3", "block4")
def attention_over_patches_of_channels_first():
    inputs = keras.Input((3, 16, 16))
    x = layers.Conv2D(8, 4, 4, data_format="channels_first", name="patches")(inputs)
    return classify(inputs, transform(ops.transpose(layers.Reshape((8, 16))(x), (0, 2, 1))))


@expected("block2", "block4", "block6", "sum")
def wave_net():
    """Every block has a skip to one sum (van den Oord et al., 2016, arXiv 1609.03499)."""
    inputs = keras.Input((64, 1))
    x, skips = layers.Conv1D(8, 2, padding="causal", name="start")(inputs), []
    for block in range(1, 9):
        settings = {"padding": "causal", "dilation_rate": 2 ** (block % 4)}
        content = layers.Conv1D(8, 2, activation="tanh", **settings)(x)
        gate = layers.Conv1D(8, 2, activation="sigmoid", **settings)(x)
        y = layers.Multiply()([content, gate])
        skips.append(layers.Conv1D(12, 1)(y))
        x = layers.Add(name=f"block{block}")([x, layers.Conv1D(8, 1)(y)])
    x = layers.ReLU(name="sum")(layers.Add()(skips))
    return classify(inputs, layers.Conv1D(12, 1, activation="relu", name="after")(x))


@expected("deep1", "deep2", "deep3")
def wide_and_deep_of_one_input():
    inputs = x = keras.Input((9,))
    for name in ("deep1", "deep2", "deep3"):
        x = layers.Dense(6, activation="relu", name=name)(x)
    return classify(inputs, layers.Concatenate(name="joined")([inputs, x]))


@expected("cross1", "cross2", "cross3", "joined")
def deep_and_cross():
    """Products with the data themselves beside a stack of Dense layers (Wang et al., 2017, arXiv 1708.05123)."""
    inputs = x = deep = keras.Input((9,))
    for name in ("1", "2", "3"):
        product = layers.Multiply()([inputs, layers.Dense(9)(x)])
        x = layers.Add(name=f"cross{name}")([product, x])
        deep = layers.Dense(6, activation="relu", name=f"deep{name}")(deep)
    return classify(inputs, layers.Concatenate(name="joined")([x, deep]))


@expected("first", "second", "third", "both")
def convolutions_beside_a_recurrent_layer():
    """LSTM-FCN (Karim et al., 2018, arXiv 1709.05206)."""
    inputs = x = keras.Input((32, 6))
    state = layers.LSTM(8, name="lstm")(layers.Permute((2, 1))(inputs))
    for name in ("first", "second", "third"):
        x = layers.Conv1D(8, 3, padding="same", activation="relu", name=name)(x)
    return classify(inputs, layers.Concatenate(name="both")([state, layers.GlobalAveragePooling1D()(x)]))


@expected("layer2", "layer4", "layer6", "layer8")
def data_read_again():
    """A network of a scene (NeRF, Mildenhall et al., 2020, arXiv 2003.08934)."""
    inputs = x = keras.Input((9,))
    for number in range(1, 9):
        x = layers.Dense(8, activation="relu", name=f"layer{number}")(x)
        if number == 5:
            x = layers.Concatenate(name="again")([x, inputs])
    return keras.Model(inputs, layers.Dense(4, name="color")(x))


@expected("first", "second", "joined", "fourth")
def side_input_in_a_stack():
    inputs, side = keras.Input((8,)), keras.Input((4,))
    x = inputs
    for name in ("first", "second"):
        x = layers.Dense(8, activation="relu", name=name)(x)
    x = layers.Concatenate(name="joined")([x, layers.Dense(4, activation="relu", name="side")(side)])
    for name in ("third", "fourth"):
        x = layers.Dense(8, activation="relu", name=name)(x)
    return classify([inputs, side], x)


@expected("stem", "expert1_0", "expert2_0", "expert3_0")
def stacked_experts():
    """The weights of the experts come from a softmax and are no features (Jacobs et al., 1991)."""
    inputs = keras.Input((10,))
    x = layers.Dense(16, activation="relu", name="stem")(inputs)
    for block in (1, 2, 3):
        gate = layers.Dense(4, activation="softmax", name=f"gate{block}")(x)
        experts = [layers.Dense(16, activation="relu", name=f"expert{block}_{index}")(x) for index in range(4)]
        x = ops.sum(gate[..., None] * ops.stack(experts, axis=1), axis=1)
    return classify(inputs, x)


@expected("point1", "point2", "point3", "hidden")
def points_turned_by_a_side_network():
    """The matrix that turns the points has layers of its own (PointNet, Qi et al., 2017, arXiv 1612.00593)."""
    inputs = keras.Input((32, 3))
    side = layers.Dense(16, activation="relu", name="side2")(layers.Dense(8, activation="relu", name="side1")(inputs))
    side = layers.Dense(8, activation="relu", name="side3")(layers.GlobalMaxPooling1D()(side))
    x = layers.Dot((2, 1))([inputs, layers.Reshape((3, 3))(layers.Dense(9, name="matrix")(side))])
    for name in ("point1", "point2", "point3"):
        x = layers.Dense(16, activation="relu", name=name)(x)
    return classify(inputs, layers.Dense(8, activation="relu", name="hidden")(layers.GlobalMaxPooling1D()(x)))


@expected("conv1", "conv2", "lstm")
def convolutions_before_a_recurrent_layer():
    inputs = x = keras.Input((32, 4))
    for name in ("conv1", "conv2"):
        x = layers.MaxPooling1D()(layers.Conv1D(8, 3, activation="relu", name=name)(x))
    x = layers.Dropout(0.5)(layers.LSTM(8, name="lstm")(x))
    return classify(inputs, layers.Dense(8, activation="relu", name="hidden")(x))


@expected("dilated1", "dilated2", "dilated4", "skips")
def temporal_convolutions_with_skips_to_one_sum():
    """Bai et al., 2018, arXiv 1803.01271."""
    inputs = keras.Input((32, 4))
    x = layers.Conv1D(8, 1, name="stem")(inputs)
    skips = []
    for rate in (1, 2, 4, 8):
        y = layers.Conv1D(8, 3, padding="causal", dilation_rate=rate, activation="relu", name=f"wide{rate}")(x)
        y = layers.Conv1D(8, 3, padding="causal", dilation_rate=rate, activation="relu", name=f"narrow{rate}")(y)
        skips.append(y)
        x = layers.Activation("relu", name=f"dilated{rate}")(layers.Add(name=f"sum{rate}")([x, y]))
    return classify(inputs, layers.Add(name="skips")(skips)[:, -1])


@expected("features1")
def variables_selected_by_a_gated_residual_network():
    """The columns of a table, weighed by a softmax (Lim et al., 2019, arXiv 1912.09363)."""
    inputs = keras.Input((4,))

    def gated_residual(x, name):
        y = layers.Dense(8, activation="elu")(x)
        y = layers.Multiply()([layers.Dense(8)(y), layers.Dense(8, activation="sigmoid")(y)])
        shortcut = x if x.shape[-1] == 8 else layers.Dense(8)(x)
        return layers.LayerNormalization(name=name)(layers.Add()([shortcut, y]))

    codes = [layers.Dense(8, name=f"code{column + 1}")(inputs[:, column : column + 1]) for column in range(2)]
    weighing = gated_residual(layers.Concatenate(name="all")(codes), "weighing")
    weights = layers.Reshape((2, 1))(layers.Dense(2, activation="softmax", name="weights")(weighing))
    features = ops.stack([gated_residual(code, f"features{number + 1}") for number, code in enumerate(codes)], axis=1)
    return classify(inputs, ops.sum(weights * features, axis=1))


@expected("hidden1", "hidden2")
def attention_pooling():
    """The scores that weigh the positions are no features (Lin et al., 2017, arXiv 1703.03130)."""
    inputs = keras.Input((12, 4))
    x = layers.Dense(8, activation="relu", name="hidden1")(inputs)
    x = layers.Dense(8, activation="relu", name="hidden2")(x)
    scores = layers.Dense(6, activation="tanh", name="score1")(x)
    scores = layers.Dense(1, name="score3")(layers.Dense(6, activation="tanh", name="score2")(scores))
    return classify(inputs, ops.sum(layers.Softmax(axis=1)(scores) * x, axis=1))


@expected("joined", "latent")
def recurrent_layers_side_by_side():
    """Each word with what is left and right of it (Lai et al., 2015)."""
    tokens = keras.Input((12,), dtype="int32")
    x = layers.Embedding(20, 8)(tokens)
    left = layers.LSTM(6, return_sequences=True, name="left")(x)
    right = layers.LSTM(6, return_sequences=True, go_backwards=True, name="right")(x)
    x = layers.Concatenate(name="joined")([left, x, right])
    x = layers.Conv1D(8, 1, activation="tanh", name="latent")(x)
    return classify(tokens, layers.GlobalMaxPooling1D()(x))


@expected("conv1", "conv2", "conv3")
def spectrogram_in_the_network():
    """The transform has weights, which are those of a Fourier transform."""
    inputs = keras.Input((2048, 1))
    x = layers.STFTSpectrogram(mode="log", frame_length=128, frame_step=64, fft_length=128, name="stft")(inputs)
    x = layers.Reshape((*x.shape[1:], 1))(x)
    for name in ("conv1", "conv2", "conv3"):
        x = layers.MaxPooling2D()(convolve(x, 4, name))
    return classify(inputs, x)
