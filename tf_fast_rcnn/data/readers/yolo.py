"""Reads YOLO's layout: images/ and labels/ folders, one line `class x y width height` per box, names in data.yaml."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from tf_fast_rcnn.data.box_orders import ANNOTATION_ORDERS
from tf_fast_rcnn.data.readers.annotations import (
    IMAGE_EXTENSIONS,
    AnnotatedObject,
    annotate,
    count_labels_without_images,
    finite,
    read_each,
    read_text,
    to_dataset,
)
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.records import DetectionDataset
    from tf_fast_rcnn.files import StrPath

_YAML_NAMES = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml")
_NAME_LISTS = ("classes.txt", "obj.names", "labels/classes.txt")


def read_yolo(
    directory: StrPath, split: str, class_names: Sequence[str] | None = None, skip_bad: bool = False
) -> DetectionDataset:
    """Reads one split of a data set in YOLO's layout.

    - The images of the split are in the first of these that exists: the folder, list of folders or list of files (.txt)
      under the split's name in data.yaml (dataset.yaml, .yml); the folder images/SPLIT, SPLIT/images or SPLIT; the list
      SPLIT.txt. Folders are read with their subfolders; if the split is "", images/ itself.
    - `image_id` is the image's path relative to `directory`. The labels of images/.../a.jpg are in labels/.../a.txt
      (the last folder named images becomes labels), or next to the image if no folder is named images. An image without
      a labels file has no objects; the number of such images is counted in `fixes`.
    - A line is `class x y width height`: the number of the class, from 0, and the box's centre and size relative to the
      displayed image.
    - Class names are `names` in data.yaml (a list, or a mapping from numbers), or else the lines of classes.txt or
      obj.names. Class id k of a record is YOLO's class k - 1.
    - Boxes are clipped to the image; those without area are dropped. Both are counted in `fixes`.

    Args:
        directory: folder that contains data.yaml or the list of names.
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
    directory = Path(directory)
    description = _description(directory)
    names = _class_names(directory, description)
    images = _images(directory, split, description)
    if not any(_labels_path(image).is_file() for image in images):
        raise InputError(
            f"{_labels_path(images[0])}: no image has a labels file; expected one, named like this, for each image "
            "with objects"
        )
    fixes = Counter()
    folders = {image.parent for image in images}
    fixes["labels files without an image"] += count_labels_without_images(map(_labels_path, images), folders)
    read = functools.partial(_read_image, directory, names, fixes)
    name = f"yolo:{directory}" + (f"@{split}" if split else "")
    return to_dataset(
        name, read_each(read, images, skip_bad, fixes), names if class_names is None else class_names, fixes
    )


def _description(directory):
    """`(path, content)` of data.yaml; `(None, {})` if there is none."""
    path = next((directory / name for name in _YAML_NAMES if (directory / name).is_file()), None)
    if path is None:
        return None, {}
    try:
        # BaseLoader only makes strings, lists and mappings: it is safe, and a class named "no" remains a string.
        content = yaml.load(read_text(path, "YAML"), Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: invalid YAML ({error}); expected train, val and names; fix the file") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a mapping; expected train, val and names; fix the file")
    return path, content


def _class_names(directory, description):
    path, content = description
    if "names" in content:
        return _checked(path, _in_order(path, content["names"]))
    for path in (directory / name for name in _NAME_LISTS):
        if path.is_file():
            return _checked(path, [line.strip() for line in read_text(path, "one class per line").strip().splitlines()])
    raise InputError(
        f"{directory}: found no class names; expected `names` in data.yaml, or classes.txt or obj.names with one per "
        "line"
    )


def _in_order(path, names):
    if not isinstance(names, dict):
        return names
    numbered = {int(key): name for key, name in names.items() if _is_number(key)}
    if sorted(numbered) != list(range(len(names))):
        raise InputError(f"{path}: the numbers of names are not 0, 1, 2, ...; expected each number once; renumber them")
    return [numbered[number] for number in range(len(numbered))]


def _is_number(text):
    """Whether text is the number of a class: digits, and not so many that `int` rejects them."""
    return isinstance(text, str) and text.isdecimal() and len(text) < 10


def _checked(path, names):
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"{path}: `names` is not a list of names; expected the name of each class; fix the file")
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path}: found the class {repeated!r} twice; expected each name once; rename one")
    return names


def _images(directory, split, description):
    """The image files of a split, without duplicates."""
    path, content = description
    if split in content:
        values = content[split] if isinstance(content[split], list) else [content[split]]
        root = content.get("path")
        roots = [directory, directory / root] if isinstance(root, str) else [directory]
        sources = [_source(path, split, roots, value) for value in values]
    else:
        sources = [_conventional_source(directory, split, content)]
    images = list(dict.fromkeys(image for source in sources for image in _files(source, directory)))
    if not images:
        raise InputError(
            f"{sources[0] if sources else path}: found no images of the split {split!r}; expected at least one"
        )
    return images


def _source(path, split, roots, value):
    """The folder or list of files that data.yaml names, relative to its own folder or to `path`."""
    if isinstance(value, str) and value:
        # Roboflow's exports have ../train/images instead of train/images.
        candidates = [root / text for text in (value, value.removeprefix("../")) for root in roots]
        for candidate in candidates:
            if os.path.exists(candidate):
                return candidate
        raise InputError(f"{path}: found {split} {value!r}; expected a folder or a list of files; correct the path")
    raise InputError(f"{path}: {split!r} is not a path; expected a folder or a list of files; fix the file")


def _conventional_source(directory, split, content):
    if not split:
        candidates = [directory / "images"]
    else:
        candidates = [directory / "images" / split, directory / split / "images", directory / split]
        candidates.append(directory / f"{split}.txt")
    for candidate in candidates:
        if os.path.exists(candidate):
            return candidate
    raise InputError(
        f"{directory}: no split {split!r}; expected one of {', '.join(_known_splits(directory, content))}; "
        "add it as @SPLIT"
    )


def _known_splits(directory, content):
    known = {name for name in ("train", "val", "valid", "test") if name in content}
    known |= {path.name for path in (directory / "images").glob("*/")}
    known |= {path.parent.name for path in directory.glob("*/images/")}
    known |= {path.stem for path in directory.glob("*.txt") if path.name not in _NAME_LISTS}
    return sorted(known) or [f"{directory / 'images'}/SPLIT"]


def _files(source, directory):
    if source.is_dir():
        return sorted(path for path in source.rglob("*") if path.suffix.lower() in IMAGE_EXTENSIONS)
    lines = [line.strip() for line in read_text(source, "one image per line").splitlines() if line.strip()]
    # Ultralytics resolves paths relative to the list's folder, other tools relative to the data set's folder.
    return [
        next((root / line for root in (source.parent, directory) if os.path.isfile(root / line)), source.parent / line)
        for line in lines
    ]


def _labels_path(image):
    parts = list(image.parts)
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        parts[last] = "labels"
    return Path(*parts).with_suffix(".txt")


def _read_image(directory, names, fixes, image):
    path = _labels_path(image)
    objects = _objects(path, names) if path.is_file() else []
    fixes["images without a labels file (no objects)"] += 0 if path.is_file() else 1
    image_id = image.relative_to(directory) if image.is_relative_to(directory) else image
    return annotate(path, image_id.as_posix(), image, objects, ANNOTATION_ORDERS["cxcywh-relative"], fixes)


def _objects(path, names):
    lines = read_text(path, "lines of class, x, y, width, height").splitlines()
    return [_object(f"{path}, line {number}", line, names) for number, line in enumerate(lines, 1) if line.strip()]


def _object(source, line, names):
    first, *rest = line.split()
    corners = tuple(map(finite, rest))
    if len(corners) != 4 or None in corners:
        raise InputError(
            f"{source}: found {line.strip()[:60]!r}; expected `class x y width height`, five numbers; fix the line"
        )
    if not (_is_number(first) and int(first) < len(names)):
        raise InputError(
            f"{source}: found class {first[:20]!r}; expected 0 to {len(names) - 1}; correct it or add a name"
        )
    if max(map(abs, corners)) > 2:
        raise InputError(
            f"{source}: found {line.strip()[:60]!r}; expected x, y, width and height relative to the image, 0 to 1; "
            "divide pixels by the image's size"
        )
    return AnnotatedObject(names[int(first)], corners)
