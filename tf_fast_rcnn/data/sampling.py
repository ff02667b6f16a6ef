"""The RoIs of a mini-batch (section 2.3 of the paper, "Mini-batch sampling"): which of an image's proposals are drawn.

`batches` makes mini-batches of them; `sampling_rules` has the settings.
"""

import tensorflow as tf

from tf_fast_rcnn import boxes

IGNORED = -1
_WHOLE_IMAGE = [[0.0, 0.0, 1.0, 1.0]]


def sample_rois(example, rules, seed):
    """Draws the R/N RoIs of one image (section 2.3, "Mini-batch sampling").

    A proposal's class is that of the object that it overlaps most. At most its share of RoIs is drawn from the
    foreground, then the rest from the background, without replacement and each candidate equally likely. As in the
    released system, background makes up for missing foreground, but not the other way round, and where there is too
    little of both the image gives fewer RoIs; the shape stays the same, filled up with RoIs of label -1, which the
    losses ignore. An image without objects, which the released system leaves out, gives background from anywhere.

    Args:
        example: tensors of one image, as `example_reader` gives them: `proposals` float32 `[P, 4]` and `boxes` float32
            `[G, 4]`, relative; `labels` int32 `[G]`; `difficult` and `crowd` bool `[G]`.
        rules: `SamplingRules`.
        seed: two integers, for TensorFlow's stateless random functions.

    Returns:
        RoIs float32 `[R/N, 4]`, relative; their labels int32 `[R/N]` (0 background, -1 filled up); their regression
        targets float32 `[R/N, 4]`, 0 where there is no object to regress to.
    """
    candidates, foreground, background, match = _candidates(example, rules)
    # One draw serves foreground and background, which share no candidate; the last number is for the share.
    chance = tf.random.stateless_uniform([tf.shape(candidates)[0] + 1], seed)
    drawn_foreground = _draw(foreground, _foreground_share(rules, chance[-1]), chance[:-1])
    remaining = rules.rois_per_image - tf.shape(drawn_foreground)[0]
    drawn = tf.concat([drawn_foreground, _draw(background, remaining, chance[:-1])], axis=0)

    rois, is_foreground, match = (tf.gather(values, drawn) for values in (candidates, foreground, match))
    roi_labels, targets = _targets(rois, is_foreground, match, example)
    missing = rules.rois_per_image - tf.shape(drawn)[0]
    return (
        tf.ensure_shape(tf.pad(rois, [[0, missing], [0, 0]]), (rules.rois_per_image, 4)),
        tf.ensure_shape(tf.pad(roi_labels, [[0, missing]], constant_values=IGNORED), (rules.rois_per_image,)),
        tf.ensure_shape(tf.pad(targets, [[0, missing], [0, 0]]), (rules.rois_per_image, 4)),
    )


def _candidates(example, rules):
    """What may be drawn: candidates `[C, 4]`, whether each is foreground or background, bool `[C]`, and the object
    that it overlaps most, int32 `[C]`."""
    is_object = ~example["crowd"]
    if rules.difficult == "drop":
        is_object &= ~example["difficult"]
    trained = is_object & ~example["difficult"] if rules.difficult == "ignore" else is_object

    proposals = example["proposals"]
    candidates = tf.concat([proposals, example["boxes"]], axis=0) if rules.with_ground_truth else proposals
    overlap, match = _best_overlap(candidates, example["boxes"], is_object)
    usable = ~_in_crowd(proposals, example, rules)
    if rules.with_ground_truth:
        usable = tf.concat([usable, is_object], axis=0)

    low, high = rules.background_iou
    low = tf.where(tf.reduce_any(is_object), low, 0.0)
    foreground = usable & (overlap >= rules.foreground_iou) & tf.gather(tf.pad(trained, [[0, 1]]), match)
    background = usable & (overlap >= low) & (overlap < high)
    return candidates, foreground, background, match


def _best_overlap(candidates, truth, is_object):
    """Each candidate's largest IoU with an object, `[C]`, and that object's index, `[C]`; 0 and G without objects."""
    # Objects in rows: reductions over rows are several times faster than over columns. The last row is no object.
    overlaps = tf.pad(tf.where(is_object[:, None], boxes.iou(truth, candidates), -1.0), [[0, 1], [0, 0]])
    return tf.reduce_max(overlaps, axis=0), tf.argmax(overlaps, axis=0, output_type=tf.int32)


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


def _targets(rois, is_foreground, match, example):
    """Labels int32 and regression targets float32 `[, 4]` of drawn RoIs; 0 for background."""
    # Stand-ins, never used: an image without objects has nothing to gather, and background may have no area.
    truth = tf.gather(tf.concat([example["boxes"], _WHOLE_IMAGE], axis=0), match)
    labels = tf.gather(tf.pad(example["labels"], [[0, 1]]), match)
    targets = boxes.encode(tf.where(is_foreground[:, None], rois, _WHOLE_IMAGE), truth)
    return tf.where(is_foreground, labels, 0), tf.where(is_foreground[:, None], targets, 0.0)
