"""What every reader gives and everything else takes: annotated images, a data set of them, and detections.

Nothing here imports TensorFlow: processes that compute proposals use these types.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tf_fast_rcnn.data.images import encoded_image, read_image
from tf_fast_rcnn.errors import InputError


class Detections(NamedTuple):
    """The objects found in one image, sorted by falling score.

    Attributes:
        boxes: float32 `[D, 4]`, `[ymin, xmin, ymax, xmax]` relative to the image.
        scores: float32 `[D]`, 0 to 1.
        classes: int32 `[D]`, 1..K.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class ImageRecord:
    """One annotated image.

    Attributes:
        image_id: its name in the data set, unique there (VOC: the file's name without extension).
        image_path: file that `read_image` reads.
        height, width: size in pixels as displayed, that is after EXIF orientation.
        boxes: float32 `[G, 4]`, `[ymin, xmin, ymax, xmax]` relative to the image; G may be 0.
        labels: int32 `[G]`, 1..K: `class_names[label - 1]` is the name.
        difficult: bool `[G]`, objects that VOC's evaluation ignores.
        crowd: bool `[G]`, boxes around many objects of a class that are not told apart (COCO's "iscrowd"); default:
            none.
        proposal_boxes: float32 `[P, 4]`, the object proposals as boxes relative to the image; None before `prepare`.
        proposals_path: `.npy` file with float32 `[P, 4]` relative boxes, or None before `prepare`.
    """

    image_id: str
    image_path: str
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray | None = None
    proposal_boxes: np.ndarray | None = None
    proposals_path: str | None = None

    def __post_init__(self):
        # object.__setattr__ is how a frozen dataclass normalises its own fields.
        object.__setattr__(self, "boxes", np.asarray(self.boxes, np.float32).reshape(-1, 4))
        object.__setattr__(self, "labels", np.asarray(self.labels, np.int32).reshape(-1))
        object.__setattr__(self, "difficult", np.asarray(self.difficult, bool).reshape(-1))
        crowd = np.zeros(len(self.boxes), bool) if self.crowd is None else np.asarray(self.crowd, bool).reshape(-1)
        object.__setattr__(self, "crowd", crowd)
        if self.proposal_boxes is not None:
            proposals = np.asarray(self.proposal_boxes, np.float32).reshape(-1, 4)
            object.__setattr__(self, "proposal_boxes", proposals)
        if not len(self.boxes) == len(self.labels) == len(self.difficult) == len(self.crowd):
            raise ValueError(
                f"image {self.image_id}: {len(self.boxes)} boxes, {len(self.labels)} labels, {len(self.difficult)} "
                f"difficult flags and {len(self.crowd)} crowd flags; expected one of each for every object"
            )

    def image(self):
        """The image as displayed, uint8 `[H, W, 3]` RGB; see `read_image`."""
        return read_image(self.image_path)

    def encoded_image(self):
        """The bytes of a JPEG or PNG file that TensorFlow decodes to these pixels; see `images.encoded_image`."""
        return encoded_image(self.image_path)

    def proposals(self):
        """The image's object proposals, float32 `[P, 4]` relative; read from `proposals_path` at each call.

        Raises:
            InputError: if none were computed, or the file is missing or broken.
        """
        if self.proposal_boxes is not None:
            return self.proposal_boxes
        if self.proposals_path is None:
            raise InputError(f"image {self.image_id}: found no proposals; expected a prepared data set; run `prepare`")
        try:
            proposals = np.load(self.proposals_path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{self.proposals_path}: found no readable proposals ({error}); remove it and run `prepare` again"
            ) from None
        if proposals.dtype != np.float32 or proposals.ndim != 2 or proposals.shape[1] != 4:
            raise InputError(
                f"{self.proposals_path}: found {proposals.dtype} {list(proposals.shape)}; expected float32 [P, 4]; "
                "remove it and run `prepare` again"
            )
        return proposals


class DetectionDataset(Sequence):
    """Annotated images and the names of their classes: a sequence of `ImageRecord`.

    Args:
        name: the SPEC that it was read from.
        class_names: names of the classes 1..K.
        records: the images.
        mended: what the reader clipped, dropped or skipped, and how many of each.
        proposal_settings: `ProposalSettings` of the records' proposals; None before `prepare`.

    Slices are data sets too; `+` gives the union of two that have the same classes.

    Example:
        >>> dataset = load_dataset("voc:cells@train")                       # doctest: +SKIP
        >>> len(dataset), dataset.class_names, dataset[0].boxes.shape       # doctest: +SKIP
        (205, ('Platelets', 'RBC', 'WBC'), (17, 4))
    """

    def __init__(self, name, class_names, records, mended=None, proposal_settings=None):
        self.name = name
        self.class_names = tuple(class_names)
        self.records = tuple(records)
        self.mended = {what: count for what, count in (mended or {}).items() if count}
        self.proposal_settings = proposal_settings

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        return self.with_records(self.records[index]) if isinstance(index, slice) else self.records[index]

    def __add__(self, other):
        if not isinstance(other, DetectionDataset):
            return NotImplemented
        if self.class_names != other.class_names:
            raise InputError(
                f"{self.name}+{other.name}: found classes {', '.join(self.class_names)} and "
                f"{', '.join(other.class_names)}; expected the same; read both with one list of class names"
            )
        mended = Counter(self.mended) + Counter(other.mended)
        settings = self.proposal_settings if self.proposal_settings == other.proposal_settings else None
        return DetectionDataset(
            f"{self.name}+{other.name}", self.class_names, self.records + other.records, mended, settings
        )

    def __repr__(self):
        return f"<DetectionDataset {self.name}: {len(self)} images, {len(self.class_names)} classes>"

    def with_class_names(self, class_names):
        """The same images with labels that count in another list of class names.

        Raises:
            InputError: if an object has a class that is not in the list.
        """
        class_names = tuple(class_names)
        used = {self.class_names[label - 1] for record in self.records for label in record.labels}
        if unknown := sorted(used.difference(class_names)):
            raise InputError(
                f"{self.name}: found class {unknown[0]!r}; expected one of {', '.join(class_names)}; "
                "add it to the class names"
            )
        numbers = [class_names.index(name) + 1 if name in class_names else 0 for name in self.class_names]
        table = np.array([0, *numbers], np.int32)
        records = [dataclasses.replace(record, labels=table[record.labels]) for record in self.records]
        return DetectionDataset(self.name, class_names, records, self.mended, self.proposal_settings)

    def with_records(self, records):
        """The same data set, classes and counts with other records."""
        return DetectionDataset(self.name, self.class_names, records, self.mended, self.proposal_settings)
