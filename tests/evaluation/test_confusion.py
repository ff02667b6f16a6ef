"""The confusion matrix of scenes made by hand."""

import numpy as np

from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.records import DetectionDataset, ImageRecord
from tf_fast_rcnn.evaluation.confusion import confusion_matrix

A, B, C, D = [0, 0, 0.2, 0.2], [0.3, 0.3, 0.5, 0.5], [0.6, 0.6, 0.8, 0.8], [0, 0.6, 0.3, 0.9]
NEAR_A = [0, 0, 0.2, 0.18]


def matrix(objects, found, difficult=None, crowd=None, **options):
    """Objects and detections as `(box, class, score)`; classes cat 1, dog 2."""
    labels = [label for _, label in objects]
    difficult = [False] * len(labels) if difficult is None else difficult
    record = ImageRecord("0", "", 100, 100, [box for box, _ in objects], labels, difficult, crowd)
    columns = [[each[n] for each in found] for n in range(3)]
    boxes, classes, scores = columns
    detections = Detections(np.float32(boxes).reshape(-1, 4), np.float32(scores), np.int32(classes))
    return confusion_matrix(DetectionDataset("one", ["cat", "dog"], [record]), [detections], **options).tolist()


def test_right_wrong_missed_and_nothing_there():
    found = [(A, 1, 0.9), (B, 2, 0.8), (D, 2, 0.7)]
    assert matrix([(A, 1), (B, 1), (C, 2)], found) == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]


def test_a_detection_of_the_right_class_goes_before_one_with_a_higher_score():
    assert matrix([(A, 1)], [(A, 2, 0.9), (NEAR_A, 1, 0.6)]) == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_the_higher_score_finds_the_object_and_a_duplicate_finds_nothing():
    assert matrix([(A, 1)], [(NEAR_A, 1, 0.6), (A, 1, 0.9)]) == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_scores_below_the_least_and_overlaps_below_the_threshold():
    assert matrix([(A, 1)], [(A, 1, 0.4)]) == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert matrix([(A, 1)], [(A, 1, 0.4)], min_score=0.4)[0] == [1, 0, 0]
    assert matrix([(A, 1)], [(NEAR_A, 1, 0.9)], iou_threshold=0.95) == [[0, 0, 1], [0, 0, 0], [1, 0, 0]]


def test_difficult_objects_and_crowds_do_not_count():
    found = [(A, 2, 0.9), (B, 1, 0.8), (D, 1, 0.7)]
    assert matrix([(A, 1), (B, 1)], found, [True, False], [False, True]) == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_no_objects_and_no_detections():
    assert matrix([], [(A, 1, 0.9)]) == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert matrix([(A, 2)], []) == [[0, 0, 0], [0, 0, 1], [0, 0, 0]]
