"""Object proposals that another program made, read from its files."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.proposals.checks import ProposalReport, check_proposals
from tf_fast_rcnn.data.proposals.matlab import read_mat, read_mat_folder
from tf_fast_rcnn.data.proposals.numpy_files import ANY_IMAGE, read_npy, read_npz
from tf_fast_rcnn.data.proposals.orders import check_order, from_order
from tf_fast_rcnn.data.proposals.pickles import read_detectron
from tf_fast_rcnn.data.proposals.tables import one_line_errors
from tf_fast_rcnn.data.proposals.text_files import read_coco_results, read_proposal_csv
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.proposals.tables import Rows
    from tf_fast_rcnn.data.records import ImageRecord
    from tf_fast_rcnn.files import StrPath

_READERS = {
    ".mat": read_mat,
    ".pkl": read_detectron,
    ".json": read_coco_results,
    ".npz": read_npz,
    ".npy": read_npy,
}


@dataclasses.dataclass(frozen=True)
class FileProposals:
    """The proposals of a file, in place of `ProposalSettings` wherever these are taken; see `file_proposals`.

    Read back from JSON it only says what they were: a run tells so which proposals it was trained on.

    Attributes:
        file: the file's name.
        order: its coordinate order, one of `orders.ORDERS`.
        max_proposals: the best so many of an image are taken; None for all.
        checksum: of the file's content.
        rows: the content, `tables.Rows` by the image's name; None where it was not read.
        report: `checks.ProposalReport` of the data set that `file_proposals` was given, or None.
    """

    file: str
    order: str
    max_proposals: int | None
    checksum: str
    rows: Mapping | None = dataclasses.field(default=None, compare=False, repr=False)
    report: ProposalReport | None = dataclasses.field(default=None, compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """A dict of JSON's types, without the proposals themselves."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.compare}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """What `to_json` gave, without the proposals.

        Raises:
            InputError: if it is not such a dict.
        """
        try:
            return cls(**value, rows=None, report=None)
        except TypeError as error:
            raise InputError(f"proposals: found {error}; expected those of this version; prepare again") from None

    def check_read(self) -> None:
        """InputError where these are read back from JSON, without the proposals."""
        if self.rows is None:
            raise InputError(
                f"proposals: found none for these images; expected a file of them, as training took those of "
                f"{self.file}; give it as `--proposals FILE`, or file_proposals(...) in Python"
            )

    def name_of(self, record: ImageRecord) -> str | None:
        """The name under which the file has an image, or None.

        Tried in this order: the image's id; its file's name, with and without extension; the number at its end ("42"
        for COCO_val2014_000000000042), as files with COCO's ids have it.
        """
        self.check_read()
        path = PurePath(record.image_path)
        names = [record.image_id, path.name, path.stem, ANY_IMAGE]
        number = re.search(r"(?:^|_)0*(\d+)$", path.stem)
        names += [number[1]] if number else []
        return next((name for name in names if name in (self.rows or ())), None)

    def of(self, record: ImageRecord) -> np.ndarray:
        """The proposals of an image, float32 `[P, 4]` relative, the best first; see `file_proposals`.

        Raises:
            InputError: if the file has no such image, or a number that is not finite.
        """
        return self.usable(record, Counter())

    def usable(self, record: ImageRecord, fixes: Counter[str]) -> np.ndarray:
        """As `of`; what was clipped and dropped is added to the `Counter` `fixes`."""
        name = self.name_of(record)
        if name is None or self.rows is None:
            raise InputError(
                f"{self.file}: found no proposals of image {record.image_id}; expected them under its id or file name; "
                "add them"
            )
        return self.usable_rows(self.rows[name], record, fixes)

    def usable_rows(self, rows: Rows, record: ImageRecord, fixes: Counter[str]) -> np.ndarray:
        """The `tables.Rows` of an image as float32 `[P, 4]` relative, in the order in which they are taken."""
        boxes = from_order(rows.corners, record.height, record.width, self.order)
        finite = np.isfinite(boxes).all(axis=1)
        if not finite.all() or not (rows.scores is None or np.isfinite(rows.scores).all()):
            found = rows.corners[~finite][:1].tolist() or "a score"
            raise InputError(
                f"{self.file}, image {record.image_id}: found {found}, not finite; expected numbers; mend the file"
            )
        if rows.scores is not None:
            boxes = boxes[np.argsort(-rows.scores.astype(np.float64), kind="stable")]
        inside = box_algebra.clip(boxes)
        has_area = (inside[:, 2:] > inside[:, :2]).all(axis=1)
        beyond = np.abs(box_algebra.scale(boxes - inside, record.height, record.width)).max(axis=1, initial=0) > 1.01
        first = np.sort(np.unique(inside[has_area], axis=0, return_index=True)[1])
        fixes["proposals without area dropped"] += int(np.sum(~has_area))
        fixes["proposals clipped to their image"] += int(np.sum(beyond & has_area))
        fixes["repeated proposals dropped"] += int(np.sum(has_area)) - len(first)
        return inside[has_area][first[: self.max_proposals]]


def file_proposals(
    path: StrPath,
    dataset: Sequence[ImageRecord] | None = None,
    order: str | None = None,
    max_proposals: int | None = None,
) -> FileProposals:
    """Reads object proposals from a file or folder; docs/proposals.md describes the formats.

    Clipped to the image, without those that then have no area, without repetitions (of equal boxes the first stays, as
    in the original), and with falling scores where the file has any, else in its own order.

    Args:
        path: .mat, a folder of .mat files, .pkl (Detectron), .json (COCO results), .npz, .npy or .csv.
        dataset: `DetectionDataset` (or records) for which they are meant: they are checked, see `check_proposals`.
            None for a caller that has none, who is told of images without proposals when they are asked for.
        order: the coordinate order of the file, one of `orders.ORDERS`; None for the format's default.
        max_proposals: the best so many of an image are taken; None for 2000, or all that stand in an .npy file or in a
            .mat file of the original's demo or of a whole set, whose boxes are not ranked.

    Returns:
        `FileProposals`, which `prepare`, `train`, `evaluate` and `detect` take in place of `ProposalSettings`. Its
        `report` says what was clipped, dropped and found.

    Raises:
        InputError: for a file that cannot be read or is of another kind, and for what `check_proposals` refuses.

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
            f"{path}: found no known kind of proposals; expected {', '.join([*_READERS, '.csv'])} or a folder of .mat "
            "files; name the file so"
        )
    return _READERS[path.suffix.lower()](path)


def _checksum(path):
    """A hash of a file's content; of a folder's files by name, size and time of change."""
    digest = hashlib.sha256()
    with one_line_errors(path, "a file of proposals"):
        if path.is_dir():
            for file in sorted(path.glob("*.mat")):
                digest.update(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}\n".encode())
        else:
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256")
    return digest.hexdigest()[:16]
