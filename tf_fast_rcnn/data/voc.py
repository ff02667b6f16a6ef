"""Pascal VOC folders: Annotations/*.xml, ImageSets/Main/SPLIT.txt, JPEGImages/*.

The rules are those of the VOC devkit; where files of real users differ from it, what is read is said at `read_voc`.
"""

import math
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import ParseError

import defusedxml.ElementTree
import numpy as np
from defusedxml import DefusedXmlException

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.images import image_layout
from tf_fast_rcnn.data.records import DetectionDataset, ImageRecord
from tf_fast_rcnn.errors import InputError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_EXTENSIONS = tuple(
    cased
    for extension in (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
    for cased in (extension, extension.upper())
)


class _Annotation(NamedTuple):
    """One XML file, before the class names are known."""

    image_id: str
    xml_path: Path
    image_path: Path
    size: tuple[int, int]
    boxes: np.ndarray
    names: list[str]
    difficult: list[bool]


def read_voc(directory, split, class_names=None, skip_bad=False):
    """Reads one split of a data set in Pascal VOC's layout. Of images only the headers are read.

    - An image is `JPEGImages/ID` with any usual extension, else the XML's `<filename>`; ID is a line of
      `ImageSets/Main/SPLIT.txt`, where the second column of VOC's class lists (-1, 0, 1) is ignored.
    - Boxes are 1-based inclusive pixels, whole or fractional. Those beyond the image are clipped; those with
      xmin >= xmax, ymin >= ymax, or no area inside the image are dropped. Both are counted in `mended`.
    - `<difficult>` and `<size>` may be missing. A size of 0 counts as missing.
    - Where EXIF shows an image on its side and `<size>` is that of the stored pixels, the annotation tool ignored EXIF:
      its boxes are turned with the image. Any other size that is not the image's is an error, because the boxes may
      belong to another picture.

    Args:
        directory: folder that holds Annotations/, ImageSets/Main/ and JPEGImages/.
        split: name of a file of ImageSets/Main, without .txt.
        class_names: the classes, in the order of their labels 1..K; default: those found in this split, sorted. Give a
            test split its training split's.
        skip_bad: leave out unreadable annotations and images, counted in `mended`, instead of raising.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for an unknown or empty split, a class that is not in `class_names`, and, without `skip_bad`, the
            first annotation or image that is missing or broken.

    Example:
        >>> train = read_voc("VOCdevkit/VOC2007", "trainval")                              # doctest: +SKIP
        >>> test = read_voc("VOCdevkit/VOC2007", "test", class_names=train.class_names)    # doctest: +SKIP
    """
    directory = Path(directory)
    mended = Counter()
    annotations = []
    for image_id in _image_ids(directory, split, mended):
        try:
            annotations.append(_read_annotation(directory, image_id, mended))
        except InputError:
            if not skip_bad:
                raise
            mended["unreadable images or annotations skipped"] += 1
    if class_names is None:
        class_names = sorted({name for annotation in annotations for name in annotation.names})
    records = [_record(annotation, tuple(class_names)) for annotation in annotations]
    return DetectionDataset(f"voc:{directory}@{split}", class_names, records, mended)


def _image_ids(directory, split, mended):
    lists = directory / "ImageSets" / "Main"
    known = ", ".join(sorted(path.stem for path in lists.glob("*.txt"))) or "none"
    if not lists.is_dir():
        raise InputError(
            f"{directory}: found no folder ImageSets/Main; expected Annotations/, ImageSets/Main/ and JPEGImages/; "
            "give the folder that holds them"
        )
    path = lists / f"{split}.txt"
    if not split or not path.is_file():
        raise InputError(
            f"{directory}: found no split {split!r}; expected one of ImageSets/Main: {known}; name it as @SPLIT"
        )
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: found bytes that are no UTF-8 ({error}); expected one image name a line; mend it"
        ) from None
    names = [_without_column(line.strip(), directory) for line in lines if line.strip()]
    if not names:
        raise InputError(f"{path}: found no image names; expected one a line; fill it or use another split: {known}")
    unique = list(dict.fromkeys(names))
    mended["repeated images of the split left out"] += len(names) - len(unique)
    return unique


def _without_column(line, directory):
    """The image's name of a line like "000012 -1"; a name may itself end so ("scan 1")."""
    match = re.fullmatch(r"(.+?)\s+-?[01]", line)
    if match is None or _xml_path(directory, line).is_file():
        return line
    return match[1]


def _xml_path(directory, image_id):
    return directory / "Annotations" / f"{image_id}.xml"


def _read_annotation(directory, image_id, mended):
    path = _xml_path(directory, image_id)
    root = _parse(path)
    image_path = _find_image(directory, image_id, root)
    height, width, orientation = image_layout(image_path)
    frame, turn = _frame_of_boxes(path, root, (height, width), orientation)
    objects = root.findall("object")
    corners = [_corners(path, number, element) for number, element in enumerate(objects, 1)]
    names = [_class_name(path, number, element) for number, element in enumerate(objects, 1)]
    difficult = [_text(element, "difficult") in ("1", "true") for element in objects]
    boxes, kept = _usable_boxes(np.array(corners, np.float64).reshape(-1, 4), frame, mended)
    mended["boxes turned with their image (EXIF)"] += len(boxes) if turn != 1 else 0
    return _Annotation(
        image_id,
        path,
        image_path,
        (height, width),
        box_algebra.from_stored(boxes, turn),
        [names[index] for index in kept],
        [difficult[index] for index in kept],
    )


def _parse(path):
    try:
        root = defusedxml.ElementTree.parse(path).getroot()
    except FileNotFoundError:
        raise InputError(
            f"{path}: found no such file; expected the annotation of an image of the split; add it"
        ) from None
    except DefusedXmlException:
        raise InputError(
            f"{path}: found XML entities; expected a plain annotation; remove the <!ENTITY> lines"
        ) from None
    except (ParseError, ValueError, LookupError, OSError) as error:
        raise InputError(f"{path}: found broken XML ({error}); expected a VOC annotation; mend or remove it") from None
    if root.tag != "annotation":
        raise InputError(f"{path}: found <{root.tag}>; expected <annotation>, as in Pascal VOC; mend or remove it")
    return root


def _find_image(directory, image_id, root):
    folder = directory / "JPEGImages"
    # <filename> may be a path on the annotator's machine, with either kind of slash.
    filename = re.split(r"[\\/]", _text(root, "filename"))[-1]
    candidates = [folder / f"{image_id}{extension}" for extension in _EXTENSIONS]
    for candidate in [*candidates, folder / filename] if filename else candidates:
        if candidate.is_file():
            return candidate
    raise InputError(
        f"{folder / image_id}: found no image with an extension of {', '.join(_EXTENSIONS[::2])}"
        f"{f' and no {filename}' if filename else ''}; expected the image of {_xml_path(directory, image_id)}; add it"
    )


def _frame_of_boxes(path, root, size, orientation):
    """The size `(height, width)` in which the boxes are drawn, and the EXIF turn that they still need."""
    stated = tuple(_pixels(path, root, side) for side in ("height", "width"))
    if 0 in stated or stated == size:
        return size, 1
    if stated == size[::-1] and orientation >= 5:
        return stated, orientation
    raise InputError(
        f"{path}: found <size> {stated[1]}x{stated[0]}; expected the image's, {size[1]}x{size[0]} (width x height); "
        "correct it, or remove <size> if the boxes fit the image"
    )


def _pixels(path, root, side):
    text = _text(root, f"size/{side}") or "0"
    try:
        return round(float(text))
    except (ValueError, OverflowError):
        raise InputError(f"{path}: found <{side}> {text!r}; expected pixels; correct it or remove <size>") from None


def _corners(path, number, element):
    values = []
    for corner in _CORNERS:
        text = _text(element, f"bndbox/{corner}")
        try:
            values.append(float(text))
        except ValueError:
            values.append(math.nan)
        if not math.isfinite(values[-1]):
            raise InputError(
                f"{path}: found {corner} {text!r} in object {number}; expected a number; mend or remove the object"
            )
    return values


def _class_name(path, number, element):
    name = _text(element, "name")
    if not name:
        raise InputError(f"{path}: found no <name> in object {number}; expected its class; add it or remove the object")
    return name


def _text(element, path):
    return (element.findtext(path) or "").strip()


def _usable_boxes(corners, frame, mended):
    """Relative boxes inside the image of those `corners` [G, 4] that have an area, and their indices."""
    drawn = box_algebra.from_voc(corners, *frame)
    clipped = box_algebra.clip(drawn)
    ordered = (corners[:, 0] < corners[:, 2]) & (corners[:, 1] < corners[:, 3])
    usable = ordered & (box_algebra.area(clipped) > 0)
    mended["boxes without area dropped"] += int(np.sum(~usable))
    mended["boxes clipped to their image"] += int(np.sum(usable & np.any(drawn != clipped, axis=-1)))
    return clipped[usable], np.flatnonzero(usable)


def _record(annotation, class_names):
    unknown = [name for name in annotation.names if name not in class_names]
    if unknown:
        raise InputError(
            f"{annotation.xml_path}: found class {unknown[0]!r}; expected one of {', '.join(class_names)}; "
            "correct its spelling or add it to the class names"
        )
    return ImageRecord(
        image_id=annotation.image_id,
        image_path=str(annotation.image_path),
        height=annotation.size[0],
        width=annotation.size[1],
        boxes=annotation.boxes,
        labels=[class_names.index(name) + 1 for name in annotation.names],
        difficult=annotation.difficult,
    )
