"""Object proposals that other programs computed: the content of a file, matched to images."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.box_orders import from_order
from tf_fast_rcnn.data.image_names import best_by_folders, path_parts, trailing_number
from tf_fast_rcnn.data.proposals.recall import MIN_IOU
from tf_fast_rcnn.data.proposals.tables import ANY_IMAGE
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.proposals.tables import Rows
    from tf_fast_rcnn.data.records import ImageRecord

# A lower recall without an explanation is reported.
_LOW_RECALL = 0.5


@dataclasses.dataclass(frozen=True)
class ProposalReport:
    """The result of `check_proposals`.

    Attributes:
        fixes: numbers of clipped and dropped proposals by description, and of unused images in the file.
        recall: fraction of objects with a proposal of IoU 0.5 or more; NaN without objects.
    """

    fixes: dict
    recall: float

    def lines(self) -> list[str]:
        """The report as lines of text."""
        lines = [f"{count} x {what}" for what, count in self.fixes.items()]
        if self.recall < _LOW_RECALL:
            lines.append(
                f"recall of objects at IoU {MIN_IOU}: {self.recall:.3f}, which is low; no other coordinate order "
                "explains it"
            )
        return lines


@dataclasses.dataclass(frozen=True)
class FileProposals:
    """Proposals from a file, accepted wherever `ProposalSettings` are; see `file_proposals`.

    When restored from JSON, e.g. from a training run, it only describes the proposals and does not contain them.

    Attributes:
        file: the file's name.
        order: its coordinate order, one of `data.box_orders.ORDERS`.
        max_proposals: maximum number of proposals per image, best first; None for all.
        checksum: of the file's content.
        rows: the content, `tables.Rows` by image name; None if it was not read.
        report: `ProposalReport` on the data set that was passed to `file_proposals`, or None.
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
        """As `of`; the numbers of clipped and dropped proposals are added to the `Counter` `fixes`.

        Raises:
            InputError: as `of`.
        """
        name = self.name_of(record)
        if name is None or self.rows is None:
            raise InputError(
                f"{self.file}: found no proposals for image {record.image_id}; expected them under its id or file name"
            )
        return self.usable_rows(self.rows[name], record, fixes)

    def usable_rows(self, rows: Rows, record: ImageRecord, fixes: Counter[str]) -> np.ndarray:
        """Converts the `tables.Rows` of an image to float32 `[P, 4]` relative, best first.

        Raises:
            InputError: if a number is not finite.
        """
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
