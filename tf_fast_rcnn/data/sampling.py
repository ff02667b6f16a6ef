"""The RoIs of a mini-batch (section 2.3 of the paper, "Mini-batch sampling"): which of an image's proposals are drawn.

`batches` makes mini-batches of them.
"""

import dataclasses

import tensorflow as tf

from tf_fast_rcnn import boxes
from tf_fast_rcnn.errors import InputError

IGNORED = -1
FOREGROUND_IOU = 0.5


@dataclasses.dataclass(frozen=True)
class SamplingRules:
    """What makes a mini-batch; the defaults are the paper's.

    Attributes:
        images_per_batch: N.
        rois_per_batch: R, a multiple of N.
        foreground_fraction: share of an image's RoIs that are drawn from the foreground.
        foreground_iou: proposals that overlap a ground-truth box by at least this are foreground.
        background_iou: the largest overlap of background proposals lies in [low, high). The paper's 0.1 leaves out
            the easiest background as a heuristic for hard example mining; 0 takes it in.
        flip: probability of a horizontal flip.
        shorter_side, longer_side: of the resized image in pixels (see `resize_to_network`).
    """

    images_per_batch: int = 2
    rois_per_batch: int = 128
    foreground_fraction: float = 0.25
    foreground_iou: float = FOREGROUND_IOU
    background_iou: tuple = (0.1, 0.5)
    flip: float = 0.5
    shorter_side: int = 600
    longer_side: int = 1000

    def __post_init__(self):
        if self.images_per_batch < 1 or self.rois_per_batch % self.images_per_batch:
            raise InputError(
                f"rois_per_batch: found {self.rois_per_batch} for {self.images_per_batch} images; expected a multiple "
                f"of the number of images; give {max(1, self.images_per_batch) * 64}, for example"
            )
        low, high = self.background_iou
        if not 0 <= low < high <= self.foreground_iou:
            raise InputError(
                f"background_iou: found [{low}, {high}); expected 0 <= low < high <= foreground_iou "
                f"({self.foreground_iou}); change one of these"
            )

    @property
    def rois_per_image(self):
        return self.rois_per_batch // self.images_per_batch

    @property
    def foreground_per_image(self):
        return round(self.foreground_fraction * self.rois_per_image)


def sample_rois(proposals, truth, labels, rules, seed):
    """Draws the R/N RoIs of one image (section 2.3, "Mini-batch sampling").

    Args:
        proposals: float32 `[P, 4]`, relative.
        truth, labels: the objects' boxes, float32 `[G, 4]`, relative, and classes, int32 `[G]`.
        rules: `SamplingRules`.
        seed: two integers, for TensorFlow's stateless random functions.

    Returns:
        RoIs float32 `[R/N, 4]`, relative; their labels int32 `[R/N]` (0 background, -1 filled up); their regression
        targets float32 `[R/N, 4]`, 0 where there is no object to regress to.
    """
    candidates = tf.concat([proposals, truth], axis=0)
    overlap, match = _best_overlap(candidates, truth)
    low, high = rules.background_iou
    low = tf.where(tf.shape(truth)[0] > 0, low, 0.0)
    foreground = overlap >= rules.foreground_iou
    background = (overlap >= low) & (overlap < high) & ~foreground

    foreground_seed, background_seed = tf.unstack(tf.random.split(seed, 2))
    drawn_foreground = _draw(foreground, rules.foreground_per_image, foreground_seed)
    remaining = rules.rois_per_image - tf.shape(drawn_foreground)[0]
    drawn_background = _draw(background, remaining, background_seed)
    drawn = tf.concat([drawn_foreground, drawn_background], axis=0)

    rois = tf.gather(candidates, drawn)
    is_foreground = tf.gather(foreground, drawn)
    # Without objects there is nothing to gather from; a stand-in row keeps the gather legal and is never used.
    some_truth = tf.concat([truth, [[0.0, 0.0, 1.0, 1.0]]], axis=0)
    some_labels = tf.concat([labels, [0]], axis=0)
    matched = tf.gather(match, drawn)
    targets = boxes.encode(
        tf.where(is_foreground[:, None], rois, [[0.0, 0.0, 1.0, 1.0]]), tf.gather(some_truth, matched)
    )
    roi_labels = tf.where(is_foreground, tf.gather(some_labels, matched), 0)
    targets = tf.where(is_foreground[:, None], targets, 0.0)

    missing = rules.rois_per_image - tf.shape(drawn)[0]
    return (
        tf.ensure_shape(tf.pad(rois, [[0, missing], [0, 0]]), (rules.rois_per_image, 4)),
        tf.ensure_shape(tf.pad(roi_labels, [[0, missing]], constant_values=IGNORED), (rules.rois_per_image,)),
        tf.ensure_shape(tf.pad(targets, [[0, missing], [0, 0]]), (rules.rois_per_image, 4)),
    )


def _best_overlap(candidates, truth):
    """Each candidate's largest IoU with an object, `[P]`, and that object's index, `[P]`; 0 where there is none."""
    overlaps = tf.pad(boxes.iou(candidates, truth), [[0, 0], [0, 1]])
    return tf.reduce_max(overlaps, axis=1), tf.argmax(overlaps, axis=1, output_type=tf.int32)


def _draw(eligible, number, seed):
    """At most `number` indices of the true entries of `eligible` `[P]`, drawn without replacement."""
    return tf.random.experimental.stateless_shuffle(tf.where(eligible)[:, 0], seed)[:number]
