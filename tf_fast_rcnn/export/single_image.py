"""Detection in one image with ops that TF Lite and TensorFlow.js support.

The steps are those of `inference.graph` without what both lack: ragged tensors, loops over images, the deduplication of
RoIs with equal cells, and the fused non-maximum suppression of all classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

import tf_fast_rcnn
from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.network_input import network_size
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.inference.graph import Detector
from tf_fast_rcnn.inference.settings import DetectionSettings
from tf_fast_rcnn.inference.suppression import suppress_in_one_image

if TYPE_CHECKING:
    import keras

    from tf_fast_rcnn.data.proposals.files import FileProposals
    from tf_fast_rcnn.data.proposals.settings import ProposalSettings

OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")


def portable_detector(model: keras.Model, settings: DetectionSettings | None, class_names: Sequence[str]) -> Detector:
    """A `Detector` for `serving_function`, with portable RoI pooling.

    Args:
        model: a model created by `fast_rcnn`.
        settings: `DetectionSettings` with one shorter side and dtype float32; None for the defaults. There is no first
            pass: `screening_rank` is not used.
        class_names: names of the classes 1..K.

    Raises:
        InputError: for other settings, or if the number of class names is not that of the model.
    """
    # With a first pass a TF Lite model takes a fifth more time: XNNPACK does not run layers whose input size is only
    # known when they run.
    settings = dataclasses.replace(settings or DetectionSettings(), screening_rank=None)
    detector = Detector(model, settings, "portable")
    if len(class_names) != detector.num_classes:
        raise InputError(
            f"class_names: found {len(class_names)}; expected the model's {detector.num_classes}; pass one name per "
            "class"
        )
    if len(settings.shorter_sides) > 1:
        raise InputError(
            "shorter_side: found several; expected one, because only SavedModels support image pyramids; choose one"
        )
    if settings.tiles is not None:
        raise InputError(
            f"tile: found {settings.tile}; expected none, because only SavedModels see images in tiles; export a "
            "SavedModel, or pass --tile none (tile=None) and the parts of images that you cut yourself"
        )
    if settings.dtype != "float32":
        raise InputError(f"dtype: found {settings.dtype}; expected float32; use precision to reduce the file size")
    return detector


def description(
    detector: Detector,
    class_names: Sequence[str],
    image_size: tuple[int, int] | None,
    num_proposals: int | None,
    precision: str,
    proposals: ProposalSettings | FileProposals | None,
) -> dict[str, Any]:
    """JSON-serialisable metadata of an exported file; arguments as of `export_tflite`."""
    return {
        "package_version": tf_fast_rcnn.__version__,
        "class_names": list(class_names),
        "image_size": image_size,
        "num_proposals": num_proposals,
        "precision": precision,
        "proposal_settings": None if proposals is None else proposals.to_json(),
        "detection": detector.settings.to_json(),
    }


def serving_function(
    detector: Detector,
    image_size: tuple[int, int] | None = None,
    num_proposals: int | None = None,
    image_type: tf.DType = tf.uint8,
) -> tf.types.experimental.PolymorphicFunction:
    """The signature `serving_default` for one image, as a `tf.function`; see `export_tflite`.

    Args:
        detector: a `Detector` returned by `portable_detector`.
        image_size: fixed (H, W) in pixels; None: any size.
        num_proposals: fixed R; None: any number.
        image_type: dtype of the pixels.
    """
    height, width = image_size or (None, None)
    inputs = (
        tf.TensorSpec([1, height, width, 3], image_type, name="images"),
        tf.TensorSpec([1, num_proposals, 4], tf.float32, name="proposals"),
        tf.TensorSpec([1], tf.int32, name="num_proposals"),
    )

    @tf.function(input_signature=inputs, autograph=False)
    def serving_default(images, proposals, num_proposals):
        size = network_size(tf.shape(images)[1:3], detector.settings.shorter_side, detector.settings.longer_side)
        features = detector.stages.convolve(tf.image.resize(tf.cast(images, tf.float32), size), training=False)
        # Layers need at least one row, so a padding row is added.
        rows = tf.pad(proposals[0], [[0, 1], [0, 0]])
        probabilities, class_boxes = _classify(detector, tf.nest.flatten(features), size, rows)
        is_real = tf.range(tf.shape(rows)[0]) < tf.minimum(num_proposals[0], tf.shape(rows)[0] - 1)
        # A score of zero is below any threshold.
        probabilities = tf.where(tf.expand_dims(is_real, 1), probabilities, 0.0)
        found = suppress_in_one_image(detector.settings, probabilities, class_boxes)
        return {name: tf.expand_dims(value, 0) for name, value in zip(OUTPUTS, found, strict=True)}

    return serving_default


def _classify(detector, features, size, proposals):
    """Class probabilities `[R, K + 1]` and boxes `[R, K, 4]` of proposals `[R, 4]`."""
    height, width = tf.unstack(tf.cast(size, tf.float32))

    def classify(rows):
        rois = tf.expand_dims(boxes.scale(rows, height, width), 0)
        outputs = detector.stages.classify(detector.stages.pool(features, rois), training=False)
        decoded = boxes.decode(tf.expand_dims(rows, 1), outputs["box_deltas"][0])
        return detector.to_scores(outputs["class_logits"][0]), boxes.clip(decoded)

    probabilities, class_boxes = classify(proposals)
    for _ in range(detector.settings.box_refinement_steps - 1):
        best = tf.argmax(probabilities[:, 1:], axis=1, output_type=tf.int32)
        probabilities, class_boxes = classify(tf.gather(class_boxes, best, batch_dims=1))
    return probabilities, class_boxes
