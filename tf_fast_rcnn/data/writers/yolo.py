"""Writes YOLO's text files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import yaml

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.writers.labelled import exact_numbers

if TYPE_CHECKING:
    from tf_fast_rcnn.data.writers.labelled import LabelledImage


def yolo_text(image: LabelledImage, class_names: Sequence[str]) -> str:
    """The lines of a labels file: `class x y width height`, with the position in `class_names` as the class.

    Scores are not written: labelImg and Datumaro, CVAT's library, refuse lines of six numbers.
    """
    numbers = exact_numbers(image.boxes, box_algebra.to_yolo, box_algebra.from_yolo)
    places = {name: place for place, name in enumerate(class_names)}
    lines = (" ".join([str(places[name]), *texts]) for name, texts in zip(image.names, numbers, strict=True))
    return "".join(f"{line}\n" for line in lines)


def data_yaml(class_names: Sequence[str], splits: Mapping[str, str]) -> str:
    """The content of data.yaml; `splits` are the folders of images by the name of the split."""
    content = {**splits, "nc": len(class_names), "names": list(class_names)}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
