"""Samples the RoIs of a mini-batch from an image's proposals (section 2.3 of the paper, "Mini-batch sampling").

`hierarchical` makes mini-batches from them; `settings` has the rules.
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
    """Samples the R/N RoIs of one image (section 2.3, "Mini-batch sampling").

    A proposal has the class of the object with which it has the highest IoU. Up to the given fraction of the RoIs is
    sampled from the foreground and the rest from the background, uniformly and without replacement. As in the released
    system, background replaces missing foreground, but not the other way round; if there are too few of both, the
    output is padded to a fixed shape with RoIs labelled -1, which the losses ignore. In an image without objects, which
    the released system leaves out, all proposals are background.

    Args:
        example: tensors of one image, as returned by `example_reader`: `proposals` float32 `[P, 4]` and `boxes` float32
            `[G, 4]`, relative; `class_ids` int32 `[G]`; `difficult` and `crowd` bool `[G]`.
        rules: `SamplingRules`.
        seed: two integers, for TensorFlow's stateless random functions.

    Returns:
        RoIs float32 `[R/N, 4]`, relative; their labels int32 `[R/N]` (0 background, -1 padding); their regression
        targets float32 `[R/N, 4]`, 0 for background and padding.
    """
    is_object, is_trained = _objects(example, rules)
    candidates, foreground, background = _candidates(example, is_object, is_trained, rules)
    # Foreground and background are disjoint, so they can share the random numbers; the last is for the fraction.
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
    """Which boxes are objects, and which of these are trained on, bool `[G]` each."""
    is_object = ~example["crowd"]
    if rules.difficult == "drop":
        is_object &= ~example["difficult"]
    return is_object, is_object & ~example["difficult"] if rules.difficult == "ignore" else is_object


def _candidates(example, is_object, is_trained, rules):
    """The candidates `[C, 4]` for sampling, and whether each is foreground or background, bool `[C]` each."""
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
    # Foreground candidates must overlap a trained object at least as much as any other object.
    foreground = usable & (overlap >= rules.foreground_iou) & (overlap == trained_overlap)
    background = usable & (overlap >= low) & (overlap < high)
    return candidates, foreground, background


def _best_overlap(truth, is_counted, candidates):
    """The largest IoU of each candidate with a box that counts, `[C]`; 0 if there is none."""
    # Objects are rows: TensorFlow reduces over rows several times faster than over columns.
    return tf.maximum(tf.reduce_max(boxes.iou(_only(truth, is_counted), candidates), axis=0), 0.0)


def _only(truth, is_counted):
    """Boxes `[G, 4]` with those that do not count set to 0, so that they overlap nothing."""
    return tf.where(is_counted[:, None], truth, 0.0)


def _in_crowd(proposals, example, rules):
    """Whether more than `crowd_overlap` of each proposal is inside a single crowd region, bool `[P]`."""

    def compare():
        covered = tf.reduce_max(boxes.intersection(tf.boolean_mask(example["boxes"], crowd), proposals), axis=0)
        return covered > rules.crowd_overlap * boxes.area(proposals)

    crowd = example["crowd"]
    return tf.cond(tf.reduce_any(crowd), compare, lambda: tf.zeros(tf.shape(proposals)[:1], tf.bool))


def _foreground_share(rules, chance):
    """The number of foreground RoIs to sample, rounded at random so that its mean is exact."""
    # Rounded so that 0.29 * 100 is 29 and not 28.999999999999996.
    whole, part = divmod(round(rules.foreground_fraction * rules.rois_per_image, 6), 1)
    return int(whole) + tf.cast(chance < part, tf.int32)


def _draw(eligible, number, chance):
    """Up to `number` indices of true entries of `eligible` `[C]`: those with the highest `chance` `[C]`."""
    number = tf.minimum(number, tf.math.count_nonzero(eligible, dtype=tf.int32))
    return tf.math.top_k(tf.where(eligible, chance, -1.0), number).indices


def _targets(rois, is_foreground, example, is_trained):
    """Labels int32 `[n]` and regression targets float32 `[n, 4]` of sampled RoIs; 0 for background."""
    # Only for the sampled RoIs, because searching all candidates would take as long as computing their overlaps. The
    # last row is for images without objects, which would otherwise have nothing to gather.
    overlaps = boxes.iou(tf.pad(_only(example["boxes"], is_trained), [[0, 1], [0, 0]]), rois)
    match = tf.argmax(overlaps, axis=0)
    truth = tf.gather(tf.concat([example["boxes"], _WHOLE_IMAGE], axis=0), match)
    labels = tf.gather(tf.pad(example["class_ids"], [[0, 1]]), match)
    # Background RoIs may have no area to divide by.
    targets = boxes.encode(tf.where(is_foreground[:, None], rois, _WHOLE_IMAGE), truth)
    return tf.where(is_foreground, labels, 0), tf.where(is_foreground[:, None], targets, 0.0)
