"""Networks that read tokens: words, patches, points."""

import keras
from keras import layers, ops
from zoo import ClassToken, Positions, TransformerBlock, attend, classify, convolve, expected, feed, transform


@expected("block1", "block2", "block3", "norm")
def vision_transformer():
    inputs = keras.Input((16, 16, 3))
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 4, 4, name="patches")(inputs))
    x = transform(Positions(name="positions")(ClassToken(name="token")(x)))
    x = layers.LayerNormalization(name="norm")(x)
    return classify(inputs, layers.Dense(8, activation="tanh", name="pooler")(x[:, 0]))


@expected("block1", "block2", "block3", "block4")
def bert():
    tokens, mask = keras.Input((12,), dtype="int32"), keras.Input((12,), dtype="int32")
    places = 0 * tokens + ops.arange(12)[None, :]
    x = layers.Add(name="embedded")([layers.Embedding(20, 8)(tokens), layers.Embedding(12, 8)(places)])
    x = transform(layers.LayerNormalization(name="start")(x), attention_mask=mask[:, None, :])
    return classify([tokens, mask], x[:, 0])


@expected("block1", "block2", "block3", "block4")
def transformer_of_composite_blocks():
    tokens = keras.Input((12,), dtype="int32")
    x = layers.Embedding(20, 8)(tokens)
    for name in ("1", "2", "3", "4"):
        x = TransformerBlock(name=f"block{name}")(x)
    return classify(tokens, x)


@expected("mixed1", "mixed2", "mixed3", "mixed4")
def mixer():
    """Tolstikhin et al., 2021, arXiv 2105.01601."""
    inputs = keras.Input((16, 16, 3))
    x = layers.Reshape((16, 8))(layers.Conv2D(8, 4, 4, name="patches")(inputs))
    for name in ("1", "2", "3", "4"):
        y = layers.Permute((2, 1))(layers.LayerNormalization()(x))
        y = layers.Permute((2, 1))(layers.Dense(16, activation="gelu")(y))
        x = layers.Add(name=f"tokens{name}")([x, y])
        y = layers.Dense(8)(layers.Dense(16, activation="gelu")(layers.LayerNormalization()(x)))
        x = layers.Add(name=f"mixed{name}")([x, y])
    return classify(inputs, x)


@expected("norm1", "norm2", "norm3", "norm4")
def recurrent():
    tokens = keras.Input((12,), dtype="int32")
    x = layers.Embedding(20, 6)(tokens)
    for name in ("1", "2", "3", "4"):
        x = layers.LSTM(6, return_sequences=True, name=f"lstm{name}")(x)
        x = layers.LayerNormalization(name=f"norm{name}")(x)
    return classify(tokens, x)


@expected("widths")
def text_convolutions_side_by_side():
    tokens = keras.Input((12,), dtype="int32")
    x = layers.Embedding(20, 6)(tokens)
    branches = [layers.Conv1D(4, width, activation="relu", name=f"width{width}")(x) for width in (3, 4, 5)]
    x = layers.Concatenate(name="widths")([layers.GlobalMaxPooling1D()(branch) for branch in branches])
    return classify(tokens, x)


@expected("hidden1", "hidden2")
def last_layer_is_no_dense():
    inputs = x = keras.Input((5,))
    for name in ("hidden1", "hidden2"):
        x = layers.Dense(6, activation="relu", name=name)(x)
    return keras.Model(inputs, layers.EinsumDense("ab,bc->ac", 3, activation="softmax", name="head")(x))


@expected("block1", "block2", "block3", "block4")
def transformer_with_a_learned_mask():
    """Layers with weights read the second input, and every block reads what they make of it, as in XLNet."""
    mask, tokens = keras.Input((12,)), keras.Input((12,), dtype="int32")
    bias = layers.Dense(12, name="bias2")(layers.Dense(12, activation="relu", name="bias1")(mask))
    x = layers.Dense(8, name="start")(layers.Embedding(20, 6)(tokens))
    for name in ("1", "2", "3", "4"):
        y = layers.Multiply()([layers.Dense(8)(x), layers.Reshape((12, 1))(bias)])
        x = layers.Add(name=f"block{name}")([x, layers.Dense(8)(y)])
    return classify([mask, tokens], x)


@expected("block1", "block2", "block3", "block4")
def einsum_layers():
    tokens = keras.Input((12,), dtype="int32")
    x = layers.EinsumDense("abc,cd->abd", (12, 8), name="start")(layers.Embedding(20, 6)(tokens))
    for name in ("1", "2", "3", "4"):
        y = layers.EinsumDense("abc,cd->abd", (12, 16), activation="gelu", name=f"widen{name}")(x)
        x = layers.Add(name=f"block{name}")([x, layers.EinsumDense("abc,cd->abd", (12, 8), name=f"narrow{name}")(y)])
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(tokens, layers.EinsumDense("ab,bc->ac", 3, activation="softmax", name="head")(x))


@expected("block1", "block2", "block3", "block4")
def mixer_with_more_channels_than_tokens():
    """Its Dense layers over tokens work on 64 channels as positions (Tolstikhin et al., 2021, arXiv 2105.01601)."""
    inputs = keras.Input((16, 16, 3))
    x = layers.Reshape((16, 64))(layers.Conv2D(64, 4, 4, name="patches")(inputs))
    for name in ("block1", "block2", "block3", "block4"):
        y = layers.Permute((2, 1))(layers.LayerNormalization()(x))
        y = layers.Dense(16)(layers.Dense(8, activation="gelu")(y))
        x = feed(layers.Add()([x, layers.Permute((2, 1))(y)]), name)
    return classify(inputs, x)


@expected("block1", "block2", "block3", "block4")
def tokens_of_two_kinds():
    """Numbers and categories of a table (FT-Transformer, Gorishniy et al., 2021, arXiv 2106.11959)."""
    numbers, categories = keras.Input((5, 3)), keras.Input((6,), dtype="int32")
    x = layers.Concatenate(axis=1)([layers.Dense(8, name="numbers")(numbers), layers.Embedding(9, 8)(categories)])
    return classify([numbers, categories], transform(x))


@expected("block1")
def single_block_over_an_embedding():
    tokens = keras.Input((12,), dtype="int32")
    x = transform(layers.Embedding(20, 8)(tokens), blocks=1)
    x = layers.GlobalAveragePooling1D()(x)
    return classify(tokens, layers.Dense(8, activation="relu", name="hidden")(x))


@expected("encoder1", "encoder2", "norm")
def encoder_and_decoder():
    """The decoder's blocks have three thirds, the encoder's two halves."""
    source, target = keras.Input((12,), dtype="int32"), keras.Input((12,), dtype="int32")
    embedding = layers.Embedding(20, 8)
    x, y = embedding(source), embedding(target)
    for name in ("encoder1", "encoder2"):
        x = feed(attend(x, name), name)
    for name in ("decoder1", "decoder2"):
        y = attend(y, name)
        y = layers.Add(name=f"{name}_crossed")([y, layers.MultiHeadAttention(2, 4)(y, x)])
        y = feed(y, name)
    y = layers.LayerNormalization(name="norm")(y)
    return keras.Model([source, target], layers.Dense(20, name="words")(y))


@expected("widths")
def text_convolutions_over_an_image_of_embeddings():
    """Kim, 2014, arXiv 1408.5882, as often written with Conv2D."""
    tokens = keras.Input((12,), dtype="int32")
    x = layers.Reshape((12, 6, 1))(layers.Embedding(20, 6)(tokens))
    branches = []
    for width in (3, 4, 5):
        y = layers.Conv2D(4, (width, 6), activation="relu", name=f"width{width}")(x)
        branches.append(layers.MaxPooling2D((12 - width + 1, 1), strides=(1, 1))(y))
    x = layers.Concatenate(axis=1, name="widths")(branches)
    return classify(tokens, layers.Flatten()(x))


@expected("block1", "block3", "block4", "norm")
def transformer_behind_convolutions_of_two_resolutions():
    """Hassani et al., 2021, arXiv 2104.05704."""
    inputs = x = keras.Input((16, 16, 3))
    for name in ("conv1", "conv2"):
        x = layers.MaxPooling2D(3, 2, padding="same")(convolve(x, 8, name))
    x = transform(layers.Reshape((16, 8))(x), blocks=6)
    return classify(inputs, layers.LayerNormalization(name="norm")(x))


@expected("stage1", "stage2", "norm")
def attention_to_fewer_positions():
    """Keys and values are read from a coarser map: Chu et al., 2021, arXiv 2104.13840."""
    inputs = x = keras.Input((64, 64, 3))
    for stage, filters in enumerate((8, 12, 16), start=1):
        x = layers.Conv2D(filters, 4 if stage == 1 else 2, 4 if stage == 1 else 2, name=f"patches{stage}")(x)
        side = x.shape[1]
        x = layers.Reshape((side * side, filters))(x)
        y = layers.LayerNormalization()(x)
        fewer = layers.Conv2D(filters, 2, 2, name=f"fewer{stage}")(layers.Reshape((side, side, filters))(y))
        y = layers.MultiHeadAttention(2, 4)(y, layers.Reshape((-1, filters))(fewer))
        x = feed(layers.Add()([x, y]), f"stage{stage}")
        if stage < 3:
            x = layers.Reshape((side, side, filters))(x)
    return classify(inputs, layers.LayerNormalization(name="norm")(x))
