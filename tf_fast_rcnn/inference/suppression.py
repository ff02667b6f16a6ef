"""Non-maximum suppression (section 3 of the paper): one rule for every runtime.

Separately for each class, boxes are kept in order of decreasing score unless their IoU with a kept box is above the
threshold. What the runtimes' own ops leave open or do differently is decided here:

- Among equal scores the lower class id comes first, and within a class the earlier proposal. The ops break ties in the
  order of their heaps, so they are given ranks in place of scores, no two of which are equal.
- An IoU equal to the threshold does not suppress. TensorFlow's ops suppress above the threshold, those of TF Lite and
  TensorFlow.js also at it, and their rounding differs, so all get a threshold that is higher by `IOU_TOLERANCE`.
- A box without area is not a detection. TF Lite's op repeats a box whose IoU with itself is below the threshold in
  place of all boxes after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

if TYPE_CHECKING:
    from tf_fast_rcnn.inference.settings import DetectionSettings

# An IoU that exceeds the threshold by no more than this counts as equal to it. Coordinates are rounded: the IoU of
# small boxes, of 5 to 30 of 640 pixels, is up to 6e-6 off, in either direction, and each runtime rounds it differently.
IOU_TOLERANCE = 1e-5

# A box with a shorter side, relative to the image, has no area. The square is far from float32's smallest number.
SHORTEST_SIDE = 1e-6

# Adding this to ranks makes them the bits of positive normal float32 numbers, in the same order and without rounding.
_NORMAL = 1 << 23


def suppress(
    settings: DetectionSettings, probabilities: tf.Tensor, class_boxes: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Detections of B images, with the TensorFlow op that processes all classes and images at once.

    Args:
        settings: `DetectionSettings`.
        probabilities: float32 `[B, R, K + 1]`; rows of zeros yield no detections.
        class_boxes: float32 `[B, R, K, 4]`, relative to the image.

    Returns:
        boxes float32 `[B, D, 4]`, scores float32 `[B, D]` in decreasing order, classes int32 `[B, D]` in 1..K (0 in
        padding rows), counts int32 `[B]`; D is `max_detections`.
    """
    class_ids, scores, class_boxes = _candidates(settings, probabilities, class_boxes)
    # In the order in which ties are broken.
    by_class = tf.transpose(scores, [0, 2, 1])
    places = tf.where(by_class > 0)
    scores = tf.gather_nd(by_class, places)
    order = tf.argsort(scores, direction="DESCENDING", stable=True)
    count = tf.size(order)
    ranks = tf.bitcast(tf.range(count, 0, -1) + _NORMAL, tf.float32)
    ranked = tf.scatter_nd(tf.gather(places, order), ranks, tf.shape(by_class, tf.int64))
    found = tf.image.combined_non_max_suppression(
        class_boxes,
        tf.transpose(ranked, [0, 2, 1]),
        max_output_size_per_class=settings.max_detections,
        max_total_size=settings.max_detections,
        iou_threshold=_iou_limit(settings),
        score_threshold=0.0,
        clip_boxes=False,
    )
    filled = tf.sequence_mask(found.valid_detections, settings.max_detections)
    # Padding rows take the place after the last candidate.
    position = tf.where(filled, count + _NORMAL - tf.bitcast(found.nmsed_scores, tf.int32), count)
    scores = tf.gather(tf.concat([tf.gather(scores, order), [0.0]], 0), position)
    classes = tf.where(filled, tf.gather(class_ids, tf.cast(found.nmsed_classes, tf.int32)), 0)
    return found.nmsed_boxes, scores, classes, found.valid_detections


def suppress_in_one_image(
    settings: DetectionSettings, probabilities: tf.Tensor, class_boxes: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """The same detections with ops that TF Lite and TensorFlow.js have.

    Args:
        settings: `DetectionSettings`.
        probabilities: float32 `[R, K + 1]`; rows of zeros yield no detections.
        class_boxes: float32 `[R, K, 4]`, relative to the image.

    Returns:
        boxes float32 `[D, 4]`, scores float32 `[D]`, classes int32 `[D]`, count int32 `[]`, as for `suppress`.
    """
    class_ids, scores, class_boxes = _candidates(settings, probabilities, class_boxes)
    limit = settings.max_detections
    # TensorFlow.js does not pad its output beyond the number of boxes.
    scores = tf.pad(tf.transpose(scores), [[0, 0], [0, limit]])
    class_boxes = tf.pad(tf.transpose(class_boxes, [1, 0, 2]), [[0, 0], [0, limit], [0, 0]])
    scores, order = tf.math.top_k(scores, tf.shape(scores)[1])
    kept = [
        _kept(settings, tf.gather(class_boxes[number], order[number]), scores[number])
        for number in range(class_ids.shape[0])
    ]
    of_classes, scores = (tf.concat(parts, 0) for parts in zip(*kept, strict=True))
    scores, best = tf.math.top_k(scores, limit)
    is_found = scores > 0
    return (
        tf.where(tf.expand_dims(is_found, 1), tf.gather(of_classes, best), 0.0),
        scores,
        tf.where(is_found, tf.gather(class_ids, best // limit), 0),
        tf.reduce_sum(tf.cast(is_found, tf.int32)),
    )


def _candidates(settings, probabilities, class_boxes):
    """Ids of the chosen classes, int32 `[C]`, their scores `[..., R, C]` and boxes `[..., R, C, 4]`; boxes
    that cannot be detections have the score 0."""
    class_ids = tf.constant(settings.class_ids or [*range(1, probabilities.shape[-1])], tf.int32)
    if settings.class_ids:
        scores = tf.gather(probabilities, class_ids, axis=-1)
        class_boxes = tf.gather(class_boxes, class_ids - 1, axis=-2)
    else:
        scores = probabilities[..., 1:]
    ymin, xmin, ymax, xmax = tf.unstack(class_boxes, axis=-1)
    has_area = (ymax - ymin >= SHORTEST_SIDE) & (xmax - xmin >= SHORTEST_SIDE)
    return class_ids, tf.where(has_area & (scores > settings.score_threshold), scores, 0.0), class_boxes


def _kept(settings, boxes, scores):
    """The boxes of one class that are kept, `[D, 4]`, and their scores `[D]`, 0 in padding rows, of boxes `[N, 4]` and
    their scores `[N]` in decreasing order, with N >= D."""
    limit = settings.max_detections
    if _iou_limit(settings) == 1:  # Nothing is suppressed; TF Lite's op would suppress equal boxes.
        return boxes[:limit], scores[:limit]
    ranks = tf.cast(tf.range(tf.size(scores), 0, -1), tf.float32)
    kept, count = tf.raw_ops.NonMaxSuppressionV4(
        boxes=boxes,
        scores=tf.where(scores > 0, ranks, 0.0),
        max_output_size=limit,
        iou_threshold=_iou_limit(settings),
        score_threshold=0.5,
        pad_to_max_output_size=True,
    )
    return tf.gather(boxes, kept), tf.where(tf.range(limit) < count, tf.gather(scores, kept), 0.0)


def _iou_limit(settings):
    return min(settings.nms_iou_threshold + IOU_TOLERANCE, 1.0)
