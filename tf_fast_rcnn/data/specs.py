"""Data sets by name: SPEC is KIND:LOCATION[@SPLIT], SPEC[:80%] a random part of it, and SPEC+SPEC a union."""

from __future__ import annotations

import functools
import operator
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tf_fast_rcnn.data.prepared.read import read_prepared
from tf_fast_rcnn.data.readers.coco import read_coco
from tf_fast_rcnn.data.readers.csv_boxes import read_csv
from tf_fast_rcnn.data.readers.tfds import read_tfds
from tf_fast_rcnn.data.readers.voc import read_voc, read_voc_images
from tf_fast_rcnn.data.readers.yolo import read_yolo
from tf_fast_rcnn.data.selection import select_part, without_part
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.records import DetectionDataset
    from tf_fast_rcnn.files import StrPath

# The plus sign of a union stands before a kind and its colon; any other belongs to a location ("voc:c++/cells@train").
# A kind has two letters or more: one letter and a colon is a Windows drive.
_UNION = re.compile(r"\+(?=[a-z]{2,}:)")


def load_dataset(
    spec: str, class_names: Sequence[str] | None = None, skip_bad: bool = False, cache_dir: StrPath | None = None
) -> DetectionDataset:
    """Reads a data set, or the union of several.

    Kinds:

    - `voc:DIR@SPLIT`: the folder that holds Annotations/, ImageSets/Main/ and JPEGImages/ (see `read_voc`).
    - `coco:JSON[,IMAGES]`: COCO's instances file and the folder of its images (see `read_coco`).
    - `csv:FILE[,IMAGES]`: a line for each box, and the folder of the images (see `read_csv`).
    - `yolo:DIR[@SPLIT]`: the folder that holds data.yaml, images/ and labels/ (see `read_yolo`).
    - `tfds:NAME@SPLIT`: a data set of TensorFlow Datasets that is on disk, as tfds:voc/2007@train (see `read_tfds`).
    - `prepared:DIR`: the folder that `prepare` wrote.

    A SPEC may end with a part: "voc:DIR@trainval[:80%]" and "voc:DIR@trainval[80%:]" are complementary parts of a
    random permutation of its images, "[:80%,seed=3]" of another (see `select_part`; also `split_dataset`). Shells want
    the brackets quoted.

    Args:
        spec: one of these, or several joined by "+", as in "voc:VOC2007@trainval+voc:VOC2012@trainval".
        class_names: the classes in the order of their labels 1..K; default: those of the data set (of a union: those of
            all parts, sorted). Read test data with the training data's.
        skip_bad: leave out unreadable images and annotations, counted in `fixes`, instead of raising.
        cache_dir: where the images of `tfds:` are written; default: $TF_FAST_RCNN_CACHE, else the user's cache folder.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for an unknown kind, split or class, and for what the kind's reader refuses.

    Example:
        >>> train = load_dataset("voc:cells@train")                                      # doctest: +SKIP
        >>> test = load_dataset("voc:cells@test", class_names=train.class_names)         # doctest: +SKIP
    """
    parts = [_load_part(part, class_names, skip_bad, cache_dir) for part in _UNION.split(str(spec))]
    if class_names is None and len(parts) > 1:
        class_names = sorted({name for part in parts for name in part.class_names})
        parts = [part.with_class_names(class_names) for part in parts]
    return functools.reduce(operator.add, parts)


def _load_part(spec, class_names, skip_bad, cache_dir):
    whole, part = without_part(spec)
    kind, colon, location = whole.partition(":")
    if not colon or kind not in _READERS or not location:
        raise InputError(
            f"data set {spec!r}: found no known kind; expected KIND:LOCATION[@SPLIT] with one of the kinds "
            f"{', '.join(_READERS)}"
        )
    dataset = _READERS[kind](location, class_names, skip_bad, cache_dir)
    return dataset if part is None else select_part(dataset, part)


def load_images(
    spec: str, class_names: Sequence[str], skip_bad: bool = False, cache_dir: StrPath | None = None
) -> DetectionDataset:
    """As `load_dataset`, for detection: of `voc:` the annotations are not read, which VOC's test sets do not have.

    Example:
        >>> load_images("voc:VOCdevkit/VOC2012@test", train.class_names)                # doctest: +SKIP
    """
    parts = []
    for part in _UNION.split(str(spec)):
        whole, share = without_part(part)
        if not whole.startswith("voc:"):
            parts.append(_load_part(part, class_names, skip_bad, cache_dir))
            continue
        directory, split = _location_and_split(whole.removeprefix("voc:"))
        dataset = read_voc_images(directory, split, class_names, skip_bad)
        parts.append(dataset if share is None else select_part(dataset, share))
    return functools.reduce(operator.add, parts)


def split_name(spec: str) -> str:
    """The split that a SPEC names, of a union that of its last part; "" for none.

    Example:
        >>> split_name("voc:VOCdevkit/VOC2012@test[:50%]")
        'test'
    """
    return _location_and_split(without_part(str(spec))[0])[1]


def coco_file(spec: str) -> str | None:
    """The instances file of a SPEC that is one `coco:`; None for any other.

    Example:
        >>> coco_file("coco:instances.json,images[:50%]")
        'instances.json'
    """
    whole, _ = without_part(str(spec))
    kind, _, location = whole.partition(":")
    return _file_and_images(location)[0] if kind == "coco" and len(_UNION.split(str(spec))) == 1 else None


def _location_and_split(location):
    """Both sides of the last @; one that stands inside a path is no sign of a split."""
    directory, _, split = location.rpartition("@")
    if not directory or any(slash in split for slash in {os.sep, "/"}):
        return location, ""
    return directory, split


def _file_and_images(location):
    """The file, which may have commas in its name, and the folder after the next comma; None where there is none."""
    commas = [position for position, character in enumerate(location) if character == ","]
    for end in [len(location), *commas]:
        if os.path.isfile(location[:end]):
            return location[:end], location[end + 1 :] or None
    # No such file: the reader says so.
    path, _, images = location.partition(",")
    return path, images or None


def _load_voc(location, class_names, skip_bad, cache_dir):
    # Of a location without split, read_voc names the splits that there are.
    return read_voc(*_location_and_split(location), class_names, skip_bad)


def _load_coco(location, class_names, skip_bad, cache_dir):
    return read_coco(*_file_and_images(location), class_names, skip_bad)


def _load_csv(location, class_names, skip_bad, cache_dir):
    return read_csv(*_file_and_images(location), class_names, skip_bad)


def _load_yolo(location, class_names, skip_bad, cache_dir):
    return read_yolo(*_location_and_split(location), class_names, skip_bad)


def _load_tfds(location, class_names, skip_bad, cache_dir):
    return read_tfds(*_location_and_split(location), class_names, skip_bad, cache_dir)


def _load_prepared(location, class_names, skip_bad, cache_dir):
    dataset = read_prepared(location)
    return dataset if class_names is None else dataset.with_class_names(class_names)


_READERS = {
    "voc": _load_voc,
    "coco": _load_coco,
    "csv": _load_csv,
    "yolo": _load_yolo,
    "tfds": _load_tfds,
    "prepared": _load_prepared,
}
