"""Pictures of errors: the most confident false positives and the missed objects."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.evaluation.breakdown import CONFIDENT, KINDS
from tf_fast_rcnn.visualization.crops import cut_out, window_around
from tf_fast_rcnn.visualization.drawing import class_colors, draw_boxes

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.detections import Detections
    from tf_fast_rcnn.evaluation.breakdown import Breakdown
    from tf_fast_rcnn.evaluation.results import EvaluationResult

PICTURES = 24


class ErrorPicture(NamedTuple):
    """A picture of one error.

    Attributes:
        path: the picture as a data: URI.
        width, height: size in pixels.
        label: the class, 1..K, of the detection or of the missed object.
        text: description of the error.
        image_id: id of the image.
    """

    path: str
    width: int
    height: int
    label: int
    text: str
    image_id: str


class _Error(NamedTuple):
    """An error to draw: index of the image, box, class, description, and whether the box is that of an object."""

    image: int
    box: np.ndarray
    label: int
    text: str
    is_object: bool


def draw_errors(
    dataset: DetectionDataset, detections: Sequence[Detections], result: EvaluationResult, breakdown: Breakdown
) -> tuple[list[ErrorPicture], list[ErrorPicture]]:
    """Draws the most important errors with some context around them and the ground truth as dashed boxes.

    Args:
        dataset, detections, result: see `break_down`.
        breakdown: the `Breakdown` that `break_down` returned for them.

    Returns:
        Two lists of `ErrorPicture`, at most 24 each: the false positives with the highest scores, and the objects that
        were not detected with a score of at least 0.5, starting with those that were not detected at all.
    """
    false = _false_positives(detections, result.matchings[0], breakdown)
    missed = _missed_objects(dataset, result.matchings[0], breakdown)
    of_image = defaultdict(list)
    for error in [*false, *missed]:
        of_image[error.image].append(error)
    # Each image is read only once.
    drawn = {
        id(error): picture for image, errors in of_image.items() for error, picture in _draw(dataset[image], errors)
    }
    return [drawn[id(error)] for error in false], [drawn[id(error)] for error in missed]


def _false_positives(detections, matching, breakdown):
    wrong = np.flatnonzero(breakdown.kinds >= 0)
    wrong = wrong[np.argsort(-matching.scores[wrong], kind="stable")][:PICTURES]
    starts = np.searchsorted(matching.images, matching.images[wrong])
    return [
        _Error(
            int(matching.images[index]),
            detections[matching.images[index]].boxes[index - start],
            int(matching.class_ids[index]),
            f"{matching.scores[index]:.2f}, {KINDS[breakdown.kinds[index]]}",
            is_object=False,
        )
        for index, start in zip(wrong, starts, strict=True)
    ]


def _missed_objects(dataset, matching, breakdown):
    best = np.full(len(matching.object_class_ids), -1.0)
    matched = matching.objects >= 0  # also by detections beyond those that the protocol scores
    np.maximum.at(best, matching.objects[matched], matching.scores[matched])
    missed = np.flatnonzero(matching.object_counts & (best < CONFIDENT))
    missed = missed[np.argsort(best[missed], kind="stable")][:PICTURES]
    starts = np.searchsorted(matching.object_images, matching.object_images[missed])

    def text(index):
        if best[index] >= 0:
            return f"detected with a score of only {best[index]:.2f}"
        return "missed" if breakdown.missed[index] else "not detected: wrong location or class"

    return [
        _Error(
            int(matching.object_images[index]),
            dataset[int(matching.object_images[index])].boxes[index - start],
            int(matching.object_class_ids[index]),
            text(index),
            is_object=True,
        )
        for index, start in zip(missed, starts, strict=True)
    ]


def _draw(record, errors):
    """Yields each error of an image with its `ErrorPicture`."""
    image = Image.fromarray(record.image())
    for error in errors:
        # Detections from other tools may be outside the image.
        window = window_around(box_algebra.clip(error.box[None]))
        picture = cut_out(image, window)
        visible = box_algebra.intersection(record.boxes, window[None])[:, 0] > 0
        others = box_algebra.within(record.boxes[visible], window)
        if not error.is_object:
            picture = draw_boxes(picture, others, [""] * len(others))
        drawn = draw_boxes(
            picture, box_algebra.within(error.box[None], window), [""], class_colors(np.array([error.label]))
        )
        yield error, ErrorPicture(_data_uri(drawn), *drawn.size, error.label, error.text, record.image_id)


def _data_uri(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
