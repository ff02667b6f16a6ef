"""Checks whether a file's proposals match a data set, before anything is trained on them.

Wrong coordinates do not cause an error: the network simply trains on boxes far from any object. They are detected by
their low recall, if another interpretation of the same numbers has a much higher one.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.box_orders import ORDERS, from_order
from tf_fast_rcnn.data.proposals.files import FileProposals, ProposalReport
from tf_fast_rcnn.data.proposals.recall import MIN_IOU, recall
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.records import ImageRecord

# Interpretations are compared on at most this many evenly spaced images: enough objects, in seconds.
_MAX_COMPARED = 200
# Another interpretation explains a low recall if it finds more objects by at least this fraction of all, and if, among
# the objects found by only one of the two, it finds significantly more (in standard deviations; McNemar's test). Poor
# proposals in the right order are not better in another order.
_MIN_GAIN = 0.2
_MIN_DEVIATIONS = 3.0
# With a wrong base, all boxes that touch a border stick out by a pixel.
_MIN_STICKING_OUT = 3
_MIN_SHARE_STICKING_OUT = 0.01
# Moving imprecise proposals by a pixel changes their mean best IoU by about this much in either direction.
_IOU_OF_A_PIXEL = 0.01
# With more than this fraction of boxes beyond the image or reversed, another interpretation without them is preferred.
_MAX_MISFITS = 0.1


class _Reading(NamedTuple):
    """The result of one interpretation of the file on the compared images.

    Attributes:
        name: the coordinate order, or a description.
        best: float32 [G], the best IoU of each object.
        misfits: fraction of proposals that are reversed, tiny, or beyond the image by more than a pixel.
        sticking_out: number of proposals that are beyond the image by about one pixel.
        proposals: number of proposals.
    """

    name: str
    best: np.ndarray
    misfits: float
    sticking_out: int
    proposals: int


def check_proposals(proposals: FileProposals, dataset: Sequence[ImageRecord]) -> ProposalReport:
    """Compares a file's proposals with a data set.

    Args:
        proposals: `FileProposals`.
        dataset: `DetectionDataset`, or any sequence of `ImageRecord`.

    Returns:
        `ProposalReport`.

    Raises:
        InputError: for an image without an entry in the file, an entry that matches two images, numbers that are not
            finite, and proposals that match much better in another coordinate order, with another base, or shifted by
            one image; the message names it and both recalls.
    """
    matched = _match(proposals, dataset)
    fixes, best = Counter(), [np.zeros(0, np.float32)]
    for record in dataset:
        boxes = proposals.usable(record, fixes)
        best.append(_best_ious(boxes, record))
    _explain(proposals, dataset, matched)
    unused = len(proposals.rows or ()) - len(set(matched))
    counts = {**fixes, "images of the file that are not in the data set": unused}
    return ProposalReport({what: count for what, count in counts.items() if count}, recall(np.concatenate(best)))


def _match(proposals, dataset):
    """The name in the file of each image."""
    names = [proposals.name_of(record) for record in dataset]
    missing = [record.image_id for record, name in zip(dataset, names, strict=True) if name is None]
    if missing:
        raise InputError(
            f"{proposals.file}: found no proposals for {len(missing)} of {len(names)} images ({', '.join(missing[:3])}"
            f"{', ...' if missing[3:] else ''}); expected them under the image's id or file name; the file has "
            f"{', '.join([str(name) for name in proposals.rows][:3])}, ..."
        )
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise InputError(
            f"{proposals.file}: {count} images match the entry {name!r}; expected one entry per image; name the "
            "entries by image id"
        )
    return names


def _best_ious(boxes, record):
    objects = record.boxes[~record.crowd]
    return box_algebra.iou(boxes, objects).max(axis=0, initial=0)


def _explain(proposals, dataset, matched):
    """Raises an InputError if another interpretation fits and the given one does not."""
    chosen = np.unique(np.linspace(0, len(matched) - 1, min(len(matched), _MAX_COMPARED)).astype(int)).tolist()
    images = [(dataset[index], matched[index]) for index in chosen]
    given = _read_as(proposals, images, proposals.order)
    low_recall = len(given.best) and recall(given.best) < 1 - _MIN_GAIN
    misfit = given.misfits > _MAX_MISFITS or _sticks_out(given)
    if not low_recall and not misfit:
        return
    others = [_read_as(proposals, images, order) for order in ORDERS if order != proposals.order]
    better = [other for other in others if _explains_recall(other, given)]
    better += [reading for reading in _shifted(proposals, images) if low_recall and _explains_recall(reading, given)]
    better = better or [other for other in others if misfit and _fits_better(other, given)]
    if better:
        raise _other_reading(proposals, given, max(better, key=_goodness))
    if given.misfits > 0.5:
        raise InputError(
            f"{proposals.file}: found {given.misfits:.0%} of the proposals beyond their image, reversed or tiny, read "
            f"as {proposals.order}; expected them inside; check the coordinates and the image sizes"
        )


def _read_as(proposals, images, order, name=None):
    """The `_Reading` of `images`, which are pairs of a record and a name in the file."""
    best, misfits, sticking_out, count = [np.zeros(0, np.float32)], 0, 0, 0
    read = dataclasses.replace(proposals, order=order)
    for record, entry in images:
        rows = proposals.rows[entry]
        boxes = from_order(rows.corners, record.height, record.width, order)
        inside = box_algebra.clip(boxes)
        beyond = np.abs(box_algebra.scale(boxes - inside, record.height, record.width)).max(axis=1, initial=0)
        sides = box_algebra.scale(boxes, record.height, record.width)
        sides = sides[:, 2:] - sides[:, :2]
        # Relative coordinates interpreted as pixels are boxes of a pixel or two.
        misfits += int(np.sum((beyond > 1.5) | (sides < 0).any(axis=1) | (sides <= 2).all(axis=1)))
        sticking_out += int(np.sum((beyond > 0.5) & (beyond <= 1.5)))
        count += len(boxes)
        best.append(_best_ious(read.usable_rows(rows, record, Counter()), record))
    return _Reading(name or order, np.concatenate(best), misfits / max(count, 1), sticking_out, count)


def _shifted(proposals, images):
    """Yields interpretations in which each image gets the rows of its neighbour in the file."""
    names = list(proposals.rows)
    places = {name: place for place, name in enumerate(names)}
    for shift, which in ((1, "next"), (-1, "previous")):
        moved = [(record, names[(places[name] + shift) % len(names)]) for record, name in images]
        yield _read_as(proposals, moved, proposals.order, f"{proposals.order} of the {which} image")


def _explains_recall(other, given):
    only_other = np.sum((other.best >= MIN_IOU) & (given.best < MIN_IOU))
    only_given = np.sum((given.best >= MIN_IOU) & (other.best < MIN_IOU))
    gain = only_other - only_given
    return gain > _MIN_GAIN * len(given.best) and gain >= _MIN_DEVIATIONS * math.sqrt(only_other + only_given)


def _sticks_out(reading):
    return reading.sticking_out >= max(_MIN_STICKING_OUT, _MIN_SHARE_STICKING_OUT * reading.proposals)


def _fits_better(other, given):
    fits = other.misfits <= 0.1 * given.misfits and other.sticking_out <= 0.1 * given.sticking_out
    return fits and _mean(other.best) > _mean(given.best) - _IOU_OF_A_PIXEL


def _goodness(reading):
    return _mean(reading.best) - reading.misfits - reading.sticking_out / max(reading.proposals, 1)


def _mean(best):
    return float(best.mean()) if len(best) else 0.0


def _other_reading(proposals, given, other):
    recalls = ""
    if len(given.best):
        recalls = f" (recall at IoU {MIN_IOU}: {recall(given.best):.3f})"
        recalls_other = f" (recall {recall(other.best):.3f})"
    else:
        recalls_other = " (all inside their images)"
    what_to_do = f"use --proposals-order {other.name}" if other.name in ORDERS else "check the order of the rows"
    return InputError(
        f"{proposals.file}: found proposals that do not fit the images when read as {given.name}{recalls}; they fit as "
        f"{other.name}{recalls_other}; {what_to_do}"
    )
