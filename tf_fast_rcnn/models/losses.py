"""The multi-task loss (section 2.3 of the paper): L(p, u, t, v) = Lcls(p, u) + lambda [u >= 1] Lloc(t_u, v).

The targets of a mini-batch of B images with R RoIs each:

- `class_logits`: int32 `[B, R]`, the label u of each RoI: 0 for background, 1..K for classes, -1 for padding, which is
  ignored;
- `box_deltas`: float32 `[B, R, 5]`, the label again, then the regression targets `(ty, tx, th, tw)` for the box of that
  class, not normalised.

Both losses are divided by the number of labels >= 0 in the mini-batch, as in the released system, so that a
background RoI has the same weight as a foreground RoI. Under a `tf.distribute` strategy this is the mini-batch of all
replicas together, so that an update does not depend on how the images are distributed.

`sample_weight` of `fit`, float `[B]` (per image) or `[B, R]` (per RoI), multiplies the losses of the RoIs. As in
Keras's own losses it does not change the divisor: a weight of 2 doubles a RoI's part of the loss, a weight of 0 removes
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.files import renamed
from tf_fast_rcnn.models.parts import BOX_DELTAS, CLASS_LOGITS, EARLIER_NAMES, denormalization_layer

if TYPE_CHECKING:
    import numpy.typing as npt


def multi_task_loss(
    model: keras.Model, box_weight: float = 1.0, class_weights: Sequence[float] | None = None
) -> dict[str, keras.losses.Loss]:
    """The two losses of a Fast R-CNN model for `model.compile(loss=...)`; Keras adds them.

    Args:
        model: what `fast_rcnn` returned; its statistics normalise the regression targets to zero mean and unit
            variance.
        box_weight: lambda; the paper uses 1.
        class_weights: `[K + 1]` numbers, the background first. The classification loss of a RoI is multiplied by the
            weight of its class, as if the RoI occurred that many times. None: all 1. The losses are still divided by
            the number of RoIs, so a larger weight for one class does not reduce the weight of the others or of the box
            loss.

    Returns:
        dict from the model's output names to Keras losses.

    Example:
        >>> model.compile(optimizer=sgd(), loss=multi_task_loss(model))
    """
    std = denormalization_layer(model).std
    return {CLASS_LOGITS: ClassLoss(class_weights), BOX_DELTAS: BoxLoss(std, box_weight)}


class _MiniBatchLoss(keras.losses.Loss):
    """The sum of the losses of the RoIs, divided by the number of labels >= 0 in the mini-batch of all replicas.

    Subclasses implement `labels` (targets -> int32 `[B, R]`) and `call` (targets, outputs -> losses `[B, R]`).
    """

    def __init__(self, **kwargs: Any) -> None:
        # float32 under any policy: half types cannot represent sums over a mini-batch.
        super().__init__(**{**kwargs, "reduction": "sum", "dtype": "float32"})

    def __call__(self, targets: tf.Tensor, outputs: tf.Tensor, sample_weight: tf.Tensor | None = None) -> tf.Tensor:
        with tf.name_scope(self.name):
            targets = tf.cast(targets, tf.float32)
            losses = self.call(targets, tf.cast(outputs, tf.float32))
            if sample_weight is not None:
                losses *= _roi_weights(sample_weight, losses)
            used = self.labels(targets) >= 0
            return _per_used_roi(tf.reduce_sum(tf.where(used, losses, 0.0)), used)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["reduction"]
        return config


@keras.saving.register_keras_serializable(package="tf_fast_rcnn")
class ClassLoss(_MiniBatchLoss):
    """Lcls: log loss -log p_u over K + 1 classes, from logits `[B, R, K + 1]` and labels `[B, R]`.

    Args:
        class_weights: `[K + 1]` factors for the log losses of the RoIs of each class, or None.
    """

    def __init__(self, class_weights: Sequence[float] | None = None, name: str = "class_loss", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.class_weights = None if class_weights is None else [float(weight) for weight in class_weights]

    def labels(self, targets: tf.Tensor) -> tf.Tensor:
        return tf.cast(targets, tf.int32)

    def call(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        classes = tf.maximum(self.labels(labels), 0)
        log_losses = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
        return log_losses if self.class_weights is None else log_losses * tf.gather(self.class_weights, classes)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "class_weights": self.class_weights}


@keras.saving.register_keras_serializable(package="tf_fast_rcnn")
class BoxLoss(_MiniBatchLoss):
    """Lloc: smooth L1 over the four regression values of the true class's box, foreground RoIs only.

    Args:
        std: `[K, 4]` standard deviations of the targets. The differences are divided by them, which compares
            normalised values: the mean cancels out.
        weight: lambda.
    """

    def __init__(self, std: npt.ArrayLike, weight: float = 1.0, name: str = "box_loss", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.std = np.asarray(std, np.float32)
        self.weight = float(weight)

    def labels(self, targets: tf.Tensor) -> tf.Tensor:
        return tf.cast(targets[..., 0], tf.int32)

    def call(self, targets: tf.Tensor, deltas: tf.Tensor) -> tf.Tensor:
        labels = self.labels(targets)
        true_class = tf.maximum(labels - 1, 0)
        predicted = tf.gather(deltas, true_class, batch_dims=2)
        difference = (predicted - targets[..., 1:]) / tf.gather(self.std, true_class)
        losses = tf.reduce_sum(smooth_l1(difference), axis=-1)
        return self.weight * tf.where(labels >= 1, losses, 0.0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "std": self.std.tolist(), "weight": self.weight}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> BoxLoss:
        return super().from_config(renamed(config, EARLIER_NAMES))


def smooth_l1(x: tf.Tensor) -> tf.Tensor:
    """Equation 3 of the paper: 0.5 x^2 if |x| < 1, otherwise |x| - 0.5."""
    magnitude = tf.abs(x)
    return tf.where(magnitude < 1.0, 0.5 * tf.square(x), magnitude - 0.5)


def _roi_weights(sample_weight, losses):
    """Weights that broadcast to the losses `[B, R]`, from weights of images or of RoIs."""
    weights = tf.cast(sample_weight, losses.dtype)
    if weights.shape.rank == 1:
        # Not left to broadcasting: with as many images as RoIs, [B] would be taken for the weights of RoIs.
        return weights[:, None]
    if weights.shape.rank != 2 or weights.shape[1] not in (None, 1, losses.shape[1]):
        raise InputError(
            f"sample_weight: found shape {tuple(weights.shape)}; expected [B] (one weight per image) or [B, R] (one "
            f"per RoI) for RoIs of shape {tuple(losses.shape)}; change its shape"
        )
    return weights


def _per_used_roi(loss, used):
    """A loss summed over the RoIs of this replica, divided by the number of used RoIs of all replicas.

    Keras adds up the gradients of the replicas, which gives the gradient of the whole mini-batch. It reports the number
    of replicas times the weighted mean of their values, so the value is the same for all: that of the whole mini-batch
    divided by the number of replicas. A replica's own value would be misreported if replicas differ in images.
    """
    number = tf.reduce_sum(tf.cast(used, tf.float32))
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return loss / tf.maximum(number, 1.0)
    total, number = tf.unstack(context.all_reduce("SUM", tf.stop_gradient(tf.stack([loss, number]))))
    number = tf.maximum(number, 1.0)
    own = loss / number
    return own + tf.stop_gradient(total / number / context.num_replicas_in_sync - own)
