"""Lists the images of folders with Pascal VOC's XML files: VOC's own layout, and those that annotation tools write."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from tf_fast_rcnn.data.image_files import IMAGE_EXTENSIONS, is_image_file
from tf_fast_rcnn.data.parsing import read_text
from tf_fast_rcnn.errors import InputError

_EXTENSIONS = tuple(cased for extension in IMAGE_EXTENSIONS for cased in (extension, extension.upper()))
_IMAGE_FOLDERS = ("JPEGImages", "images")


class VocImage(NamedTuple):
    """One image of a split: its id, its XML file, which may be missing, and the folder of the image."""

    image_id: str
    xml: Path
    folder: Path

    def find(self, filename: str = "") -> Path:
        """The image file: ID with any common extension, or else the last part of the XML's `<filename>`.

        Raises:
            InputError: if neither exists.
        """
        # <filename> may be a path on the annotator's machine, with either kind of slash.
        filename = re.split(r"[\\/]", filename)[-1]
        candidates = [self.folder / f"{self.image_id}{extension}" for extension in _EXTENSIONS]
        for candidate in [*candidates, self.folder / filename] if filename else candidates:
            if os.path.isfile(candidate):  # Path.is_file raises for a name that is too long.
                return candidate
        raise InputError(
            f"{self.folder / self.image_id}: found no image with an extension of {', '.join(IMAGE_EXTENSIONS)}"
            f"{f' and no {filename}' if filename else ''}; expected the image of {self.xml}; add it"
        )


def voc_images(directory: Path, split: str, fixes: Counter[str]) -> list[VocImage]:
    """The images of a split.

    The first of these layouts that exists is used:

    - VOC's: `ImageSets/Main/SPLIT.txt` lists the images, Annotations/ and JPEGImages/ contain the files;
    - a folder SPLIT that contains XML files and images side by side (Roboflow), or the folders Annotations/ and images/
      or JPEGImages/;
    - folders Annotations/SPLIT and images/SPLIT or JPEGImages/SPLIT.

    If the split is "", and there are no lists, `directory` itself is that folder: images and XML files side by side
    (labelImg), or the folders Annotations/ and images/ (Label Studio). The images of such folders are all those with an
    XML file, and all others that the folder contains: they have no objects.

    Args:
        directory: the location of the data set.
        split: its name, or "".
        fixes: `Counter` to which the number of repeated lines is added.

    Raises:
        InputError: for an unknown or empty split.
    """
    listed = directory / "ImageSets" / "Main"
    if split and os.path.isfile(listed / f"{split}.txt"):
        return _listed(directory, split, fixes)
    if split and os.path.isdir(directory / split):
        return _in_folders(*_folders(directory / split))
    if split and os.path.isdir(directory / "Annotations" / split):
        annotations, images = _folders(directory)
        return _in_folders(annotations / split, images / split)
    if not split and not listed.is_dir() and any(_folders(directory)[0].glob("*.xml")):
        return _in_folders(*_folders(directory))
    raise _no_such_split(directory, split)


def voc_splits(directory: Path) -> list[str]:
    """The names of the splits of a folder; an empty list if there are none.

    Example:
        >>> voc_splits(Path("VOCdevkit/VOC2007"))                   # doctest: +SKIP
        ['test', 'train', 'trainval', 'val']
    """
    lists = sorted(path.stem for path in (directory / "ImageSets" / "Main").glob("*.txt"))
    return lists or sorted(
        {path.parent.name for path in directory.glob("*/*.xml") if path.parent.name != "Annotations"}
        | {path.parent.parent.name for path in directory.glob("*/Annotations/*.xml")}
        | {path.parent.name for path in directory.glob("Annotations/*/*.xml")}
    )


def _no_such_split(directory, split):
    known = voc_splits(directory)
    what = f"no split {split!r}" if split or known else "found no XML files"
    if (directory / "ImageSets" / "Main").is_dir():
        return InputError(
            f"{directory}: {what}; expected one of ImageSets/Main: {', '.join(known) or 'none'}; add it as @SPLIT"
        )
    if known:
        return InputError(f"{directory}: {what}; expected one of {', '.join(known)}; add it as @SPLIT")
    return InputError(
        f"{directory}: {what}; expected Annotations/, ImageSets/Main/ and JPEGImages/, or images with their XML files; "
        "pass the folder that contains them"
    )


def _listed(directory, split, fixes):
    path = directory / "ImageSets" / "Main" / f"{split}.txt"
    annotations = directory / "Annotations"
    lines = read_text(path, "one image name per line").splitlines()
    names = [_without_column(line.strip(), annotations) for line in lines if line.strip()]
    if not names:
        known = ", ".join(voc_splits(directory))
        raise InputError(f"{path}: found no image names; expected one per line; add some or use another split: {known}")
    unique = list(dict.fromkeys(names))
    fixes["repeated images of the split left out"] += len(names) - len(unique)
    return [VocImage(name, annotations / f"{name}.xml", directory / "JPEGImages") for name in unique]


def _without_column(line, annotations):
    """The image name of a line such as "000012 -1"; a name may itself look like that ("scan 1")."""
    match = re.fullmatch(r"(.+?)\s+-?[01]", line)
    if match is None or os.path.isfile(annotations / f"{line}.xml"):
        return line
    return match[1]


def _folders(root):
    """The folders of XML files and of images in `root`, or `root` itself."""
    annotations = root / "Annotations" if (root / "Annotations").is_dir() else root
    return annotations, next((root / name for name in _IMAGE_FOLDERS if (root / name).is_dir()), root)


def _in_folders(annotations, images):
    """All images of two folders (with subfolders), or of one folder that contains both kinds of files."""
    below = "*" if annotations == images else "**/*"
    xmls = {_name(path, annotations): path for path in annotations.glob(below) if path.suffix == ".xml"}
    names = {_name(path, images) for path in images.glob(below) if is_image_file(path)} if images.is_dir() else set()
    for name in set(xmls) - names:
        names.discard(_stated_name(xmls[name]))
    if not xmls:
        raise InputError(f"{annotations}: found no XML files; expected those of its images; check the path")
    return [VocImage(name, xmls.get(name, annotations / f"{name}.xml"), images) for name in sorted(names | set(xmls))]


def _name(path, folder):
    return path.relative_to(folder).with_suffix("").as_posix()


def _stated_name(xml):
    """The name in `<filename>`, without extension: this image is not one without an XML file."""
    match = re.search(rb"<filename>\s*([^<]*?)\s*</filename>", xml.read_bytes())
    return Path(re.split(r"[\\/]", match[1].decode("utf-8", "replace"))[-1]).stem if match else ""
