"""Reads Pascal VOC folders: Annotations/*.xml, ImageSets/Main/SPLIT.txt, JPEGImages/*.

Follows the VOC devkit; `read_voc` documents how it handles files that deviate from it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.box_orders import annotation_order
from tf_fast_rcnn.data.readers.annotations import (
    IMAGE_EXTENSIONS,
    AnnotatedObject,
    annotate,
    finite,
    read_each,
    read_text,
    to_dataset,
    whole_pixels,
)
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.records import DetectionDataset
    from tf_fast_rcnn.files import StrPath

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_EXTENSIONS = tuple(cased for extension in IMAGE_EXTENSIONS for cased in (extension, extension.upper()))


def read_voc(
    directory: StrPath,
    split: str,
    class_names: Sequence[str] | None = None,
    skip_bad: bool = False,
    boxes_order: str | None = None,
) -> DetectionDataset:
    """Reads one split of a data set in Pascal VOC's layout. Only the headers of images are read.

    - An image is `JPEGImages/ID` with any common extension, or else the XML's `<filename>`; ID is a line of
      `ImageSets/Main/SPLIT.txt`, in which the second column of VOC's class lists (-1, 0, 1) is ignored.
    - Boxes are 1-based inclusive pixels, whole or fractional, so xmin = xmax is one column. They are clipped to the
      image; reversed ones and those with no area inside the image are dropped. Both are counted in `fixes`.
    - `<difficult>` and `<size>` may be missing. A size of 0 counts as missing.
    - If EXIF rotates an image by a quarter turn and `<size>` is that of the stored pixels, the annotation tool ignored
      EXIF, and the boxes are rotated with the image. Any other mismatch of the sizes is an error, because the boxes may
      belong to another image.

    Args:
        directory: folder that contains Annotations/, ImageSets/Main/ and JPEGImages/.
        split: name of a file in ImageSets/Main, without .txt.
        class_names: the classes in the order of their ids 1..K; default: those found in this split, sorted. For a test
            split, pass those of the training split.
        skip_bad: leave out unreadable annotations and images, and count them in `fixes`, instead of raising.
        boxes_order: one of `ANNOTATION_ORDERS`, for files of tools that write other boxes than VOC's, such as
            "xyxy-edges" where the first pixel is 0.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for an unknown or empty split, a class that is not in `class_names`, boxes that fit in another
            order or unit only, and, without `skip_bad`, for missing or invalid annotations or images, in one message.

    Example:
        >>> train = read_voc("VOCdevkit/VOC2007", "trainval")                              # doctest: +SKIP
        >>> test = read_voc("VOCdevkit/VOC2007", "test", class_names=train.class_names)    # doctest: +SKIP
    """
    directory = Path(directory)
    fixes = Counter()
    image_ids = _image_ids(directory, split, fixes)
    to_relative = box_algebra.from_voc if boxes_order is None else annotation_order(boxes_order)

    def read(image_id):
        return _read_annotation(directory, image_id, to_relative, fixes)

    annotations = read_each(read, image_ids, skip_bad, fixes)
    return to_dataset(f"voc:{directory}@{split}", annotations, class_names, fixes)


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
    image_ids = _image_ids(directory, split, fixes)

    def read(image_id):
        path = _find_image(directory, image_id)
        return annotate(path, image_id, path, [], box_algebra.from_voc, fixes)

    return to_dataset(
        f"voc:{directory}@{split}", read_each(read, image_ids, skip_bad, fixes), tuple(class_names), fixes
    )


def _image_ids(directory, split, fixes):
    lists = directory / "ImageSets" / "Main"
    known = ", ".join(sorted(path.stem for path in lists.glob("*.txt"))) or "none"
    if not lists.is_dir():
        raise InputError(
            f"{directory}: found no folder ImageSets/Main; expected Annotations/, ImageSets/Main/ and JPEGImages/; "
            "pass the folder that contains them"
        )
    path = lists / f"{split}.txt"
    if not split or not path.is_file():
        raise InputError(f"{directory}: no split {split!r}; expected one of ImageSets/Main: {known}; add it as @SPLIT")
    lines = read_text(path, "one image name per line").splitlines()
    names = [_without_column(line.strip(), directory) for line in lines if line.strip()]
    if not names:
        raise InputError(f"{path}: found no image names; expected one per line; add some or use another split: {known}")
    unique = list(dict.fromkeys(names))
    fixes["repeated images of the split left out"] += len(names) - len(unique)
    return unique


def _without_column(line, directory):
    """The image name of a line such as "000012 -1"; a name may itself look like that ("scan 1")."""
    match = re.fullmatch(r"(.+?)\s+-?[01]", line)
    if match is None or _xml_path(directory, line).is_file():
        return line
    return match[1]


def _xml_path(directory, image_id):
    return directory / "Annotations" / f"{image_id}.xml"


def _read_annotation(directory, image_id, to_relative, fixes):
    path = _xml_path(directory, image_id)
    root = _parse(path)
    # <filename> may be a path on the annotator's machine, with either kind of slash.
    image_path = _find_image(directory, image_id, re.split(r"[\\/]", _text(root, "filename"))[-1])
    stated = [_pixels(path, root, side) for side in ("height", "width")]
    objects = [_object(path, number, element) for number, element in enumerate(root.findall("object"), 1)]
    return annotate(path, image_id, image_path, objects, to_relative, fixes, stated)


def _parse(path):
    try:
        root = defusedxml.ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected the annotation of an image of the split; add it") from None
    except DefusedXmlException:
        raise InputError(
            f"{path}: found XML entities; expected a plain annotation; remove the <!ENTITY> lines"
        ) from None
    except (ParseError, ValueError, LookupError, OSError) as error:
        raise InputError(f"{path}: invalid XML ({error}); expected a VOC annotation; fix or remove it") from None
    if root.tag != "annotation":
        raise InputError(f"{path}: found <{root.tag}>; expected <annotation>, as in Pascal VOC; fix or remove it")
    return root


def _find_image(directory, image_id, filename=""):
    folder = directory / "JPEGImages"
    candidates = [folder / f"{image_id}{extension}" for extension in _EXTENSIONS]
    for candidate in [*candidates, folder / filename] if filename else candidates:
        if os.path.isfile(candidate):  # Path.is_file raises for a name that is too long.
            return candidate
    raise InputError(
        f"{folder / image_id}: found no image with an extension of {', '.join(_EXTENSIONS[::2])}"
        f"{f' and no {filename}' if filename else ''}; expected the image of {_xml_path(directory, image_id)}; add it"
    )


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
