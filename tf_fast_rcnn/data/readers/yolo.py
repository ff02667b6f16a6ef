"""Reads YOLO's text files: one line `class x y width height` per box; `yolo_folders` finds the files of a split."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.box_orders import ANNOTATION_ORDERS
from tf_fast_rcnn.data.parsing import finite, read_text
from tf_fast_rcnn.data.readers.annotations import AnnotatedObject, annotate, count_labels_without_images, read_each
from tf_fast_rcnn.data.readers.numbering import to_dataset
from tf_fast_rcnn.data.readers.outlines import polygon_box
from tf_fast_rcnn.data.readers.yolo_folders import YoloFolder, is_class_number
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath


def read_yolo(
    location: StrPath, split: str = "", class_names: Sequence[str] | None = None, skip_bad: bool = False
) -> DetectionDataset:
    """Reads one split of a data set in YOLO's layout.

    - The images of the split are in the first of these that exists: the folder, list of folders or list of files (.txt)
      under the split's name in data.yaml (dataset.yaml, .yml) or Darknet's obj.data; the folder images/SPLIT,
      SPLIT/images or SPLIT; the list SPLIT.txt. Folders are read with their subfolders. If the split is "", images/
      itself, or a folder with images and labels side by side (labelImg).
    - Paths in these files are relative to the file, the data set's folder or `path`. If nothing is there, their last
      parts are looked up in the folder, because Darknet's and CVAT's lists have "data/" in front, and absolute paths
      may be those of another machine.
    - `image_id` is the image's path relative to the folder. The labels of images/.../a.jpg are in labels/.../a.txt
      (the last folder named images becomes labels), or next to the image. An image without a labels file has no
      objects; the number of such images is counted in `fixes`.
    - A line is `class x y width height`: the number of the class, from 0, and the box's centre and size relative to the
      displayed image. A sixth number, the confidence of a detector, is ignored. With six numbers or more after the
      class they are the corners x1 y1 x2 y2 ... of a polygon or an oriented box, whose bounding box is read; if
      data.yaml has `kpt_shape`, they are a box and its keypoints, which are ignored.
    - Class names are `names` in data.yaml (a list, a mapping from numbers, or the path of a list), or else the lines of
      classes.txt or obj.names. Class id k of a record is YOLO's class k - 1.
    - Boxes are clipped to the image; those without area are dropped. Both are counted in `fixes`.

    Args:
        location: folder that contains data.yaml or the list of names, or the YAML or Darknet file itself.
        split: name of the split, e.g. "train".
        class_names: the classes in the order of their ids 1..K; default: those of the file.
        skip_bad: leave out missing or unreadable images and those with an invalid line, and count them in `fixes`,
            instead of raising.

    Returns:
        `DetectionDataset`.

    Raises:
        InputError: for an unknown or empty split, missing names, a class that is not in `class_names`, and, without
            `skip_bad`, for the first invalid image or line.

    Example:
        >>> train = read_yolo("cells", "train")             # doctest: +SKIP
    """
    folder = YoloFolder.open(Path(location))
    names = folder.class_names(split)
    images = folder.images(split)
    if not any(labels_path(image).is_file() for image in images):
        raise InputError(
            f"{labels_path(images[0])}: no image has a labels file; expected one, named like this, for each image "
            "with objects"
        )
    fixes = Counter()
    folders = {image.parent for image in images}
    fixes["labels files without an image"] += count_labels_without_images(map(labels_path, images), folders)
    read = functools.partial(_read_image, folder.root, names, folder.keypoint_numbers(), fixes)
    name = f"yolo:{location}" + (f"@{split}" if split else "")
    return to_dataset(
        name, read_each(read, images, skip_bad, fixes), names if class_names is None else class_names, fixes
    )


def labels_path(image: Path) -> Path:
    """The labels file of an image: in labels/ instead of the last folder named images/, or else next to the image.

    Example:
        >>> labels_path(Path("cells/images/train/a.jpg")).as_posix()
        'cells/labels/train/a.txt'
    """
    parts = list(image.parts)
    beside = image.with_suffix(".txt")
    if "images" not in parts:
        return beside
    last = len(parts) - 1 - parts[::-1].index("images")
    parts[last] = "labels"
    path = Path(*parts).with_suffix(".txt")
    return beside if beside.is_file() and not path.is_file() else path


def _read_image(root, names, keypoint_numbers, fixes, image):
    path = labels_path(image)
    lines = _Lines(names, keypoint_numbers, Counter())
    objects = lines.objects(path) if path.is_file() else []
    image_id = image.relative_to(root) if image.is_relative_to(root) else image
    annotation = annotate(path, image_id.as_posix(), image, objects, ANNOTATION_ORDERS["cxcywh-relative"], fixes)
    fixes.update(lines.fixes)
    fixes["images without a labels file (no objects)"] += 0 if path.is_file() else 1
    return annotation


class _Lines(NamedTuple):
    """Parses the lines of labels files: class names, how many numbers of keypoints a line has, and the fixes."""

    names: list[str]
    keypoint_numbers: int
    fixes: Counter[str]

    def objects(self, path):
        lines = read_text(path, "lines of class, x, y, width, height").splitlines()
        return [self._object(f"{path}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]

    def _object(self, source, line):
        first, *rest = line.split()
        numbers = tuple(map(finite, rest))
        if None in numbers or not self._is_valid(numbers):
            raise InputError(
                f"{source}: found {line.strip()[:60]!r}; expected `class x y width height`, five numbers"
                f"{self._more()}; fix the line"
            )
        # Some tools write all numbers as floats.
        first = first.removesuffix(".0")
        if not (is_class_number(first) and int(first) < len(self.names)):
            raise InputError(
                f"{source}: found class {first[:20]!r}; expected 0 to {len(self.names) - 1}; correct it or add a name"
            )
        corners = self._box(numbers)
        if max(map(abs, corners)) > 2:
            raise InputError(
                f"{source}: found {line.strip()[:60]!r}; expected x, y, width and height relative to the image, 0 to "
                "1; divide pixels by the image's size"
            )
        return AnnotatedObject(self.names[int(first)], corners)

    def _is_valid(self, numbers):
        """Whether a line may have so many numbers after the class; the last of them may be a confidence."""
        if self.keypoint_numbers:
            return len(numbers) in (4, 4 + self.keypoint_numbers, 5 + self.keypoint_numbers)
        return len(numbers) >= 4 and (len(numbers) % 2 == 0 or 0 <= numbers[-1] <= 1)

    def _more(self):
        if self.keypoint_numbers:
            return f" and {self.keypoint_numbers} of the keypoints (kpt_shape)"
        return ", or the corners `x1 y1 x2 y2 x3 y3 ...` of a polygon"

    def _box(self, numbers):
        """Centre and size of the object of a line; counts what is more than a box."""
        if self.keypoint_numbers and len(numbers) > 4:
            self.fixes["keypoints ignored"] += 1
            return numbers[:4]
        if len(numbers) % 2:
            self.fixes["confidences of boxes ignored"] += 1
            numbers = numbers[:-1]
        if len(numbers) == 4:
            return numbers
        self.fixes["polygons and oriented boxes replaced by their bounding boxes"] += 1
        xmin, ymin, xmax, ymax = polygon_box(numbers)
        return tuple(box_algebra.to_yolo(np.array([ymin, xmin, ymax, xmax])).tolist())
