"""What follows from what, which tensors exist beside a call, and which are gates, in networks small enough to see."""

import keras
from keras import layers

from keras_collab import NetworkReader
from keras_collab.network.paths import alive_after, computed_from, factors_of_products, first_read, longest_path


def graph_of(inputs, output):
    return NetworkReader(keras.Model(inputs, output)).graph


def names(graph, tensors):
    """The layers that made the tensors with these ids, in the order of the network."""
    return [call.name for call in graph.calls if id(call.output) in tensors]


def test_data_that_no_layer_has_computed():
    """`rescaled` is data: `a` and `b` begin from it, and `sum` joins it to what `a` has computed."""
    inputs = keras.Input((4,))
    rescaled = layers.Rescaling(2.0, name="rescaled")(inputs)
    a = layers.Dense(4, name="a")(rescaled)
    total = layers.Add(name="sum")([a, rescaled])
    joined = layers.Concatenate(name="joined")([total, layers.Dense(4, name="b")(rescaled)])
    graph = graph_of(inputs, layers.Dense(3, name="head")(joined))
    computed = computed_from(graph.calls, [inputs])
    assert names(graph, computed) == ["a", "sum", "b", "joined", "head"]
    assert first_read(graph.calls, inputs, computed) == {id(rescaled)}


def test_a_second_input_computes_nothing_of_the_first():
    first, second = keras.Input((4,)), keras.Input((4,))
    a, b = layers.Dense(4, name="a")(first), layers.Dense(4, name="b")(second)
    graph = graph_of([first, second], layers.Add(name="sum")([a, b]))
    assert names(graph, computed_from(graph.calls, [first])) == ["a", "sum"]


def test_a_tensor_exists_until_it_is_read_for_the_last_time():
    """A residual block: the shortcut exists beside what the block computes."""
    inputs = keras.Input((4,))
    a = layers.Dense(4, name="a")(inputs)
    b = layers.Dense(4, name="b")(a)
    c = layers.Dense(4, name="c")(b)
    total = layers.Add(name="sum")([a, c])
    head = layers.Dense(3, name="head")(total)
    graph = graph_of(inputs, head)
    alive = alive_after(graph.calls, head, computed_from(graph.calls, [inputs]))
    by_name = {call.name: tensors for call, tensors in alive.items()}
    assert by_name == {"a": [a], "b": [a, b], "c": [a, c], "sum": [total], "head": [head]}


def test_longest_path():
    """Two layers and a skip to their sum; what a softmax makes is not on it."""
    inputs = keras.Input((4,))
    a = layers.Dense(4, name="a")(inputs)
    b = layers.Dense(4, name="b")(a)
    weights = layers.Dense(4, activation="softmax", name="weights")(layers.Dense(4, name="side")(a))
    total = layers.Add(name="sum")([a, layers.Multiply(name="product")([weights, b])])
    graph = graph_of(inputs, layers.Dense(3, name="head")(total))
    assert {call.name for call in longest_path(graph.calls)} == {"a", "b", "product", "sum", "head"}


def test_data_exist_from_the_start():
    """The second branch has yet to read them when the first one has been computed."""
    inputs = keras.Input((4,))
    a, b = layers.Dense(4, name="a")(layers.Reshape((4,))(inputs)), layers.Dense(4, name="b")(inputs)
    output = layers.Add(name="sum")([a, b])
    graph = graph_of(inputs, output)
    alive = alive_after(graph.calls[1:], output, {id(inputs), id(a), id(b), id(output)})
    assert [call.name for call in graph.calls[1:]] == ["a", "b", "sum"]
    assert list(alive.values()) == [[inputs, a], [a, b], [output]]


def test_only_what_one_factor_alone_needs_is_a_gate():
    """Squeeze-and-excitation: `x` is the other factor, and what the gate is computed from."""
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="x")(inputs)
    gate = layers.Dense(4, name="excite")(layers.Dense(2, name="squeeze")(x))
    product = layers.Multiply(name="product")([x, gate])
    graph = graph_of(inputs, layers.Dense(3, name="head")(product))
    products = factors_of_products(graph.calls)
    assert names(graph, products) == ["squeeze", "excite"]
    assert [{call.name for call in read_by} for read_by in products.values()] == [{"product"}] * 2
