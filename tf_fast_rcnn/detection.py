"""Detection (section 3 of the paper): scores and boxes of every proposal, then non-maximum suppression by class.

Everything runs in TensorFlow's graph, so that `detect`, `evaluate` and the exported models compute the same.
"""

import dataclasses
import operator
import weakref
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.examples import example_reader, input_errors
from tf_fast_rcnn.data.images import read_image
from tf_fast_rcnn.data.network_input import decode_image, resize_to_network
from tf_fast_rcnn.data.proposals import FileProposals, ProposalSettings, compute_proposals, proposal_settings
from tf_fast_rcnn.data.records import Detections, ImageRecord
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.model import stages


@dataclasses.dataclass(frozen=True)
class DetectionSettings:
    """What is done around the network in detection; the defaults are the released system's.

    Attributes:
        shorter_side, longer_side: of the resized image in pixels; those of training.
        score_threshold: detections with a score at or below this are dropped.
        nms_iou: of two boxes of a class that overlap by more than this, the one with the lower score is dropped.
        max_detections: the best so many of an image are kept, over all classes.
    """

    shorter_side: int = 600
    longer_side: int = 1000
    score_threshold: float = 0.05
    nms_iou: float = 0.3
    max_detections: int = 100


def detection_settings(run, **changes):
    """`DetectionSettings` with the image size that a run (see `load_run`) was trained at."""
    return DetectionSettings(**{"shorter_side": run.shorter_side, "longer_side": run.longer_side, **changes})


class Detector:
    """The steps of detection over a Fast R-CNN model, as functions of tensors.

    Args:
        model: what `fast_rcnn` returned.
        settings: `DetectionSettings`; None for the defaults.
        roi_pooling: implementation of RoI pooling; None for the model's own.
    """

    def __init__(self, model, settings=None, roi_pooling=None):
        self.settings = settings or DetectionSettings()
        self.stages = stages(model, roi_pooling)

    def pooled_regions(self, image, proposals):
        """Image uint8 `[H, W, 3]` and proposals float32 `[R, 4]`, relative -> pooled RoIs `[R, P, Q, C]`."""
        image = resize_to_network(image, self.settings.shorter_side, self.settings.longer_side)
        height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
        rois = boxes.scale(proposals, height, width)
        features = self.stages.convolve(image[None], training=False)
        return self.stages.pool(features, rois[None])[0]

    def classify(self, pooled, proposals):
        """Pooled RoIs `[R, P, Q, C]` and their proposals `[R, 4]` -> class probabilities `[R, K + 1]` and one box a
        class, `[R, K, 4]`, relative and clipped."""
        outputs = self.stages.classify(pooled[None], training=False)
        probabilities = tf.nn.softmax(outputs["class_logits"][0])
        # Regression values do not depend on the unit of the boxes: relative ones are decoded as they are.
        decoded = boxes.decode(tf.expand_dims(proposals, 1), outputs["box_deltas"][0])
        return probabilities, boxes.clip(decoded)

    def suppress(self, probabilities, class_boxes):
        """Non-maximum suppression, for each class and image apart.

        Args:
            probabilities: float32 `[B, R, K + 1]`; rows of zeros give no detections.
            class_boxes: float32 `[B, R, K, 4]`.

        Returns:
            boxes float32 `[B, D, 4]`, scores float32 `[B, D]` falling, classes int32 `[B, D]` in 1..K (0 in rows that
            fill up), counts int32 `[B]`; D is `max_detections`.
        """
        found = tf.image.combined_non_max_suppression(
            class_boxes,
            probabilities[..., 1:],
            max_output_size_per_class=self.settings.max_detections,
            max_total_size=self.settings.max_detections,
            iou_threshold=self.settings.nms_iou,
            score_threshold=self.settings.score_threshold,
            clip_boxes=False,
        )
        filled = tf.sequence_mask(found.valid_detections, self.settings.max_detections)
        classes = tf.where(filled, tf.cast(found.nmsed_classes, tf.int32) + 1, 0)
        return found.nmsed_boxes, found.nmsed_scores, classes, found.valid_detections

    def detect_one(self, image, proposals):
        """One image uint8 `[H, W, 3]` and its proposals float32 `[R, 4]` -> `suppress`'s outputs without B."""
        probabilities, class_boxes = self.classify(self.pooled_regions(image, proposals), proposals)
        return tuple(map(operator.itemgetter(0), self.suppress(probabilities[None], class_boxes[None])))


# Compiled detection functions, by model: tracing one takes seconds.
_compiled = weakref.WeakKeyDictionary()


def _compiled_detector(model, settings):
    settings = settings or DetectionSettings()
    functions = _compiled.setdefault(model, {})
    if settings not in functions:
        # A Detector holds the model's layers but not the model, which would keep itself in the weak dictionary.
        signature = [tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([None, 4], tf.float32)]
        detector = Detector(model, settings)
        functions[settings] = tf.function(detector.detect_one, input_signature=signature, autograph=False)
    return functions[settings]


def default_proposals():
    """`ProposalSettings` where nobody gives any: selective search's boxes, and dense ones of common sizes."""
    return proposal_settings("selective-search+dense", dataset=())


def detect(model, image, proposals=None, settings=None):
    """Finds the objects in one image.

    Args:
        model: what `fast_rcnn` returned.
        image: uint8 `[H, W, 3]`, RGB, or the path of an image file (its EXIF orientation is applied).
        proposals: float32 `[R, 4]`, `[ymin, xmin, ymax, xmax]` relative to the image; or `ProposalSettings`, by which
            they are computed; or `FileProposals` (see `file_proposals`) that have them under the image's file name.
            None: `default_proposals()`.
        settings: `DetectionSettings`; None for the defaults.

    Returns:
        `Detections`, sorted by falling score.

    Raises:
        InputError: for an image that cannot be read, or proposals that are no boxes.

    Example:
        >>> found = detect(model, "cells.jpg")                              # doctest: +SKIP
        >>> found.classes[0], found.scores[0], found.boxes[0]               # doctest: +SKIP
        (2, 0.98, array([0.12, 0.4 , 0.31, 0.6 ], dtype=float32))
    """
    path = "" if isinstance(image, np.ndarray) else str(image)
    image = read_image(path) if path else check_image(image)
    if proposals is None:
        proposals = default_proposals()
    if isinstance(proposals, ProposalSettings):
        proposals = compute_proposals(image, proposals)
    elif isinstance(proposals, FileProposals):
        proposals = proposals.of(unannotated(path, *image.shape[:2]))
    return _to_detections(_compiled_detector(model, settings)(image, check_proposals(proposals)))


def unannotated(path, height, width):
    """The `ImageRecord` of an image without annotations: under its file's name, its proposals stand in a file."""
    return ImageRecord(Path(path).name or "(an array without a name)", path, height, width, [], [], [])


def detect_dataset(model, dataset, settings=None, progress=True):
    """Yields the `Detections` of each image of a data set with proposals, in order.

    Images are decoded ahead, while the network runs.
    """
    detector = _compiled_detector(model, settings)
    read = example_reader(dataset)

    def image_and_proposals(index):
        example = read(index)
        return decode_image(example["image_bytes"]), example["proposals"]

    images = tf.data.Dataset.range(len(dataset)).map(image_and_proposals, num_parallel_calls=2).prefetch(2)
    with input_errors(dataset):
        for image, proposals in tqdm(
            images, total=len(dataset), desc="detect", unit="image", delay=2, disable=not progress
        ):
            yield _to_detections(detector(image, proposals))


def check_image(image):
    """Returns uint8 `[H, W, 3]` as it is; InputError for anything else."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(
            f"image: found {image.dtype} {list(image.shape)}; expected uint8 [H, W, 3], RGB; convert it first"
        )
    return image


def check_proposals(proposals):
    """Proposals as float32 `[R, 4]`; InputError where they are not finite relative boxes."""
    try:
        proposals = np.asarray(proposals, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"proposals: found no array of numbers ({error}); expected float32 [R, 4]") from None
    if proposals.ndim != 2 or proposals.shape[1] != 4:
        raise InputError(f"proposals: found shape {list(proposals.shape)}; expected [R, 4]; give one row a box")
    if not np.all(np.isfinite(proposals)) or np.any(proposals[:, :2] > proposals[:, 2:]):
        raise InputError("proposals: found a value that is not finite, or ymin > ymax or xmin > xmax; mend the boxes")
    if proposals.size and proposals.max() > 1.5:
        raise InputError(
            f"proposals: found a coordinate of {proposals.max():g}; expected [ymin, xmin, ymax, xmax] relative to the "
            "image, 0 to 1; divide by the image's height and width"
        )
    return proposals


def _to_detections(outputs):
    found_boxes, scores, classes, count = (output.numpy() for output in outputs)
    return Detections(found_boxes[:count], scores[:count], classes[:count])
