"""Loads data sets by SPEC: KIND:LOCATION[@SPLIT]; SPEC[:80%] is a random part and SPEC+SPEC a union."""

from __future__ import annotations

import functools
import operator
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tf_fast_rcnn.data.formats import hint
from tf_fast_rcnn.data.prepared.read import read_prepared
from tf_fast_rcnn.data.readers.coco import read_coco, read_coco_images
from tf_fast_rcnn.data.readers.csv_boxes import read_csv
from tf_fast_rcnn.data.readers.cvat import read_cvat
from tf_fast_rcnn.data.readers.imagefolder import read_imagefolder
from tf_fast_rcnn.data.readers.kitti import read_kitti
from tf_fast_rcnn.data.readers.label_studio import read_label_studio
from tf_fast_rcnn.data.readers.labelme import read_labelme
from tf_fast_rcnn.data.readers.tfds import read_tfds
from tf_fast_rcnn.data.readers.tfrecord import read_tfrecord
from tf_fast_rcnn.data.readers.via import read_via
from tf_fast_rcnn.data.readers.voc import read_voc, read_voc_images
from tf_fast_rcnn.data.readers.yolo import read_yolo
from tf_fast_rcnn.data.selection import select_part, without_part
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath

# The plus sign of a union is followed by a kind and a colon; any other belongs to a location ("voc:c++/cells@train").
# A kind has at least two letters: one letter and a colon is a Windows drive.
_UNION = re.compile(r"\+(?=[a-z][a-z-]*[a-z]:)")


def load_dataset(
    spec: str,
    class_names: Sequence[str] | None = None,
    skip_bad: bool = False,
    cache_dir: StrPath | None = None,
    boxes_order: str | None = None,
) -> DetectionDataset:
    """Reads a data set, or the union of several.

    Kinds:

    - `voc:DIR[@SPLIT]`: the folder that contains Annotations/, ImageSets/Main/ and JPEGImages/, or images and XML
      files (see `read_voc`).
    - `coco:JSON[,IMAGES]`: COCO's instances file and the folder of its images (see `read_coco`).
    - `csv:FILE[,IMAGES]`: a CSV file with one box per line, and the folder of the images (see `read_csv`).
    - `yolo:DIR[@SPLIT]`: the folder that contains data.yaml, images/ and labels/, or images with their labels, or the
      YAML file itself (see `read_yolo`).
    - `labelme:DIR`: the folder with LabelMe's JSON files and their images (see `read_labelme`).
    - `cvat:XML[,IMAGES][@SUBSET]`: "CVAT for images" and the folder of its images (see `read_cvat`).
    - `label-studio:JSON[,IMAGES]`: Label Studio's export and the folder of its images (see `read_label_studio`).
    - `via:JSON[,IMAGES]`: annotations of the VGG Image Annotator and the folder of its images (see `read_via`).
    - `kitti:DIR[@SPLIT]`: the folder that contains image_2/ and label_2/ (see `read_kitti`).
    - `imagefolder:DIR[@SPLIT]`: the folder that contains metadata.jsonl and images (see `read_imagefolder`).
    - `tfrecord:FILE`: records of the TensorFlow Object Detection API, or a pattern (see `read_tfrecord`).
    - `tfds:NAME@SPLIT`: a TensorFlow Datasets data set that is on disk, e.g. tfds:voc/2007@train (see `read_tfds`).
    - `prepared:DIR`: the folder that `prepare` wrote.

    A SPEC may end with a part: "voc:DIR@trainval[:80%]" and "voc:DIR@trainval[80%:]" are complementary parts of a
    random permutation of the images; "[:80%,seed=3]" uses another permutation (see `select_part` and `split_dataset`).
    Quote the brackets, or your shell will expand them.

    Args:
        spec: one of these, or several joined by "+", as in "voc:VOC2007@trainval+voc:VOC2012@trainval".
        class_names: the classes in the order of their ids 1..K; default: those of the data set (for a union: those of
            all parts, sorted). Read test data with the class names of the training data.
        skip_bad: leave out unreadable images and annotations, and count them in `fixes`, instead of raising.
        cache_dir: where the images of `tfds:` are written; default: $TF_FAST_RCNN_CACHE, else the user's cache folder.
        boxes_order: coordinate order and unit of the boxes of `voc:`, `coco:` and `csv:`, one of `ANNOTATION_ORDERS`
            (docs/data.md); default: that of the format, which is checked.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for an unknown kind, split or class, and for data that the reader of the kind rejects.

    Example:
        >>> train = load_dataset("voc:cells@train")                                      # doctest: +SKIP
        >>> test = load_dataset("voc:cells@test", class_names=train.class_names)         # doctest: +SKIP
    """
    parts = [_load_part(part, class_names, skip_bad, cache_dir, boxes_order) for part in _UNION.split(str(spec))]
    return _joined(parts, class_names)


def _load_part(spec, class_names, skip_bad, cache_dir, boxes_order=None):
    whole, part = without_part(spec)
    kind, colon, location = whole.partition(":")
    if not colon or kind not in _READERS or not location:
        raise InputError(
            f"data set {spec!r}: unknown kind; expected KIND:LOCATION[@SPLIT] with one of the kinds "
            f"{', '.join(_READERS)}{_hint('', whole)}"
        )
    arguments = {"class_names": class_names, "skip_bad": skip_bad}
    if boxes_order is not None and kind != "prepared":
        if kind not in _WITH_ORDERS:
            raise InputError(
                f"data set {spec!r}: found the boxes order {boxes_order}, which is for {', '.join(_WITH_ORDERS)}; "
                "leave it out"
            )
        arguments["boxes_order"] = boxes_order
    try:
        dataset = _READERS[kind](location, cache_dir, **arguments)
    except InputError as error:
        raise InputError(f"{error}{_hint(kind, location)}") from None
    return dataset if part is None else select_part(dataset, part)


def _hint(kind, location):
    """The end of a message: the kind of data that is at the location, if it is another one."""
    places = (location, _location_and_split(location)[0], location.partition(",")[0])
    place = next((place for place in places if place and os.path.exists(place)), "")
    return hint(kind, place) if place else ""


def load_images(
    spec: str, class_names: Sequence[str] | None, skip_bad: bool = False, cache_dir: StrPath | None = None
) -> DetectionDataset:
    """As `load_dataset`, for detection: `voc:` and `coco:` are read without annotations, which test sets do not have.

    Without class names, they are those of the data set; `voc:` has them in its annotations.

    Example:
        >>> load_images("voc:VOCdevkit/VOC2012@test", train.class_names)                # doctest: +SKIP
    """
    parts = []
    for part in _UNION.split(str(spec)):
        whole, share = without_part(part)
        kind, _, location = whole.partition(":")
        if kind == "coco":
            path, images = _file_and_images(location)
            dataset = read_coco_images(path, images, class_names, skip_bad)
        elif kind == "voc" and class_names is not None:
            directory, split = _location_and_split(location)
            dataset = read_voc_images(directory, split, class_names, skip_bad)
        else:
            parts.append(_load_part(part, class_names, skip_bad, cache_dir))
            continue
        parts.append(dataset if share is None else select_part(dataset, share))
    return _joined(parts, class_names)


def _joined(parts, class_names):
    """The union of data sets; without class names, the classes are those of all parts, sorted."""
    if class_names is None and len(parts) > 1:
        class_names = sorted({name for part in parts for name in part.class_names})
        parts = [part.with_class_names(class_names) for part in parts]
    return functools.reduce(operator.add, parts)


def split_name(spec: str) -> str:
    """The split that a SPEC names (in a union, that of the last part); "" if it names none.

    Example:
        >>> split_name("voc:VOCdevkit/VOC2012@test[:50%]")
        'test'
    """
    return _location_and_split(without_part(str(spec))[0])[1]


def coco_file(spec: str) -> str | None:
    """The instances file of a SPEC that is a single `coco:`; None for any other SPEC.

    Example:
        >>> coco_file("coco:instances.json,images[:50%]")
        'instances.json'
    """
    whole, _ = without_part(str(spec))
    kind, _, location = whole.partition(":")
    return _file_and_images(location)[0] if kind == "coco" and len(_UNION.split(str(spec))) == 1 else None


def _location_and_split(location):
    """Splits at the last @, unless it is inside a path and so does not mark a split."""
    directory, _, split = location.rpartition("@")
    if not directory or any(slash in split for slash in {os.sep, "/"}):
        return location, ""
    return directory, split


def _file_and_images(location):
    """The file, whose name may contain commas, and the folder after the next comma; None if there is no folder."""
    commas = [position for position, character in enumerate(location) if character == ","]
    for end in [len(location), *commas]:
        if os.path.isfile(location[:end]):
            return location[:end], location[end + 1 :] or None
    # No such file: the reader reports it.
    path, _, images = location.partition(",")
    return path, images or None


def _load_voc(location, cache_dir, **arguments):
    return read_voc(*_location_and_split(location), **arguments)


def _load_coco(location, cache_dir, **arguments):
    return read_coco(*_file_and_images(location), **arguments)


def _load_csv(location, cache_dir, **arguments):
    path, images = _file_and_images(location)
    path, split = (path, "") if os.path.exists(path) else _location_and_split(path)
    return read_csv(path, images, split=split, **arguments)


def _load_yolo(location, cache_dir, **arguments):
    return read_yolo(*_location_and_split(location), **arguments)


def _load_tfds(location, cache_dir, **arguments):
    return read_tfds(*_location_and_split(location), **arguments, cache_dir=cache_dir)


def _load_prepared(location, cache_dir, class_names, skip_bad):
    dataset = read_prepared(location)
    return dataset if class_names is None else dataset.with_class_names(class_names)


def _load_labelme(location, cache_dir, **arguments):
    return read_labelme(location, **arguments)


def _load_cvat(location, cache_dir, **arguments):
    place, split = (location, "") if os.path.isfile(location) else _location_and_split(location)
    return read_cvat(*_file_and_images(place), split, **arguments)


def _load_label_studio(location, cache_dir, **arguments):
    return read_label_studio(*_file_and_images(location), **arguments)


def _load_via(location, cache_dir, **arguments):
    return read_via(*_file_and_images(location), **arguments)


def _load_kitti(location, cache_dir, **arguments):
    return read_kitti(*_location_and_split(location), **arguments)


def _load_imagefolder(location, cache_dir, **arguments):
    return read_imagefolder(*_location_and_split(location), **arguments)


def _load_tfrecord(location, cache_dir, **arguments):
    return read_tfrecord(location, cache_dir=cache_dir, **arguments)


_READERS = {
    "voc": _load_voc,
    "coco": _load_coco,
    "csv": _load_csv,
    "yolo": _load_yolo,
    "tfds": _load_tfds,
    "labelme": _load_labelme,
    "cvat": _load_cvat,
    "label-studio": _load_label_studio,
    "via": _load_via,
    "kitti": _load_kitti,
    "imagefolder": _load_imagefolder,
    "tfrecord": _load_tfrecord,
    "prepared": _load_prepared,
}
# The kinds whose boxes may have another coordinate order than the format's.
_WITH_ORDERS = ("voc", "coco", "csv")
