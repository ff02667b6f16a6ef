"""Reads KITTI's text files for object detection: one file per image, with one object per line."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.image_files import is_image_file, no_images
from tf_fast_rcnn.data.parsing import finite, read_text
from tf_fast_rcnn.data.readers.annotations import AnnotatedObject, annotate, read_each
from tf_fast_rcnn.data.readers.numbering import to_dataset
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath

# Folders of images and labels: KITTI's, and those of NVIDIA TAO.
_FOLDERS = (("image_2", "label_2"), ("images", "labels"))
# Class, truncated, occluded, alpha, left, top, right, bottom, height, width, length, x, y, z, rotation_y; some tools
# add a score.
_FIELDS = (15, 16)


def read_kitti(
    directory: StrPath, split: str = "", class_names: Sequence[str] | None = None, skip_bad: bool = False
) -> DetectionDataset:
    """Reads a folder with KITTI's label files.

    - Images are in image_2/ and labels in label_2/ (NVIDIA TAO: images/ and labels/), in `directory`, in its folder
      SPLIT or in training/, which KITTI's object data has. If ImageSets/SPLIT.txt exists, it lists the images of
      the split. `image_id` is the file's path without extension.
    - Boxes are left, top, right and bottom in pixels, 0-based and continuous. Truncation, occlusion, the numbers in
      three dimensions and scores are ignored.
    - `DontCare` regions are not objects; they are dropped and counted in `fixes`. An image without a label file has no
      objects; the number of such images is counted too.

    Args:
        directory: the folder.
        split: a folder or list, e.g. "training"; "" for `directory` itself.
        class_names: the classes in the order of their ids 1..K; default: those found, sorted.
        skip_bad: leave out unreadable labels and images, and count them in `fixes`, instead of raising.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for folders without images or labels, a class that is not in `class_names`, and, without `skip_bad`,
            for invalid lines and images.

    Example:
        >>> train = read_kitti("kitti", "training")             # doctest: +SKIP
    """
    directory = Path(directory)
    images, labels = _folders(directory, split)
    listed = _listed(directory, split)
    paths = _all_images(images) if listed is None else [_image(images, name) for name in listed]
    names = {path.relative_to(images).with_suffix("").as_posix(): path for path in paths}
    if not any((labels / f"{name}.txt").is_file() for name in names):
        first = labels / f"{next(iter(names))}.txt"
        raise InputError(f"{first}: no image has a label file; expected one for each image with objects")
    fixes = Counter()
    annotations = read_each(lambda name: _read_image(name, names[name], labels, fixes), names, skip_bad, fixes)
    return to_dataset(f"kitti:{directory}" + (f"@{split}" if split else ""), annotations, class_names, fixes)


def kitti_folders(root: Path) -> tuple[Path, Path] | None:
    """The folders of images and labels in a folder; None if there are none."""
    for images, labels in _FOLDERS:
        if (root / images).is_dir() and (root / labels).is_dir():
            return root / images, root / labels
    return None


def _folders(directory, split):
    places = [directory / split, directory, directory / "training"] if split else [directory, directory / "training"]
    if split and not os.path.isdir(directory / split) and not (directory / "ImageSets" / f"{split}.txt").is_file():
        places = []
    found = next(filter(None, map(kitti_folders, places)), None)
    if found is None:
        where = f"{directory}: no split {split!r}" if split else f"{directory}: found no folders of images and labels"
        raise InputError(f"{where}; expected image_2/ and label_2/, or images/ and labels/; check the path and @SPLIT")
    return found


def _listed(directory, split):
    path = directory / "ImageSets" / f"{split}.txt"
    if not split or not path.is_file():
        return None
    names = [line.strip() for line in read_text(path, "one image name per line").splitlines() if line.strip()]
    if not names:
        raise InputError(f"{path}: found no image names; expected one per line")
    return list(dict.fromkeys(names))


def _all_images(folder):
    found = sorted(path for path in folder.rglob("*") if is_image_file(path))
    if not found:
        raise no_images(folder)
    return found


def _image(folder, name):
    return next((path for path in sorted(folder.glob(f"{name}.*")) if is_image_file(path)), folder / f"{name}.png")


def _read_image(name, path, labels, fixes):
    label_path = labels / f"{name}.txt"
    if not label_path.is_file():
        annotation = annotate(str(label_path), name, path, [], box_algebra.from_xyxy, fixes)
        fixes["images without a label file (no objects)"] += 1
        return annotation
    lines = read_text(label_path, "KITTI's label lines").splitlines()
    objects = [_object(f"{label_path}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    kept = [item for item in objects if item.name != "DontCare"]
    annotation = annotate(str(label_path), name, path, kept, box_algebra.from_xyxy, fixes)
    fixes["DontCare regions dropped"] += len(objects) - len(kept)
    return annotation


def _object(source, line):
    # Datumaro writes names with blanks as they are: the name ends at the first of the numbers.
    fields = line.split()
    numbers = [finite(field) for field in fields]
    first = next((index for index in range(1, len(fields)) if None not in numbers[index:]), len(fields))
    name, values = " ".join(fields[:first]), numbers[first:]
    if len(values) + 1 not in _FIELDS or not -1 <= values[0] <= 1:
        raise InputError(
            f"{source}: found {line.strip()[:60]!r}; expected a class and 14 numbers (KITTI's truncated, occluded, "
            "alpha, left, top, right, bottom, ...); fix the line"
        )
    return AnnotatedObject(name, tuple(values[3:7]))
