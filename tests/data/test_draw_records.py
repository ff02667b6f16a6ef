"""Detections and the ground truth on images, checked by their pixels."""

import numpy as np
from PIL import ImageColor

from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.drawing import draw_detections, draw_ground_truth, object_captions
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.visualization.drawing import class_color, draw_boxes

GREY = 120


def grey_image():
    return np.full((200, 300, 3), GREY, np.uint8)


def detections(boxes, scores, classes, class_names=None):
    return Detections(np.float32(boxes).reshape(-1, 4), np.float32(scores), np.int32(classes), class_names)


def pixels_of(picture, color):
    return (np.asarray(picture) == ImageColor.getrgb(color)).all(axis=-1)


def test_detections_are_boxes_with_class_and_score_the_best_one_last():
    boxes = np.float32([[0.1, 0.1, 0.5, 0.5], [0.2, 0.2, 0.9, 0.9]])
    captions, colors = ["b 0.50", "a 0.93"], [class_color(2), class_color(1)]
    expected = draw_boxes(grey_image(), boxes[::-1], captions, colors)
    found = detections(boxes, [0.934, 0.5], [1, 2])
    assert draw_detections(grey_image(), found, ["a", "b"]) == expected
    named = detections(boxes, [0.934, 0.5], [1, 2], ["a", "b"])
    assert draw_detections(grey_image(), named) == expected
    assert draw_detections(grey_image(), found) != expected
    assert draw_detections(grey_image(), detections(boxes, [0.934, 0.5], [1, 2], ["x", "y"]), ["a", "b"]) == expected


def test_higher_scores_lie_on_top_and_low_ones_are_left_out():
    box = [0.2, 0.2, 0.8, 0.8]
    found = detections([box, box, [0, 0, 1, 1]], [0.9, 0.6, 0.1], [1, 2, 3])
    picture = draw_detections(grey_image(), found, ["a", "b", "c"], min_score=0.5)
    assert pixels_of(picture, class_color(1))[100, 60]
    assert not pixels_of(picture, class_color(3)).any()


def test_nothing_detected_leaves_the_image_and_boxes_beyond_it_are_cut():
    assert (np.asarray(draw_detections(grey_image(), detections([], [], []), ["a"])) == GREY).all()
    picture = draw_detections(grey_image(), detections([[-0.5, -0.5, 1.5, 1.5]], [0.9], [1]), ["a"])
    assert pixels_of(picture, class_color(1))[199, 299]


def test_ground_truth_is_dashed_black_and_white():
    record = ImageRecord("0", "0.jpg", 200, 300, [[0.5, 0.2, 0.9, 0.8]], [1], [True])
    picture = np.asarray(draw_ground_truth(grey_image(), record, ["cat"])).astype(int)
    bottom_edge = picture[179, 60:240]
    assert set(bottom_edge[:, 0]) == {0, 255}
    changes = np.count_nonzero(np.diff(bottom_edge[:, 0]))
    assert 10 < changes < 60
    assert (picture[110:170, 70:230] == GREY).all()


def test_captions_tell_difficult_objects_and_crowds():
    record = ImageRecord("0", "0.jpg", 9, 9, np.zeros((4, 4)), [1, 2, 1, 2], [0, 1, 0, 1], [0, 0, 1, 1])
    assert object_captions(record, ["cat", "dog"]) == ["cat", "(dog)", "cat: crowd", "(dog: crowd)"]
