"""Weights as constants of a graph, and whether they still are those of the model.

If weights are constants, TensorFlow brings them into the order that the processor's instructions need once, and not in
every call, and multiplies the factors of batch normalisation into them once (see `models.folding`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def with_constants(network: keras.Model) -> Callable[[tf.Tensor], Any]:
    """The network for inference as a `tf.function`, with its present weights as constants.

    Args:
        network: `keras.Model` with one input. Later changes of its weights have no effect.
    """
    values = [(variable, keras.ops.convert_to_numpy(variable)) for variable in network.variables]

    @tf.function(autograph=False)
    def infer(images):
        constants = [(variable, tf.constant(value, variable.dtype)) for variable, value in values]
        with keras.StatelessScope(state_mapping=constants):
            return network(images, training=False)

    return infer


class WeightsSeen:
    """Remembers the values of variables, to find out later whether they have changed.

    On a CPU this takes neither memory nor a comparison of values: a tensor that was read from a variable shares its
    memory, and as long as the tensor exists, TensorFlow writes new values of the variable to other memory.
    """

    def __init__(self, variables: Iterable[keras.Variable]) -> None:
        values = [variable.value for variable in variables]
        # One function reads all in a few milliseconds; one by one, hundreds of variables take several times as long.
        self._read = tf.function(lambda: [tf.identity(value) for value in values], autograph=False)
        self._seen = self._read()

    def are_current(self) -> bool:
        """Whether all variables still have the values that they had when this object was made."""
        return all(map(_equal, self._seen, self._read()))


def _equal(before, now):
    return _address(before) == _address(now) or bool(tf.reduce_all(tf.equal(before, now)))


def _address(tensor):
    # A copy if the tensor is on a GPU: then the addresses differ, and values are compared.
    return np.asarray(tensor).__array_interface__["data"][0]
