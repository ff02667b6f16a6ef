"""Boxes, labels and contact sheets, checked by their pixels."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.visualization.drawing import (
    PALETTE,
    _ink,
    class_color,
    contact_sheet,
    draw_boxes,
    draw_detections,
    draw_ground_truth,
    object_captions,
)

GREY = 120


def grey_image(height=200, width=300):
    return np.full((height, width, 3), GREY, np.uint8)


def detections(boxes, scores, classes):
    return Detections(np.float32(boxes).reshape(-1, 4), np.float32(scores), np.int32(classes))


def pixels_of(picture, color):
    return (np.asarray(picture) == ImageColor.getrgb(color)).all(axis=-1)


def extent(mask):
    """First and last row and column of a mask: top, left, bottom, right."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return rows[0], columns[0], rows[-1], columns[-1]


def test_outline_lies_on_the_first_and_last_pixels_of_the_box():
    picture = draw_detections(grey_image(), detections([[0.5, 0.2, 0.9, 0.8]], [0.9], [3]), ["a", "b", "c"])
    colored = pixels_of(picture, class_color(3))
    # Rows 100..179 and columns 60..239; the label's plate is above, so measure the outline below row 100.
    assert extent(colored[100:])[1:] == (60, 79, 239)
    assert colored[100:180, 60].all()
    assert colored[100:180, 239].all()
    assert colored[179, 60:240].all()
    assert not colored[110:170, 70:230].any()


def test_label_stands_above_the_box_or_inside_where_there_is_no_room():
    for top, above in ((0.5, True), (0.0, False)):
        picture = draw_detections(grey_image(), detections([[top, 0.2, 0.9, 0.8]], [0.9], [1]), ["cat"])
        plate_rows = np.flatnonzero(pixels_of(picture, class_color(1))[:, 64:80].any(axis=1))
        assert (plate_rows[0] < top * 200) == above
        assert (np.asarray(picture)[:, 60:90] == 0).all(axis=-1).any(), "black text on the blue plate"


@pytest.mark.parametrize("box", [[0, 0.95, 0.1, 1], [0.97, 0, 1, 0.03], [0.97, 0.97, 1, 1], [0, 0, 1, 1]])
def test_whole_label_is_inside_the_image(box):
    """A label in a corner has as many pixels as one in the middle."""

    def plate_and_outline(where):
        name = "a long class name"
        picture = np.asarray(draw_detections(grey_image(), detections([where], [0.5], [2]), [name, name]))
        return pixels_of(picture, class_color(2))

    middle = extent(plate_and_outline([0.5, 0.3, 0.51, 0.31]))
    corner = extent(plate_and_outline(box))
    assert corner[3] - corner[1] >= middle[3] - middle[1]


def test_higher_scores_lie_on_top_and_low_ones_are_left_out():
    box = [0.2, 0.2, 0.8, 0.8]
    found = detections([box, box, [0, 0, 1, 1]], [0.9, 0.6, 0.1], [1, 2, 3])
    picture = draw_detections(grey_image(), found, ["a", "b", "c"], min_score=0.5)
    assert pixels_of(picture, class_color(1))[100, 60]
    assert not pixels_of(picture, class_color(3)).any()


def test_the_image_given_is_not_changed_and_may_be_pil_or_grey():
    array = grey_image()
    found = detections([[0.1, 0.1, 0.9, 0.9]], [0.9], [1])
    from_array = draw_detections(array, found, ["a"])
    assert (array == GREY).all()
    image = Image.fromarray(array)
    assert draw_detections(image, found, ["a"]) == from_array
    assert (np.asarray(image) == GREY).all()
    assert draw_detections(image.convert("L"), found, ["a"]) == from_array


def test_nothing_detected_leaves_the_image_and_boxes_beyond_it_are_cut():
    assert (np.asarray(draw_detections(grey_image(), detections([], [], []), ["a"])) == GREY).all()
    picture = draw_detections(grey_image(), detections([[-0.5, -0.5, 1.5, 1.5]], [0.9], [1]), ["a"])
    assert pixels_of(picture, class_color(1))[199, 299]


def test_boxes_without_area_on_an_image_of_few_pixels():
    picture = draw_detections(
        grey_image(3, 2), detections([[1, 1, 1, 1], [0.5, 0.5, 0.5, 0.5]], [0.9, 0.8], [1, 2]), "ab"
    )
    assert picture.size == (2, 3)


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


@pytest.mark.parametrize(("width", "drawn"), [(0.8, True), (0.05, False)])
def test_fitting_captions_are_not_wider_than_their_box(width, drawn):
    """A box without a caption has the same pixels as one whose caption does not fit."""
    box, color = [[0.5, 0.1, 0.9, 0.1 + width]], [class_color(2)]
    bare = draw_boxes(grey_image(), box, [""], color)
    fitting = draw_boxes(grey_image(), box, ["elephant"], color, fitting=True)
    assert (fitting != bare) == drawn
    assert draw_boxes(grey_image(), box, ["elephant"], color) != bare


def test_ten_classes_have_ten_colors_and_then_they_repeat():
    assert len({class_color(label) for label in range(1, 11)}) == 10
    assert class_color(11) == class_color(1) == PALETTE[0]


def test_text_reads_on_every_plate():
    def luminance(color):
        total = 0.0
        for value, weight in zip(ImageColor.getrgb(color), (0.2126, 0.7152, 0.0722), strict=True):
            value /= 255
            total += weight * (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
        return total

    for color in (*PALETTE, "#ffffff", "#000000"):
        dark, light = sorted([luminance(color), luminance(_ink(color))])
        assert (light + 0.05) / (dark + 0.05) >= 4.5, color  # WCAG 2, level AA


def test_contact_sheet_places_images_row_by_row():
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    images = [Image.new("RGB", size, color) for size, color in zip([(40, 20), (20, 30), (10, 10)], colors, strict=True)]
    sheet = np.asarray(contact_sheet(images, columns=2, gap=4))
    assert sheet.shape == (4 + 30 + 4 + 10 + 4, 4 + 40 + 4 + 20 + 4, 3)
    assert extent((sheet == colors[0]).all(axis=-1)) == (9, 4, 28, 43)
    assert extent((sheet == colors[1]).all(axis=-1)) == (4, 48, 33, 67)
    assert extent((sheet == colors[2]).all(axis=-1)) == (38, 19, 47, 28)


def test_contact_sheet_of_fewer_images_than_columns_and_of_none():
    assert contact_sheet([grey_image(10, 10)], columns=4, gap=0).size == (10, 10)
    with pytest.raises(ValueError, match="found no images"):
        contact_sheet([])
