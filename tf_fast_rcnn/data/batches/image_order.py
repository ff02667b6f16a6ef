"""The order in which training visits the images, resumable at any position."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# Images are sorted by shape only within groups of this many mini-batches, so that every pass combines them differently.
_BATCHES_IN_GROUP = 50


def image_order(
    number_of_images: int, images_per_batch: int, seed: int, start: int = 0, sizes: np.ndarray | None = None
) -> tf.data.Dataset:
    """Endless `(position, image)` pairs: passes over the images, each a permutation given by the seed and its number.

    A mini-batch is N consecutive pairs. If N does not divide the number of images, the last mini-batch of a pass is
    completed with the first images of the next pass, so that no image is left out or repeated within a pass.

    If sizes are given, each pass is shuffled as before and then divided into groups of 50 mini-batches; the images of
    a group are sorted by aspect ratio and cut into mini-batches, and the mini-batches of the pass are shuffled. Images
    in a mini-batch that spans two passes are not sorted.

    Args:
        number_of_images: size of the data set.
        images_per_batch: N.
        seed: the same seed results in the same order.
        start: number of mini-batches to skip; this costs one permutation, however large it is.
        sizes: int `[M, 2]`, height and width of all images, to combine images of similar shapes; or None.

    Returns:
        `tf.data.Dataset` of int64 `[]` pairs: positions `start * N`, `start * N + 1`, ... and image indices.
    """
    first = start * images_per_batch
    first_pass = first // number_of_images
    aspects = None if sizes is None else tf.constant(np.log(sizes[:, 0] / sizes[:, 1]), tf.float32)

    def one_pass(number):
        order = tf.random.experimental.stateless_shuffle(tf.range(number_of_images, dtype=tf.int64), [seed, number])
        if aspects is not None:
            order = _by_shape(order, aspects, images_per_batch, number, seed)
        positions = number * number_of_images + tf.range(number_of_images, dtype=tf.int64)
        missed = tf.maximum(first - positions[0], 0)
        return tf.data.Dataset.from_tensor_slices((positions[missed:], order[missed:]))

    passes = tf.data.Dataset.range(first_pass, tf.int64.max // number_of_images)
    return passes.flat_map(one_pass)


def _by_shape(order, aspects, images_per_batch, number, seed):
    """Reorders a pass, int64 `[M]`, so that the images of a mini-batch have similar aspect ratios."""
    number_of_images = tf.size(order, out_type=tf.int64)
    begin = tf.minimum(-number * number_of_images % images_per_batch, number_of_images)
    batches = (number_of_images - begin) // images_per_batch
    end = begin + batches * images_per_batch

    body = order[begin:end]
    groups = tf.range(end - begin) // (_BATCHES_IN_GROUP * images_per_batch)
    # Two stable sorts: by aspect ratio within groups.
    by_aspect = tf.argsort(tf.gather(aspects, body), stable=True)
    by_group = tf.argsort(tf.gather(groups, by_aspect), stable=True)
    body = tf.gather(body, tf.gather(by_aspect, by_group))

    body = tf.reshape(body, [batches, images_per_batch])
    body = tf.random.experimental.stateless_shuffle(body, [seed, -1 - number])
    return tf.concat([order[:begin], tf.reshape(body, [-1]), order[end:]], axis=0)
