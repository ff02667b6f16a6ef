"""Reads the arrays of boxes in MATLAB's .mat files, version 5 (`save -v6`, `-v7` and SciPy's `savemat`).

The format is described in "MAT-File Format" (The MathWorks). scipy.io.loadmat takes memory for whatever sizes a file
states and trusts its compression; here every size is compared with the bytes that there are. Of the format only
numbers, text and cells are read, which is what proposal files are made of.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_fast_rcnn.data.proposals.tables import (
    MAX_PROPOSALS,
    ProposalTable,
    RowsOnDemand,
    check_expansion,
    max_expanded,
    one_line_errors,
    to_rows,
)
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

_EXPECTED = "a MATLAB file of version 5 with boxes"
_HEADER_BYTES = 128
_MATRIX, _COMPRESSED, _UTF8 = 14, 15, 16
# Data types of elements, as NumPy's without byte order.
_DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8", 16: "u1"}
_DTYPES |= {17: "u2", 18: "u4"}
_CELL, _CHAR, _NUMBERS = 1, 4, range(6, 16)
# Cells of numbers are two deep; nobody needs more than a few.
_MAX_DEPTH = 4


def read_mat(path: StrPath) -> ProposalTable:
    """Proposals of a .mat file: `boxes` [P, 4] of one image, or the cell arrays `images` and `boxes` of many.

    - One image: ID_boxes.mat as the original's demo has it, 0-based x1 y1 x2 y2, or else ID.mat, one of the per-image
      selective search files (IJCV), 1-based x1 y1 x2 y2.
    - The whole-set files of VOC: 1-based y1 x1 y2 x2.

    Orders and limits are those of rbgirshick/fast-rcnn, tools/demo.py and lib/datasets/pascal_voc.py: all boxes are
    taken, but of the IJCV files, which are ranked, the first 2000.

    Returns:
        `ProposalTable`.

    Raises:
        InputError: for a damaged file, another version or other content.
    """
    with one_line_errors(path, _EXPECTED):
        variables = read_variables(path, ("boxes", "images"))
        if "boxes" not in variables:
            raise InputError(f"{path}: found no variable boxes; expected {_EXPECTED}; write the file again")
        boxes = variables["boxes"]
        if isinstance(boxes, list):
            return ProposalTable(_whole_set(path, variables.get("images"), boxes), "yxyx-1based", max_proposals=None)
        name, order, max_proposals = _by_file_name(Path(path))
        return ProposalTable({name: to_rows(path, boxes)}, order, max_proposals)


def read_mat_folder(path: StrPath) -> ProposalTable:
    """Proposals of a folder of .mat files of one image each, see `read_mat`; a file is read when it is asked for."""
    files = sorted(Path(path).glob("*.mat"))
    if not files:
        raise InputError(f"{path}: found no .mat file; expected a folder of ID.mat or ID_boxes.mat; check the path")
    named = {_by_file_name(file)[0]: file for file in files}
    kinds = {_by_file_name(file)[1:] for file in files}
    if len(kinds) > 1:
        raise InputError(
            f"{path}: found files ID_boxes.mat and ID.mat, whose coordinates differ; expected one kind; "
            "put each into a folder of its own"
        )

    def read(name):
        rows = read_mat(named[name]).rows
        if name not in rows:
            raise InputError(f"{named[name]}: found boxes of many images; expected those of one; give this file alone")
        return rows[name]

    return ProposalTable(RowsOnDemand(named, read), *kinds.pop())


def _by_file_name(path):
    """The image's name, coordinate order and number of proposals taken, of a file of one image."""
    stem = path.stem
    if stem.endswith("_boxes"):
        return stem.removesuffix("_boxes"), "xyxy-0based", None
    return stem, "xyxy-1based", MAX_PROPOSALS


def _whole_set(path, images, boxes):
    if not isinstance(images, list) or not all(isinstance(name, str) for name in images):
        raise InputError(
            f"{path}: found no cell array of image names beside the boxes; expected images and boxes; add images"
        )
    if len(images) != len(boxes) or len(set(images)) != len(images):
        raise InputError(
            f"{path}: found {len(boxes)} arrays of boxes of {len(set(images))} different images; expected one for each "
            "image; write the file again"
        )
    return {name: to_rows(f"{path}, {name}", array) for name, array in zip(images, boxes, strict=True)}


def read_variables(path: StrPath, names: Collection[str]) -> dict[str, Any]:
    """The variables of a version 5 file that have these names: arrays, text, and lists of them for cells.

    Raises:
        InputError: for another version; for damage also other errors, see `one_line_errors`.
    """
    data = memoryview(Path(path).read_bytes())
    if bytes(data[:10]) == b"MATLAB 7.3":
        raise InputError(f"{path}: found a MATLAB file of version 7.3; expected version 5; save it with -v7")
    byte_order = {b"IM": "<", b"MI": ">"}.get(bytes(data[126:128]))
    if byte_order is None:
        raise InputError(f"{path}: found no header of a MATLAB file; expected {_EXPECTED}; save it with -v7")
    elements = _Elements(path, byte_order)
    found = {}
    for kind, content in elements.each(data[_HEADER_BYTES:]):
        if kind == _COMPRESSED:
            ((kind, content),) = elements.each(elements.expand(content))
        if kind == _MATRIX:
            name, read = elements.matrix(content)
            if name in names:
                found[name] = read()
    return found


class _Elements:
    """The data elements of a file of one byte order."""

    def __init__(self, path, byte_order):
        self._path, self._order = path, byte_order

    def expand(self, content):
        """The bytes of a compressed element."""
        inflate = zlib.decompressobj()
        expanded = inflate.decompress(content, max_expanded(len(content)))
        if not inflate.eof:
            # More to come although the limit is reached, or a file cut short.
            check_expansion(self._path, len(content), len(expanded) + (1 if inflate.unconsumed_tail else 0))
            raise ValueError("compressed data end too early")
        return memoryview(expanded)

    def each(self, data):
        """Yields `(type, content)` of the elements that stand one after the other."""
        position = 0
        while position < len(data):
            kind, size = struct.unpack_from(f"{self._order}II", data, position)
            start = position + 8
            if kind >> 16:  # A short element: its size and up to four bytes share the tag's eight.
                kind, size, start = kind & 0xFFFF, kind >> 16, position + 4
                position += 8
            else:
                position = start + size + (0 if kind == _COMPRESSED else -size % 8)
            if start + size > len(data) or (start == position - 4 and size > 4):
                raise ValueError(f"an element of {size} bytes where {len(data) - start} are left")
            yield kind, data[start : start + size]

    def matrix(self, content, depth=0):
        """The name of an array, and a function that reads it."""
        if not len(content):
            return "", lambda: np.zeros((0, 0))
        elements = self.each(content)
        (_, flags), (_, shape), (_, name) = (next(elements) for _ in range(3))
        kind = struct.unpack_from(f"{self._order}I", flags)[0] & 0xFF
        shape = tuple(np.frombuffer(shape, f"{self._order}i4").tolist())
        return bytes(name).decode("latin1"), lambda: self._value(kind, shape, elements, depth)

    def _value(self, kind, shape, elements, depth):
        count = math.prod(shape)
        if kind == _CELL and depth < _MAX_DEPTH:
            cells = [self.matrix(content, depth + 1)[1]() for _, content in elements]
            if len(cells) != count:
                raise ValueError(f"{len(cells)} cells where {count} are stated")
            return cells
        if kind != _CHAR and kind not in _NUMBERS:
            raise ValueError(f"an array of MATLAB's class {kind}")
        dtype, content = next(elements, (2, b""))
        values = np.frombuffer(content, np.dtype(self._order + _DTYPES[dtype]))
        if kind == _CHAR:
            return bytes(content).decode("utf-8") if dtype == _UTF8 else "".join(map(chr, values.tolist()))
        if len(values) != count or min(shape, default=0) < 0:
            raise ValueError(f"{len(values)} values where {count} are stated")
        return values.reshape(shape, order="F")
