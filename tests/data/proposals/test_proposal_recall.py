"""Recall of proposals, compared with naive loops."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_fast_rcnn.data.proposals.recall import (
    best_overlaps,
    class_best_overlaps,
    recall_by_size,
    recall_curves,
)
from tf_fast_rcnn.data.records import ImageRecord

COORDINATE = st.integers(0, 8).map(lambda value: value / 8)
BOX = st.tuples(COORDINATE, COORDINATE, COORDINATE, COORDINATE).map(
    lambda box: (min(box[0], box[2]), min(box[1], box[3]), max(box[0], box[2]), max(box[1], box[3]))
)
OBJECT = st.tuples(BOX, st.integers(1, 3), st.booleans())


def make_record(objects, proposals):
    boxes, labels, crowd = zip(*objects, strict=True) if objects else ([], [], [])
    difficult = np.zeros(len(labels), bool)
    return ImageRecord("a", "a.png", 40, 60, boxes, labels, difficult, crowd, np.float32(proposals).reshape(-1, 4))


RECORD = st.builds(make_record, st.lists(OBJECT, max_size=4), st.lists(BOX, max_size=6))


def naive_iou(first, second):
    height = max(0, min(first[2], second[2]) - max(first[0], second[0]))
    width = max(0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second))
    return height * width / (areas - height * width) if areas > height * width else 0.0


def naive_best(box, proposals):
    return max([naive_iou(box, proposal) for proposal in proposals], default=0.0)


@settings(max_examples=50, deadline=None)
@given(RECORD)
def test_the_best_proposal_of_each_object(record):
    best = best_overlaps(record)
    assert best.iou.dtype == np.float32
    assert len(best.iou) == len(best.index) == len(record.boxes)
    for box, iou, index in zip(record.boxes, *best, strict=True):
        assert iou == pytest.approx(naive_best(box, record.proposals()), abs=1e-6)
        if index >= 0:
            assert naive_iou(box, record.proposals()[index]) == pytest.approx(iou, abs=1e-6)
        else:
            assert len(record.proposals()) == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(RECORD, max_size=4))
def test_recall_counts_objects_that_are_no_crowds(records):
    curves = recall_curves(records, thresholds=(0.3, 0.7), counts=(1, 3, 100))

    def naive(min_iou, count):
        found = [
            naive_best(box, record.proposals()[:count]) >= min_iou
            for record in records
            for box, crowd in zip(record.boxes, record.crowd, strict=True)
            if not crowd
        ]
        return sum(found) / len(found) if found else math.nan

    np.testing.assert_allclose(curves.by_iou, [naive(0.3, None), naive(0.7, None)])
    np.testing.assert_allclose(curves.by_count, [naive(0.5, count) for count in (1, 3, 100)])


def test_best_overlaps_by_class_are_those_of_each_object():
    """Crowds do not count."""
    records = [
        make_record([((0, 0, 1, 1), 1, False), ((0, 0, 1, 0.5), 3, False), ((0, 0, 1, 1), 3, True)], [(0, 0, 1, 0.5)]),
        make_record([((0, 0, 0.5, 1), 1, False)], []),
    ]
    found = class_best_overlaps(records, ("a", "b", "c"))
    assert {name: overlaps.tolist() for name, overlaps in found.items()} == {"a": [0.5, 0.0], "b": [], "c": [1.0]}


def test_recall_by_size_by_hand():
    """In an image of 40 x 60: a box of 20 x 30 = 600 pixels is small, one of 40 x 30 = 1200 medium; none is large."""
    small, other_small, medium = (0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1), (0, 0, 1, 0.5)
    record = make_record([(small, 1, False), (other_small, 2, False), (medium, 1, False)], [small, (0, 0, 1, 0.45)])
    assert recall_by_size([record]) == pytest.approx({"all": 2 / 3, "small": 1 / 2, "medium": 1})


def test_recall_by_size_does_not_count_crowds_and_needs_objects():
    box = (0, 0, 0.5, 0.5)
    assert recall_by_size([make_record([(box, 1, True)], [box])]) == {}
    assert recall_by_size([make_record([], [box])]) == {}
    assert recall_by_size([]) == {}


def test_recall_by_size_looks_at_a_sample_of_many_images():
    box = (0, 0, 0.5, 0.5)
    found, missed = make_record([(box, 1, False)], [box]), make_record([(box, 1, False)], [])
    assert recall_by_size([found, missed, missed, missed, missed], max_images=2) == pytest.approx(
        {"all": 0.5, "small": 0.5}
    )
