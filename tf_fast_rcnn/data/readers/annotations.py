"""Shared parts of all annotation readers: from parsed annotations to `ImageRecord`s.

A reader parses its files into `AnnotatedObject`s. For all formats, the functions here convert their boxes to the
displayed image, clip them, drop those without area, and number the classes.
"""

from __future__ import annotations

import math
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.box_orders import ANNOTATION_ORDERS
from tf_fast_rcnn.data.images import image_layout
from tf_fast_rcnn.data.readers.box_checks import check_boxes
from tf_fast_rcnn.data.records import CocoObjects, DetectionDataset, ImageRecord
from tf_fast_rcnn.errors import InputError, in_one_go

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")

# Boxes rounded to a few decimals may exceed the image by this much, relative to its size, without counting as clipped.
_ROUNDING = 1e-4

# Text files beside labels that are none: names of classes, and lists of images.
_LISTS = {"classes", "predefined_classes", "obj", "train", "val", "valid", "test", "notes", "README"}
# Folders of a name from another machine that are looked for here, from its end.
_MAX_FOLDERS = 32

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


def images_in(folder: StrPath) -> list[Path]:
    """The image files of a folder, sorted, without those of folders in it.

    Raises:
        InputError: if there are none.
    """
    found = [path for path in sorted(Path(folder).iterdir()) if is_image_file(path)]
    if not found:
        raise no_images(folder)
    return found


def no_images(place: StrPath) -> InputError:
    """The `InputError` for a folder or pattern without image files."""
    return InputError(
        f"{place}: found no images; expected files that end in {', '.join(IMAGE_EXTENSIONS)}; check the path, or give "
        "a quoted pattern such as 'DIR/**/*.jpg'"
    )


def is_image_file(path: Path) -> bool:
    """Whether a path is a file with one of `IMAGE_EXTENSIONS`."""
    return path.suffix.lower() in IMAGE_EXTENSIONS and path.is_file()


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


def to_dataset(
    name: str,
    annotations: Sequence[Annotation],
    class_names: Sequence[str] | None,
    fixes: Counter[str],
    is_coco: bool = False,
) -> DetectionDataset:
    """Makes a `DetectionDataset` of annotations; if `class_names` is None, the classes that occur are sorted by name.

    Args:
        name: the SPEC.
        annotations: one `Annotation` per image.
        class_names: names of the classes 1..K.
        fixes: what `annotate` counted.
        is_coco: whether COCO's own metrics are to be those of the file; see `CocoObjects`.

    Raises:
        InputError: for a class that is not in `class_names`, or if there are no images.
    """
    if not annotations:
        raise InputError(f"{name}: found no usable images; expected at least one; check the annotations")
    check_boxes(annotations)
    if class_names is None:
        class_names = sorted({item.name for annotation in annotations for item in annotation.objects})
    labels = {class_name: label for label, class_name in enumerate(class_names, start=1)}
    crowds = [item.crowd for annotation in annotations for item in annotation.objects]
    if crowds and all(crowds):
        fixes["crowds (iscrowd=1), which all objects are: training and evaluation ignore them"] += len(crowds)
    records = [_record(annotation, labels, is_coco) for annotation in annotations]
    return DetectionDataset(name, class_names, records, fixes)


def _record(annotation, labels, is_coco):
    for item in annotation.objects:
        if item.name not in labels:
            raise InputError(
                f"{annotation.source}: found class {item.name!r}; expected one of {', '.join(labels)}; "
                "correct its spelling or add it to the class names"
            )
    return ImageRecord(
        image_id=annotation.image_id,
        image_path=str(annotation.image_path),
        height=annotation.size[0],
        width=annotation.size[1],
        boxes=annotation.boxes,
        class_ids=[labels[item.name] for item in annotation.objects],
        difficult=[item.difficult for item in annotation.objects],
        crowd=[item.crowd for item in annotation.objects],
        areas=_areas(annotation),
        coco_objects=_coco_objects(annotation, labels) if is_coco else None,
        source_id=annotation.source_id,
    )


def _coco_objects(annotation, labels):
    """The `CocoObjects` of an annotation; None if its boxes restore them."""
    windows = _windows(annotation.all_boxes, annotation.size, 9)
    if len(annotation.kept) == len(windows) and np.array_equal(_windows(annotation.boxes, annotation.size, 3), windows):
        return None
    items = annotation.all_objects
    stated = np.array([np.nan if item.area is None else item.area for item in items], np.float64)
    objects = np.full(len(items), -1)
    objects[annotation.kept] = np.arange(len(annotation.kept))
    coco = CocoObjects(
        windows=windows,
        areas=np.where(np.isnan(stated), windows[:, 2] * windows[:, 3], stated),
        class_ids=np.array([labels.get(item.name, 0) for item in items], np.int32),
        crowd=np.array([item.crowd for item in items], bool),
        objects=objects,
    )
    return coco.relabelled(np.arange(len(labels) + 1, dtype=np.int32))  # without dropped objects of unknown classes


def _windows(boxes, size, decimals):
    """COCO's x, y, width and height in pixels, rounded to undo the rounding of the relative boxes."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.round(box_algebra.to_coco(boxes.astype(np.float64), *size), decimals)


def _areas(annotation):
    """The areas of objects as fractions of the image's; None if no object has a stated area."""
    stated = np.array([np.nan if item.area is None else item.area for item in annotation.objects])
    if np.isnan(stated).all():
        return None
    of_boxes = _windows(annotation.boxes, annotation.size, 3)[:, 2:].prod(axis=1)
    return np.where(np.isnan(stated), of_boxes, stated) / (annotation.size[0] * annotation.size[1])


def find_image(source: str, folder: Path, name: str) -> Path:
    """Finds the image file that an annotation names, possibly by a path on the machine where it was created.

    Tried in this order: the name as a path relative to `folder` (or absolute); the same with backslashes replaced by
    slashes; and that without its first folder, its first two folders, and so on. Composed and decomposed accents, which
    macOS exchanges, are the same. `read_each` refuses files that several images come down to.

    Raises:
        InputError: if none of these exists, or if the name without its folders is found in `folder`, but with them
            beside it: then `folder` is that of other images.
    """
    slashed = name.replace("\\", "/")
    found = _existing(folder, name) or _existing(folder, slashed)
    if found is not None:
        return found
    parts = slashed.split("/")[-_MAX_FOLDERS:]
    tails = ["/".join(parts[first:]) for first in range(len(parts))]
    found = next(filter(None, (_existing(folder, tail) for tail in tails)), None)
    if found is None:
        raise InputError(f"{source}: no such image: {folder / name}; add it or correct the name")
    beside = Path(os.path.normpath(folder / ".."))
    named = next(filter(None, (_existing(beside, tail) for tail in tails[:-1])), None)
    if named is not None and not os.path.samefile(named, found):
        raise InputError(
            f"{source}: found {found} for {name}, but also {named}; expected one such file; pass {beside} as the "
            "folder of the images"
        )
    return found


def _existing(folder, name):
    """The file of a name below a folder, in the Unicode form that it has there; None if there is none."""
    for written in dict.fromkeys((name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))):
        if os.path.isfile(folder / written):  # Path.is_file raises for a name that is too long.
            return folder / written
    return None


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


def finite(text: Any) -> float | None:
    """A finite number from text or a JSON value, or None."""
    try:
        value = float(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) and not isinstance(text, bool) else None


def whole_pixels(text: Any) -> int | None:
    """An image's side in whole pixels from text or a JSON value: 0 if missing, None if it is not a number."""
    value = finite(text) if text not in (None, "") else 0.0
    return None if value is None else round(value)


def read_text(path: StrPath, expected: str) -> str:
    """Reads a UTF-8 text file, with or without a byte order mark.

    Args:
        path: the file.
        expected: a description of the expected content, for error messages.

    Raises:
        InputError: if the file is missing or not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid UTF-8 ({error}); expected {expected}; re-save the file as UTF-8") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot read the file ({error}); expected {expected}; check the path") from None
