"""Non-maximum suppression (section 3 of the paper), its two variants, and box voting: one rule for every runtime.

Separately for each class, boxes are kept in order of decreasing score unless their IoU with a kept box is above the
threshold. "across-classes" is the same for the boxes of all classes together. "soft" lowers the scores of boxes that
overlap with a kept one instead of dropping them (N. Bodla et al., "Soft-NMS", 2017). Box voting then replaces each kept
box by the mean of the boxes around it (S. Gidaris and N. Komodakis, "Object detection via a multi-region & semantic
segmentation-aware CNN model", 2015, section 5). What the runtimes' own ops leave open or do differently is decided
here:

- Among equal scores the lower class id comes first, and within a class the earlier proposal. The ops break ties in the
  order of their heaps, so they are given ranks in place of scores, no two of which are equal.
- An IoU equal to the threshold does not suppress. TensorFlow's ops suppress above the threshold, those of TF Lite and
  TensorFlow.js also at it, and their rounding differs, so all get a threshold that is higher by `IOU_TOLERANCE`.
- A box without area is not a detection. TF Lite's op repeats a box whose IoU with itself is below the threshold in
  place of all boxes after it.
- Soft-NMS is a loop of ordinary ops. `NonMaxSuppressionV5` halves the paper's exponent; and in TF Lite and
  TensorFlow.js, though not in TensorFlow, it drops boxes at or above an IoU threshold, which cannot be higher than 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from tf_fast_rcnn import boxes

if TYPE_CHECKING:
    from tf_fast_rcnn.inference.settings import DetectionSettings

# An IoU that exceeds the threshold by no more than this counts as equal to it. Coordinates are rounded: the IoU of
# small boxes, of 5 to 30 of 640 pixels, is up to 6e-6 off, in either direction, and each runtime rounds it differently.
IOU_TOLERANCE = 1e-5

# A box with a shorter side, relative to the image, has no area. The square is far from float32's smallest number.
SHORTEST_SIDE = 1e-6

# In soft-NMS, scores that are lower than the highest by no more than this share of it count as equal to it: they are
# products of exponentials of IoUs, which are rounded.
SCORE_TOLERANCE = 1e-5

# Adding this to ranks makes them the bits of positive normal float32 numbers, in the same order and without rounding.
_NORMAL = 1 << 23


def suppress(
    settings: DetectionSettings, probabilities: tf.Tensor, class_boxes: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Detections of B images. Suppression per class has one TensorFlow op for all classes and images.

    Args:
        settings: `DetectionSettings`.
        probabilities: float32 `[B, R, K + 1]`; rows of zeros yield no detections.
        class_boxes: float32 `[B, R, K, 4]`, relative to the image.

    Returns:
        boxes float32 `[B, D, 4]`, scores float32 `[B, D]` in decreasing order, classes int32 `[B, D]` in 1..K (0 in
        padding rows), counts int32 `[B]`; D is `max_detections`.
    """
    if settings.nms == "per-class" and settings.box_voting is None:
        return _suppress_per_class(settings, probabilities, class_boxes)
    limit = settings.max_detections
    return tf.map_fn(
        lambda image: suppress_in_one_image(settings, *image),
        (probabilities, class_boxes),
        fn_output_signature=(
            tf.TensorSpec([limit, 4], tf.float32),
            tf.TensorSpec([limit], tf.float32),
            tf.TensorSpec([limit], tf.int32),
            tf.TensorSpec([], tf.int32),
        ),
        parallel_iterations=1,
    )


def _suppress_per_class(settings, probabilities, class_boxes):
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
    rules = {"per-class": _per_class, "across-classes": _across_classes, "soft": _soft}
    found, scores, classes = rules[settings.nms](settings, *_candidates(settings, probabilities, class_boxes))
    if settings.box_voting is not None:
        found = _voted(settings, found, classes, probabilities, class_boxes)
    return found, scores, classes, tf.reduce_sum(tf.cast(scores > 0, tf.int32))


def _per_class(settings, class_ids, scores, class_boxes):
    """Boxes `[D, 4]`, scores `[D]` and classes `[D]` of detections; all are 0 in padding rows."""
    limit = settings.max_detections
    # TensorFlow.js does not pad its output beyond the number of boxes.
    scores = tf.pad(tf.transpose(scores), [[0, 0], [0, limit]])
    class_boxes = tf.pad(tf.transpose(class_boxes, [1, 0, 2]), [[0, 0], [0, limit], [0, 0]])
    scores, order = tf.math.top_k(scores, tf.shape(scores)[1])
    boxes_of, scores_of = [], []
    for number in range(class_ids.shape[0]):
        sorted_boxes = tf.gather(class_boxes[number], order[number])
        kept, kept_scores = _kept(settings, sorted_boxes, scores[number])
        boxes_of.append(tf.gather(sorted_boxes, kept))
        scores_of.append(kept_scores)
    scores, best = tf.math.top_k(tf.concat(scores_of, 0), limit)
    is_found = scores > 0
    return (
        tf.where(tf.expand_dims(is_found, 1), tf.gather(tf.concat(boxes_of, 0), best), 0.0),
        scores,
        tf.where(is_found, tf.gather(class_ids, best // limit), 0),
    )


def _across_classes(settings, class_ids, scores, class_boxes):
    """As `_per_class`, for the boxes of all classes as if they were of one."""
    classes, scores, all_boxes = _in_one_list(settings, class_ids, scores, class_boxes)
    scores, order = tf.math.top_k(scores, tf.size(scores))
    all_boxes = tf.gather(all_boxes, order)
    kept, scores = _kept(settings, all_boxes, scores)
    is_found = scores > 0
    return (
        tf.where(tf.expand_dims(is_found, 1), tf.gather(all_boxes, kept), 0.0),
        scores,
        tf.where(is_found, tf.gather(classes, tf.gather(order, kept)), 0),
    )


def _soft(settings, class_ids, scores, class_boxes):
    """As `_per_class`, by the loop of the Soft-NMS paper (figure 2) with its Gaussian (equation 3).

    It runs over the boxes of all classes together, and each kept box lowers the scores of its own class alone. Scores
    only decrease, so the detections come in the order of their scores, and the first D are the best of all classes.
    """
    in_one_list = _in_one_list(settings, class_ids, scores, class_boxes)
    # One padding row stays, because no reduction is defined without a score.
    chosen = tf.pad(tf.cast(tf.where(in_one_list[1] > 0)[:, 0], tf.int32), [[0, 1]], constant_values=-1)
    chosen = tf.where(chosen < 0, tf.size(in_one_list[1]) - 1, chosen)
    classes, scores, all_boxes = (tf.gather(values, chosen) for values in in_one_list)
    limit, index = settings.max_detections, tf.range(tf.size(scores))

    def keep_one(number, left, kept, kept_scores):
        best = tf.reduce_max(left)
        is_tied = left >= best * (1 - SCORE_TOLERANCE)
        first = tf.reduce_min(tf.where(is_tied, index, tf.size(left)))
        overlap = _iou(tf.gather(all_boxes, [first]), all_boxes)
        overlap = tf.where(tf.equal(classes, tf.gather(classes, first)), overlap, 0.0)
        left = left * tf.exp(-tf.square(overlap) / settings.soft_nms_sigma)
        left = tf.where(tf.equal(index, first) | (left <= settings.score_threshold), 0.0, left)
        here = tf.equal(tf.range(limit), number)
        return number + 1, left, tf.where(here, first, kept), tf.where(here, best, kept_scores)

    _, _, kept, scores = tf.while_loop(
        lambda number, left, *_: (number < limit) & (tf.reduce_max(left) > 0),
        keep_one,
        (tf.constant(0), scores, tf.zeros([limit], tf.int32), tf.zeros([limit])),
        parallel_iterations=1,
    )
    is_found = scores > 0
    return (
        tf.where(tf.expand_dims(is_found, 1), tf.gather(all_boxes, kept), 0.0),
        scores,
        tf.where(is_found, tf.gather(classes, kept), 0),
    )


def _voted(settings, found, classes, probabilities, class_boxes):
    """The detections' boxes `[D, 4]` after box voting: means of the boxes of their class before suppression, weighted
    by score, whose IoU with the detection is at least the threshold. Padding rows, of class 0, are returned as 0."""
    row = tf.maximum(classes - 1, 0)
    voters = tf.gather(tf.transpose(class_boxes, [1, 0, 2]), row)  # [D, R, 4]
    weights = tf.gather(tf.transpose(probabilities)[1:], row)  # [D, R]
    least = max(settings.box_voting - IOU_TOLERANCE, IOU_TOLERANCE)
    weights = tf.where(_iou(tf.expand_dims(found, 1), voters) >= least, weights, 0.0)
    total = tf.reduce_sum(weights, axis=1, keepdims=True)
    weights = weights / tf.where(total > 0, total, 1.0)
    return tf.squeeze(tf.matmul(tf.expand_dims(weights, 1), voters), 1)


def _iou(first, second):
    """IoU of boxes `[..., 4]` that broadcast against each other; TF Lite lacks the division of `boxes.iou`."""
    top, left = tf.maximum(first[..., 0], second[..., 0]), tf.maximum(first[..., 1], second[..., 1])
    bottom, right = tf.minimum(first[..., 2], second[..., 2]), tf.minimum(first[..., 3], second[..., 3])
    shared = tf.maximum(bottom - top, 0.0) * tf.maximum(right - left, 0.0)
    union = boxes.area(first) + boxes.area(second) - shared
    return shared / tf.maximum(union, SHORTEST_SIDE**2)


def _in_one_list(settings, class_ids, scores, class_boxes):
    """Classes `[N]`, scores `[N]` and boxes `[N, 4]` of all candidates, in the order in which ties are broken, followed
    by D padding rows with the score 0."""
    limit = settings.max_detections
    classes = tf.reshape(tf.transpose(tf.zeros_like(scores, tf.int32) + class_ids), [-1])
    return (
        tf.pad(classes, [[0, limit]]),
        tf.pad(tf.reshape(tf.transpose(scores), [-1]), [[0, limit]]),
        tf.pad(tf.reshape(tf.transpose(class_boxes, [1, 0, 2]), [-1, 4]), [[0, limit], [0, 0]]),
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


def _kept(settings, candidates, scores):
    """Which of the candidates `[N, 4]`, with scores `[N]` in decreasing order and N >= D, are kept: their positions
    `[D]` and scores `[D]`, 0 in padding rows."""
    limit = settings.max_detections
    if _iou_limit(settings) == 1:  # Nothing is suppressed; TF Lite's op would suppress equal boxes.
        return tf.range(limit), scores[:limit]
    ranks = tf.cast(tf.range(tf.size(scores), 0, -1), tf.float32)
    kept, count = tf.raw_ops.NonMaxSuppressionV4(
        boxes=candidates,
        scores=tf.where(scores > 0, ranks, 0.0),
        max_output_size=limit,
        iou_threshold=_iou_limit(settings),
        score_threshold=0.5,
        pad_to_max_output_size=True,
    )
    return kept, tf.where(tf.range(limit) < count, tf.gather(scores, kept), 0.0)


def _iou_limit(settings):
    return min(settings.nms_iou_threshold + IOU_TOLERANCE, 1.0)
