"""The RoIs of a mini-batch (section 2.3 of the paper, "Mini-batch sampling"): which of an image's proposals are drawn.

`hierarchical` makes mini-batches of them; `settings` has the rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import tensorflow as tf

from tf_fast_rcnn import boxes

if TYPE_CHECKING:
    from tf_fast_rcnn.data.batches.settings import SamplingRules

IGNORED = -1
_WHOLE_IMAGE = [[0.0, 0.0, 1.0, 1.0]]


def sample_rois(
    example: Mapping[str, tf.Tensor], rules: SamplingRules, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Draws the R/N RoIs of one image (section 2.3, "Mini-batch sampling").

    A proposal's class is that of the object that it overlaps most. At most its share of RoIs is drawn from the
    foreground, then the rest from the background, without replacement and each candidate equally likely. As in the
    released system, background makes up for missing foreground, but not the other way round, and where there is too
    little of both the image gives fewer RoIs; the shape stays the same, filled up with RoIs of label -1, which the
    losses ignore. An image without objects, which the released system leaves out, gives background from anywhere.

    Args:
        example: tensors of one image, as `example_reader` gives them: `proposals` float32 `[P, 4]` and `boxes` float32
            `[G, 4]`, relative; `class_ids` int32 `[G]`; `difficult` and `crowd` bool `[G]`.
        rules: `SamplingRules`.
        seed: two integers, for TensorFlow's stateless random functions.

    Returns:
        RoIs float32 `[R/N, 4]`, relative; their labels int32 `[R/N]` (0 background, -1 filled up); their regression
        targets float32 `[R/N, 4]`, 0 where there is no object to regress to.
    """
    is_object, is_trained = _objects(example, rules)
    candidates, foreground, background = _candidates(example, is_object, is_trained, rules)
    # One draw serves foreground and background, which share no candidate; the last number is for the share.
    chance = tf.random.stateless_uniform([tf.shape(candidates)[0] + 1], seed)
    drawn_foreground = _draw(foreground, _foreground_share(rules, chance[-1]), chance[:-1])
    remaining = rules.rois_per_image - tf.shape(drawn_foreground)[0]
    drawn = tf.concat([drawn_foreground, _draw(background, remaining, chance[:-1])], axis=0)

    rois = tf.gather(candidates, drawn)
    is_foreground = tf.range(tf.shape(drawn)[0]) < tf.shape(drawn_foreground)[0]
    roi_labels, targets = _targets(rois, is_foreground, example, is_trained)
    missing = rules.rois_per_image - tf.shape(drawn)[0]
    return (
        tf.ensure_shape(tf.pad(rois, [[0, missing], [0, 0]]), (rules.rois_per_image, 4)),
        tf.ensure_shape(tf.pad(roi_labels, [[0, missing]], constant_values=IGNORED), (rules.rois_per_image,)),
        tf.ensure_shape(tf.pad(targets, [[0, missing], [0, 0]]), (rules.rois_per_image, 4)),
    )


def _objects(example, rules):
    """Which boxes are objects, and which of these are trained, bool `[G]` each."""
    is_object = ~example["crowd"]
    if rules.difficult == "drop":
        is_object &= ~example["difficult"]
    return is_object, is_object & ~example["difficult"] if rules.difficult == "ignore" else is_object


def _candidates(example, is_object, is_trained, rules):
    """What may be drawn: candidates `[C, 4]`, and whether each is foreground or background, bool `[C]`."""
    proposals = example["proposals"]
    candidates = tf.concat([proposals, example["boxes"]], axis=0) if rules.with_ground_truth else proposals
    usable = ~_in_crowd(proposals, example, rules)
    if rules.with_ground_truth:
        usable = tf.concat([usable, is_object], axis=0)

    overlap = trained_overlap = _best_overlap(example["boxes"], is_object, candidates)
    if rules.difficult == "ignore":
        trained_overlap = _best_overlap(example["boxes"], is_trained, candidates)
    low, high = rules.background_iou
    low = tf.where(tf.reduce_any(is_object), low, 0.0)
    # Only what overlaps a trained object as much as any other is foreground.
    foreground = usable & (overlap >= rules.foreground_iou) & (overlap == trained_overlap)
    background = usable & (overlap >= low) & (overlap < high)
    return candidates, foreground, background


def _best_overlap(truth, is_counted, candidates):
    """The largest IoU of each candidate with a box that counts, `[C]`; 0 where there is none."""
    # Objects are rows: TensorFlow reduces over rows several times faster than over columns.
    return tf.maximum(tf.reduce_max(boxes.iou(_only(truth, is_counted), candidates), axis=0), 0.0)


def _only(truth, is_counted):
    """Boxes `[G, 4]` of which those that do not count have no area, and so no overlap with anything."""
    return tf.where(is_counted[:, None], truth, 0.0)


def _in_crowd(proposals, example, rules):
    """Whether more than a share of each proposal lies in one crowd region, bool `[P]`."""

    def compare():
        covered = tf.reduce_max(boxes.intersection(tf.boolean_mask(example["boxes"], crowd), proposals), axis=0)
        return covered > rules.crowd_overlap * boxes.area(proposals)

    crowd = example["crowd"]
    return tf.cond(tf.reduce_any(crowd), compare, lambda: tf.zeros(tf.shape(proposals)[:1], tf.bool))


def _foreground_share(rules, chance):
    """How many RoIs to draw from the foreground: a whole number, right on average."""
    # Rounded, so that 0.29 of 100 is 29 and not 28.999999999999996.
    whole, part = divmod(round(rules.foreground_fraction * rules.rois_per_image, 6), 1)
    return int(whole) + tf.cast(chance < part, tf.int32)


def _draw(eligible, number, chance):
    """At most `number` indices of the true entries of `eligible` `[C]`: those with the highest `chance` `[C]`."""
    number = tf.minimum(number, tf.math.count_nonzero(eligible, dtype=tf.int32))
    return tf.math.top_k(tf.where(eligible, chance, -1.0), number).indices


def _targets(rois, is_foreground, example, is_trained):
    """Labels int32 and regression targets float32 `[, 4]` of drawn RoIs; 0 for background."""
    # For the drawn alone: among all candidates this search would take as long as their overlaps. The last row is for
    # images without objects, which would have nothing to gather.
    overlaps = boxes.iou(tf.pad(_only(example["boxes"], is_trained), [[0, 1], [0, 0]]), rois)
    match = tf.argmax(overlaps, axis=0)
    truth = tf.gather(tf.concat([example["boxes"], _WHOLE_IMAGE], axis=0), match)
    labels = tf.gather(tf.pad(example["class_ids"], [[0, 1]]), match)
    # Background may have no area to divide by.
    targets = boxes.encode(tf.where(is_foreground[:, None], rois, _WHOLE_IMAGE), truth)
    return tf.where(is_foreground, labels, 0), tf.where(is_foreground[:, None], targets, 0.0)
