"""The signatures of an exported model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tf_fast_rcnn import boxes
from tf_fast_rcnn.export.graph_proposals import graph_proposals
from tf_fast_rcnn.export.request_checks import check_batch, check_proposals, checked_size, read_image

if TYPE_CHECKING:
    from tf_fast_rcnn.data.proposals.settings import ProposalSettings
    from tf_fast_rcnn.export.limits import ServingLimits
    from tf_fast_rcnn.inference.graph import Detector

_IMAGE_BYTES = tf.TensorSpec([None], tf.string, name="image_bytes")
_IMAGES_AND_PROPOSALS = (
    _IMAGE_BYTES,
    tf.TensorSpec([None, None, 4], tf.float32, name="proposals"),
    tf.TensorSpec([None], tf.int32, name="num_proposals"),
)
_TENSORS = (
    tf.TensorSpec([None, None, None, 3], tf.float32, name="images"),
    tf.TensorSpec([None, None, 4], tf.float32, name="rois"),
)
# Number of images of a request for which proposals are computed concurrently; each is decoded in memory.
_SEARCHED_AT_ONCE = 4


class Signatures:
    """The signatures of a detector, as functions of tensors; `export_saved_model` documents inputs and outputs.

    Args:
        detector: `Detector`.
        limits: `ServingLimits`.
        proposals: `ProposalSettings` for `detect_image_bytes`; None for a model without that signature.
        class_names: names of the classes 1..K, for the output `detection_class_names`; None to omit that output.
    """

    def __init__(
        self,
        detector: Detector,
        limits: ServingLimits,
        proposals: ProposalSettings | None = None,
        class_names: Sequence[str] | None = None,
    ) -> None:
        self._detector, self._limits, self._proposals = detector, limits, proposals
        # Padding rows have class 0.
        self._class_names = None if class_names is None else tf.constant(["", *class_names])

    def functions(self) -> dict[str, Callable[..., Any]]:
        """Dict from the names of the signatures to their `tf.function`s."""
        inputs = {
            "serving_default": (self._serving_default, _IMAGES_AND_PROPOSALS),
            "regions": (self._regions, _IMAGES_AND_PROPOSALS),
            "predict_tensors": (self._predict_tensors, _TENSORS),
        }
        if self._proposals is not None:
            inputs["detect_image_bytes"] = (self._detect_image_bytes, (_IMAGE_BYTES,))
        return {
            name: tf.function(function, input_signature=specs, autograph=False)
            for name, (function, specs) in inputs.items()
        }

    def _serving_default(self, image_bytes, proposals, num_proposals):
        proposals = self._real_proposals(image_bytes, proposals, num_proposals)
        return self._detections(image_bytes, proposals)

    def _regions(self, image_bytes, proposals, num_proposals):
        rows = tf.shape(proposals, out_type=tf.int64)[1]
        proposals = self._real_proposals(image_bytes, proposals, num_proposals)
        probabilities, class_boxes = self._detector.regions(self._image_reader(image_bytes), proposals)
        return {
            "class_probabilities": probabilities.to_tensor(shape=tf.stack([-1, rows, *probabilities.shape[2:]])),
            "boxes": class_boxes.to_tensor(shape=tf.stack([-1, rows, *class_boxes.shape[2:]])),
        }

    def _predict_tensors(self, images, rois):
        stages = self._detector.stages
        outputs = stages.classify(stages.pool(stages.convolve(images, training=False), rois), training=False)
        return {
            "class_probabilities": self._detector.to_scores(outputs["class_logits"]),
            "boxes": boxes.decode(tf.expand_dims(rois, 2), outputs["box_deltas"]),
        }

    def _detect_image_bytes(self, image_bytes):
        def propose(one):
            size = checked_size(one, self._limits)
            # The network decodes the image again, so that only a few decoded images are in memory at a time.
            return graph_proposals(
                lambda: read_image(one, self._limits), size, self._proposals, self._limits.max_proposals
            )

        with tf.control_dependencies([check_batch([tf.size(image_bytes)], self._limits.max_images)]):
            image_bytes = tf.identity(image_bytes)
        specs = tf.RaggedTensorSpec([None, 4], tf.float32, ragged_rank=0)
        proposals = tf.map_fn(propose, image_bytes, fn_output_signature=specs, parallel_iterations=_SEARCHED_AT_ONCE)
        return self._detections(image_bytes, proposals)

    def _real_proposals(self, image_bytes, proposals, num_proposals):
        """Proposals `[B, R, 4]` without padding: ragged `[B, (R), 4]`."""
        batch = [tf.size(image_bytes), tf.shape(proposals)[0], tf.size(num_proposals)]
        rows, limits = tf.shape(proposals)[1], self._limits
        with tf.control_dependencies(
            [check_batch(batch, limits.max_images), check_proposals(rows, limits.max_proposals)]
        ):
            # A count above the number of rows would make the ragged tensor inconsistent.
            counts = tf.clip_by_value(num_proposals, 0, rows)
        proposals = tf.RaggedTensor.from_tensor(proposals, lengths=counts)
        return proposals.with_flat_values(tf.debugging.check_numerics(proposals.flat_values, "proposals"))

    def _image_reader(self, image_bytes):
        return lambda index: read_image(image_bytes[index], self._limits)

    def _detections(self, image_bytes, proposals):
        found = self._detector.detect(self._image_reader(image_bytes), proposals)
        names = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
        outputs = dict(zip(names, found, strict=True))
        if self._class_names is not None:
            outputs["detection_class_names"] = tf.gather(self._class_names, outputs["detection_classes"])
        return outputs
