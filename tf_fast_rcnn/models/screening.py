"""A cheap first pass over RoIs, which finds those that are clearly background.

Nearly all of the time of the layers after RoI pooling goes into the first fully connected layer (fc6), and most RoIs
are background. What fine-tuning teaches a new fc6 has few dimensions: with 32 of its 512 singular values, the network
still tells clear background from everything else, at an eighth of the cost. Truncated SVD of the whole detector
(section 3.1 of the paper) needs many more, because there the truncated scores are the result; here they only select the
RoIs that the whole layer classifies.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tf_fast_rcnn.models.parts import CLASS_LOGITS, layer_outputs
from tf_fast_rcnn.models.pretrained import kernel_and_bias
from tf_fast_rcnn.models.truncated_svd import factor_ranks, fully_connected_names

# More vectors than are asked for, and some iterations, make the largest singular vectors exact enough.
_MORE_VECTORS, _ITERATIONS = 8, 4


def can_screen(classify: keras.Model, rank: int) -> bool:
    """Whether `Screening` is cheaper than the network itself: whether there is a fully connected layer before the
    predictor layers that has at least twice as many outputs and is not compressed.

    Args:
        classify: `Stages.classify`.
        rank: number of singular values.
    """
    names = fully_connected_names(classify)
    return bool(names) and names[0] not in factor_ranks(classify) and classify.get_layer(names[0]).units >= 2 * rank


class Screening:
    """The network after RoI pooling, with only some singular values of its first fully connected layer.

    Args:
        classify: `Stages.classify` for which `can_screen` is true. The other layers are shared with it.
        rank: number of singular values.

    Attributes:
        source: the Keras variables that the factors are computed from.
        factors: Keras variables, the matrices `[v, t]` and `[t, u]` whose product is the truncated kernel, and the bias
            `[u]` if there is one. They are zeros until `update` is called.
    """

    def __init__(self, classify: keras.Model, rank: int) -> None:
        name = fully_connected_names(classify)[0]
        self._first = classify.get_layer(name)
        self._rest = keras.Model(layer_outputs(classify)[name], classify.output[CLASS_LOGITS])
        self._rank, self.source = rank, self._first.variables
        inputs, outputs = self._first.kernel.shape
        shapes = [(inputs, rank), (rank, outputs), *([(outputs,)] if self._first.use_bias else [])]
        self.factors = [
            keras.Variable(np.zeros(shape), dtype=classify.input.dtype, trainable=False) for shape in shapes
        ]

    def update(self) -> None:
        """Computes the factors from the present weights of the first fully connected layer."""
        kernel, *bias = kernel_and_bias(self._first)
        for factor, value in zip(self.factors, [*_factors(kernel.astype(np.float32), self._rank), *bias], strict=True):
            factor.assign(value)

    def __call__(self, pooled: tf.Tensor) -> tf.Tensor:
        """Class logits float32 `[N, K + 1]` of pooled RoIs `[N, P, Q, C]`."""
        first, second, *bias = (factor.value for factor in self.factors)
        vectors = tf.reshape(pooled, [-1, first.shape[0]]) @ first @ second
        vectors = tf.nn.bias_add(vectors, bias[0]) if bias else vectors
        return self._rest(self._first.activation(vectors)[None], training=False)[0]


def _factors(kernel, rank):
    """Two matrices `[v, t]` and `[t, u]` whose product is close to the best approximation of a kernel `[v, u]`, by
    subspace iteration (N. Halko et al., "Finding structure with randomness", 2011, section 4.5): for fc6 of VGG16 a
    whole SVD takes much longer."""
    vectors = np.random.default_rng(0).normal(size=(kernel.shape[1], rank + _MORE_VECTORS)).astype(np.float32)
    for _ in range(_ITERATIONS):
        vectors = np.linalg.qr(kernel.T @ (kernel @ vectors))[0]
    products = kernel @ vectors
    _, small = np.linalg.eigh(products.T @ products)
    vectors = vectors @ small[:, ::-1][:, :rank]
    return kernel @ vectors, vectors.T
