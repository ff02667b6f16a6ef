"""Checks whether annotated boxes have the unit, the order and the first pixel that their format prescribes.

Boxes read in a wrong way raise no error by themselves: they are clipped to their images, or dropped, and a network is
trained on what is left. A reading is wrong if many boxes do not fit into their images and another reading has almost
no such boxes, or if all numbers are where only fractions or percentages of a side would be.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.box_orders import ANNOTATION_ORDERS
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.readers.annotations import Annotation

# The orders that are mistaken for one another: those of other letters, and those of another unit.
_OTHERS = {
    "xywh-edges": ("xyxy-edges", "xywh-anycorner", "cxcywh-edges", "yxyx-edges", "yxhw-edges"),
    "xyxy-edges": ("xywh-edges", "xyxy-anycorner", "cxcywh-edges", "yxyx-edges"),
    "xyxy-1based": ("xywh-edges", "cxcywh-edges", "yxyx-1based"),
    "cxcywh-relative": ("xywh-relative", "xyxy-relative"),
}
_RELATIVE = ("xywh-relative", "xyxy-relative", "cxcywh-relative", "yxyx-relative")
_PERCENT = ("xywh-percent", "xyxy-percent")
# Boxes beyond the image by more pixels than this, and reversed ones, do not fit.
_MARGIN = 1.5
# Another reading is looked for if more than this fraction of the boxes do not fit; it must have a tenth of the misfits.
_MAX_MISFITS = 0.1
_MUCH_BETTER = 0.1
# A few boxes may be wrong by themselves, and so may a single one.
_MIN_MISFITS = 3
# A box that is a little too large often fits if its corner is taken for its centre, or the other way round: at least so
# many boxes must not fit, and then fit so.
_MIN_MISFITS_OF_CENTRES = 10
# Boxes may touch the border of pixel 0 in a file whose first pixel is 1 by mistake; not in more than this fraction.
_MAX_TOUCHING_ZERO = 0.01
# Boxes in pixels all lie within the first 100 columns and rows by chance with less than this probability.
_CHANCE_OF_FRACTIONS, _CHANCE_OF_WHOLE_NUMBERS = 1e-4, 1e-8


class _Boxes(NamedTuple):
    """All boxes of a data set as in its files, `corners` `[N, 4]`, with the heights and widths `[N]` of their images
    and the places that they come from."""

    corners: np.ndarray
    heights: np.ndarray
    widths: np.ndarray
    sources: list


def check_boxes(annotations: Iterable[Annotation]) -> None:
    """Raises an InputError if the boxes of a data set fit their images much better in another coordinate order.

    Annotations without an `order` are not checked; crowds and other objects are checked alike.
    """
    groups = defaultdict(list)
    for annotation in annotations:
        if annotation.order in _OTHERS and len(annotation.corners):
            groups[annotation.order].append(annotation)
    for order, group in groups.items():
        counts = [len(each.corners) for each in group]
        frames = np.repeat(np.array([each.frame for each in group], np.float64), counts, axis=0)
        sources = [each.source for each, count in zip(group, counts, strict=True) for _ in range(count)]
        found = _Boxes(np.concatenate([each.corners for each in group]), frames[:, 0], frames[:, 1], sources)
        if order != "cxcywh-relative":
            _refuse_relative(found, order)
            _refuse_percent(found, order)
        _refuse_other_letters(found, order)
        if order == "xyxy-1based":
            _refuse_zero_based(found)


def _refuse_relative(found, order):
    """All coordinates of many boxes are 0 to 1: in pixels, none of these boxes would be larger than one.

    Boxes of whole numbers are not counted: they may be one pixel as well as the whole image.
    """
    in_range = ((found.corners >= 0) & (found.corners <= 1)).all(axis=1)
    within = in_range & (found.corners != np.round(found.corners)).any(axis=1)
    candidates = [_RELATIVE[0 if order.startswith("xywh") else 1], *_RELATIVE]
    best = min(candidates, key=lambda name: _misfits(found, name)[within].sum())
    with_area = within & ~_flat(found, best)
    if with_area.sum() > _MAX_MISFITS * len(within):
        many = "all coordinates" if in_range.all() else f"all coordinates of {with_area.sum()} of {len(within)} boxes"
        raise _refusal(found, with_area, f"{many} are in the range 0 to 1; expected pixels", order, [best])


def _refuse_percent(found, order):
    """No box reaches beyond 100 although the images do, which is too unlikely to be chance."""
    with np.errstate(over="ignore"):
        edges = ANNOTATION_ORDERS[order](found.corners, 1, 1)
    if not 50 < edges.max() <= 100.5 or found.corners.min() < 0:
        return
    shares = np.minimum(100 / found.widths, 1) * np.minimum(100 / found.heights, 1)
    whole = np.all(found.corners == np.round(found.corners))
    if np.sum(np.log(shares)) > np.log(_CHANCE_OF_WHOLE_NUMBERS if whole else _CHANCE_OF_FRACTIONS):
        return
    fitting = [name for name in _PERCENT if name[:4] == order[:4] and not _misfits(found, name).any()]
    if fitting:
        larger = shares < 1
        what = "all boxes lie in the first 100 columns and rows of larger images, as percentages do; expected pixels"
        raise _refusal(found, larger, what, order, fitting)


def _refuse_other_letters(found, order):
    given = _misfits(found, order)
    if given.mean() <= _MAX_MISFITS:
        return
    fitting = []
    for name in _OTHERS[order]:
        of_centres = name.startswith("cxcywh") or order.startswith("cxcywh")
        least = _MIN_MISFITS_OF_CENTRES if of_centres else min(_MIN_MISFITS, max(2, len(given)))
        if name.endswith("-anycorner") and _reversed(found, order).mean() <= 0.5:
            continue
        if given.sum() >= least and _misfits(found, name).sum() <= _MUCH_BETTER * given.sum():
            fitting.append(name)
    if fitting:
        what = f"{given.sum()} of {len(given)} boxes are reversed or beyond their images, read as {order}"
        raise _refusal(found, given, what, order, fitting[:1])
    turned = _reversed(found, order)
    if turned.mean() > 0.5 and turned.sum() >= 3:
        what = f"{turned.sum()} of {len(turned)} boxes are reversed; expected the upper left corner first"
        raise _refusal(found, turned, what, order, [])


def _refuse_zero_based(found):
    """A first pixel 0 in a file whose first pixel should be 1."""
    first, last = found.corners[:, :2], found.corners[:, 2:]
    touching = ((first >= 0) & (first < 1)).any(axis=1) & ~_misfits(found, "xyxy-1based")
    if touching.sum() <= _MAX_TOUCHING_ZERO * len(touching):
        return
    whole_side = (last[:, 0] >= found.widths) | (last[:, 1] >= found.heights)
    what = f"{touching.sum()} of {len(touching)} boxes begin at 0; expected 1 as the first pixel, as in Pascal VOC"
    fitting = ["xyxy-edges"] if whole_side.any() else ["xyxy-edges", "xyxy-0based"]
    raise _refusal(found, touching, what, "xyxy-1based", fitting)


def _refusal(found, which, what, order, fitting):
    """The InputError; `which` of the boxes are wrong, and those orders fit."""
    example = int(np.argmax(which))
    numbers = [float(number) for number in found.corners[example]]
    right = f"if they are right as {order}, pass --boxes-order {order}"
    if order == "cxcywh-relative":
        todo = f"they fit as {fitting[0]}; convert them" if fitting else "correct them"
    elif fitting:
        option = f"--boxes-order {' or '.join(fitting)} (boxes_order=...; for voc:, coco: and csv:)"
        todo = f"pass {option}, with which all fit; {right}"
        if len(fitting) > 1:
            todo = f"{todo} (edges: a full side is 0 to its length; 0based: to its length - 1)"
    else:
        todo = f"correct them; {right}"
    return InputError(f"{found.sources[example]}: {what} (for example {numbers}); {todo}")


def _sides(found, order):
    """Height and width of each box in pixels, `[N, 2]`, negative if it is reversed; and how far it is outside."""
    with np.errstate(over="ignore", invalid="ignore"):
        drawn = np.asarray(ANNOTATION_ORDERS[order](found.corners, found.heights, found.widths), np.float64)
        beyond = np.abs(box_algebra.scale(drawn - box_algebra.clip(drawn), found.heights, found.widths)).max(axis=1)
        scaled = box_algebra.scale(drawn, found.heights, found.widths)
    return scaled[:, 2:] - scaled[:, :2], beyond


def _misfits(found, order):
    sides, beyond = _sides(found, order)
    return ~(beyond <= _MARGIN) | (sides < -1e-6).any(axis=1)


def _flat(found, order):
    return (_sides(found, order)[0] <= 0).any(axis=1)


def _reversed(found, order):
    return (_sides(found, order)[0] < -1e-6).any(axis=1)
