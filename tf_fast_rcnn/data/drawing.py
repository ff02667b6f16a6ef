"""Draws detections and the ground truth on images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from tf_fast_rcnn.visualization.drawing import draw_boxes

if TYPE_CHECKING:
    from tf_fast_rcnn.data.detections import Detections
    from tf_fast_rcnn.data.records import ImageRecord


def draw_detections(
    image: np.ndarray | Image.Image,
    detections: Detections,
    class_names: Sequence[str] | None = None,
    min_score: float = 0.0,
) -> Image.Image:
    """Draws detections on an image; see `Detections.draw`.

    Args:
        image: uint8 `[H, W, 3]` RGB, or a PIL image; it is not modified.
        detections: `Detections`, boxes relative to the image.
        class_names: names of the classes 1..K; None for those that the detections know.
        min_score: detections with a lower score are not drawn.

    Returns:
        A new PIL image, RGB, of the same size.

    Example:
        >>> draw_detections(read_image("cat.jpg"), detections, ["cat"]).save("found.png")        # doctest: +SKIP
    """
    if class_names is not None:
        detections = dataclasses.replace(detections, class_names=class_names)
    return detections.draw(image, min_score)


def draw_ground_truth(image: np.ndarray | Image.Image, record: ImageRecord, class_names: Sequence[str]) -> Image.Image:
    """Draws the ground truth: dashed white boxes with class names, in brackets for difficult objects.

    Args:
        image: uint8 `[H, W, 3]` RGB, or a PIL image; it is not modified.
        record: `ImageRecord` with the objects.
        class_names: names of the classes 1..K.

    Returns:
        A new PIL image, RGB, of the same size.
    """
    return draw_boxes(image, record.boxes, object_captions(record, class_names))


def object_captions(record: ImageRecord, class_names: Sequence[str]) -> list[str]:
    """The class name of each object of an `ImageRecord`, in brackets if difficult; crowds are marked "crowd"."""
    names = [class_names[label - 1] for label in record.class_ids]
    names = [f"{name}: crowd" if crowd else name for name, crowd in zip(names, record.crowd, strict=True)]
    return [f"({name})" if difficult else name for name, difficult in zip(names, record.difficult, strict=True)]
