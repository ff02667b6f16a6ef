"""Which files are images, and where they are: in a folder, or under the name that an annotation gives them."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


# Folders of a name from another machine that are looked for here, from its end.
_MAX_FOLDERS = 32


def images_in(folder: StrPath) -> list[Path]:
    """The image files of a folder, sorted, without those of folders in it.

    Raises:
        InputError: if there are none.
    """
    found = [path for path in sorted(Path(folder).iterdir()) if is_image_file(path)]
    if not found:
        raise no_images(folder)
    return found


def no_images(place: StrPath) -> InputError:
    """The `InputError` for a folder or pattern without image files."""
    return InputError(
        f"{place}: found no images; expected files that end in {', '.join(IMAGE_EXTENSIONS)}; check the path, or give "
        "a quoted pattern such as 'DIR/**/*.jpg'"
    )


def is_image_file(path: Path) -> bool:
    """Whether a path is a file with one of `IMAGE_EXTENSIONS`."""
    return path.suffix.lower() in IMAGE_EXTENSIONS and path.is_file()


def find_image(source: str, folder: Path, name: str) -> Path:
    """Finds the image file that an annotation names, possibly by a path on the machine where it was created.

    Tried in this order: the name as a path relative to `folder` (or absolute); the same with backslashes replaced by
    slashes; and that without its first folder, its first two folders, and so on. Composed and decomposed accents, which
    macOS exchanges, are the same. `read_each` refuses files that several images come down to.

    Raises:
        InputError: if none of these exists, or if the name without its folders is found in `folder`, but with them
            beside it: then `folder` is that of other images.
    """
    slashed = name.replace("\\", "/")
    found = _existing(folder, name) or _existing(folder, slashed)
    if found is not None:
        return found
    parts = slashed.split("/")[-_MAX_FOLDERS:]
    tails = ["/".join(parts[first:]) for first in range(len(parts))]
    found = next(filter(None, (_existing(folder, tail) for tail in tails)), None)
    if found is None:
        raise InputError(f"{source}: no such image: {folder / name}; add it or correct the name")
    beside = Path(os.path.normpath(folder / ".."))
    named = next(filter(None, (_existing(beside, tail) for tail in tails[:-1])), None)
    if named is not None and not os.path.samefile(named, found):
        raise InputError(
            f"{source}: found {found} for {name}, but also {named}; expected one such file; pass {beside} as the "
            "folder of the images"
        )
    return found


def _existing(folder, name):
    """The file of a name below a folder, in the Unicode form that it has there; None if there is none."""
    for written in dict.fromkeys((name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))):
        if os.path.isfile(folder / written):  # Path.is_file raises for a name that is too long.
            return folder / written
    return None
