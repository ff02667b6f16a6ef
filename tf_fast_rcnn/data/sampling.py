"""Hierarchical mini-batch sampling (section 2.3 of the paper): N images, then R/N RoIs of each.

RoIs of one image share its convolutions, forwards and backwards, which makes a mini-batch of 128 RoIs from 2 images
roughly 64 times cheaper than one of 128 RoIs from 128 images.
"""

import dataclasses

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.network_input import PADDING_COLOUR, decode_image, resize_to_network
from tf_fast_rcnn.data.prepare import cached_proposals
from tf_fast_rcnn.data.proposals import proposal_settings
from tf_fast_rcnn.errors import InputError

IGNORED = -1
FOREGROUND_IOU = 0.5

# Classes with fewer foreground proposals than this lean on the statistics of all classes together.
_ENOUGH_FOREGROUND = 50
_LEAST_DEVIATION = 0.01


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
    dataset = _with_proposals(dataset, cache_dir)
    table = _record_table(dataset)
    examples = (
        _visits(len(dataset), seed)
        .skip(start * images_per_batch)
        .map(
            lambda position, index: _training_example(position, index, table, rules, seed),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    )
    # -1 marks what padded_batch added: no pixel has that value.
    padding = ({"images": -1.0, "rois": 0.0}, {"class_logits": IGNORED, "box_deltas": float(IGNORED)})
    batches = examples.padded_batch(images_per_batch, padding_values=padding, drop_remainder=True)
    return batches.map(_colour_padding).prefetch(tf.data.AUTOTUNE)


def _with_proposals(dataset, cache_dir=None):
    if dataset.proposal_settings is not None:
        return dataset
    return cached_proposals(dataset, proposal_settings("dense", dataset), cache_dir=cache_dir)


def _record_table(dataset):
    """The records as tensors that the graph indexes; pixels and proposals stay in their files."""
    lengths = [len(record.boxes) for record in dataset]
    return {
        "image_path": tf.constant([record.image_path for record in dataset]),
        "proposals_path": tf.constant([record.proposals_path for record in dataset]),
        "boxes": tf.RaggedTensor.from_row_lengths(np.concatenate([record.boxes for record in dataset]), lengths),
        "labels": tf.RaggedTensor.from_row_lengths(np.concatenate([record.labels for record in dataset]), lengths),
    }


def _visits(number_of_images, seed):
    """Endless `(position, image index)`: each pass is a permutation of the images, fixed by the seed and its number."""

    def one_pass(number):
        order = tf.random.experimental.stateless_shuffle(tf.range(number_of_images, dtype=tf.int64), [seed, number])
        return tf.data.Dataset.from_tensor_slices(order)

    return tf.data.Dataset.counter().flat_map(one_pass).enumerate()


def _training_example(position, index, table, rules, seed):
    """One image with its R/N RoIs; every random choice follows from the seed and the position alone."""
    flip_seed, roi_seed = tf.unstack(tf.random.split([seed, position], 2))
    image = decode_image(tf.io.read_file(table["image_path"][index]))
    proposals = _read_npy(tf.io.read_file(table["proposals_path"][index]))
    truth, labels = table["boxes"][index], table["labels"][index]
    rois, roi_labels, targets = sample_rois(proposals, truth, labels, rules, roi_seed)

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


def _read_npy(contents):
    """A float32 `[P, 4]` array from the bytes of an .npy file of version 1.0, whose header length is bytes 8 and 9."""
    header_length = tf.cast(tf.io.decode_raw(tf.strings.substr(contents, 8, 2), tf.uint16)[0], tf.int32)
    return tf.reshape(tf.io.decode_raw(tf.strings.substr(contents, 10 + header_length, -1), tf.float32), (-1, 4))


def _colour_padding(inputs, targets):
    images = tf.where(inputs["images"] < 0.0, PADDING_COLOUR, inputs["images"])
    return {**inputs, "images": images}, targets


def box_statistics(dataset, foreground_iou=FOREGROUND_IOU, cache_dir=None):
    """Mean and deviation of the regression targets of each class over a data set's foreground proposals.

    (Section 2.3: "we normalize the ground-truth regression targets to have zero mean and unit variance".) A class
    with few foreground proposals leans on the statistics of all classes together.

    Args:
        dataset: `DetectionDataset`; proposals are computed and cached where it has none, as by
            `hierarchical_batches`.
        foreground_iou: proposals that overlap an object by at least this count; the objects' own boxes do too.

    Returns:
        `BoxStatistics`, float32 `[K, 4]` each.
    """
    dataset = _with_proposals(dataset, cache_dir)
    sums = np.zeros((3, len(dataset.class_names), 4))  # of 1, of t and of t squared, by class
    for record in tqdm(dataset, desc="box statistics", unit="image", delay=2):
        if not len(record.boxes):
            continue
        candidates = np.concatenate([record.proposals(), record.boxes])
        overlaps = boxes.iou(candidates, record.boxes)
        foreground, match = overlaps.max(axis=1) >= foreground_iou, overlaps.argmax(axis=1)
        targets = boxes.encode(candidates[foreground], record.boxes[match[foreground]]).astype(np.float64)
        labels = record.labels[match[foreground]] - 1
        for power in range(3):
            np.add.at(sums[power], labels, targets**power)
    return _statistics_from_sums(*sums)


def _statistics_from_sums(count, total, total_of_squares):
    """Statistics by class, each with as many stand-in targets of the average class as it lacks to be reliable."""
    everything = np.maximum(count.sum(axis=0), 1)
    lacking = np.maximum(_ENOUGH_FOREGROUND - count, 0)
    count = count + lacking
    mean = (total + lacking * total.sum(axis=0) / everything) / count
    mean_of_squares = (total_of_squares + lacking * total_of_squares.sum(axis=0) / everything) / count
    deviation = np.sqrt(np.maximum(mean_of_squares - mean**2, _LEAST_DEVIATION**2))
    return boxes.BoxStatistics(mean.astype(np.float32), deviation.astype(np.float32))
