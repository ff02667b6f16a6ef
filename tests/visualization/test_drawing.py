"""Boxes, labels and contact sheets, checked by their pixels."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from tf_fast_rcnn.visualization.drawing import PALETTE, _ink, class_color, contact_sheet, draw_boxes

GREY = 120


def grey_image(height=200, width=300):
    return np.full((height, width, 3), GREY, np.uint8)


def drawn(image, box, label, caption):
    return draw_boxes(image, np.float32([box]), [caption], [class_color(label)])


def pixels_of(picture, color):
    return (np.asarray(picture) == ImageColor.getrgb(color)).all(axis=-1)


def extent(mask):
    """First and last row and column of a mask: top, left, bottom, right."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return rows[0], columns[0], rows[-1], columns[-1]


def test_outline_lies_on_the_first_and_last_pixels_of_the_box():
    picture = drawn(grey_image(), [0.5, 0.2, 0.9, 0.8], 3, "c 0.90")
    colored = pixels_of(picture, class_color(3))
    # Rows 100..179 and columns 60..239; the label's plate is above, so measure the outline below row 100.
    assert extent(colored[100:])[1:] == (60, 79, 239)
    assert colored[100:180, 60].all()
    assert colored[100:180, 239].all()
    assert colored[179, 60:240].all()
    assert not colored[110:170, 70:230].any()


def test_label_stands_above_the_box_or_inside_where_there_is_no_room():
    for top, above in ((0.5, True), (0.0, False)):
        picture = drawn(grey_image(), [top, 0.2, 0.9, 0.8], 1, "cat 0.90")
        plate_rows = np.flatnonzero(pixels_of(picture, class_color(1))[:, 64:80].any(axis=1))
        assert (plate_rows[0] < top * 200) == above
        assert (np.asarray(picture)[:, 60:90] == 0).all(axis=-1).any(), "black text on the blue plate"


@pytest.mark.parametrize("box", [[0, 0.95, 0.1, 1], [0.97, 0, 1, 0.03], [0.97, 0.97, 1, 1], [0, 0, 1, 1]])
def test_whole_label_is_inside_the_image(box):
    """A label in a corner has as many pixels as one in the middle."""

    def plate_and_outline(where):
        return pixels_of(drawn(grey_image(), where, 2, "a long class name 0.50"), class_color(2))

    middle = extent(plate_and_outline([0.5, 0.3, 0.51, 0.31]))
    corner = extent(plate_and_outline(box))
    assert corner[3] - corner[1] >= middle[3] - middle[1]


def test_the_image_given_is_not_changed_and_may_be_pil_or_grey():
    array = grey_image()
    box = [0.1, 0.1, 0.9, 0.9]
    from_array = drawn(array, box, 1, "a")
    assert (array == GREY).all()
    image = Image.fromarray(array)
    assert drawn(image, box, 1, "a") == from_array
    assert (np.asarray(image) == GREY).all()
    assert drawn(image.convert("L"), box, 1, "a") == from_array


def test_boxes_without_area_on_an_image_of_few_pixels():
    places = np.float32([[1, 1, 1, 1], [0.5, 0.5, 0.5, 0.5]])
    picture = draw_boxes(grey_image(3, 2), places, ["a 0.90", "b 0.80"], [class_color(1), class_color(2)])
    assert picture.size == (2, 3)


@pytest.mark.parametrize(("width", "fits"), [(0.8, True), (0.05, False)])
def test_fitting_captions_are_not_wider_than_their_box(width, fits):
    """A box without a caption has the same pixels as one whose caption does not fit."""
    box, color = [[0.5, 0.1, 0.9, 0.1 + width]], [class_color(2)]
    bare = draw_boxes(grey_image(), box, [""], color)
    fitting = draw_boxes(grey_image(), box, ["elephant"], color, fitting=True)
    assert (fitting != bare) == fits
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
