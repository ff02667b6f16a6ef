"""Finds the images of a data set by the names that other tools give them: ids, file names, stems, numbers.

A file of results uses one kind of name for all its images. A kind fits if each name in the file belongs to exactly one
image and no two names belong to the same; a name that could belong to two images is never resolved by a guess.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from tf_fast_rcnn.errors import InputError, check_choice

if TYPE_CHECKING:
    from tf_fast_rcnn.data.records import ImageRecord

# What a name may be, and how it is described. The first kinds are tried in this order; the last two, numbers of the
# images in the order of the data set, only where the user says so.
KINDS = {
    "id": "id",
    "file": "file name",
    "stem": "file name without extension",
    "number": "number at the end of the file name",
    "order-0": "number in the order of the images, from 0",
    "order-1": "number in the order of the images, from 1",
}
_TRIED = ("id", "file", "stem", "number")


class Matching(NamedTuple):
    """How the names in a file were understood.

    Attributes:
        kind: one of `KINDS`.
        positions: the index of the image in the data set, by name.
    """

    kind: str
    positions: Mapping[int | str, int]


class ImageNames:
    """The names that the images of a data set may have in other files.

    Args:
        records: the images.
        name: of the data set, for messages.
    """

    def __init__(self, records: Iterable[ImageRecord], name: str) -> None:
        self._name, self._ids, self._paths = name, [], []
        for record in records:
            self._ids.append(record.image_id if record.source_id is None else record.source_id)
            self._paths.append(tuple(path_parts(record.image_path)))
        self._by = {kind: defaultdict(list) for kind in ("typed", "text", "value", "file", "stem", "number")}
        for position, (image_id, parts) in enumerate(zip(self._ids, self._paths, strict=True)):
            stem = PurePosixPath(parts[-1]).stem if parts else ""
            keys = {"typed": (type(image_id), image_id), "text": str(image_id), "value": _value(image_id)}
            keys |= {"file": parts[-1] if parts else None, "stem": stem, "number": trailing_number(stem)}
            for kind, key in keys.items():
                if key is not None:
                    self._by[kind][key].append(position)

    def __len__(self) -> int:
        return len(self._ids)

    def candidates(self, name: int | str, kind: str) -> list[int]:
        """The indices of the images that a name may belong to, read as a kind of `KINDS`."""
        if kind == "id":
            typed = self._by["typed"].get((type(name), name))
            as_text = self._by["text"].get(name) if isinstance(name, str) else None
            return typed or as_text or self._by["value"].get(_value(name), [])
        if kind == "file":
            parts = tuple(path_parts(str(name)))
            return best_by_folders(parts, {each: self._paths[each] for each in self._by["file"].get(parts[-1], [])})
        if kind == "stem":
            parts = tuple(path_parts(str(name)))
            alike = {each: self._without_extension(each) for each in self._by["stem"].get(parts[-1], [])}
            return best_by_folders(parts, alike)
        if kind == "number":
            return self._by["number"].get(_value(name), [])
        position = _value(name)
        position = None if position is None else position - (kind == "order-1")
        return [position] if position is not None and 0 <= position < len(self) else []

    def match(self, names: Mapping[int | str, str], kind: str | None = None) -> list[Matching]:
        """The ways in which all names in a file can be understood, the most usual first; at least one.

        Args:
            names: the different names, and where each is found first, for messages.
            kind: one of `KINDS`, if the user chose it.

        Raises:
            InputError: if there is none.
        """
        if kind is not None:
            check_choice("images-by", kind, KINDS)
        found = []
        for tried in (kind,) if kind else _TRIED:
            positions = self._positions(names, tried)
            if positions is not None and all(positions != other.positions for other in found):
                found.append(Matching(tried, positions))
        if found:
            return found
        raise self._problem(names, (kind,) if kind else _TRIED)

    def in_order(self, names: Iterable[int | str]) -> list[Matching]:
        """The readings of names as numbers of the images, from 0 and from 1, that fit all names."""
        tried = [(kind, self._positions(names, kind)) for kind in ("order-0", "order-1")]
        return [Matching(kind, positions) for kind, positions in tried if positions is not None]

    def _positions(self, names, kind):
        """`{name: index}`; None if a name has no image or several, or if two names have the same."""
        found = {}
        for name in names:
            candidates = self.candidates(name, kind)
            if len(candidates) != 1:
                return None
            found[name] = candidates[0]
        return found if len(set(found.values())) == len(found) else None

    def _problem(self, names, kinds):
        """The InputError for the first name that does not fit the kind that fits most of them."""
        numbers = {kind: [len(self.candidates(name, kind)) for name in names] for kind in kinds}
        kind = max(kinds, key=lambda each: (numbers[each].count(1), sum(map(bool, numbers[each]))))
        taken: dict[int, int | str] = {}
        for name, where in names.items():
            candidates = self.candidates(name, kind)
            if len(candidates) > 1:
                alike = ", ".join(repr(self._ids[each]) for each in candidates[:3])
                return InputError(
                    f"{where}: found the image {_short(name)}, which may be {alike} of {self._name}; expected a name "
                    "of one image; name the images by their ids, or with their folders"
                )
            if not candidates:
                return InputError(
                    f"{where}: found the image {_short(name)}; expected one of the {len(self)} images of {self._name}; "
                    f"evaluate on the dataset that the detections were computed for{self._advice(names, kind)}"
                )
            if candidates[0] in taken:
                return InputError(
                    f"{where}: found the images {_short(taken[candidates[0]])} and {_short(name)}, which are both "
                    f"{self._ids[candidates[0]]!r} of {self._name}; expected one name for each image; name the images "
                    "by their ids, or with their folders"
                )
            taken[candidates[0]] = name
        return InputError(f"found no image of {self._name}; expected their names")

    def _advice(self, names, kind):
        orders = [matching.kind for matching in self.in_order(names)] if not kind.startswith("order") else []
        if not orders:
            return ""
        return f", or pass --images-by {' or '.join(orders)} if these are numbers in the order of its images"

    def _without_extension(self, position):
        *folders, last = self._paths[position]
        return (*folders, PurePosixPath(last).stem)


def path_parts(path: str) -> list[str]:
    """The folders and the name of a path of any machine, with composed accents; at least one part.

    Example:
        >>> path_parts(r"C:\\data\\.\\cam1\\0001.png")
        ['C:', 'data', 'cam1', '0001.png']
    """
    parts = unicodedata.normalize("NFC", path).replace("\\", "/").split("/")
    return [part for part in parts if part not in ("", ".")] or [""]


def best_by_folders(parts: Sequence[str], candidates: Mapping) -> list:
    """Those of the candidates, paths of the same name, that have most of the last folders of `parts` in common.

    Args:
        parts: `path_parts` of a path.
        candidates: `path_parts` by key.

    Returns:
        Keys; several if they have as many folders in common.

    Example:
        >>> best_by_folders(["b", "cam1", "1.png"], {1: ["a", "cam1", "1.png"], 2: ["a", "cam2", "1.png"]})
        [1]
    """
    if len(candidates) < 2:
        return list(candidates)
    common = {key: _common_tail(parts, other) for key, other in candidates.items()}
    most = max(common.values())
    return [key for key, count in common.items() if count == most]


def _common_tail(one, other):
    count = 0
    for mine, theirs in zip(reversed(one), reversed(other), strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def trailing_number(stem: str) -> int | None:
    """The number at the end of a file name without extension, as in COCO_val2014_000000000042; None if there is none.

    Example:
        >>> trailing_number("COCO_val2014_000000000042"), trailing_number("42"), trailing_number("a42")
        (42, 42, None)
    """
    found = re.search(r"(?:^|_)([0-9]{1,30})$", stem)
    return int(found[1]) if found else None


def _value(name):
    """A name as a whole number; None if it is none."""
    if isinstance(name, int):
        return name
    return int(name) if name.isascii() and name.isdecimal() and len(name) <= 30 else None


def _short(name):
    text = repr(name)
    return text if len(text) <= 60 else f"{text[:57]}..."
