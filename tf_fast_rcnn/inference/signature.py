"""Converts the inputs and outputs of the signatures `serving_default` and `regions` of exported models."""

from collections.abc import Mapping, Sequence

import numpy as np

from tf_fast_rcnn.data.detections import Detections

PROPOSAL_INPUTS = ("image_bytes", "proposals", "num_proposals")


def signature_inputs(images: Sequence[bytes], proposals: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs of a signature for a batch of images.

    Args:
        images: B encoded images.
        proposals: for each image float32 `[R, 4]`, `[ymin, xmin, ymax, xmax]` relative to it; R may differ.

    Returns:
        A dict of image_bytes `[B]`, proposals float32 `[B, R, 4]`, padded with zeros, and num_proposals int32 `[B]`. R
        is at least 1, because an array without rows loses its shape in JSON.
    """
    counts = np.array([len(each) for each in proposals], np.int32)
    padded = np.zeros((len(images), max(1, *counts), 4), np.float32)
    for row, each in zip(padded, proposals, strict=True):
        row[: len(each)] = each
    # Without the additional None, NumPy would make an array of bytes, which drops trailing zeros.
    image_bytes = np.array([*images, None], object)[:-1]
    return dict(zip(PROPOSAL_INPUTS, (image_bytes, padded, counts), strict=True))


def signature_detections(
    outputs: Mapping[str, np.ndarray], class_names: Sequence[str] | None = None
) -> list[Detections]:
    """Converts the outputs of `serving_default` to one `Detections` per image.

    Args:
        outputs: detection_boxes, detection_scores, detection_classes and num_detections; optionally
            detection_class_names, which replace `class_names`.
        class_names: names of the classes 1..K, or None.
    """
    counts = np.asarray(outputs["num_detections"], int).tolist()
    return [_detections(outputs, image, count, class_names) for image, count in enumerate(counts)]


def _detections(outputs, image, count, class_names):
    found = (outputs[f"detection_{name}"][image] for name in ("boxes", "scores", "classes"))
    found = zip(found, ([-1, 4], [-1], [-1]), (np.float32, np.float32, np.int32), strict=True)
    boxes, scores, classes = (np.asarray(values, dtype).reshape(shape)[:count] for values, shape, dtype in found)
    if "detection_class_names" in outputs:
        class_names = _names_by_id(classes, outputs["detection_class_names"][image][:count])
    return Detections(boxes, scores, classes, class_names)


def _names_by_id(classes, names):
    """Class names from 1 to the largest id present. An id without a known name is its own name."""
    names = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    known = dict(zip(classes.tolist(), names, strict=True))
    return tuple(known.get(class_id, str(class_id)) for class_id in range(1, max(known, default=0) + 1))
