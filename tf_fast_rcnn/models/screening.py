"""A cheap first pass over RoIs, which finds those that are clearly background.

Nearly all of the time of the layers after RoI pooling goes into the first fully connected layer (fc6), and most RoIs
are background. What fine-tuning teaches a new fc6 has few dimensions: with 32 of its 1024 singular values the network
still tells clear background from everything else, at 4 % of the cost. Truncated SVD of the whole detector (section 3.1
of the paper) needs many more, because there the truncated scores are the result; here they only select the RoIs that
the whole layer classifies.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tf_fast_rcnn.models.parts import CLASS_LOGITS, layer_outputs
from tf_fast_rcnn.models.pretrained import kernel_and_bias
from tf_fast_rcnn.models.truncated_svd import factor_ranks, fully_connected_names

# More vectors than are asked for, and some iterations, make the largest singular vectors exact enough.
_MORE_VECTORS, _ITERATIONS = 8, 4


def screening(classify: keras.Model, rank: int) -> Callable[[tf.Tensor], tf.Tensor] | None:
    """The class logits of RoIs by a network whose first fully connected layer keeps only `rank` singular values.

    Args:
        classify: `Stages.classify`. The factors of its first layer are constants of the result; the other layers are
            shared.
        rank: number of singular values.

    Returns:
        A function of pooled RoIs `[N, P, Q, C]` that returns class logits float32 `[N, K + 1]`. None if this would not
        be cheaper: if there is no fully connected layer before the predictor layers, or it has few outputs or is
        already compressed.
    """
    names = fully_connected_names(classify)
    if not names or names[0] in factor_ranks(classify) or classify.get_layer(names[0]).units < 2 * rank:
        return None
    first = classify.get_layer(names[0])
    rest = keras.Model(layer_outputs(classify)[names[0]], classify.output[CLASS_LOGITS])
    kernel, *bias = kernel_and_bias(first)
    factors = _factors(kernel.astype(np.float32), rank)

    def logits(pooled):
        vectors = tf.reshape(pooled, [-1, kernel.shape[0]])
        for factor in factors:
            vectors = tf.matmul(vectors, tf.constant(factor, pooled.dtype))
        for each in bias:
            vectors += tf.constant(each, pooled.dtype)
        return rest(first.activation(vectors)[None], training=False)[0]

    return logits


def _factors(kernel, rank):
    """Two matrices `[v, t]` and `[t, u]` whose product is close to the best approximation of a kernel `[v, u]`, by
    subspace iteration. A whole SVD of fc6 of VGG16 takes half a minute, and this a second."""
    vectors = np.random.default_rng(0).normal(size=(kernel.shape[1], rank + _MORE_VECTORS)).astype(np.float32)
    for _ in range(_ITERATIONS):
        vectors = np.linalg.qr(kernel.T @ (kernel @ vectors))[0]
    products = kernel @ vectors
    _, small = np.linalg.eigh(products.T @ products)
    vectors = vectors @ small[:, ::-1][:, :rank]
    return kernel @ vectors, vectors.T
