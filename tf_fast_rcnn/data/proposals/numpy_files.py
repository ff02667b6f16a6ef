"""Reads proposals from NumPy's files: NPZ with one array per image, and NPY for a single image."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tf_fast_rcnn.data.proposals.tables import (
    ANY_IMAGE,
    ProposalTable,
    RowsOnDemand,
    check_expansion,
    one_line_errors,
    to_rows,
)

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

_NPZ_EXPECTED = "an .npz file with an array [P, 4] for each image"
_NPY_EXPECTED = "an .npy file of float32 [P, 4]"
_ORDER = "yxyx-relative"


def read_npz(path: StrPath) -> ProposalTable:
    """Reads an .npz file with one array per image, [P, 4], or [P, 5] with scores, under the image's name.

    Arrays are read on demand. The default order is ymin xmin ymax xmax, relative to the image.

    Returns:
        `ProposalTable`.

    Raises:
        InputError: for a damaged file, or arrays of another shape or type.
    """
    with one_line_errors(path, _NPZ_EXPECTED), zipfile.ZipFile(path) as archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist()}

    def read(name):
        with one_line_errors(f"{path}, {name}", _NPZ_EXPECTED), zipfile.ZipFile(path) as archive:
            member = archive.getinfo(members[name])
            check_expansion(f"{path}, {name}", member.compress_size, member.file_size)
            return to_rows(f"{path}, {name}", _array(archive.read(member)))

    return ProposalTable(RowsOnDemand(members, read), _ORDER)


def read_npy(path: StrPath) -> ProposalTable:
    """Reads an .npy file with the proposals of one image of any name; as an array of `read_npz`, but without limit."""
    with one_line_errors(path, _NPY_EXPECTED):
        return ProposalTable({ANY_IMAGE: to_rows(path, _array(Path(path).read_bytes()))}, _ORDER, max_proposals=None)


def _array(data):
    """The array in an .npy file's bytes. Its size is checked, because NumPy allocates whatever the header states."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    with warnings.catch_warnings(action="ignore"):  # About headers written by Python 2.
        shape, fortran, dtype = read_header(file)
    if dtype.hasobject or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"{dtype} {list(shape)} in {len(data) - file.tell()} bytes")
    order = "F" if fortran else "C"
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order=order)
