"""Detections as files that other tools write and read: COCO's results and Pascal VOC's.

- COCO: see `data.coco_results`, which also writes it.
- VOC (development kit, section "Detection task"): a text file for each class, `comp4_det_SPLIT_CLASS.txt` (comp3 where
  training saw no other data), a line for each detection: image id, score, xmin, ymin, xmax, ymax; pixels from 1, both
  corners included.
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
# No detector's boxes are all so small: these are relative to the image.
_LEAST_PIXELS = 2.0
# By how much of its side a detection may stick out of an image before its format is doubted.
_MARGIN = 0.1


class _Row(NamedTuple):
    """One detection of a file: the image's position in the data set, the class 1..K, and numbers as in the file."""

    image: int
    label: int
    score: float
    box: tuple


def read_detections(
    path: StrPath, dataset: DetectionDataset, category_ids: Mapping[str, int] | None = None
) -> list[Detections]:
    """Reads the detections that any tool has written for the images of a data set.

    Args:
        path: COCO's results (a .json file); or VOC's, as a folder with a comp3 or comp4 file for each class, a pattern
            ("results/comp4_det_val_*.txt"), or the file of the only class. A class without detections has an empty
            file.
        dataset: `DetectionDataset`.
        category_ids: of COCO's results, the id of each class name, as `coco_category_ids` reads them; None for the
            labels 1..K.

    Returns:
        A list of `Detections`, one for each image of the data set in its order, by falling score; relative boxes.

    Raises:
        InputError: for files that are missing, empty, cut off or of another format, images and classes that the data
            set does not have, numbers that are not finite, and boxes that are not in the format's unit and order.

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
    """Writes detections as Pascal VOC's evaluation takes them: `folder/comp4_det_SPLIT_CLASS.txt` for each class.

    Args:
        folder: is made where it does not exist; files of the same names are replaced, each once it is complete.
        records: `DetectionDataset`, or the images' `ImageRecord`s; of each its id and its size count.
        detections: `Detections` of each of them, in order.
        class_names: names of the classes 1..K.
        split: the images' set, for the files' names.
        competition: "comp4", or "comp3" for a detector trained on VOC alone.

    Returns:
        The files' paths, in the order of the classes.

    Raises:
        InputError: where a class's name cannot be part of a file's name.

    Example:
        >>> write_comp4("results", test, detections, test.class_names)[0]       # doctest: +SKIP
        PosixPath('results/comp4_det_test_aeroplane.txt')
    """
    folder = Path(folder)
    paths = [folder / f"{competition}_det_{split}_{name}.txt" for name in class_names]
    if spoilt := [name for name, path in zip(class_names, paths, strict=True) if path.parent != folder]:
        raise InputError(
            f"comp4 files: found the class name {spoilt[0]!r}; expected one without slashes, as each class gets a file "
            "of its name; rename it"
        )
    lines = [[] for _ in class_names]
    for record, found in zip(records, detections, strict=True):
        corners = boxes.to_voc(np.asarray(found.boxes, np.float64), record.height, record.width)
        for label, score, corner in zip(found.class_ids, found.scores, corners, strict=True):
            # Nine digits give back every float32.
            numbers = f"{score:.9g} " + " ".join(f"{side:.3f}" for side in corner)
            lines[label - 1].append(f"{record.image_id} {numbers}\n")
    folder.mkdir(parents=True, exist_ok=True)
    for path, of_class in zip(paths, lines, strict=True):
        write_text(path, "".join(of_class))
    return paths


def _coco_rows(path, dataset, category_ids):
    category_ids = check_category_ids(dataset, category_ids)
    labels = {category_ids[name]: label for label, name in enumerate(dataset.class_names, start=1)}
    # Ids in the file are numbers where ours are: "000042" is written as 42.
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
            f"{reprlib.repr(sorted(labels))[1:-1]}; give the data set's categories with --category-ids"
        )
    if min(result.box[2:]) < 0:
        raise InputError(
            f"{result.where}: found the bbox {list(result.box)}; expected x, y, width and height in pixels, the last "
            "two from 0; correct the detector's output"
        )
    return _Row(images[result.image_id], labels[category], result.score, result.box)


def _unknown_image(where, image_id, dataset):
    return InputError(
        f"{where}: found the image {reprlib.repr(image_id)}; expected one of the {len(dataset)} of {dataset.name}; "
        "give the images that were detected on"
    )


def _voc_rows(path, dataset):
    images = {record.image_id: position for position, record in enumerate(dataset)}
    rows = []
    for label, file in enumerate(_voc_files(str(path), dataset), start=1):
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: found no readable text ({error}); expected a comp4 file; check it") from None
        for number, line in enumerate(lines, start=1):
            if line.strip():
                rows.append(_voc_row(f"{file}, line {number}", line, label, images, dataset))
    return rows


def _voc_files(path, dataset):
    """The file of each class, in the order of the classes."""
    candidates = sorted(Path(path).iterdir()) if Path(path).is_dir() else map(Path, sorted(glob.glob(path)))
    candidates = [file for file in candidates if _VOC_NAME.fullmatch(file.name)]
    if not candidates:
        raise InputError(
            f"{path}: found no detections; expected COCO's results (.json), or VOC's comp4_det_SPLIT_CLASS.txt as a "
            "folder or a pattern; check the path"
        )
    files = {}
    for file in candidates:
        # A class's name may end with another's: "cat" and "wild_cat".
        fitting = [name for name in dataset.class_names if file.stem.endswith(f"_{name}")]
        if not fitting:
            raise InputError(
                f"{file}: found a file of no known class; expected one of {', '.join(dataset.class_names)}; leave it "
                "out of the pattern"
            )
        name = max(fitting, key=len)
        if name in files:
            raise InputError(
                f"{path}: found {files[name].name} and {file.name}; expected one file for class {name!r}; give a "
                "pattern that names one set of images, as in 'results/comp4_det_val_*.txt'"
            )
        files[name] = file
    if missing := [name for name in dataset.class_names if name not in files]:
        raise InputError(
            f"{path}: found no file of class {missing[0]!r}; expected one for each class of {dataset.name}; add an "
            "empty one where nothing was detected"
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
            f"{where}: found {reprlib.repr(line)}; expected an image id and five finite numbers, score xmin ymin xmax "
            "ymax; write the file again"
        )
    if image_id not in images:
        raise _unknown_image(where, image_id, dataset)
    return _Row(images[image_id], label, score, tuple(box))


def _to_detections(path, rows, dataset, convert, other_convert):
    """Rows as `Detections` of each image; `convert` and `other_convert` say what their boxes are, and what they may be
    by mistake."""
    image_of = np.array([row.image for row in rows], np.int64)
    stored = np.array([row.box for row in rows], np.float64).reshape(-1, 4)
    heights, widths = dataset.records.image_sizes()[image_of].T
    relative = convert(stored, heights, widths)
    _check_format(path, rows, dataset, stored, relative, other_convert(stored, heights, widths))
    # Inclusive corners of a box without area lie a pixel apart, and rounding may cross them.
    relative[:, 2:] = np.maximum(relative[:, 2:], relative[:, :2])
    scores = np.array([row.score for row in rows], np.float32)
    labels = np.array([row.label for row in rows], np.int32)
    order = np.lexsort((-scores, image_of))
    parts = np.split(order, np.searchsorted(image_of[order], np.arange(1, len(dataset))))
    return [Detections(relative[part].astype(np.float32), scores[part], labels[part]) for part in parts]


def _check_format(path, rows, dataset, stored, relative, otherwise):
    """InputError where boxes are relative ones, reversed, or `otherwise` what fits into the images."""
    if not len(rows):
        return

    def refuse(bad, what):
        index = int(np.argmax(bad))
        raise InputError(
            f"{path}: found the box {stored[index].tolist()} of image {dataset[rows[index].image].image_id}, {what}; "
            "expected pixels, x y width height in COCO's results and xmin ymin xmax ymax in VOC's; convert them"
        )

    if stored.max() < _LEAST_PIXELS:
        refuse(stored.max(axis=1) >= stored.max(), "and none larger than that")
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
