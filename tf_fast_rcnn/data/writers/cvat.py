"""Writes CVAT's own XML files, "CVAT for images 1.1"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.writers.labelled import exact_numbers

if TYPE_CHECKING:
    from tf_fast_rcnn.data.writers.labelled import LabelledImage


def cvat_xml(images: Iterable[LabelledImage], class_names: Sequence[str]) -> str:
    """The annotations of images, to upload to a CVAT task with these images and labels.

    Boxes are marked as made automatically. Scores are attributes: CVAT keeps them if the label has an attribute
    "score", and ignores them otherwise.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    for name in class_names:
        label = ElementTree.SubElement(labels, "label")
        ElementTree.SubElement(label, "name").text = name
        ElementTree.SubElement(label, "attributes")
    for number, image in enumerate(images):
        root.append(_image(number, image))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _image(number, image):
    height, width = image.record.height, image.record.width
    element = ElementTree.Element(
        "image", {"id": str(number), "name": image.file, "width": str(width), "height": str(height)}
    )
    numbers = exact_numbers(
        image.boxes,
        lambda boxes: box_algebra.to_xyxy(boxes, height, width),
        lambda edges: box_algebra.from_xyxy(edges, height, width),
    )
    for index, texts in enumerate(numbers):
        corners = dict(zip(("xtl", "ytl", "xbr", "ybr"), texts, strict=True))
        values = {"label": image.names[index], "source": "auto", "occluded": "0", **corners, "z_order": "0"}
        box = ElementTree.SubElement(element, "box", values)
        if image.scores is not None:
            ElementTree.SubElement(box, "attribute", {"name": "score"}).text = f"{image.scores[index]:.6f}"
    return element
