"""Functions that TensorFlow traces, without its advice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

__all__ = ["traced"]


def traced(
    function: Callable[..., Any], *, compiled: bool = False, signature: Sequence[tf.TensorSpec] | None = None
) -> Any:
    """Have TensorFlow trace a function of tensors, once for each combination of shapes.

    Every training and every scan has shapes of its own and so its own functions. TensorFlow takes many of them in one
    process for a mistake and says so on the terminal; the attribute set here is the one it asks before it does.

    Args:
        function: of tensors, without Python's control flow over them.
        compiled: whether XLA compiles it.
        signature: shapes and types of all arguments, with None for a length that varies: then it is traced once.
    """
    made = tf.function(function, autograph=False, jit_compile=True if compiled else None, input_signature=signature)
    made._omit_frequent_tracing_warning = True
    return made
