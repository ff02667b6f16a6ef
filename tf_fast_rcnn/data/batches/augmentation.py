"""Random variations of a training image and its boxes, in TensorFlow's graph: mirroring, scale and colours.

Each function is given the numbers that chance has drawn, so that they follow from the seed alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

from tf_fast_rcnn import boxes

if TYPE_CHECKING:
    from tf_fast_rcnn.data.batches.settings import SamplingRules


def mirror(
    image: tf.Tensor, rois: tf.Tensor, targets: tf.Tensor, horizontally: tf.Tensor, vertically: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Exchanges left and right, top and bottom, of an image and all that lies in it.

    Args:
        image: `[H, W, 3]` of any type.
        rois: float32 `[R, 4]`, relative.
        targets: float32 `[R, 4]`, regression targets `(ty, tx, th, tw)`.
        horizontally, vertically: bool `[]`.

    Returns:
        The three, mirrored. The mirror image of tx is -tx, that of ty -ty; th and tw stay.
    """
    image = tf.cond(horizontally, lambda: tf.reverse(image, [1]), lambda: image)
    image = tf.cond(vertically, lambda: tf.reverse(image, [0]), lambda: image)
    rois = tf.where(horizontally, boxes.flip_horizontal(rois), rois)
    rois = tf.where(vertically, boxes.flip_vertical(rois), rois)
    ty_sign, tx_sign = 1.0 - 2.0 * tf.cast(vertically, tf.float32), 1.0 - 2.0 * tf.cast(horizontally, tf.float32)
    return image, rois, targets * tf.stack([ty_sign, tx_sign, 1.0, 1.0])


def drawn_shorter_side(rules: SamplingRules, side_chance: tf.Tensor, jitter_chance: tf.Tensor) -> tf.Tensor:
    """One of the rules' shorter sides, times a number from the range of the scale jitter: float32 `[...]`, pixels.

    Args:
        rules: `SamplingRules`.
        side_chance, jitter_chance: float32 `[...]` in [0, 1).
    """
    sides = tf.constant(rules.shorter_sides, tf.float32)
    # The largest float below 1, times many sides, may round up to their number.
    which = tf.minimum(tf.cast(side_chance * len(rules.shorter_sides), tf.int32), len(rules.shorter_sides) - 1)
    low, high = rules.scale_jitter
    return tf.gather(sides, which) * (low + (high - low) * jitter_chance)


def jitter_colours(image: tf.Tensor, rules: SamplingRules, chances: tf.Tensor) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue, in this order, as far as the rules allow.

    Args:
        image: float32 `[H, W, 3]`, RGB 0..255.
        rules: `SamplingRules`.
        chances: float32 `[4]` in [0, 1); a half changes nothing.

    Returns:
        float32 `[H, W, 3]`, 0..255.
    """
    if not (rules.brightness or rules.contrast or rules.saturation or rules.hue):
        return image
    brightness, contrast, saturation, hue = tf.unstack(2.0 * chances - 1.0)
    image += 255.0 * rules.brightness * brightness
    if rules.contrast:
        mean = tf.reduce_mean(image)
        image = mean + (image - mean) * (1.0 + rules.contrast * contrast)
    if rules.saturation:
        grey = tf.image.rgb_to_grayscale(image)
        image = grey + (image - grey) * (1.0 + rules.saturation * saturation)
    image = tf.clip_by_value(image, 0.0, 255.0)
    return tf.image.adjust_hue(image, rules.hue * hue) if rules.hue else image
