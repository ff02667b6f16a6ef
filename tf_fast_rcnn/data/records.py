"""Annotated images, and lazy selections of them; `data.datasets` has the data sets of them.

This module does not import TensorFlow, because the processes that compute proposals use it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np

from tf_fast_rcnn.data.images import read_encoded, read_image
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    pass


class CocoObjects(NamedTuple):
    """The objects of an image exactly as a COCO file has them, which COCO's metrics count.

    Attributes:
        windows: float64 `[A, 4]`, x, y, width and height in pixels of the image as displayed, neither clipped to the
            image nor dropped if they have no area in it.
        areas: float64 `[A]`, in square pixels.
        class_ids: int32 `[A]`, 1..K.
        crowd: bool `[A]`.
        objects: int64 `[A]`, the index of each in the boxes of its `ImageRecord`; -1 for a box that was dropped.
    """

    windows: np.ndarray
    areas: np.ndarray
    class_ids: np.ndarray
    crowd: np.ndarray
    objects: np.ndarray

    def to_rows(self) -> np.ndarray:
        """The columns side by side: float64 `[A, 8]`."""
        return np.column_stack([np.asarray(column, np.float64) for column in self])

    @classmethod
    def from_rows(cls, rows: np.ndarray) -> CocoObjects:
        """The inverse of `to_rows`."""
        return cls(
            rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int32), rows[:, 6].astype(bool), rows[:, 7].astype(np.int64)
        )

    def relabelled(self, label_map: np.ndarray) -> CocoObjects:
        """See `ImageRecord.relabelled`."""
        labels = label_map[self.class_ids]
        kept = labels > 0
        left = self.objects[kept]
        # The kept objects are numbered again, in the same order.
        objects = np.where(left < 0, -1, np.searchsorted(np.sort(left[left >= 0]), left))
        return CocoObjects(self.windows[kept], self.areas[kept], labels[kept], self.crowd[kept], objects)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageRecord:
    """One annotated image.

    Attributes:
        image_id: its unique name in the data set (VOC: the file name without extension).
        image_path: the image file. In a prepared data set, which contains the image itself, the original file.
        height, width: size in pixels as displayed, i.e. after applying EXIF orientation.
        boxes: float32 `[G, 4]`, `[ymin, xmin, ymax, xmax]` relative to the image; G may be 0.
        class_ids: int32 `[G]`, 1..K: `class_names[label - 1]` is the name.
        difficult: bool `[G]`, objects that VOC's evaluation ignores.
        crowd: bool `[G]`, boxes around groups of objects that are not annotated individually (COCO's "iscrowd");
            default: none.
        proposal_boxes: float32 `[P, 4]`, the object proposals, relative to the image; None before `prepare`.
        image_bytes: the image as the bytes of a JPEG or PNG file; None if it is read from `image_path`.
        areas: float64 `[G]`, the objects' areas as fractions of the image's area, which may be smaller than their
            boxes' (COCO's areas of segmentation masks); None if the annotations have only boxes.
        coco_objects: the objects as in a COCO file, if `boxes` and `areas` do not restore them: because boxes were
            clipped or dropped, or have more than three decimals; otherwise None.
        source_id: the image's id in its COCO file, a number or text as it is there, for results; None for others.
    """

    image_id: str
    image_path: str
    height: int
    width: int
    boxes: np.ndarray
    class_ids: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray = None  # type: ignore[assignment]  # no crowds; an array after __post_init__
    proposal_boxes: np.ndarray | None = None
    image_bytes: bytes | None = None
    areas: np.ndarray | None = None
    coco_objects: CocoObjects | None = None
    source_id: int | str | None = None

    def __post_init__(self) -> None:
        # A frozen dataclass can only set its own fields like this.
        object.__setattr__(self, "boxes", np.asarray(self.boxes, np.float32).reshape(-1, 4))
        object.__setattr__(self, "class_ids", np.asarray(self.class_ids, np.int32).reshape(-1))
        object.__setattr__(self, "difficult", np.asarray(self.difficult, bool).reshape(-1))
        crowd = np.zeros(len(self.boxes), bool) if self.crowd is None else np.asarray(self.crowd, bool).reshape(-1)
        object.__setattr__(self, "crowd", crowd)
        if self.proposal_boxes is not None:
            proposals = np.asarray(self.proposal_boxes, np.float32).reshape(-1, 4)
            object.__setattr__(self, "proposal_boxes", proposals)
        if self.areas is not None:
            object.__setattr__(self, "areas", np.asarray(self.areas, np.float64).reshape(-1))
        num_areas = len(self.boxes) if self.areas is None else len(self.areas)
        if not len(self.boxes) == len(self.class_ids) == len(self.difficult) == len(self.crowd) == num_areas:
            raise ValueError(
                f"image {self.image_id}: {len(self.boxes)} boxes, {len(self.class_ids)} labels, {len(self.difficult)} "
                f"difficult flags, {len(self.crowd)} crowd flags and {num_areas} areas; expected one of each for every "
                "object"
            )

    @property
    def labels(self) -> np.ndarray:
        """The name of `class_ids` in version 0.1."""
        return self.class_ids

    def image(self) -> np.ndarray:
        """The image as displayed, uint8 `[H, W, 3]` RGB; see `read_image`."""
        return read_image(self.image_path, self.image_bytes)

    def encoded_image(self) -> bytes:
        """The bytes of a JPEG or PNG file that TensorFlow decodes to the same pixels as `image`; see `read_encoded`."""
        return read_encoded(self.image_path, self.image_bytes)

    def proposals(self) -> np.ndarray:
        """The image's object proposals, float32 `[P, 4]` relative.

        Raises:
            InputError: if they have not been computed.
        """
        if self.proposal_boxes is None:
            raise InputError(f"image {self.image_id}: found no proposals; expected a prepared data set; run `prepare`")
        return self.proposal_boxes

    def relabelled(self, label_map: np.ndarray) -> ImageRecord:
        """The same image with class ids mapped by `label_map`, int32 `[K + 1]`; objects mapped to 0 are dropped."""
        labels = label_map[self.class_ids]
        kept = labels > 0
        return dataclasses.replace(
            self,
            boxes=self.boxes[kept],
            class_ids=labels[kept],
            difficult=self.difficult[kept],
            crowd=self.crowd[kept],
            areas=None if self.areas is None else self.areas[kept],
            coco_objects=None if self.coco_objects is None else self.coco_objects.relabelled(label_map),
        )


class RecordView(Sequence[ImageRecord]):
    """A lazy selection of records from one or more sequences, with optional relabelling; used for slices and unions.

    Attributes:
        sources: the sequences of `ImageRecord`; those of prepared data sets read records on demand.
        label_maps: for each source None, or int32 `[K + 1]`: the new class id of each class id, 0 to drop its objects.
        source_of, index_of: int32 and int64 `[N]`: the source of each record and its index there.
    """

    def __init__(
        self,
        sources: Iterable[Sequence[ImageRecord]],
        label_maps: Iterable[np.ndarray | None],
        source_of: np.ndarray,
        index_of: np.ndarray,
    ) -> None:
        self.sources = tuple(sources)
        self.label_maps = tuple(label_maps)
        self.source_of = source_of
        self.index_of = index_of

    @classmethod
    def of(cls, records: Iterable[ImageRecord]) -> RecordView:
        """A view of all `records`; an iterable that is not a sequence is read into memory."""
        if isinstance(records, cls):
            return records
        records = records if isinstance(records, Sequence) else tuple(records)
        return cls([records], [None], np.zeros(len(records), np.int32), np.arange(len(records)))

    def __len__(self) -> int:
        return len(self.index_of)

    @overload
    def __getitem__(self, index: int) -> ImageRecord: ...

    @overload
    def __getitem__(self, index: slice | np.ndarray) -> RecordView: ...

    def __getitem__(self, index: int | slice | np.ndarray) -> ImageRecord | RecordView:
        """The record at an integer index; a view for a slice or an array of integers."""
        source, index_there = self.source_of[index], self.index_of[index]
        if source.ndim:
            return RecordView(self.sources, self.label_maps, source, index_there)
        record = self.sources[source][int(index_there)]
        label_map = self.label_maps[source]
        return record if label_map is None else record.relabelled(label_map)

    def __add__(self, other: RecordView) -> RecordView:
        return RecordView(
            self.sources + other.sources,
            self.label_maps + other.label_maps,
            np.concatenate([self.source_of, other.source_of + len(self.sources)]),
            np.concatenate([self.index_of, other.index_of]),
        )

    def image_sizes(self) -> np.ndarray:
        """Height and width of each image as displayed, int32 `[N, 2]`; prepared data sets know them without reading."""
        sizes = np.zeros((len(self), 2), np.int32)
        for number, source in enumerate(self.sources):
            chosen = self.source_of == number
            known = getattr(source, "image_sizes", None)
            if known is None:
                known = np.array([(record.height, record.width) for record in source], np.int32).reshape(-1, 2)
            sizes[chosen] = known[self.index_of[chosen]]
        return sizes

    def relabelled(self, label_map: np.ndarray) -> RecordView:
        """A view of the same records, each relabelled by `ImageRecord.relabelled`."""
        maps = [label_map if earlier is None else label_map[earlier] for earlier in self.label_maps]
        return RecordView(self.sources, maps, self.source_of, self.index_of)
