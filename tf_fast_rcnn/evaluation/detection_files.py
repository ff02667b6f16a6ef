"""Detection files shared with other tools: COCO results and Pascal VOC comp3 and comp4 files.

- COCO results: see `data.coco_results`, which also writes them.
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
from tf_fast_rcnn.data.coco_results import check_category_ids, read_results, result_image_id
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.files import write_text

if TYPE_CHECKING:
    from tf_fast_rcnn.data.records import DetectionDataset, ImageRecord
    from tf_fast_rcnn.files import StrPath

_VOC_NAME = re.compile(r"comp[34]_det_.+\.txt")
# If no coordinate in a file reaches this value, the boxes are relative to the image, not in pixels.
_LEAST_PIXELS = 2.0
# How far a detection may extend beyond the image, as a fraction of the side, before another box format is assumed.
_MARGIN = 0.1


class _Row(NamedTuple):
    """One detection in a file: the index of its image in the dataset, its class 1..K, and its numbers as written."""

    image: int
    label: int
    score: float
    box: tuple


def read_detections(
    path: StrPath, dataset: DetectionDataset, category_ids: Mapping[str, int] | None = None
) -> list[Detections]:
    """Reads the detections that any tool has written for the images of a dataset.

    Args:
        path: COCO results (a .json file); or VOC files: a folder with a comp3 or comp4 file for each class, a pattern
            ("results/comp4_det_val_*.txt"), or the file of the only class. A class without detections needs an empty
            file.
        dataset: `DetectionDataset`.
        category_ids: the category id of each class name in COCO results, as returned by `coco_category_ids`; None for
            the class ids 1..K.

    Returns:
        A list of `Detections`, one per image in the order of the dataset, sorted by decreasing score (the first line
        of ties first); relative boxes, float64.

    Raises:
        InputError: for missing, empty or truncated files or files in another format, images and classes that are not
            in the dataset, numbers that are not finite, and boxes in another unit or coordinate order.

    Example:
        >>> detections = read_detections("results/comp4_det_val_*.txt", val)     # doctest: +SKIP
        >>> print(score_detections(val, detections, "voc07").table())            # doctest: +SKIP
    """
    if Path(path).suffix == ".json":
        rows = _coco_rows(Path(path), dataset, category_ids)
        return _to_detections(path, rows, dataset, boxes.from_coco, boxes.from_xyxy)
    rows = _voc_rows(path, dataset)
    return _to_detections(path, rows, dataset, boxes.from_voc, boxes.from_coco)


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
        The paths of the files, in the order of the classes.

    Raises:
        InputError: if a class name cannot be part of a file name.

    Example:
        >>> write_comp4("results", test, detections, test.class_names)[0]       # doctest: +SKIP
        PosixPath('results/comp4_det_test_aeroplane.txt')
    """
    folder = Path(folder)
    paths = [folder / f"{competition}_det_{split}_{name}.txt" for name in class_names]
    if spoilt := [name for name, path in zip(class_names, paths, strict=True) if path.parent != folder]:
        raise InputError(
            f"comp4 files: found the class name {spoilt[0]!r}; expected a name without slashes, because it is part of "
            "a file name; rename the class"
        )
    lines = [[] for _ in class_names]
    for record, found in zip(records, detections, strict=True):
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


def _coco_rows(path, dataset, category_ids):
    category_ids = check_category_ids(dataset, category_ids)
    labels = {category_ids[name]: label for label, name in enumerate(dataset.class_names, start=1)}
    # Numeric image ids are numbers in the file: "000042" is written as 42.
    images = {}
    for position, record in enumerate(dataset):
        images |= {result_image_id(record): position, record.image_id: position}
    return [_coco_row(result, images, labels, dataset) for result in read_results(path)]


def _coco_row(result, images, labels, dataset):
    if result.image_id not in images:
        raise _unknown_image(result.where, result.image_id, dataset)
    category = result.category_id
    if isinstance(category, (list, dict, bool)) or category not in labels:
        raise InputError(
            f"{result.where}: found the category_id {reprlib.repr(category)}; expected one of "
            f"{reprlib.repr(sorted(labels))[1:-1]}; pass the file that defines the category ids as --category-ids"
        )
    if min(result.box[2:]) < 0:
        raise InputError(
            f"{result.where}: found the bbox {list(result.box)}; expected x, y, width and height in pixels, with "
            "non-negative width and height; fix the detector's output"
        )
    return _Row(images[result.image_id], labels[category], result.score, result.box)


def _unknown_image(where, image_id, dataset):
    return InputError(
        f"{where}: found the image {reprlib.repr(image_id)}; expected one of the {len(dataset)} images of "
        f"{dataset.name}; evaluate on the dataset that the detections were computed for"
    )


def _voc_rows(path, dataset):
    images = {record.image_id: position for position, record in enumerate(dataset)}
    rows = []
    for label, file in enumerate(_voc_files(str(path), dataset), start=1):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise InputError(
                f"{file}: found no readable text ({error}); expected a comp4 file; check the file"
            ) from None
        for number, line in enumerate(lines, start=1):
            if line.strip():
                rows.append(_voc_row(f"{file}, line {number}", line, label, images, dataset))
    return rows


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
        fitting = [name for name in dataset.class_names if file.stem.endswith(f"_{name}")]
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


def _voc_row(where, line, label, images, dataset):
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
    if image_id not in images:
        raise _unknown_image(where, image_id, dataset)
    return _Row(images[image_id], label, score, tuple(box))


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
