"""Hierarchical mini-batches (section 2.3 of the paper): N images, then R/N RoIs from each.

RoIs of the same image share its convolutions in the forward and backward pass, which makes a mini-batch of 128 RoIs
from 2 images roughly 64 times cheaper than one of 128 RoIs from 128 images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.batches.augmentation import drawn_shorter_side, jitter_colours, mirror
from tf_fast_rcnn.data.batches.image_order import image_order
from tf_fast_rcnn.data.batches.sampling import sample_rois
from tf_fast_rcnn.data.batches.settings import SamplingRules
from tf_fast_rcnn.data.network_input import PADDING_GREY, decode_image, network_size, resize
from tf_fast_rcnn.data.prepared.examples import example_reader
from tf_fast_rcnn.data.prepared.write import with_proposals
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath

# Each use of random numbers has its own stream, identified by its number; `image_order` uses the seed itself.
_AUGMENTATION, _ROIS, _SIDES = 1, 2, 3


def hierarchical_batches(
    dataset: DetectionDataset,
    images_per_batch: int = 2,
    rois_per_batch: int = 128,
    *,
    seed: int = 0,
    start: int = 0,
    cache_dir: StrPath | None = None,
    **sampling_rules: Any,
) -> tf.data.Dataset:
    """Endless mini-batches of N images and R/N RoIs from each, for `model.fit`.

    Every pass over the data set visits each image once, in a new order (see `image_order`), and samples its RoIs (see
    `sample_rois`). The contents of a mini-batch depend only on the seed and its number, not on the parallelism.
    Training can therefore resume at mini-batch `start` without reading the earlier ones, and neither tf.data nor Keras
    needs to save a position.

    Args:
        dataset: `DetectionDataset`. If it has no proposals, dense boxes fitted to its objects are computed and cached.
        images_per_batch, rois_per_batch: N and R.
        seed: the same seed results in the same mini-batches.
        start: number of the first mini-batch, to resume an earlier run.
        cache_dir: folder for cached proposals; default: $TF_FAST_RCNN_CACHE, else the user's cache folder.
        **sampling_rules: the other attributes of `SamplingRules`.

    Returns:
        `tf.data.Dataset` of `(inputs, targets)`: `inputs` has `images`, float32 `[N, H, W, 3]`, RGB 0..255, padded
        to a common size with grey, and `rois`, float32 `[N, R/N, 4]`, `[ymin, xmin, ymax, xmax]` in pixels; `targets`
        has `class_logits`, int32 `[N, R/N]`, and `box_deltas`, float32 `[N, R/N, 5]` (see `losses`).

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
    examples = _planned(dataset, rules, seed, start).map(
        lambda plan: _training_example(plan, read(plan["image"]), rules, seed), num_parallel_calls=tf.data.AUTOTUNE
    )
    # Prefetching one is enough to overlap the pipeline with training. A mini-batch of 128 images takes 0.7 GB.
    return examples.batch(images_per_batch, drop_remainder=True).prefetch(1)


def roi_centric_batches(dataset: DetectionDataset, rois_per_batch: int = 128, **options: Any) -> tf.data.Dataset:
    """Mini-batches of one RoI from each of R images, as in R-CNN and SPPnet: the baseline of section 2.3.

    Every RoI costs the convolutions of a whole image. On average a quarter of the RoIs are foreground, drawn
    independently for each image.

    Args:
        dataset, rois_per_batch, **options: as for `hierarchical_batches`; the result is the same as with N = R.

    Returns:
        As `hierarchical_batches`, with N = R and R/N = 1.

    Example:
        >>> model.fit(roi_centric_batches(train, shorter_side=320), steps_per_epoch=100)    # doctest: +SKIP
    """
    return hierarchical_batches(dataset, rois_per_batch, rois_per_batch, **options)


def _planned(dataset, rules, seed, start):
    """Plans the examples before anything is read: a dataset of dicts with the example's `position`, its `image`, the
    `shorter_side` to resize it to, and the `canvas` (height, width) of its mini-batch."""
    sizes = dataset.records.image_sizes()
    order = image_order(len(sizes), rules.images_per_batch, seed, start, sizes if rules.similar_shapes else None)
    sizes = tf.constant(sizes)

    def plan(positions, images):
        # Images that are batched by shape also share a scale.
        drawn = 1 if rules.similar_shapes else rules.images_per_batch
        chances = _chances(seed, _SIDES, positions[0], [2, drawn])
        shorter_side = drawn_shorter_side(rules, *tf.unstack(chances)) + tf.zeros(rules.images_per_batch)
        new_sizes = network_size(tf.gather(sizes, images), shorter_side, rules.longer_side, rules.pad_to)
        canvas = tf.reduce_max(new_sizes, axis=0) if rules.pad_to is None else tf.constant(rules.pad_to)
        canvas = tf.tile(canvas[None], [rules.images_per_batch, 1])
        return {"position": positions, "image": images, "shorter_side": shorter_side, "canvas": canvas}

    return order.batch(rules.images_per_batch, drop_remainder=True).map(plan).unbatch()


def _training_example(plan, example, rules, seed):
    """One image with its R/N RoIs; every random choice depends only on the seed and the position."""
    chances = _chances(seed, _AUGMENTATION, plan["position"], [6])
    rois, roi_labels, targets = sample_rois(example, rules, _stream(seed, _ROIS, plan["position"]))
    image = decode_image(example["image_bytes"])
    image, rois, targets = mirror(
        image, rois, targets, chances[0] < rules.horizontal_flip_prob, chances[1] < rules.vertical_flip_prob
    )

    new_size = network_size(tf.shape(image)[:2], plan["shorter_side"], rules.longer_side, rules.pad_to)
    # It can be larger than planned only if a file has changed since the data set was read.
    new_size = tf.minimum(new_size, plan["canvas"])
    image = jitter_colours(resize(image, new_size), rules, chances[2:])
    height, width = tf.unstack(tf.cast(new_size, tf.float32))
    label_column = tf.cast(roi_labels, tf.float32)[:, None]
    return (
        {"images": _padded(image, plan["canvas"], rules), "rois": boxes.scale(rois, height, width)},
        {"class_logits": roi_labels, "box_deltas": tf.concat([label_column, targets], axis=1)},
    )


def _padded(image, canvas, rules):
    """The image padded with grey at the bottom and right to the size of the canvas."""
    missing = canvas - tf.shape(image)[:2]
    below, right = tf.unstack(missing)
    image = tf.cond(
        tf.reduce_any(missing > 0),
        lambda: tf.pad(image, [[0, below], [0, right], [0, 0]], constant_values=PADDING_GREY),
        lambda: image,
    )
    return tf.ensure_shape(image, (*(rules.pad_to or (None, None)), 3))


def _stream(seed, use, position):
    """A separate seed for each use of random numbers at each position."""
    return tf.random.fold_in(tf.random.fold_in([seed, 0], use), position)


def _chances(seed, use, position, shape):
    return tf.random.stateless_uniform(shape, _stream(seed, use, position))
