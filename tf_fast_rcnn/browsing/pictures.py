"""Writes thumbnails of images and findings while the images are in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.drawing import object_captions
from tf_fast_rcnn.data.proposals.recall import MIN_IOU
from tf_fast_rcnn.visualization.crops import CROP_SIDE, cut_out, window_around
from tf_fast_rcnn.visualization.drawing import class_colors, draw_boxes

if TYPE_CHECKING:
    from tf_fast_rcnn.browsing.findings import Finding
    from tf_fast_rcnn.browsing.survey import ImageFacts
    from tf_fast_rcnn.data.datasets import DetectionDataset

_THUMBNAIL_SIDE = 400
_LARGE_SIDE = 1000

_PICTURES_OF_A_KIND = 12
_PICTURES_OF_A_GROUP = 3


class Picture(NamedTuple):
    """A picture: its path relative to the page's folder, and its size in pixels."""

    path: str
    width: int
    height: int


class Card(NamedTuple):
    """An image in the contact sheet.

    Attributes:
        index: index of the image in the dataset.
        annotated: picture with the ground truth.
        proposed: picture with the best proposal of each object; None without proposals.
        large: larger picture with both, which the others link to.
        labels: list of `(label, number of objects)`, the most frequent first.
        worst: the smallest IoU of the best proposals; None without proposals or objects.
    """

    index: int  # type: ignore[assignment]  # a tuple's own `index` is not used
    annotated: Picture
    proposed: Picture | None
    large: Picture
    labels: list
    worst: float | None


class PictureWriter:
    """Writes the pictures of chosen images and of the first findings of each kind.

    Args:
        folder: the page's folder; the pictures go to its subfolders `images` and `findings`.
        class_names: names of the classes 1..K.
        chosen: indices of the images in the contact sheet.

    Attributes:
        cards: the `Card` of each chosen image.
        of_findings: dict from `Finding` to a list of `Picture`.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], chosen: Iterable[int]) -> None:
        self.cards = []
        self.of_findings = {}
        self._folder = folder
        self._class_names = class_names
        self._chosen = frozenset(chosen)
        self._drawn = Counter()
        for name in ("images", "findings"):
            (folder / name).mkdir(parents=True)

    def draw(self, facts: ImageFacts, image: np.ndarray) -> None:
        """Writes the pictures of an image, if any.

        Args:
            facts: the image's `ImageFacts`.
            image: uint8 `[H, W, 3]`, RGB.
        """
        if facts.index in self._chosen:
            self.cards.append(self._card(facts, Image.fromarray(image)))
        for finding in facts.findings:
            if self._wants(finding):
                self._write_finding(finding, [_draw_finding(finding, facts, image)])

    def draw_group(self, finding: Finding, dataset: DetectionDataset) -> None:
        """Writes the first images of a finding about several images; reads these images again."""
        if self._wants(finding):
            shown = [Image.fromarray(dataset[index].image()) for index in finding.images[:_PICTURES_OF_A_GROUP]]
            self._write_finding(finding, [_shrunk(picture, CROP_SIDE) for picture in shown])

    def _wants(self, finding):
        return self._drawn[finding.kind] < _PICTURES_OF_A_KIND

    def _write_finding(self, finding, pictures):
        self._drawn[finding.kind] += 1
        stem = f"findings/{finding.kind}-{self._drawn[finding.kind]}"
        self.of_findings[finding] = [
            self._save(picture, f"{stem}-{number}.jpg") for number, picture in enumerate(pictures, start=1)
        ]

    def _card(self, facts, original):
        small = _shrunk(original, _THUMBNAIL_SIDE)
        record, stem = facts.record, f"images/{facts.index:06d}"
        large = self._annotated(_shrunk(original, _LARGE_SIDE), record)
        proposed = None
        if facts.overlaps is not None:
            plain = self._annotated(small, record, captions=[""] * len(record.boxes))
            proposed = self._save(_with_best_proposals(plain, facts), f"{stem}-proposals.jpg")
            large = _with_best_proposals(large, facts)
        return Card(
            index=facts.index,
            annotated=self._save(self._annotated(small, record), f"{stem}.jpg"),
            proposed=proposed,
            large=self._save(large, f"{stem}-large.jpg"),
            labels=Counter(record.class_ids.tolist()).most_common(),
            worst=float(facts.overlaps.min()) if facts.overlaps is not None and len(record.boxes) else None,
        )

    def _annotated(self, picture, record, captions=None):
        if captions is None:
            captions = object_captions(record, self._class_names)
        return draw_boxes(picture, record.boxes, captions, class_colors(record.class_ids), fitting=True)

    def _save(self, picture, path):
        picture.save(self._folder / path, quality=85)
        return Picture(path, *picture.size)


def _draw_finding(finding, facts, image):
    """The finding's objects with their surroundings; the whole image if it is not about objects."""
    objects = list(finding.objects)
    window = window_around(facts.record.boxes[objects])
    part = cut_out(Image.fromarray(image), window)
    # No captions: the finding's text is next to its picture.
    captions = [""] * len(objects)
    annotated = box_algebra.within(facts.record.boxes[objects], window)
    drawn = draw_boxes(part, annotated, captions, class_colors(facts.record.class_ids[objects]))
    if finding.kind != "missed_objects":
        return drawn
    return draw_boxes(drawn, box_algebra.within(facts.best_boxes[objects], window), captions)


def _shrunk(picture, side):
    smaller = picture.copy()
    smaller.thumbnail((side, side))
    return smaller


def _with_best_proposals(picture, facts):
    captions = [
        f"{overlap:.2f}" if overlap >= MIN_IOU else f"missed {overlap:.2f}" for overlap in facts.overlaps.tolist()
    ]
    return draw_boxes(picture, facts.best_boxes, captions, fitting=True)
