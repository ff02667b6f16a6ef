"""Writes COCO's instances files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.writers.labelled import exact_numbers

if TYPE_CHECKING:
    from tf_fast_rcnn.data.writers.labelled import LabelledImage


def coco_content(images: Iterable[LabelledImage], class_names: Sequence[str]) -> dict[str, Any]:
    """The content of an instances file for `json.dump`.

    Image ids are those of the data set if all are whole numbers, as COCO's are, else 1, 2, ...; category ids are the
    class ids. Detections have a `score`.

    Args:
        images: the images.
        class_names: the classes 1..K.
    """
    images = list(images)
    ids = _image_ids(images)
    places = {name: place for place, name in enumerate(class_names, 1)}
    annotations: list[dict[str, Any]] = []
    for image_id, image in zip(ids, images, strict=True):
        for entry in _annotations(image, places):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **entry})
    return {
        "info": {},
        "images": [
            {
                "id": image_id,
                "file_name": image.file,
                "width": image.record.width,
                "height": image.record.height,
            }
            for image_id, image in zip(ids, images, strict=True)
        ],
        "annotations": annotations,
        "categories": [{"id": place, "name": name} for name, place in places.items()],
    }


def _image_ids(images):
    names = [image.record.image_id for image in images]
    numbers = [int(name) for name in names if name.isdecimal() and str(int(name)) == name]
    return numbers if len(numbers) == len(names) else list(range(1, len(names) + 1))


def _annotations(image, places):
    """The annotations of an image without their ids."""
    height, width = image.record.height, image.record.width
    numbers = exact_numbers(
        image.boxes,
        lambda boxes: box_algebra.to_coco(boxes, height, width),
        lambda windows: box_algebra.from_coco(windows, height, width),
    )
    shares = image.record.areas if image.scores is None else None
    for index, texts in enumerate(numbers):
        box = [float(text) if "." in text or "e" in text else int(text) for text in texts]
        share = None if shares is None else np.float64(shares[index])
        entry = {
            "category_id": places[image.names[index]],
            "bbox": box,
            "area": box[2] * box[3] if share is None else float(share * height * width),
            "iscrowd": int(image.crowd[index]),
            "segmentation": [],
        }
        if image.scores is not None:
            entry["score"] = round(float(image.scores[index]), 6)
        yield entry
