"""Finds the files and class names of YOLO's layouts: those of data.yaml, of Darknet's obj.data, and flat folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

import yaml

from tf_fast_rcnn.data.image_files import IMAGE_EXTENSIONS, is_image_file
from tf_fast_rcnn.data.parsing import read_text
from tf_fast_rcnn.errors import InputError

_DESCRIPTIONS = ("data.yaml", "dataset.yaml", "data.yml", "dataset.yml", "obj.data")
_NAME_LISTS = ("classes.txt", "obj.names", "labels/classes.txt", "_darknet.labels")
_SPLITS = ("train", "val", "valid", "test")


class YoloFolder(NamedTuple):
    """The root folder of a data set in one of YOLO's layouts.

    Attributes:
        root: the folder.
        path: its description, a YAML or Darknet file; None if there is none.
        content: what the description says: text, lists and dicts.
    """

    root: Path
    path: Path | None
    content: Mapping[str, Any]

    @classmethod
    def open(cls, location: Path) -> YoloFolder:
        """The data set at a location: its folder, or the YAML or Darknet file that describes it.

        Raises:
            InputError: for an invalid description.
        """
        if os.path.isfile(location):
            return cls(location.parent, location, _read_description(location))
        path = next((location / name for name in _DESCRIPTIONS if os.path.isfile(location / name)), None)
        return cls(location, path, {} if path is None else _read_description(path))

    def class_names(self, split: str) -> list[str]:
        """The names of classes 0, 1, ...: those of the description, or of a list of names.

        Raises:
            InputError: if there are none, or they are invalid.
        """
        names = self.content.get("names")
        if self.path is not None and isinstance(names, str) and (found := self._existing(names)) is not None:
            return _checked(found, _lines(found))
        if "names" in self.content:
            return _checked(self.path, _in_order(self.path, names))
        folders = [self.root, *(self.root / name for name in (split, f"labels/{split}", f"{split}/labels") if split)]
        for path in (folder / name for folder in folders for name in _NAME_LISTS):
            if os.path.isfile(path):
                return _checked(path, _lines(path))
        raise InputError(
            f"{self.root}: found no class names; expected `names` in data.yaml, or classes.txt or obj.names with one "
            "per line"
        )

    def keypoint_numbers(self) -> int:
        """How many numbers of a line follow the box for keypoints: `kpt_shape` of the description; 0 without it."""
        shape = self.content.get("kpt_shape")
        if not isinstance(shape, list) or len(shape) != 2 or not all(is_class_number(side) for side in shape):
            return 0
        return int(shape[0]) * int(shape[1])

    def images(self, split: str) -> list[Path]:
        """The image files of a split, without duplicates.

        Raises:
            InputError: for an unknown or empty split.
        """
        if split in self.content:
            value = self.content[split]
            sources = [
                self._described_source(split, value) for value in (value if isinstance(value, list) else [value])
            ]
        else:
            sources = [self._conventional_source(split)]
        images = list(dict.fromkeys(image for source in sources for image in self._files(source, split)))
        if not images:
            source = sources[0] if sources else self.path
            raise InputError(f"{source}: found no images of the split {split!r}; expected at least one")
        return images

    def splits(self) -> list[str]:
        """The names of the splits that the description, folders and lists define, sorted."""
        known = {name for name in _SPLITS if name in self.content}
        known |= {path.name for path in (self.root / "images").glob("*/")}
        known |= {path.parent.name for path in self.root.glob("*/images/")}
        return sorted(known | self._lists())

    def _lists(self):
        """The names of the lists of images, without the labels of images in the same folder."""
        images = {path.stem for path in self.root.glob("*") if path.suffix.lower() in IMAGE_EXTENSIONS}
        names = {path.stem for path in self.root.glob("*.txt") if path.name not in _NAME_LISTS}
        return {name for name in names - images if not name.startswith("README")}

    def _described_source(self, split, value):
        """The folder or list of files that the description names."""
        if not isinstance(value, str) or not value:
            raise InputError(
                f"{self.path}: {split!r} is not a path; expected a folder or a list of files; fix the file"
            )
        found = self._existing(value)
        if found is None:
            raise InputError(
                f"{self.path}: found {split} {value!r}; expected a folder or a list of files; correct the path"
            )
        return found

    def _existing(self, value):
        """The path of the description, relative to its folder or to its `path`; None if nothing is there.

        Roboflow's exports have ../train/images for train/images, and files that have moved have the paths of another
        machine: their last parts may exist here.
        """
        stated = self.content.get("path")
        roots = [self.root, self.root / stated] if isinstance(stated, str) else [self.root]
        candidates = [root / text for text in (value, value.removeprefix("../")) for root in roots]
        return _first_existing([*candidates, *_tails(self.root, value)])

    def _conventional_source(self, split):
        root = self.root
        if split:
            candidates = [root / "images" / split, root / split / "images", root / split]
            candidates += [root / f"{split}.txt"] if split in self._lists() else []
        else:
            candidates = [root / "images", *([root] if _has_images(root) else [])]
        found = _first_existing(candidates)
        if found is None:
            known = ", ".join(self.splits() or [f"{root / 'images'}/SPLIT"])
            raise InputError(f"{root}: no split {split!r}; expected one of {known}; add it as @SPLIT")
        return found

    def _files(self, source, split):
        if source.is_dir():
            # A folder of images and labels side by side may contain others, which are not part of it.
            paths = source.iterdir() if source == self.root and not split else source.rglob("*")
            return sorted(path for path in paths if path.suffix.lower() in IMAGE_EXTENSIONS)
        found = {}
        for line in _lines(source, "one image per line"):
            if line:
                self._add_listed(source, line, found)
        return list(found)

    def _add_listed(self, source, line, found):
        """Adds the image of a line to `found`, a dict from paths to the lines that name them."""
        # Ultralytics resolves paths relative to the list's folder, other tools relative to the data set's folder.
        stated = _first_existing([source.parent / line, self.root / line])
        # Darknet resolves them relative to the folder where it is started ("data/obj_train_data/a.jpg").
        path = stated or _first_existing([*_tails(source.parent, line), *_tails(self.root, line)])
        path = path or source.parent / line
        if stated is None and found.get(path, line) != line:
            raise InputError(
                f"{source}: found {found[path]!r} and {line!r}, of which only {path} exists; expected the path of each "
                "image relative to the list; correct the paths"
            )
        found.setdefault(path, line)


def is_class_number(text: object) -> bool:
    """Whether text is the number of a class: digits, and not so many that `int` rejects them."""
    return isinstance(text, str) and text.isdecimal() and len(text) < 10


def _tails(root: Path, text: str) -> Iterable[Path]:
    """`root` followed by the last parts of a path with either kind of slash, longest first."""
    parts = [part for part in PureWindowsPath(text).parts if part not in (".", "..")]
    return (root.joinpath(*parts[start:]) for start in range(1, len(parts)))


def _first_existing(paths):
    return next((path for path in paths if os.path.exists(path)), None)


def _has_images(folder):
    return folder.is_dir() and any(map(is_image_file, folder.iterdir()))


def _lines(path, expected="one class per line"):
    return [line.strip() for line in read_text(path, expected).strip().splitlines()]


def _read_description(path):
    text = read_text(path, "YAML")
    if path.suffix == ".data":
        pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
        return {key.strip(): value.strip() for key, _, value in pairs}
    try:
        # BaseLoader only makes strings, lists and mappings: it is safe, and a class named "no" remains a string.
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: invalid YAML ({error}); expected train, val and names; fix the file") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a mapping; expected train, val and names; fix the file")
    return content


def _in_order(path, names):
    if not isinstance(names, dict):
        return names
    numbered = {int(key): name for key, name in names.items() if is_class_number(key)}
    if sorted(numbered) != list(range(len(names))):
        raise InputError(f"{path}: the numbers of names are not 0, 1, 2, ...; expected each number once; renumber them")
    return [numbered[number] for number in range(len(numbered))]


def _checked(path, names):
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"{path}: `names` is not a list of names; expected the name of each class; fix the file")
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path}: found the class {repeated!r} twice; expected each name once; rename one")
    return names
