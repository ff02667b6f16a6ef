"""Object proposals computed by other programs, read from files."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.box_orders import check_order, from_order
from tf_fast_rcnn.data.image_names import best_by_folders, path_parts, trailing_number
from tf_fast_rcnn.data.proposals.checks import ProposalReport, check_proposals
from tf_fast_rcnn.data.proposals.matlab import read_mat, read_mat_folder
from tf_fast_rcnn.data.proposals.numpy_files import ANY_IMAGE, read_npy, read_npz
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
    """Proposals from a file, accepted wherever `ProposalSettings` are; see `file_proposals`.

    When restored from JSON, e.g. from a training run, it only describes the proposals and does not contain them.

    Attributes:
        file: the file's name.
        order: its coordinate order, one of `orders.ORDERS`.
        max_proposals: maximum number of proposals per image, best first; None for all.
        checksum: of the file's content.
        rows: the content, `tables.Rows` by image name; None if it was not read.
        report: `checks.ProposalReport` on the data set that was passed to `file_proposals`, or None.
    """

    file: str
    order: str
    max_proposals: int | None
    checksum: str
    rows: Mapping | None = dataclasses.field(default=None, compare=False, repr=False)
    report: ProposalReport | None = dataclasses.field(default=None, compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Converts to a dict of JSON types, without the proposals themselves."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.compare}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Restores the value of `to_json`, without the proposals.

        Raises:
            InputError: if the dict is invalid.
        """
        try:
            return cls(**value, rows=None, report=None)
        except TypeError as error:
            raise InputError(
                f"proposals: found {error}; expected settings of this version; run `prepare` again"
            ) from None

    def check_read(self) -> None:
        """Raises an InputError if these were restored from JSON, without the proposals."""
        if self.rows is None:
            raise InputError(
                f"proposals: found none for these images; the model was trained on proposals from {self.file}, so they "
                "must come from a file; pass `--proposals FILE`, or file_proposals(...) in Python"
            )

    def name_of(self, record: ImageRecord) -> str | None:
        """The name of an image in the file, or None.

        Tried in this order: the image's id; its file name, with its folders, without them, and without its extension;
        and the number at the end of that (42 for COCO_val2014_000000000042), as in files with COCO's ids. If several
        entries have the file name, the one that has more of its folders is taken, or none if as many have.
        """
        self.check_read()
        path = PurePath(record.image_path)
        number = trailing_number(path.stem)
        names = [record.image_id, *self._by_path(path), path.stem, ANY_IMAGE]
        names += [] if number is None else [str(number)]
        return next((name for name in names if name in (self.rows or ())), None)

    def _by_path(self, path):
        """The entry of a file name, if there is exactly one that fits best."""
        parts = path_parts(str(path))
        entries = {name: path_parts(name) for name in self._names_by_last_part.get(parts[-1], ())}
        found = best_by_folders(parts, entries)
        return found if len(found) == 1 else []

    @functools.cached_property
    def _names_by_last_part(self):
        names = defaultdict(list)
        for name in self.rows or ():
            names[path_parts(str(name))[-1]].append(name)
        return names

    def of(self, record: ImageRecord) -> np.ndarray:
        """The proposals of an image, float32 `[P, 4]` relative, best first; see `file_proposals`.

        Raises:
            InputError: if the file has no such image, or a number is not finite.
        """
        return self.usable(record, Counter())

    def usable(self, record: ImageRecord, fixes: Counter[str]) -> np.ndarray:
        """As `of`; the numbers of clipped and dropped proposals are added to the `Counter` `fixes`."""
        name = self.name_of(record)
        if name is None or self.rows is None:
            raise InputError(
                f"{self.file}: found no proposals for image {record.image_id}; expected them under its id or file name"
            )
        return self.usable_rows(self.rows[name], record, fixes)

    def usable_rows(self, rows: Rows, record: ImageRecord, fixes: Counter[str]) -> np.ndarray:
        """Converts the `tables.Rows` of an image to float32 `[P, 4]` relative, best first."""
        boxes = from_order(rows.corners, record.height, record.width, self.order)
        finite = np.isfinite(boxes).all(axis=1)
        if not finite.all() or not (rows.scores is None or np.isfinite(rows.scores).all()):
            found = rows.corners[~finite][:1].tolist() or "a score"
            raise InputError(
                f"{self.file}, image {record.image_id}: found {found}, not finite; expected numbers; fix the file"
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

    Proposals are clipped to the image; those without area and repetitions (all but the first of equal boxes, as in the
    original) are dropped. They are sorted by decreasing score if the file has scores; otherwise they keep its order.

    Args:
        path: .mat, a folder of .mat files, .pkl (Detectron), .json (COCO results), .npz, .npy or .csv.
        dataset: `DetectionDataset` (or records) that the proposals are for, to check them (see `check_proposals`).
            None: not checked; an image without proposals is an error when it is used.
        order: the coordinate order of the file, one of `orders.ORDERS`; None for the format's default.
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
