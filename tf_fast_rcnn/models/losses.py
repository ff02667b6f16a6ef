"""The multi-task loss (section 2.3 of the paper): L(p, u, t, v) = Lcls(p, u) + lambda [u >= 1] Lloc(t_u, v).

The targets of a mini-batch of B images with R RoIs each:

- `class_logits`: int32 `[B, R]`, the label u of each RoI: 0 for background, 1..K for classes, -1 for a RoI that fills
  the mini-batch up and is ignored;
- `box_deltas`: float32 `[B, R, 5]`, the label again, then the regression targets `(ty, tx, th, tw)` of that class's
  box, not normalised.

Both losses are divided by the number of labels >= 0 in the mini-batch, as in the released system, so that a
background RoI weighs as much as a foreground one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tf_fast_rcnn.files import renamed
from tf_fast_rcnn.models.parts import BOX_DELTAS, CLASS_LOGITS, EARLIER_NAMES, denormalization_layer

if TYPE_CHECKING:
    import numpy.typing as npt


def multi_task_loss(
    model: keras.Model, box_weight: float = 1.0, class_weights: Sequence[float] | None = None
) -> dict[str, keras.losses.Loss]:
    """The two losses of a Fast R-CNN model for `model.compile(loss=...)`; Keras adds them up.

    Args:
        model: what `fast_rcnn` returned; its statistics normalise the regression targets to zero mean and unit
            variance.
        box_weight: lambda; the paper uses 1.
        class_weights: `[K + 1]` numbers, that of the background first: the classification loss of a RoI is multiplied
            by its class's, as if there were so many of it; None for 1. The divisor stays the number of RoIs, so that
            raising one class's weight lowers no other's, nor that of the box loss.

    Returns:
        A dictionary from the model's output names to Keras losses.

    Example:
        >>> model.compile(optimizer=sgd(), loss=multi_task_loss(model))
    """
    std = denormalization_layer(model).std
    return {CLASS_LOGITS: ClassLoss(class_weights), BOX_DELTAS: BoxLoss(std, box_weight)}


@keras.saving.register_keras_serializable(package="tf_fast_rcnn")
class ClassLoss(keras.losses.Loss):
    """Lcls: log loss -log p_u over K + 1 classes, from logits `[B, R, K + 1]` and labels `[B, R]`.

    Args:
        class_weights: `[K + 1]` numbers that the log losses of each class's RoIs are multiplied by, or None.
    """

    def __init__(self, class_weights: Sequence[float] | None = None, name: str = "class_loss", **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "name": name, "reduction": "sum"})
        self.class_weights = None if class_weights is None else [float(weight) for weight in class_weights]

    def call(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        labels = tf.cast(labels, tf.int32)
        used = labels >= 0
        log_loss = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.maximum(labels, 0), logits)
        if self.class_weights is not None:
            log_loss *= tf.gather(tf.constant(self.class_weights), tf.maximum(labels, 0))
        return tf.reduce_sum(tf.where(used, log_loss, 0.0)) / _mini_batch_size(used)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "class_weights": self.class_weights}
        del config["reduction"]
        return config


@keras.saving.register_keras_serializable(package="tf_fast_rcnn")
class BoxLoss(keras.losses.Loss):
    """Lloc: smooth L1 over the four regression values of the true class's box, foreground RoIs only.

    Args:
        std: `[K, 4]` standard deviations of the targets. Dividing the difference by them compares normalised
            values: the mean falls out.
        weight: lambda.
    """

    def __init__(self, std: npt.ArrayLike, weight: float = 1.0, name: str = "box_loss", **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "name": name, "reduction": "sum"})
        self.std = np.asarray(std, np.float32)
        self.weight = float(weight)

    def call(self, targets: tf.Tensor, deltas: tf.Tensor) -> tf.Tensor:
        labels = tf.cast(targets[..., 0], tf.int32)
        true_class = tf.maximum(labels - 1, 0)
        predicted = tf.gather(deltas, true_class, batch_dims=2)
        difference = (predicted - targets[..., 1:]) / tf.gather(self.std, true_class)
        loss = tf.reduce_sum(smooth_l1(difference), axis=-1)
        return self.weight * tf.reduce_sum(tf.where(labels >= 1, loss, 0.0)) / _mini_batch_size(labels >= 0)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "std": self.std.tolist(), "weight": self.weight}
        del config["reduction"]
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> BoxLoss:
        return super().from_config(renamed(config, EARLIER_NAMES))


def smooth_l1(x: tf.Tensor) -> tf.Tensor:
    """Equation 3 of the paper: 0.5 x^2 where |x| < 1, else |x| - 0.5."""
    magnitude = tf.abs(x)
    return tf.where(magnitude < 1.0, 0.5 * tf.square(x), magnitude - 0.5)


def _mini_batch_size(used):
    return tf.maximum(tf.reduce_sum(tf.cast(used, tf.float32)), 1.0)
