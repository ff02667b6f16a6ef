"""`DetectionDataset`: what all readers return, annotated images with the names of their classes and their proposals.

This module does not import TensorFlow, because the processes that compute proposals use it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from tf_fast_rcnn.data.records import ImageRecord, RecordView
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.proposals.files import FileProposals
    from tf_fast_rcnn.data.proposals.settings import ProposalSettings


class DetectionDataset(Sequence[ImageRecord]):
    """Annotated images and the names of their classes: a sequence of `ImageRecord`.

    Args:
        name: the SPEC that it was read from.
        class_names: names of the classes 1..K.
        records: the images. Sequences are not copied: that of a prepared data set reads records on demand.
        fixes: number of boxes, images etc. that the reader clipped, dropped or skipped, by description.
        proposals: settings of the records' proposals, as passed to `prepare`; None before `prepare`.

    A slice or an array of image indices returns a data set; `+` returns the union of two data sets with the same
    classes. None of these reads any records.

    Example:
        >>> dataset = load_dataset("voc:cells@train")                       # doctest: +SKIP
        >>> len(dataset), dataset.class_names, dataset[0].boxes.shape       # doctest: +SKIP
        (205, ('Platelets', 'RBC', 'WBC'), (17, 4))
    """

    def __init__(
        self,
        name: str,
        class_names: Iterable[str],
        records: Iterable[ImageRecord],
        fixes: Mapping[str, int] | None = None,
        proposals: ProposalSettings | FileProposals | None = None,
    ) -> None:
        self.name = name
        self.class_names = tuple(class_names)
        self.records = RecordView.of(records)
        self.fixes = {what: count for what, count in (fixes or {}).items() if count}
        self.proposals = proposals

    @property
    def mended(self) -> dict[str, int]:
        """The name of `fixes` in version 0.1."""
        return self.fixes

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...

    @overload
    def __getitem__(self, index: slice | np.ndarray) -> DetectionDataset: ...

    def __getitem__(self, index: int | slice | np.ndarray) -> ImageRecord | DetectionDataset:
        found = self.records[index]
        return self.with_records(found) if isinstance(found, RecordView) else found

    def __add__(self, other: DetectionDataset) -> DetectionDataset:
        if not isinstance(other, DetectionDataset):
            return NotImplemented
        if self.class_names != other.class_names:
            raise InputError(
                f"{self.name}+{other.name}: found classes {', '.join(self.class_names)} and "
                f"{', '.join(other.class_names)}; expected the same classes; read both with the same class_names"
            )
        fixes = Counter(self.fixes) + Counter(other.fixes)
        proposals = self.proposals if self.proposals == other.proposals else None
        return DetectionDataset(
            f"{self.name}+{other.name}", self.class_names, self.records + other.records, fixes, proposals
        )

    def __repr__(self) -> str:
        return f"<DetectionDataset {self.name}: {len(self)} images, {len(self.class_names)} classes>"

    def with_class_names(self, class_names: Iterable[str]) -> DetectionDataset:
        """The same images with class ids that refer to another list of class names.

        Raises:
            InputError: if an object's class is not in the list.
        """
        class_names = tuple(class_names)
        numbers = [class_names.index(name) + 1 if name in class_names else 0 for name in self.class_names]
        unlisted = {label for label, number in enumerate(numbers, start=1) if not number}
        # Objects need to be checked only if a name is not in the list.
        found = (
            {label for record in self.records for label in unlisted.intersection(record.class_ids)} if unlisted else ()
        )
        if found:
            unknown = min(self.class_names[label - 1] for label in found)
            raise InputError(
                f"{self.name}: found class {unknown!r}; expected one of {', '.join(class_names)}; "
                "add it to the class names"
            )
        return self.relabelled(class_names, numbers)

    def relabelled(self, class_names: Iterable[str], new_labels: Iterable[int]) -> DetectionDataset:
        """The same images with other classes: `new_labels[k - 1]` is the new id of class k, 0 to drop its objects."""
        records = self.records.relabelled(np.array([0, *new_labels], np.int32))
        return DetectionDataset(self.name, class_names, records, self.fixes, self.proposals)

    def with_records(self, records: Iterable[ImageRecord]) -> DetectionDataset:
        """A data set of other records with the same name, classes and counts of fixes."""
        return DetectionDataset(self.name, self.class_names, records, self.fixes, self.proposals)
