"""Hierarchical mini-batches (section 2.3 of the paper): N images, then R/N RoIs of each.

RoIs of one image share its convolutions, forwards and backwards, which makes a mini-batch of 128 RoIs from 2 images
roughly 64 times cheaper than one of 128 RoIs from 128 images.
"""

import tensorflow as tf

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.examples import example_reader
from tf_fast_rcnn.data.network_input import PADDING_COLOUR, decode_image, resize_to_network
from tf_fast_rcnn.data.prepare import with_proposals
from tf_fast_rcnn.data.sampling import IGNORED, SamplingRules, sample_rois
from tf_fast_rcnn.errors import InputError


def hierarchical_batches(
    dataset, images_per_batch=2, rois_per_batch=128, *, seed=0, start=0, cache_dir=None, **sampling_rules
):
    """Endless mini-batches of N images and R/N RoIs of each, for `model.fit`.

    Every pass over the data set takes each image once, in an order of its own. An image's ground-truth boxes join its
    proposals. Of the foreground at most its share is drawn, and the rest of the RoIs from the background, without
    replacement. Where there are too few of both kinds, the mini-batch holds fewer RoIs, as in the released system;
    its shape stays the same, filled up with RoIs of label -1, which the losses ignore. An image without objects gives
    background alone, from anywhere in it.

    Args:
        dataset: `DetectionDataset`. Where it has no proposals yet, dense boxes fitted to its objects are computed and
            cached.
        images_per_batch, rois_per_batch: N and R.
        seed: the same seed gives the same mini-batches.
        start: number of mini-batches to pass over, to go on where an earlier run stopped.
        cache_dir: where proposals are cached.
        **sampling_rules: the other attributes of `SamplingRules`.

    Returns:
        `tf.data.Dataset` of `(inputs, targets)`: `inputs` has `images`, float32 `[N, H, W, 3]`, RGB 0..255, padded
        to one size with ImageNet's mean colour, and `rois`, float32 `[N, R/N, 4]`, `[ymin, xmin, ymax, xmax]` in
        pixels; `targets` has `class_logits`, int32 `[N, R/N]`, and `box_deltas`, float32 `[N, R/N, 5]` (see
        `losses`).

    Raises:
        InputError: for rules that contradict each other, or an empty data set.

    Example:
        >>> batches = hierarchical_batches(load_dataset("voc:cells@train"), seed=0)     # doctest: +SKIP
        >>> model.fit(batches, steps_per_epoch=len(train) // 2, epochs=10)              # doctest: +SKIP
    """
    rules = SamplingRules(images_per_batch, rois_per_batch, **sampling_rules)
    if not len(dataset):
        raise InputError(f"{dataset.name}: found no images; expected at least one; check the split")
    dataset = with_proposals(dataset, cache_dir)
    read = example_reader(dataset)
    examples = (
        _visits(len(dataset), seed)
        .skip(start * images_per_batch)
        .map(
            lambda position, index: _training_example(position, read(index), rules, seed),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    )
    # -1 marks what padded_batch added: no pixel has that value.
    padding = ({"images": -1.0, "rois": 0.0}, {"class_logits": IGNORED, "box_deltas": float(IGNORED)})
    batches = examples.padded_batch(images_per_batch, padding_values=padding, drop_remainder=True)
    return batches.map(_colour_padding).prefetch(tf.data.AUTOTUNE)


def _visits(number_of_images, seed):
    """Endless `(position, image index)`: each pass is a permutation of the images, fixed by the seed and its number."""

    def one_pass(number):
        order = tf.random.experimental.stateless_shuffle(tf.range(number_of_images, dtype=tf.int64), [seed, number])
        return tf.data.Dataset.from_tensor_slices(order)

    return tf.data.Dataset.counter().flat_map(one_pass).enumerate()


def _training_example(position, example, rules, seed):
    """One image with its R/N RoIs; every random choice follows from the seed and the position alone."""
    flip_seed, roi_seed = tf.unstack(tf.random.split([seed, position], 2))
    image = decode_image(example["image_bytes"])
    rois, roi_labels, targets = sample_rois(example["proposals"], example["boxes"], example["labels"], rules, roi_seed)

    if_flipped = tf.random.stateless_uniform([], flip_seed) < rules.flip
    image = tf.cond(if_flipped, lambda: tf.image.flip_left_right(image), lambda: image)
    rois = tf.where(if_flipped, boxes.flip_horizontal(rois), rois)
    # The mirror image of tx is -tx; ty, th and tw stay.
    targets = tf.where(if_flipped, targets * [1.0, -1.0, 1.0, 1.0], targets)

    image = resize_to_network(image, rules.shorter_side, rules.longer_side)
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    label_column = tf.cast(roi_labels, tf.float32)[:, None]
    return (
        {"images": image, "rois": boxes.scale(rois, height, width)},
        {"class_logits": roi_labels, "box_deltas": tf.concat([label_column, targets], axis=1)},
    )


def _colour_padding(inputs, targets):
    images = tf.where(inputs["images"] < 0.0, PADDING_COLOUR, inputs["images"])
    return {**inputs, "images": images}, targets
