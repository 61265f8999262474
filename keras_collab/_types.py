"""Names of types that Keras does not have."""

from typing import Any

from numpy.typing import NDArray

Tensor = Any
"""A tensor of the backend that Keras runs on."""

Structure = Any
"""Tensors as a network takes and returns them: one, or a list, tuple or dict of them."""

Array = NDArray[Any]
"""A NumPy array."""

Data = Any
"""Training data: arrays `(x, y)` or `(x, y, sample_weight)`, or an iterable of such batches."""

Operation = Any
"""A `keras.Operation`: a layer or a function. Keras declares no attributes that mypy could check."""

SymbolicArguments = Any
"""The arguments of a call of a layer, with symbolic tensors, as Keras stores them."""
