"""The objects found in one image."""

import dataclasses
import html
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
from PIL import Image

from tf_fast_rcnn.data.coco_results import result_rows
from tf_fast_rcnn.data.images import read_image
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.visualization.drawing import class_colors, draw_boxes

# Maximum number of rows of the table in a notebook.
_TABLE_ROWS = 20


class Detection(NamedTuple):
    """One object found in an image.

    Attributes:
        box: float32 `[4]`, `[ymin, xmin, ymax, xmax]` relative to the image.
        score: 0 to 1.
        class_id: 1..K.
        class_name: the class's name; its id as text if no names are known.
    """

    box: np.ndarray
    score: float
    class_id: int
    class_name: str


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Detections:
    """The objects found in one image, sorted by decreasing score.

    `len` is the number of detections; iteration yields one `Detection` at a time. An integer index returns a
    `Detection`; a slice, a boolean mask or an array of positions returns `Detections`. A notebook shows the image with
    the boxes, or a table if the image is not known.

    Boxes and scores are float64 if they were read from a file, which may have more digits than float32, and otherwise
    float32.

    Attributes:
        boxes: float `[D, 4]`, `[ymin, xmin, ymax, xmax]` relative to the image.
        scores: float `[D]`, 0 to 1.
        class_ids: int32 `[D]`, 1..K.
        class_names: names of the classes 1..K; None if they are not known.
        image: uint8 `[H, W, 3]` RGB, the path of the file, or a function without arguments that returns the array; None
            if it is not known.
        file_positions: int64 `[D]`, the position of each among all detections of the file that they were read from;
            None if they were not. Orders detections of different images with equal scores.

    Example:
        >>> found = Detections([[0.1, 0.2, 0.5, 0.6], [0, 0, 1, 1]], [0.9, 0.3], [2, 1], ["cat", "dog"])
        >>> len(found), found[0].class_name, found.names
        (2, 'dog', ['dog', 'cat'])
        >>> [detection.class_name for detection in found.filter(min_score=0.5)]
        ['dog']
    """

    boxes: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray
    class_names: Sequence[str] | None = None
    image: np.ndarray | str | Path | Callable[[], np.ndarray] | None = None
    file_positions: np.ndarray | None = None

    def __post_init__(self) -> None:
        # object.__setattr__ is how a frozen dataclass normalises its own fields.
        for name in ("boxes", "scores", "class_ids"):
            object.__setattr__(self, name, np.asarray(getattr(self, name)))
        if self.class_names is not None:
            object.__setattr__(self, "class_names", tuple(self.class_names))

    @property
    def classes(self) -> np.ndarray:
        """The name of `class_ids` in version 0.1."""
        return self.class_ids

    @property
    def names(self) -> list[str]:
        """The class name of each detection; its id as text if no name is known."""
        return [self._name(class_id) for class_id in self.class_ids.tolist()]

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        return (self[index] for index in range(len(self)))

    @overload
    def __getitem__(self, index: int) -> Detection: ...

    @overload
    def __getitem__(self, index: "slice | np.ndarray | Sequence[int] | Sequence[bool]") -> "Detections": ...

    def __getitem__(self, index: Any) -> "Detection | Detections":
        if isinstance(index, (int, np.integer)):
            class_id = int(self.class_ids[index])
            return Detection(self.boxes[index], float(self.scores[index]), class_id, self._name(class_id))
        index = index if isinstance(index, slice) else _positions(index, len(self))
        return dataclasses.replace(
            self,
            boxes=self.boxes[index],
            scores=self.scores[index],
            class_ids=self.class_ids[index],
            file_positions=None if self.file_positions is None else self.file_positions[index],
        )

    def filter(self, min_score: float = 0.0, class_names: str | Sequence[str] | None = None) -> "Detections":
        """The detections with a score of at least `min_score`, optionally of some classes only.

        Args:
            min_score: 0 to 1.
            class_names: a class name, or several; None for all classes.

        Raises:
            InputError: for a class name that is not one of `class_names`, if these are known.

        Example:
            >>> found.filter(min_score=0.5, class_names=["cat", "dog"])                     # doctest: +SKIP
            <Detections: 2 cat, 1 dog>
        """
        kept = self.scores >= min_score
        if class_names is not None:
            wanted = [class_names] if isinstance(class_names, str) else list(class_names)
            self._check_names(wanted)
            kept = kept & np.array([name in wanted for name in self.names], bool)
        return self[kept]

    def to_dicts(self) -> list[dict[str, Any]]:
        """One dict of JSON types per detection: class (its name), class_id, score and box.

        Example:
            >>> Detections([[0, 0, 0.5, 1]], [0.75], [1], ["cat"]).to_dicts()
            [{'class': 'cat', 'class_id': 1, 'score': 0.75, 'box': [0.0, 0.0, 0.5, 1.0]}]
        """
        return [
            {"class": each.class_name, "class_id": each.class_id, "score": each.score, "box": each.box.tolist()}
            for each in self
        ]

    def to_coco(
        self,
        image_id: int | str,
        category_ids: Mapping[str, int] | None = None,
        image_size: tuple[int, int] | None = None,
    ) -> list[dict[str, Any]]:
        """The detections as rows of COCO's results format; see `coco_results`.

        Args:
            image_id: the image's id in the COCO file.
            category_ids: category id by class name; None to use the class ids.
            image_size: height and width in pixels; None for those of `image`.

        Returns:
            One dict per detection with image_id, category_id, bbox (x, y, width, height in pixels) and score.

        Raises:
            InputError: if neither the image nor its size is known, or a class has no category id.
        """
        height, width = self._pixels().shape[:2] if image_size is None else image_size
        ids = None
        if category_ids is not None:
            missing = sorted(set(self.names) - set(category_ids))
            if missing:
                raise InputError(f"category_ids: found none for class {missing[0]!r}; expected one per class; add it")
            ids = dict(zip(self.class_ids.tolist(), map(category_ids.__getitem__, self.names), strict=True))
        return result_rows(self.boxes, self.class_ids, self.scores, image_id, (height, width), ids)

    def draw(self, image: Any = None, min_score: float = 0.0) -> Image.Image:
        """Draws the detections as boxes in the colour of their class, with labels such as "cat 0.93".

        Args:
            image: uint8 `[H, W, 3]` RGB, a PIL image, or the path of a file; None for the image of the detections.
            min_score: detections with a lower score are not drawn.

        Returns:
            A new PIL image, RGB, of the same size.

        Raises:
            InputError: if no image is known, or it cannot be read.

        Example:
            >>> predictor.detect("cell.jpg").draw(min_score=0.5).save("drawn.png")          # doctest: +SKIP
        """
        if image is None:
            image = self._pixels()
        elif isinstance(image, (str, Path)):
            image = read_image(image)
        # Highest score last, so that it is drawn on top.
        shown = self[np.argsort(self.scores, kind="stable")].filter(min_score)
        captions = [f"{each.class_name} {each.score:.2f}" for each in shown]
        return draw_boxes(image, shown.boxes, captions, class_colors(shown.class_ids))

    def __repr__(self) -> str:
        counted = [f"{self.names.count(name)} {name}" for name in dict.fromkeys(self.names)]
        return f"<Detections: {', '.join(counted) or 'none'}>"

    def _repr_png_(self) -> bytes | None:
        if self.image is None:
            return None
        file = io.BytesIO()
        self.draw().save(file, "PNG")
        return file.getvalue()

    def _repr_html_(self) -> str | None:
        if self.image is not None:
            return None
        rows = "".join(map(_table_row, self[:_TABLE_ROWS]))
        more = f"<p>and {len(self) - _TABLE_ROWS} more</p>" if len(self) > _TABLE_ROWS else ""
        return f"<table><tr><th>class<th>score<th>ymin<th>xmin<th>ymax<th>xmax</tr>{rows}</table>{more}"

    def _name(self, class_id: int) -> str:
        names = self.class_names or ()
        return names[class_id - 1] if class_id <= len(names) else str(class_id)

    def _check_names(self, wanted: list[str]) -> None:
        known = self.class_names
        unknown = [name for name in wanted if known is not None and name not in known]
        if unknown:
            raise InputError(
                f"class_names: found {unknown[0]!r}; expected names out of {', '.join(known or ())}; correct the name"
            )

    def _pixels(self) -> np.ndarray:
        if self.image is None:
            raise InputError("detections: found no image; expected the one that they belong to; pass it")
        if isinstance(self.image, (str, Path)):
            return read_image(self.image)
        return self.image() if callable(self.image) else self.image


def _positions(index: Any, count: int) -> np.ndarray:
    """A mask or positions as an array; an empty list selects nothing."""
    index = np.asarray(index)
    if index.dtype == bool and index.shape != (count,):
        raise IndexError(f"found a mask of shape {list(index.shape)}; expected [{count}]")
    return index if index.size else np.zeros(0, np.int64)


def _table_row(found: Detection) -> str:
    sides = "".join(f"<td>{side:.3f}" for side in found.box)
    return f"<tr><td>{html.escape(found.class_name)}<td>{found.score:.2f}{sides}</tr>"
