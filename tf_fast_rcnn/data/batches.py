"""Hierarchical mini-batches (section 2.3 of the paper): N images, then R/N RoIs of each.

RoIs of one image share its convolutions, forwards and backwards, which makes a mini-batch of 128 RoIs from 2 images
roughly 64 times cheaper than one of 128 RoIs from 128 images.
"""

import numpy as np
import tensorflow as tf

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.augmentation import drawn_shorter_side, jitter_colours, mirror
from tf_fast_rcnn.data.examples import example_reader
from tf_fast_rcnn.data.network_input import PADDING_GREY, decode_image, resize_to_network
from tf_fast_rcnn.data.prepare import with_proposals
from tf_fast_rcnn.data.sampling import IGNORED, sample_rois
from tf_fast_rcnn.data.sampling_rules import SamplingRules
from tf_fast_rcnn.data.visits import visits
from tf_fast_rcnn.errors import InputError

# Each use of chance has a stream of its own, named by its number; `visits` orders images by the seed itself.
_AUGMENTATION, _ROIS, _SIDES = 1, 2, 3


def hierarchical_batches(
    dataset, images_per_batch=2, rois_per_batch=128, *, seed=0, start=0, cache_dir=None, **sampling_rules
):
    """Endless mini-batches of N images and R/N RoIs of each, for `model.fit`.

    Every pass over the data set takes each image once, in an order of its own (see `visits`), and draws its RoIs (see
    `sample_rois`). What a mini-batch holds follows from the seed and its number alone, whatever the parallelism:
    `start` resumes at any mini-batch at once, without reading what came before, so that neither tf.data nor Keras
    need save a position.

    Args:
        dataset: `DetectionDataset`. Where it has no proposals yet, dense boxes fitted to its objects are computed and
            cached.
        images_per_batch, rois_per_batch: N and R.
        seed: the same seed gives the same mini-batches.
        start: number of the first mini-batch, to go on where an earlier run stopped.
        cache_dir: where proposals are cached.
        **sampling_rules: the other attributes of `SamplingRules`.

    Returns:
        `tf.data.Dataset` of `(inputs, targets)`: `inputs` has `images`, float32 `[N, H, W, 3]`, RGB 0..255, padded
        to one size with grey, and `rois`, float32 `[N, R/N, 4]`, `[ymin, xmin, ymax, xmax]` in pixels; `targets` has
        `class_logits`, int32 `[N, R/N]`, and `box_deltas`, float32 `[N, R/N, 5]` (see `losses`).

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
    sizes = _image_sizes(dataset) if rules.similar_shapes else None
    examples = visits(len(dataset), images_per_batch, seed, start, sizes).map(
        lambda position, index: _training_example(position, read(index), rules, seed),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    padding = ({"images": PADDING_GREY, "rois": 0.0}, {"class_logits": IGNORED, "box_deltas": float(IGNORED)})
    shapes = tf.compat.v1.data.get_output_shapes(examples)
    if rules.pad_to is not None:
        shapes[0]["images"] = (*rules.pad_to, 3)
    batches = examples.padded_batch(images_per_batch, shapes, padding, drop_remainder=True)
    # Two are enough to hide the pipeline behind training; more would only take memory.
    return batches.prefetch(2)


def roi_centric_batches(dataset, rois_per_batch=128, **options):
    """Mini-batches of one RoI from each of R images, as R-CNN and SPPnet train: the baseline of section 2.3.

    Every RoI costs the convolutions of a whole image. A quarter of the RoIs are foreground on average, as drawn for
    each image apart.

    Args:
        dataset, rois_per_batch, **options: as for `hierarchical_batches`, which gives the same with N = R.

    Returns:
        As `hierarchical_batches`, with N = R and R/N = 1.
    """
    return hierarchical_batches(dataset, rois_per_batch, rois_per_batch, **options)


def _image_sizes(dataset):
    return np.array([(record.height, record.width) for record in dataset], np.int32)


def _training_example(position, example, rules, seed):
    """One image with its R/N RoIs; every random choice follows from the seed and the position alone."""
    chances = _chances(seed, _AUGMENTATION, position, 6)
    rois, roi_labels, targets = sample_rois(example, rules, _stream(seed, _ROIS, position))
    image = decode_image(example["image_bytes"])
    image, rois, targets = mirror(image, rois, targets, chances[0] < rules.flip, chances[1] < rules.vertical_flip)

    # Images that share a mini-batch for their shapes share a scale too.
    side_position = position // rules.images_per_batch if rules.similar_shapes else position
    shorter_side = drawn_shorter_side(rules, *tf.unstack(_chances(seed, _SIDES, side_position, 2)))
    image = resize_to_network(image, shorter_side, rules.longer_side, rules.pad_to)
    image = jitter_colours(image, rules, chances[2:])

    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    label_column = tf.cast(roi_labels, tf.float32)[:, None]
    return (
        {"images": image, "rois": boxes.scale(rois, height, width)},
        {"class_logits": roi_labels, "box_deltas": tf.concat([label_column, targets], axis=1)},
    )


def _stream(seed, use, position):
    """A seed of its own for each use of chance at each position."""
    return tf.random.fold_in(tf.random.fold_in([seed, 0], use), position)


def _chances(seed, use, position, number):
    return tf.random.stateless_uniform([number], _stream(seed, use, position))
