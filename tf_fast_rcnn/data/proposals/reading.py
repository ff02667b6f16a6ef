"""Reads object proposals from a file of any known format, and checks them against the data set that they are for."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tf_fast_rcnn.data.box_orders import check_order
from tf_fast_rcnn.data.proposals.checks import check_proposals
from tf_fast_rcnn.data.proposals.files import FileProposals
from tf_fast_rcnn.data.proposals.matlab import read_mat, read_mat_folder
from tf_fast_rcnn.data.proposals.numpy_files import read_npy, read_npz
from tf_fast_rcnn.data.proposals.pickles import read_detectron
from tf_fast_rcnn.data.proposals.tables import one_line_errors
from tf_fast_rcnn.data.proposals.text_files import read_coco_results, read_proposal_csv
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.records import ImageRecord
    from tf_fast_rcnn.files import StrPath

_READERS = {
    ".mat": read_mat,
    ".pkl": read_detectron,
    ".json": read_coco_results,
    ".npz": read_npz,
    ".npy": read_npy,
}


def file_proposals(
    path: StrPath,
    dataset: Sequence[ImageRecord] | None = None,
    order: str | None = None,
    max_proposals: int | None = None,
) -> FileProposals:
    """Reads object proposals from a file or folder; docs/proposals.md describes the formats.

    Proposals are clipped to the image; those without area and repetitions (all but the first of equal boxes, as in the
    original) are dropped. They are sorted by decreasing score if the file has scores; otherwise they keep its order.

    Args:
        path: .mat, a folder of .mat files, .pkl (Detectron), .json (COCO results), .npz, .npy or .csv.
        dataset: `DetectionDataset` (or records) that the proposals are for, to check them (see `check_proposals`).
            None: not checked; an image without proposals is an error when it is used.
        order: the coordinate order of the file, one of `data.box_orders.ORDERS`; None for the format's default.
        max_proposals: maximum number of proposals per image, best first; None for 2000, or for all in .npy files and in
            .mat files of the original's demo or of whole image sets, whose boxes are not ranked.

    Returns:
        `FileProposals`, which `prepare`, `train`, `evaluate` and `detect` accept instead of `ProposalSettings`. Its
        `report` lists what was clipped and dropped, and the recall.

    Raises:
        InputError: for a file that cannot be read or is of another kind, and for what `check_proposals` rejects.

    Example:
        >>> train = load_dataset("voc:VOC2007@trainval")                                    # doctest: +SKIP
        >>> proposals = file_proposals("voc_2007_trainval.mat", train)                      # doctest: +SKIP
        >>> train = prepare(train, "prepared/voc07", proposals)                             # doctest: +SKIP
    """
    path = Path(path)
    if order is not None:
        check_order(order)
    table = _read(path, order)
    proposals = FileProposals(
        path.name, order or table.order, max_proposals or table.max_proposals, _checksum(path), table.rows
    )
    return proposals if dataset is None else dataclasses.replace(proposals, report=check_proposals(proposals, dataset))


def _read(path, order):
    if path.is_dir():
        return read_mat_folder(path)
    if path.suffix.lower() == ".csv":
        return read_proposal_csv(path, order)
    if path.suffix.lower() not in _READERS:
        raise InputError(
            f"{path}: unknown kind of proposals; expected {', '.join([*_READERS, '.csv'])} or a folder of .mat files; "
            "rename or convert the file"
        )
    return _READERS[path.suffix.lower()](path)


def _checksum(path):
    """A hash of a file's content; for a folder, of its files' names, sizes and modification times."""
    digest = hashlib.sha256()
    with one_line_errors(path, "a file of proposals"):
        if path.is_dir():
            for file in sorted(path.glob("*.mat")):
                digest.update(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}\n".encode())
        else:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256")
    return digest.hexdigest()[:16]
