"""Reads Pascal VOC's XML files; `voc_folders` lists the images of VOC's layout and of those that other tools write.

Follows the VOC devkit; `read_voc` documents how it handles files that deviate from it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.box_orders import annotation_order
from tf_fast_rcnn.data.parsing import finite, whole_pixels
from tf_fast_rcnn.data.readers.annotations import AnnotatedObject, annotate, read_each
from tf_fast_rcnn.data.readers.numbering import to_dataset
from tf_fast_rcnn.data.readers.voc_folders import voc_images
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(
    directory: StrPath,
    split: str = "",
    class_names: Sequence[str] | None = None,
    skip_bad: bool = False,
    boxes_order: str | None = None,
) -> DetectionDataset:
    """Reads one split of a data set with Pascal VOC's XML files. Only the headers of images are read.

    - An image is `JPEGImages/ID` with any common extension, or else the XML's `<filename>`; ID is a line of
      `ImageSets/Main/SPLIT.txt`, in which the second column of VOC's class lists (-1, 0, 1) is ignored. Folders without
      such lists, as labelImg, Roboflow and Label Studio write them, are read too: see `voc_images`.
    - An image without an XML file has no objects; the number of such images is counted in `fixes`.
    - Boxes are 1-based inclusive pixels, whole or fractional, so xmin = xmax is one column. They are clipped to the
      image; reversed ones and those with no area inside the image are dropped. Both are counted in `fixes`.
    - `<difficult>` and `<size>` may be missing. A size of 0 counts as missing.
    - If EXIF rotates an image by a quarter turn and `<size>` is that of the stored pixels, the annotation tool ignored
      EXIF, and the boxes are rotated with the image. Any other mismatch of the sizes is an error, because the boxes may
      belong to another image.

    Args:
        directory: folder that contains Annotations/, ImageSets/Main/ and JPEGImages/, or XML files and images.
        split: name of a file in ImageSets/Main, without .txt, or of a folder; "" for `directory` itself.
        class_names: the classes in the order of their ids 1..K; default: those found in this split, sorted. For a test
            split, pass those of the training split.
        skip_bad: leave out unreadable annotations and images, and count them in `fixes`, instead of raising.
        boxes_order: one of `ANNOTATION_ORDERS`, for files of tools that write other boxes than VOC's, such as
            "xyxy-edges" where the first pixel is 0.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for an unknown or empty split, one without any XML file, a class that is not in `class_names`, boxes
            that fit in another order or unit only, and, without `skip_bad`, for missing or invalid annotations or
            images, in one message.

    Example:
        >>> train = read_voc("VOCdevkit/VOC2007", "trainval")                              # doctest: +SKIP
        >>> test = read_voc("VOCdevkit/VOC2007", "test", class_names=train.class_names)    # doctest: +SKIP
    """
    directory = Path(directory)
    fixes = Counter()
    images = voc_images(directory, split, fixes)
    to_relative = box_algebra.from_voc if boxes_order is None else annotation_order(boxes_order)
    annotations = read_each(lambda image: _read_annotation(image, to_relative, fixes), images, skip_bad, fixes)
    if annotations and not any(os.path.isfile(image.xml) for image in images):
        raise InputError(
            f"{images[0].xml}: no such file, and no other image of the split has an XML file; expected one, named like "
            "this, for each image with objects"
        )
    return to_dataset(_name(directory, split), annotations, class_names, fixes)


def read_voc_images(
    directory: StrPath, split: str, class_names: Sequence[str], skip_bad: bool = False
) -> DetectionDataset:
    """Reads the images of one split without their annotations, which VOC's test sets do not have.

    Args:
        directory, split, skip_bad: as in `read_voc`; Annotations/ is not read.
        class_names: the classes 1..K; the images have no objects.

    Raises:
        InputError: for an unknown or empty split, and, without `skip_bad`, for the first missing or unreadable image.

    Example:
        >>> test = read_voc_images("VOCdevkit/VOC2012", "test", class_names=train.class_names)     # doctest: +SKIP
    """
    directory = Path(directory)
    fixes = Counter()
    images = voc_images(directory, split, fixes)
    found = read_each(lambda image: _without_objects(image, fixes), images, skip_bad, fixes)
    return to_dataset(_name(directory, split), found, tuple(class_names), fixes)


def _name(directory, split):
    return f"voc:{directory}" + (f"@{split}" if split else "")


def _without_objects(image, fixes):
    path = image.find()
    return annotate(path, image.image_id, path, [], box_algebra.from_voc, fixes)


def _read_annotation(image, to_relative, fixes):
    path = image.xml
    if not os.path.isfile(path):
        annotation = _without_objects(image, fixes)
        fixes["images without an XML file (no objects)"] += 1
        return annotation
    root = _parse(path)
    image_path = image.find(_text(root, "filename"))
    stated = [_pixels(path, root, side) for side in ("height", "width")]
    objects = [_object(path, number, element) for number, element in enumerate(root.findall("object"), 1)]
    return annotate(path, image.image_id, image_path, objects, to_relative, fixes, stated)


def _parse(path):
    try:
        root = defusedxml.ElementTree.parse(path).getroot()
    except DefusedXmlException:
        raise InputError(
            f"{path}: found XML entities; expected a plain annotation; remove the <!ENTITY> lines"
        ) from None
    except (ParseError, ValueError, LookupError, OSError) as error:
        raise InputError(f"{path}: invalid XML ({error}); expected a VOC annotation; fix or remove it") from None
    if root.tag != "annotation":
        raise InputError(f"{path}: found <{root.tag}>; expected <annotation>, as in Pascal VOC; fix or remove it")
    return root


def _pixels(path, root, side):
    text = _text(root, f"size/{side}")
    pixels = whole_pixels(text)
    if pixels is None:
        raise InputError(f"{path}: found <{side}> {text!r}; expected pixels; correct it or remove <size>")
    return pixels


def _object(path, number, element):
    corners = tuple(_corner(path, number, element, corner) for corner in _CORNERS)
    difficult = _text(element, "difficult") in ("1", "true")
    return AnnotatedObject(_class_name(path, number, element), corners, difficult)


def _corner(path, number, element, corner):
    text = _text(element, f"bndbox/{corner}")
    value = finite(text)
    if value is None:
        raise InputError(
            f"{path}: found {corner} {text!r} in object {number}; expected a number; fix or remove the object"
        )
    return value


def _class_name(path, number, element):
    name = _text(element, "name")
    if not name:
        raise InputError(f"{path}: found no <name> in object {number}; expected its class; add it or remove the object")
    return name


def _text(element, path):
    return (element.findtext(path) or "").strip()
