"""Shared parts of all annotation writers: images with labelled boxes, unique file names, and exact numbers."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tf_fast_rcnn.data.image_files import IMAGE_EXTENSIONS
from tf_fast_rcnn.files import replacing

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.detections import Detections
    from tf_fast_rcnn.data.records import ImageRecord

# Decimals tried for a number, fewest first; beyond them all digits are written.
_DECIMALS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
_SIGNATURES = {b"\xff\xd8": ".jpg", b"\x89P": ".png", b"BM": ".bmp", b"RI": ".webp"}


class LabelledImage(NamedTuple):
    """One image with the objects to write.

    Attributes:
        file: its name in what is written, relative, with slashes and the extension of its format.
        record: the image without its bytes, which may be too many to keep them all.
        load: returns the image's record with its bytes, if it has any.
        boxes: float32 `[G, 4]`, relative.
        names: the class name of each object.
        scores: float32 `[G]` of detections; None for annotations.
        difficult, crowd: bool `[G]`.
    """

    file: str
    record: ImageRecord
    load: Callable[[], ImageRecord]
    boxes: np.ndarray
    names: Sequence[str]
    scores: np.ndarray | None
    difficult: np.ndarray
    crowd: np.ndarray

    @property
    def stem(self) -> str:
        """`file` without its extension."""
        return PurePosixPath(self.file).with_suffix("").as_posix()

    def copy_to(self, path: Path) -> None:
        """Writes the image file, byte for byte."""
        path.parent.mkdir(parents=True, exist_ok=True)
        record = self.load()
        if record.image_bytes is None:
            shutil.copyfile(record.image_path, path)
            return
        with replacing(path) as file:
            file.write(record.image_bytes)


def labelled_images(dataset: DetectionDataset, flat: bool = False) -> Iterable[LabelledImage]:
    """The images of a data set with their annotations; with `flat`, all files are in one folder."""
    for index, (file, record) in enumerate(zip(file_names(dataset, flat), dataset, strict=True)):
        names = [dataset.class_names[label - 1] for label in record.class_ids]
        light = dataclasses.replace(record, image_bytes=None, proposal_boxes=None)
        load = functools.partial(dataset.__getitem__, index)
        yield LabelledImage(file, light, load, record.boxes, names, None, record.difficult, record.crowd)


def detected_images(
    dataset: DetectionDataset, detections: Sequence[Detections], flat: bool = False
) -> Iterable[LabelledImage]:
    """The images of a data set with their detections; with `flat`, all files are in one folder."""
    for image, found in zip(labelled_images(dataset, flat), detections, strict=True):
        boxes = np.asarray(found.boxes, np.float32).reshape(-1, 4)
        none = np.zeros(len(boxes), bool)
        scores = np.asarray(found.scores)
        yield image._replace(boxes=boxes, names=found.names, scores=scores, difficult=none, crowd=none)


def file_names(records: Sequence[ImageRecord], flat: bool = False) -> list[str]:
    """A unique relative file name for each image.

    It is made of the image's id, or of the file's path if all ids are numbers, as COCO's are, without the folders that
    all begin with.

    Args:
        records: the images.
        flat: join folders and name by "_" instead of "/".

    Example:
        >>> file_names(load_dataset("yolo:cells@train"))[:2]                # doctest: +SKIP
        ['day 1/a.jpg', 'day 2/a.jpg']
    """
    named = [(record.image_id, record.image_path, _extension(record)) for record in records]
    numbered = all(image_id.isdecimal() for image_id, _, _ in named)
    paths = [_safe_parts(path if numbered else image_id) for image_id, path, _ in named]
    shared = _shared_start([parts[:-1] for parts in paths])
    files, taken = [], set()
    for parts, (_, _, extension) in zip(paths, named, strict=True):
        stem = ("_" if flat else "/").join(parts[shared:])
        # File systems may ignore case; annotations are named by the stem alone.
        unique = next(name for name in _candidates(stem) if name.lower() not in taken)
        taken.add(unique.lower())
        files.append(f"{unique}{extension}")
    return files


def _candidates(stem):
    yield stem
    yield from (f"{stem}-{number}" for number in itertools.count(2))


def _shared_start(lists):
    """How many folders all paths begin with."""
    shortest = min(lists, key=len, default=[])
    return next(
        (index for index, part in enumerate(shortest) if any(other[index] != part for other in lists)), len(shortest)
    )


def _safe_parts(image_id):
    """The folders and the stem of an id, without what leads out of a folder or is no name of a file."""
    path = PurePosixPath(image_id.replace("\\", "/"))
    stem = path.with_suffix("") if path.suffix.lower() in IMAGE_EXTENSIONS else path
    parts = [re.sub(r'[\x00-\x1f<>:"|?*,]', "_", part).strip() for part in stem.parts]
    return [part for part in parts if part.strip("./")] or ["image"]


def _extension(record):
    if record.image_bytes is None:
        return Path(record.image_path).suffix.lower()
    return _SIGNATURES.get(record.image_bytes[:2], ".png")


def exact_numbers(
    boxes: np.ndarray,
    encode: Callable[[np.ndarray], np.ndarray],
    decode: Callable[[np.ndarray], np.ndarray],
) -> list[list[str]]:
    """The numbers of boxes in a format as text, with as few decimals as give back the same float32 boxes.

    Args:
        boxes: float32 `[G, 4]`, relative.
        encode: a function from relative boxes to the format's four numbers, float64 `[G, 4]`.
        decode: its inverse, as the reader of the format computes it.

    Returns:
        Four texts for each box.

    Example:
        >>> exact_numbers(np.float32([[0, 0.1, 0.5, 1]]), lambda boxes: boxes * 60, lambda boxes: boxes / 60)
        [['0', '6', '30', '60']]
    """
    values = encode(boxes.astype(np.float64)).reshape(-1, 4)
    texts: list[list[str]] = [[] for _ in values]
    for decimals in (*_DECIMALS, None):
        rounded = values if decimals is None else np.round(values, decimals) + 0.0
        same = np.all(decode(rounded).astype(np.float32) == boxes, axis=-1)
        for index in np.flatnonzero(same | (decimals is None)):
            texts[index] = texts[index] or [number_text(value) for value in rounded[index].tolist()]
        if all(texts):
            break
    return texts


def number_text(value: float) -> str:
    """A number without a superfluous ".0".

    Example:
        >>> number_text(30.0), number_text(20.5)
        ('30', '20.5')
    """
    return f"{value:.0f}" if value == int(value) else repr(value)
