"""Shared parts of all annotation readers: from parsed objects to the annotation of each image.

A reader parses its files into `AnnotatedObject`s. For all formats, the functions here convert their boxes to the
displayed image, clip them and drop those without area. `readers.numbering` makes a data set of the result.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.box_orders import ANNOTATION_ORDERS
from tf_fast_rcnn.data.images import image_layout
from tf_fast_rcnn.errors import InputError, in_one_go

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

# Boxes rounded to a few decimals may exceed the image by this much, relative to its size, without counting as clipped.
_ROUNDING = 1e-4

# Text files beside labels that are none: names of classes, and lists of images.
_LISTS = {"classes", "predefined_classes", "obj", "train", "val", "valid", "test", "notes", "README"}

# The coordinate orders that formats prescribe, whose boxes are checked; an order that the user chose is not.
_ORDERS_OF_FORMATS: dict[Any, str] = {
    box_algebra.from_coco: "xywh-edges",
    box_algebra.from_xyxy: "xyxy-edges",
    box_algebra.from_voc: "xyxy-1based",
    ANNOTATION_ORDERS["cxcywh-relative"]: "cxcywh-relative",
}


class AnnotatedObject(NamedTuple):
    """One object as in its file: `corners` are four numbers in the format's order and unit; `area` is in square pixels,
    or None for the area of the box."""

    name: str
    corners: tuple[float, float, float, float]
    difficult: bool = False
    crowd: bool = False
    area: float | None = None


class Annotation(NamedTuple):
    """One image with its objects, before the class names are known.

    Attributes:
        source: its location for error messages.
        image_id, image_path: as in `ImageRecord`.
        size: height and width of the displayed image.
        boxes, objects: the relative boxes `[G, 4]`, clipped, and the objects that they belong to.
        all_boxes, all_objects: those of all objects of the file, neither clipped nor dropped: float64 `[A, 4]`.
        kept: int64 `[G]`, the indices of `objects` in `all_objects`.
        corners: float64 `[N, 4]`, all boxes as in the file.
        frame: height and width of the image that `corners` refer to.
        order: their coordinate order, one of `ANNOTATION_ORDERS`; None if they need no check.
        source_id: the image's id as in its file, see `ImageRecord`.
    """

    source: str
    image_id: str
    image_path: Path
    size: tuple[int, int]
    boxes: np.ndarray
    objects: list[AnnotatedObject]
    all_boxes: np.ndarray
    all_objects: Sequence[AnnotatedObject]
    kept: np.ndarray
    corners: np.ndarray
    frame: tuple[int, int]
    order: str | None = None
    source_id: int | str | None = None

    def source_name(self) -> str:
        """The image's id for messages, with the type that it has in the file."""
        return repr(self.image_id if self.source_id is None else self.source_id)


def annotate(
    source: str,
    image_id: str,
    image_path: StrPath,
    objects: Sequence[AnnotatedObject],
    to_relative: Callable[..., np.ndarray],
    fixes: Counter[str],
    stated: tuple[int, int] = (0, 0),
    source_id: int | str | None = None,
) -> Annotation:
    """Makes the `Annotation` of an image; only the header of the image file is read.

    Boxes are clipped to the image; reversed ones, and those with no area inside the image, are dropped. Both are
    counted. If EXIF rotates an image by a quarter turn and the stated size is that of the stored pixels, the annotation
    tool ignored EXIF, and the boxes are rotated with the image.

    Args:
        source: the annotation's file and position in it, for error messages.
        image_id, image_path: as in `ImageRecord`.
        objects: list of `AnnotatedObject`.
        to_relative: function of `corners` `[G, 4]`, height and width that returns relative boxes.
        fixes: `Counter` to which the numbers of clipped, dropped and rotated boxes are added.
        stated: `(height, width)` in the annotation; 0 if unknown.
        source_id: see `ImageRecord`.

    Raises:
        InputError: for an unreadable image, or if the stated size is not the image's, because the boxes may belong to
            another image.
    """
    height, width, orientation = image_layout(image_path)
    frame, turn = _frame_of_boxes(source, stated, (height, width), orientation)
    corners = np.array([item.corners for item in objects], np.float64).reshape(-1, 4)
    with np.errstate(over="ignore"):  # Files may contain any finite number; overflows are clipped.
        drawn = to_relative(corners, *frame)
    # float32 as in the record: a box too thin for this precision has no area.
    clipped = box_algebra.clip(drawn).astype(np.float32)
    usable = np.flatnonzero((clipped[:, 0] < clipped[:, 2]) & (clipped[:, 1] < clipped[:, 3]))
    moved = np.any(np.abs(drawn[usable] - clipped[usable]) > _ROUNDING, axis=-1)
    fixes["boxes without area dropped"] += len(objects) - len(usable)
    fixes["boxes clipped to their image"] += int(np.sum(moved))
    fixes["boxes rotated with their image (EXIF)"] += len(usable) if turn != 1 else 0
    boxes = box_algebra.from_stored(clipped[usable], turn)
    kept = [objects[int(index)] for index in usable]
    order = _ORDERS_OF_FORMATS.get(to_relative)
    drawn = box_algebra.from_stored(drawn, turn)
    return Annotation(
        source,
        image_id,
        Path(image_path),
        (height, width),
        boxes,
        kept,
        drawn,
        objects,
        usable,
        corners,
        frame,
        order,
        source_id,
    )


def _frame_of_boxes(source, stated, size, orientation):
    """The size `(height, width)` of the image that the boxes refer to, and the EXIF orientation to apply to them."""
    if 0 in stated or tuple(stated) == size:
        return size, 1
    if tuple(stated) == size[::-1] and orientation >= 5:
        return tuple(stated), orientation
    raise InputError(
        f"{source}: found the size {stated[1]}x{stated[0]}; expected the image's, {size[1]}x{size[0]} (width x "
        "height); correct it, or remove it if the boxes match the image"
    )


def read_each(
    read: Callable[[Any], Annotation], items: Iterable[Any], skip_bad: bool, fixes: Counter[str]
) -> list[Annotation]:
    """`read(item)` for all items; with `skip_bad`, those that raise an InputError are left out and counted.

    Annotations that show the same image file are bad too: their names do not tell which picture each belongs to.

    Raises:
        InputError: without `skip_bad`, for all bad items in one message; see `in_one_go`.
    """
    annotations, problems = [], []
    for item in items:
        try:
            annotations.append(read(item))
        except InputError as error:
            problems.append(str(error))
    shared, repeated = _shared_files(annotations)
    fixes["images listed again under another id"] += repeated
    annotations = [annotation for annotation in annotations if _file_of(annotation) not in shared]
    problems += [problem for problem, _ in shared.values()]
    if problems and not skip_bad:
        raise in_one_go(problems, "images or annotations")
    lost = sum(count for _, count in shared.values()) - len(shared)
    fixes["unreadable images or annotations skipped"] += len(problems) + lost
    return annotations


def _shared_files(annotations):
    """Image files that several annotations show.

    Returns:
        `{file: (message, number of annotations)}` of those that they show under different names, of which all but one
        must have meant another file; and how often a name is listed again, under another id.
    """
    shown = {}
    for annotation in annotations:
        shown.setdefault(_file_of(annotation), []).append(annotation)
    shared, repeated = {}, 0
    for file, found in shown.items():
        if len({each.source for each in found}) > 1:
            shared[file] = (_shared_message(found), len(found))
        else:
            repeated += len(found) - 1
    return shared, repeated


def _shared_message(found):
    names = ", ".join(each.source_name() for each in found[:3])
    return (
        f"{found[0].source}: found one image file, {found[0].image_path}, for {len(found)} images "
        f"({names}{', ...' if found[3:] else ''}); expected a file for each; pass the folder that their names begin "
        "in, or remove what is there twice"
    )


def _file_of(annotation):
    return os.path.abspath(annotation.image_path)


def count_labels_without_images(labels: Iterable[Path], image_folders: Iterable[Path]) -> int:
    """The number of label files in the folders of `labels` whose image is missing.

    Args:
        labels: label files of images; the files in their folders with the same extension are counted.
        image_folders: the folders of the images.
    """
    labels = set(labels)
    kinds = {path.suffix for path in labels}
    folders = {path.parent for path in labels}
    written = {path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.suffix in kinds}
    stems = {
        path.stem
        for folder in set(image_folders)
        if folder.is_dir()
        for path in folder.iterdir()
        if path not in written
    }
    return sum(path not in labels and path.stem not in stems | _LISTS for path in written)
