"""Writes Pascal VOC's XML files."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.writers.labelled import exact_numbers

if TYPE_CHECKING:
    from tf_fast_rcnn.data.writers.labelled import LabelledImage


def voc_xml(image: LabelledImage) -> str:
    """The annotation of an image.

    Crowds, which VOC does not have, are difficult objects. Scores are attributes, as Datumaro and CVAT write them.
    """
    height, width = image.record.height, image.record.width
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "folder").text = ""
    ElementTree.SubElement(root, "filename").text = image.file.rpartition("/")[2]
    size = ElementTree.SubElement(root, "size")
    for name, pixels in (("width", width), ("height", height), ("depth", 3)):
        ElementTree.SubElement(size, name).text = str(pixels)
    ElementTree.SubElement(root, "segmented").text = "0"
    numbers = exact_numbers(
        image.boxes,
        lambda boxes: box_algebra.to_voc(boxes, height, width),
        lambda corners: box_algebra.from_voc(corners, height, width),
    )
    for index, corners in enumerate(numbers):
        element = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(element, "name").text = image.names[index]
        ElementTree.SubElement(element, "pose").text = "Unspecified"
        ElementTree.SubElement(element, "truncated").text = "0"
        ElementTree.SubElement(element, "difficult").text = str(int(image.difficult[index] or image.crowd[index]))
        box = ElementTree.SubElement(element, "bndbox")
        for name, text in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            ElementTree.SubElement(box, name).text = text
        if image.scores is not None:
            attribute = ElementTree.SubElement(ElementTree.SubElement(element, "attributes"), "attribute")
            ElementTree.SubElement(attribute, "name").text = "score"
            ElementTree.SubElement(attribute, "value").text = f"{image.scores[index]:.6f}"
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"
