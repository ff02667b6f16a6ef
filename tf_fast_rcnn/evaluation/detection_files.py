"""Detection files shared with other tools: COCO results and Pascal VOC comp3 and comp4 files.

- COCO results: see `data.coco_results`; `data.writers.coco_results` writes them.
- VOC (development kit, section "Detection task"): one text file per class, `comp4_det_SPLIT_CLASS.txt` (comp3 if the
  detector was trained on VOC only), with one line per detection: image id, score, xmin, ymin, xmax, ymax, in 1-based
  pixels with inclusive corners.
"""

from __future__ import annotations

import glob
import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.coco_results import read_results
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.image_names import KINDS, ImageNames
from tf_fast_rcnn.data.writers.coco_results import check_category_ids
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.evaluation.detection_checks import ImageReading, check_classes, check_images
from tf_fast_rcnn.files import write_text

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.records import ImageRecord
    from tf_fast_rcnn.files import StrPath

_VOC_NAME = re.compile(r"comp[34]_det_.+\.txt")
# If no coordinate in a file reaches this value, the boxes are relative to the image, not in pixels.
_LEAST_PIXELS = 2.0
# How far a detection may extend beyond the image, as a fraction of the side, before another box format is assumed.
_MARGIN = 0.1


class _Row(NamedTuple):
    """One detection in a file: the index of its image in the dataset, its class 1..K, its numbers as written, and its
    category id if it has one."""

    image: int
    label: int
    score: float
    box: tuple
    category: object = None


def read_detections(
    path: StrPath,
    dataset: DetectionDataset,
    category_ids: Mapping[str, int] | int | None = None,
    images_by: str | None = None,
) -> list[Detections]:
    """Reads the detections that any tool has written for the images of a dataset.

    The images of a file are known by their ids, by their file names, or by these without their extension, whichever
    fits all of them; docs/evaluation.md has the rules.

    Args:
        path: COCO results (a .json file); or VOC files: a folder with a comp3 or comp4 file for each class, a pattern
            ("results/comp4_det_val_*.txt"), or the file of the only class. A class without detections needs an empty
            file.
        dataset: `DetectionDataset`.
        category_ids: the category id of each class name in COCO results, as returned by `coco_category_ids`; a number
            for the first class, from which the others are counted; None for the class ids 1..K.
        images_by: how the file names images: a key of `image_names.KINDS`; None to find out.

    Returns:
        A list of `Detections`, one per image in the order of the dataset, sorted by decreasing score (the first line
        of ties first); relative boxes, float64.

    Raises:
        InputError: for missing, empty or truncated files or files in another format, images and classes that are not
            in the dataset, numbers that are not finite, boxes in another unit or coordinate order, and numbers that
            count images or classes in another way.

    Example:
        >>> detections = read_detections("results/comp4_det_val_*.txt", val)     # doctest: +SKIP
        >>> print(score_detections(val, detections, "voc07").table())            # doctest: +SKIP
    """
    return read_matched(path, dataset, category_ids, images_by)[0]


def read_matched(
    path: StrPath,
    dataset: DetectionDataset,
    category_ids: Mapping[str, int] | int | None = None,
    images_by: str | None = None,
) -> tuple[list[Detections], str]:
    """As `read_detections`; also returns a line that says how the images of the file were matched.

    Example:
        >>> read_matched("predictions.json", val)[1]                            # doctest: +SKIP
        'predictions.json: detections of 128 of 128 images, matched by file name without extension'
    """
    is_coco = Path(path).suffix == ".json"
    if is_coco:
        rows, readings = _coco_rows(Path(path), dataset, category_ids, images_by)
        convert, other_convert = boxes.from_coco, boxes.from_xyxy
    else:
        rows, readings = _voc_rows(path, dataset, images_by)
        convert, other_convert = boxes.from_voc, boxes.from_coco
    detections = _to_detections(path, rows, dataset, convert, other_convert)
    if rows and images_by is None:
        _check_images(path, rows, readings, dataset, convert)
    if rows and is_coco and not isinstance(category_ids, int):
        _check_classes(path, rows, dataset, category_ids, convert)
    covered = len({row.image for row in rows})
    by = KINDS[readings[0].kind]
    return detections, f"{path}: detections of {covered} of {len(dataset)} images, matched by {by}"


def _check_images(path, rows, readings, dataset, convert):
    stored = np.array([row.box for row in rows], np.float64).reshape(-1, 4)
    heights, widths = dataset.records.image_sizes().T
    check_images(path, dataset, readings, lambda image_of: convert(stored, heights[image_of], widths[image_of]))


def _check_classes(path, rows, dataset, category_ids, convert):
    """Compares the labels with those of other numberings of the classes."""
    image_of = np.array([row.image for row in rows], np.int64)
    labels = np.array([row.label for row in rows], np.int32)
    stored = np.array([row.box for row in rows], np.float64).reshape(-1, 4)
    heights, widths = dataset.records.image_sizes()[image_of].T
    others = {}
    for todo, numbering in _numberings(dataset, category_ids).items():
        other = np.array([numbering.get(row.category, 0) for row in rows], np.int32)
        if not np.array_equal(other, labels):
            others[todo] = other
    check_classes(path, dataset, image_of, convert(stored, heights, widths), labels, others)


def _numberings(dataset, category_ids):
    """Other numberings of the classes, from category id to label, by what to do if one is right."""
    count = len(dataset.class_names)
    numberings = {
        f"pass --category-ids {first}, as the classes are numbered in their order from {first}": {
            label - 1 + first: label for label in range(1, count + 1)
        }
        for first in (0, 1)
    }
    ids = check_category_ids(dataset, category_ids)
    given = {ids[name]: label for label, name in enumerate(dataset.class_names, start=1)}
    if all(isinstance(number, int) for number in given):
        for shift, which in ((-1, "less"), (1, "more")):
            shifted = {number + shift: label for number, label in given.items()}
            numberings[f"they are 1 {which} than those of the data set, correct them"] = shifted
    return numberings


def write_comp4(
    folder: StrPath,
    records: Sequence[ImageRecord],
    detections: Sequence[Detections],
    class_names: Sequence[str],
    split: str = "test",
    competition: str = "comp4",
) -> list[Path]:
    """Writes detections for the Pascal VOC development kit: `folder/comp4_det_SPLIT_CLASS.txt` for each class.

    Args:
        folder: the output folder, created if it does not exist; existing files are replaced atomically.
        records: `DetectionDataset`, or the `ImageRecord`s of the images; only their ids and sizes are used.
        detections: `Detections` of each of them, in order.
        class_names: names of the classes 1..K.
        split: name of the image set, used in the file names.
        competition: "comp4", or "comp3" for a detector trained on VOC only.

    Returns:
        The paths of the files, in the order of the classes. Slashes in class names are %2F in file names, as in URLs:
        Open Images has classes such as "/m/01g317".

    Raises:
        InputError: for an image id with a line break, or classes whose files would have the same name.

    Example:
        >>> write_comp4("results", test, detections, test.class_names)[0]       # doctest: +SKIP
        PosixPath('results/comp4_det_test_aeroplane.txt')
    """
    folder = Path(folder)
    paths = [folder / f"{competition}_det_{split}_{_in_file_name(name)}.txt" for name in class_names]
    if len(set(paths)) < len(paths):
        raise InputError(
            f"comp4 files: found the class names {', '.join(class_names)}, of which two would have the same file; "
            "expected different names; rename one"
        )
    lines = [[] for _ in class_names]
    for record, found in zip(records, detections, strict=True):
        if str(record.image_id).splitlines() != [str(record.image_id)]:
            raise InputError(
                f"comp4 files: found the image id {record.image_id!r}; expected one without line breaks, because each "
                "detection is a line; rename the image"
            )
        corners = boxes.to_voc(np.asarray(found.boxes, np.float64), record.height, record.width)
        exact = found.scores.dtype == np.float64
        for label, score, corner in zip(found.class_ids, found.scores, corners, strict=True):
            # The score is read back as it is, so that no ties come or go: nine digits do for every float32.
            digits = repr(float(score)) if exact else f"{score:.9g}"
            numbers = f"{digits} " + " ".join(f"{side:.3f}" for side in corner)
            lines[label - 1].append(f"{record.image_id} {numbers}\n")
    folder.mkdir(parents=True, exist_ok=True)
    for path, of_class in zip(paths, lines, strict=True):
        write_text(path, "".join(of_class))
    return paths


def _in_file_name(class_name):
    return class_name.replace("/", "%2F").replace("\\", "%5C")


def _coco_rows(path, dataset, category_ids, images_by):
    """The `_Row`s, and the `ImageReading`s of which they have the first."""
    results = list(read_results(path))
    by_name = {name: label for label, name in enumerate(dataset.class_names, start=1)}
    ids = check_category_ids(dataset, category_ids)
    if _have_names(results, dataset):
        labels = [by_name[result.category_name] for result in results]
    else:
        by_id = {ids[name]: label for name, label in by_name.items()}
        advice = _advice(results, len(by_id))
        labels = [_label(result, by_id, advice) for result in results]
    for result in results:
        _check_box(result)
    readings = _result_readings(results, dataset, images_by)
    rows = [
        _Row(int(image), label, result.score, result.box, result.category_id)
        for image, label, result in zip(readings[0].image_of, labels, results, strict=True)
    ]
    return rows, readings


def _have_names(results, dataset):
    """Whether all results name their class, so that category ids are not needed."""
    return bool(results) and {result.category_name for result in results} <= set(dataset.class_names)


def _result_readings(results, dataset, images_by):
    """The readings of COCO results: by the names of files, if all results have them, and by their image ids."""
    names = ImageNames(dataset, dataset.name)
    files = [result.file_name for result in results]
    if all(files) and images_by in (None, "file"):
        try:
            found = names.match(_places(files, results), "file")
            by_file = [_reading(found[0], files)]
        except InputError:
            if images_by:
                raise
            by_file = []
    else:
        by_file = []
    ids = [result.image_id for result in results]
    try:
        found = names.match(_places(ids, results), images_by)
    except InputError:
        if not by_file:
            raise
        return by_file
    return _all_readings(names, by_file, found, ids)


def _places(names, results):
    """The different names, and where each comes first."""
    places = {}
    for name, result in zip(names, results, strict=True):
        places.setdefault(name, result.where)
    return places


def _reading(matching, names):
    return ImageReading(matching.kind, np.array([matching.positions[name] for name in names], np.int64))


def _all_readings(names, first, found, names_in_file):
    """`first`, the readings found, and those of numbers in the order of the images."""
    readings = [*first, *(_reading(each, names_in_file) for each in found)]
    return readings + [_reading(each, names_in_file) for each in names.in_order(dict.fromkeys(names_in_file))]


def _advice(results, num_classes):
    """What else to do about an unknown category id: the numbers of the first class with which all ids are known."""
    ids = {each.category_id if isinstance(each.category_id, (int, float, str)) else None for each in results}
    firsts = [str(first) for first in (0, 1) if ids <= set(range(first, first + num_classes))]
    return f", or --category-ids {' or '.join(firsts)} if they number the classes in order" if firsts else ""


def _label(result, labels, advice):
    category = result.category_id
    if isinstance(category, (list, dict, bool)) or category not in labels:
        raise InputError(
            f"{result.where}: found the category_id {reprlib.repr(category)}; expected one of "
            f"{reprlib.repr(sorted(labels))[1:-1]}; pass the file that defines the category ids as --category-ids"
            f"{advice}"
        )
    return labels[category]


def _check_box(result):
    if min(result.box[2:]) < 0:
        raise InputError(
            f"{result.where}: found the bbox {list(result.box)}; expected x, y, width and height in pixels, with "
            "non-negative width and height; fix the detector's output"
        )


def _voc_rows(path, dataset, images_by):
    """The `_Row`s, and the `ImageReading`s of which they have the first."""
    lines = []
    for label, file in enumerate(_voc_files(str(path), dataset), start=1):
        try:
            text = file.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise InputError(
                f"{file}: found no readable text ({error}); expected a comp4 file; check the file"
            ) from None
        for number, line in enumerate(text, start=1):
            if line.strip():
                lines.append(_voc_line(f"{file}, line {number}", line, label))
    places: dict[str, str] = {}
    for line in lines:
        places.setdefault(line.image_id, line.where)
    names = ImageNames(dataset, dataset.name)
    ids = [line.image_id for line in lines]
    readings = _all_readings(names, [], names.match(places, images_by), ids)
    rows = [
        _Row(int(image), line.label, line.score, line.box)
        for image, line in zip(readings[0].image_of, lines, strict=True)
    ]
    return rows, readings


def _voc_files(path, dataset):
    """The file for each class, in the order of the classes."""
    candidates = sorted(Path(path).iterdir()) if Path(path).is_dir() else map(Path, sorted(glob.glob(path)))
    candidates = [file for file in candidates if _VOC_NAME.fullmatch(file.name)]
    if not candidates:
        raise InputError(
            f"{path}: found no detections; expected COCO results (.json), or VOC files comp4_det_SPLIT_CLASS.txt given "
            "as a folder or a pattern; check the path"
        )
    files = {}
    for file in candidates:
        # A class name may end with another one: "cat" and "wild_cat".
        fitting = [name for name in dataset.class_names if file.stem.endswith(f"_{_in_file_name(name)}")]
        if not fitting:
            raise InputError(
                f"{file}: found a file of an unknown class; expected one of {', '.join(dataset.class_names)}; exclude "
                "the file from the pattern"
            )
        name = max(fitting, key=len)
        if name in files:
            raise InputError(
                f"{path}: found {files[name].name} and {file.name}; expected one file for class {name!r}; use a "
                "pattern that matches a single split, e.g. 'results/comp4_det_val_*.txt'"
            )
        files[name] = file
    if missing := [name for name in dataset.class_names if name not in files]:
        raise InputError(
            f"{path}: found no file for class {missing[0]!r}; expected one for each class of {dataset.name}; add an "
            "empty file for a class without detections"
        )
    return [files[name] for name in dataset.class_names]


class _VocLine(NamedTuple):
    """One line of a comp4 file; `where` it is, for messages."""

    where: str
    image_id: str
    label: int
    score: float
    box: tuple


def _voc_line(where, line, label):
    image_id, *numbers = line.strip().rsplit(maxsplit=5)
    try:
        score, *box = map(float, numbers)
        complete = len(box) == 4 and all(map(math.isfinite, [score, *box]))
    except ValueError:
        complete = False
    if not complete:
        raise InputError(
            f"{where}: found {reprlib.repr(line)}; expected an image id and five finite numbers (score xmin ymin xmax "
            "ymax); fix the file"
        )
    return _VocLine(where, image_id, label, score, tuple(box))


def _to_detections(path, rows, dataset, convert, other_convert):
    """Converts rows to `Detections` per image. `convert` converts boxes of the expected format, `other_convert` those
    of the format that is most likely used by mistake."""
    image_of = np.array([row.image for row in rows], np.int64)
    stored = np.array([row.box for row in rows], np.float64).reshape(-1, 4)
    heights, widths = dataset.records.image_sizes()[image_of].T
    relative = convert(stored, heights, widths)
    _check_format(path, rows, dataset, stored, relative, other_convert(stored, heights, widths))
    # The inclusive corners of a zero-area box are one pixel apart, and rounding may reverse them.
    relative[:, 2:] = np.maximum(relative[:, 2:], relative[:, :2])
    scores = np.array([row.score for row in rows], np.float64)
    labels = np.array([row.label for row in rows], np.int32)
    order = np.lexsort((-scores, image_of))
    parts = np.split(order, np.searchsorted(image_of[order], np.arange(1, len(dataset))))
    return [Detections(relative[part], scores[part], labels[part], file_positions=part) for part in parts]


def _check_format(path, rows, dataset, stored, relative, otherwise):
    """Raises an InputError if boxes are relative or reversed, or fit into the images only when read as `otherwise`."""
    if not len(rows):
        return

    def refuse(bad, what):
        index = int(np.argmax(bad))
        raise InputError(
            f"{path}: found the box {stored[index].tolist()} of image {dataset[rows[index].image].image_id}, {what}; "
            "expected pixels: x y width height in COCO results, xmin ymin xmax ymax in VOC files; convert the boxes"
        )

    if stored.max() < _LEAST_PIXELS:
        refuse(stored.max(axis=1) >= stored.max(), "and no larger coordinates")
    sizes = relative[:, 2:] - relative[:, :2]
    reversed_box = (sizes < -1e-6).any(axis=1)
    outside = _outside(relative)
    if (reversed_box | outside).any() and not (
        _outside(otherwise) | (otherwise[:, 2:] < otherwise[:, :2]).any(1)
    ).any():
        refuse(reversed_box | outside, "in another format")
    if reversed_box.any():
        refuse(reversed_box, "reversed")


def _outside(relative):
    return (relative < -_MARGIN).any(axis=1) | (relative > 1 + _MARGIN).any(axis=1)
