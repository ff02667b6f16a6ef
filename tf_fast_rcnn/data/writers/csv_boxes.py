"""Writes CSV files with one box per line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.writers.labelled import exact_numbers

if TYPE_CHECKING:
    from tf_fast_rcnn.data.writers.labelled import LabelledImage

_COLUMNS = ("filename", "width", "height", "xmin", "ymin", "xmax", "ymax", "class", "difficult", "crowd")


def csv_text(images: Iterable[LabelledImage], prefix: str = "") -> str:
    """The content of a file; `prefix` is put in front of each file name. Images without objects have one line."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for image in images:
        start = [f"{prefix}{image.file}", image.record.width, image.record.height]
        numbers = _corners(image)
        for index, texts in enumerate(numbers):
            flags = [int(image.difficult[index]), int(image.crowd[index])]
            writer.writerow([*start, *texts, image.names[index], *flags])
        if not numbers:
            writer.writerow([*start, *[""] * 7])
    return file.getvalue()


def _corners(image):
    height, width = image.record.height, image.record.width
    return exact_numbers(
        image.boxes,
        lambda boxes: box_algebra.to_xyxy(boxes, height, width),
        lambda edges: box_algebra.from_xyxy(edges, height, width),
    )
