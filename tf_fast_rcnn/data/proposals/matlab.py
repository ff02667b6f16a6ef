"""Reads arrays of boxes from MATLAB's .mat files, version 5 (`save -v6`, `-v7` and SciPy's `savemat`).

The format is described in "MAT-File Format" (The MathWorks). scipy.io.loadmat allocates memory for any size that a file
states and does not limit decompression; here every size is checked against the number of bytes available. Only numbers,
text and cells are supported, which is all that proposal files contain.
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
# Data types of elements -> NumPy's types without byte order.
_DTYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8", 16: "u1"}
_DTYPES |= {17: "u2", 18: "u4"}
_CELL, _CHAR, _NUMBERS = 1, 4, range(6, 16)
# Cell arrays of boxes have a depth of two; more than a few levels are not needed.
_MAX_DEPTH = 4


def read_mat(path: StrPath) -> ProposalTable:
    """Reads a .mat file: `boxes` [P, 4] of one image, or the cell arrays `images` and `boxes` of many.

    - One image: ID_boxes.mat as in the original's demo, 0-based x1 y1 x2 y2; or ID.mat, a per-image selective search
      file (IJCV), 1-based x1 y1 x2 y2.
    - The files of whole VOC image sets: 1-based y1 x1 y2 x2.

    The coordinate orders and limits are those of rbgirshick/fast-rcnn, tools/demo.py and lib/datasets/pascal_voc.py:
    all boxes are used, except that only the first 2000 of the IJCV files are, which are ranked.

    Returns:
        `ProposalTable`.

    Raises:
        InputError: for a damaged file, another version or unexpected content.
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
    """Reads a folder of .mat files with one image each (see `read_mat`); files are read on demand."""
    files = sorted(Path(path).glob("*.mat"))
    if not files:
        raise InputError(f"{path}: found no .mat file; expected a folder of ID.mat or ID_boxes.mat; check the path")
    named = {_by_file_name(file)[0]: file for file in files}
    kinds = {_by_file_name(file)[1:] for file in files}
    if len(kinds) > 1:
        raise InputError(
            f"{path}: found files ID_boxes.mat and ID.mat, whose coordinates differ; expected one kind; "
            "move them to separate folders"
        )

    def read(name):
        rows = read_mat(named[name]).rows
        if name not in rows:
            raise InputError(f"{named[name]}: found boxes of many images; expected those of one; pass this file alone")
        return rows[name]

    return ProposalTable(RowsOnDemand(named, read), *kinds.pop())


def _by_file_name(path):
    """The image's name, coordinate order and maximum number of proposals, from the file name of one image."""
    stem = path.stem
    if stem.endswith("_boxes"):
        return stem.removesuffix("_boxes"), "xyxy-0based", None
    return stem, "xyxy-1based", MAX_PROPOSALS


def _whole_set(path, images, boxes):
    if not isinstance(images, list) or not all(isinstance(name, str) for name in images):
        raise InputError(
            f"{path}: found no cell array of image names next to the boxes; expected images and boxes; add images"
        )
    if len(images) != len(boxes) or len(set(images)) != len(images):
        raise InputError(
            f"{path}: found {len(boxes)} arrays of boxes of {len(set(images))} different images; expected one for each "
            "image; write the file again"
        )
    return {name: to_rows(f"{path}, {name}", array) for name, array in zip(images, boxes, strict=True)}


def read_variables(path: StrPath, names: Collection[str]) -> dict[str, Any]:
    """Reads the variables with these names from a version 5 file: arrays, text, and lists of these for cells.

    Raises:
        InputError: for another version. A damaged file may raise other errors too, see `one_line_errors`.
    """
    data = memoryview(Path(path).read_bytes())
    if bytes(data[:10]) == b"MATLAB 7.3":
        raise InputError(f"{path}: found a MATLAB file of version 7.3; expected version 5; save it with -v7")
    byte_order = {b"IM": "<", b"MI": ">"}.get(bytes(data[126:128]))
    if byte_order is None:
        raise InputError(f"{path}: found no MATLAB header; expected {_EXPECTED}; save it with -v7")
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
    """Parses the data elements of a file with a given byte order."""

    def __init__(self, path, byte_order):
        self._path, self._order = path, byte_order

    def expand(self, content):
        """The bytes of a compressed element."""
        inflate = zlib.decompressobj()
        expanded = inflate.decompress(content, max_expanded(len(content)))
        if not inflate.eof:
            # Either the limit is reached before the end, or the file is truncated.
            check_expansion(self._path, len(content), len(expanded) + (1 if inflate.unconsumed_tail else 0))
            raise ValueError("compressed data end too early")
        return memoryview(expanded)

    def each(self, data):
        """Yields `(type, content)` of consecutive elements."""
        position = 0
        while position < len(data):
            kind, size = struct.unpack_from(f"{self._order}II", data, position)
            start = position + 8
            if kind >> 16:  # A short element: its size and up to four bytes of data are inside the 8-byte tag.
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
