"""Names of types that Keras does not have."""

from typing import Any

Tensor = Any
"""A tensor of the backend that Keras runs on."""

Operation = Any
"""A `keras.Operation`: a layer or a function. Keras declares no attributes that mypy could check."""
