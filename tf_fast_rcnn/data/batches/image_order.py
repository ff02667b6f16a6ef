"""The order in which training visits the images, and from which position it goes on."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

# Mini-batches of similar shapes are made within groups of this many, so that images meet other partners in every pass.
_BATCHES_IN_GROUP = 50


def image_order(
    number_of_images: int, images_per_batch: int, seed: int, start: int = 0, sizes: np.ndarray | None = None
) -> tf.data.Dataset:
    """Endless `(position, image)`: passes over the images, each a permutation fixed by the seed and its number.

    Mini-batches are N visits in a row. Where N does not divide the number of images, the last mini-batch of a pass is
    completed by the first images of the next pass: no image is left out, and none comes twice in a pass.

    With sizes, each pass is drawn as before and cut into groups of 50 mini-batches; a group's images are sorted by
    their aspect ratio, mini-batches cut off in that order, and the mini-batches of the pass shuffled. The images that
    share a mini-batch with the pass before or after are no part of this.

    Args:
        number_of_images: of the data set.
        images_per_batch: N.
        seed: the same seed gives the same order.
        start: number of mini-batches to pass over; costs one permutation, however large.
        sizes: int `[M, 2]`, height and width of all images, for mini-batches of similar shapes; or None.

    Returns:
        `tf.data.Dataset` of int64 `[]` pairs: positions `start * N`, `start * N + 1`, ... and numbers of images.
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
    """A pass's order, int64 `[M]`, changed so that its mini-batches hold images of similar aspect ratio."""
    number_of_images = tf.size(order, out_type=tf.int64)
    begin = tf.minimum(-number * number_of_images % images_per_batch, number_of_images)
    batches = (number_of_images - begin) // images_per_batch
    end = begin + batches * images_per_batch

    body = order[begin:end]
    groups = tf.range(end - begin) // (_BATCHES_IN_GROUP * images_per_batch)
    # Stable, one key after the other: by aspect ratio within groups.
    by_aspect = tf.argsort(tf.gather(aspects, body), stable=True)
    by_group = tf.argsort(tf.gather(groups, by_aspect), stable=True)
    body = tf.gather(body, tf.gather(by_aspect, by_group))

    body = tf.reshape(body, [batches, images_per_batch])
    body = tf.random.experimental.stateless_shuffle(body, [seed, -1 - number])
    return tf.concat([order[:begin], tf.reshape(body, [-1]), order[end:]], axis=0)
