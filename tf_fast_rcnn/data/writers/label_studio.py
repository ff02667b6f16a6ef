"""Writes Label Studio's tasks with predictions, and the labelling interface that they fit."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

if TYPE_CHECKING:
    from tf_fast_rcnn.data.writers.labelled import LabelledImage

# Label Studio serves the files of a local storage at these addresses.
LOCAL_FILES = "/data/local-files/?d="


def label_studio_tasks(
    images: Iterable[LabelledImage], model_version: str, image_url: str = LOCAL_FILES
) -> list[dict[str, Any]]:
    """One task per image with a prediction, for `json.dump`.

    Args:
        images: the images with detections.
        model_version: the name under which Label Studio shows the predictions.
        image_url: what the address of an image begins with; the file name, quoted, follows.
    """
    return [
        {
            "data": {"image": image_url + urllib.parse.quote(image.file)},
            "predictions": [_prediction(image, model_version)],
        }
        for image in images
    ]


def label_studio_interface(class_names: Sequence[str]) -> str:
    """The labelling interface of the project: rectangles with these labels."""
    root = ElementTree.Element("View")
    ElementTree.SubElement(root, "Image", {"name": "image", "value": "$image"})
    labels = ElementTree.SubElement(root, "RectangleLabels", {"name": "label", "toName": "image"})
    for name in class_names:
        ElementTree.SubElement(labels, "Label", {"value": name})
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _prediction(image, model_version):
    scores = [] if image.scores is None else image.scores.tolist()
    # The least certain object: Label Studio can sort tasks by it.
    return {
        "model_version": model_version,
        "score": round(min(scores, default=0.0), 6),
        "result": [_region(image, index) for index in range(len(image.boxes))],
    }


def _region(image, index):
    ymin, xmin, ymax, xmax = (100 * np.float64(side) for side in image.boxes[index])
    return {
        "id": f"box{index + 1}",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": image.record.width,
        "original_height": image.record.height,
        "image_rotation": 0,
        "value": {
            "x": float(xmin),
            "y": float(ymin),
            "width": float(xmax - xmin),
            "height": float(ymax - ymin),
            "rotation": 0,
            "rectanglelabels": [image.names[index]],
        },
        "score": round(float(image.scores[index]), 6),
    }
