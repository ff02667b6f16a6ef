"""Whether the weights of a model have changed since they were last looked at."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf


class WeightsSeen:
    """Remembers the values of variables, to find out later whether they have changed.

    On a CPU this takes neither memory nor a comparison of values: a tensor that was read from a variable shares its
    memory, and as long as the tensor exists, TensorFlow writes new values of the variable to other memory.

    Args:
        variables: Keras variables. They count as changed until `have_changed` is called for the first time.

    Example:
        >>> kernel = keras.Variable([1.0, 2.0])
        >>> seen = WeightsSeen([kernel])
        >>> seen.have_changed(), seen.have_changed()
        (True, False)
    """

    def __init__(self, variables: Iterable[keras.Variable]) -> None:
        values = [variable.value for variable in variables]
        # One function reads all in a few milliseconds; one by one, hundreds of variables take several times as long.
        self._read = tf.function(lambda: [tf.identity(value) for value in values], autograph=False)
        self._seen: list[tf.Tensor] | None = None

    def have_changed(self) -> bool:
        """Whether any variable has another value than at the previous call."""
        before, self._seen = self._seen, self._read()
        return before is None or not all(map(_equal, before, self._seen))


def _equal(before, now):
    return _address(before) == _address(now) or bool(tf.reduce_all(tf.equal(before, now)))


def _address(tensor):
    # A copy if the tensor is on a GPU: then the addresses differ, and values are compared.
    return np.asarray(tensor).__array_interface__["data"][0]
