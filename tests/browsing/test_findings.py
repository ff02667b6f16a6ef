"""Every rule about boxes and classes, on data that breaks it and on data that just does not."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_fast_rcnn import boxes
from tf_fast_rcnn.browsing import findings
from tf_fast_rcnn.browsing.findings import box_findings, class_findings, measure_objects, missed_findings
from tf_fast_rcnn.data.records import ImageRecord

NAMES = ["cat", "dog"]


def record(pixel_boxes, labels=None, crowd=None, height=300, width=400):
    """An image of 300 x 400 pixels, which the network sees at twice that, with boxes ymin, xmin, ymax, xmax in them."""
    relative = boxes.relative(np.float32(pixel_boxes).reshape(-1, 4), height, width)
    labels = [1] * len(relative) if labels is None else labels
    return ImageRecord("a", "a.jpg", height, width, relative, labels, [False] * len(relative), crowd)


def found(*arguments, **options):
    """`(kind, objects)` of each finding."""
    return [(each.kind, each.objects) for each in box_findings(7, record(*arguments, **options), NAMES)]


def test_an_image_that_is_right_has_no_findings():
    assert found([[10, 10, 100, 200], [10, 150, 290, 390]], [1, 2]) == []


def test_an_image_without_labels():
    (finding,) = box_findings(7, record([]), NAMES)
    assert finding == ("images_without_labels", "no objects", (7,), ())


def test_objects_annotated_twice_and_with_two_classes():
    """The second box has 192 of the 200 rows of the first: an IoU of 0.96."""
    twice = [[50, 100, 250, 200], [50, 100, 242, 200]]
    assert found(twice) == [("duplicate_boxes", (0, 1))]
    assert found(twice, [1, 2]) == [("boxes_of_two_classes", (0, 1))]
    assert found(twice, crowd=[False, True]) == []
    assert found([twice[0], [50, 100, 238, 200]]) == []  # 0.94
    (finding,) = box_findings(7, record(twice, [2, 1]), NAMES)
    assert finding.text == "dog and cat, IoU 0.96"


def test_tiny_boxes_are_below_two_cells_of_the_feature_map():
    """A shorter side of 0.054 * 600 = 32.4 pixels in the network is 16.2 in the image."""
    assert found([[10, 10, 26, 60], [100, 10, 160, 26.5]]) == [("tiny_boxes", (0,))]
    assert found([[10, 10, 26, 60]], crowd=[True]) == []
    (finding,) = box_findings(7, record([[10, 10, 26, 60]]), NAMES)
    assert finding.text == "cat, 50 x 16 px (32 px in the network)"


def test_huge_boxes_cover_more_than_95_percent():
    assert found([[0, 0, 300, 381]]) == [("huge_boxes", (0,))]
    assert found([[0, 0, 300, 379]]) == []


@pytest.mark.parametrize("turned", [False, True])
def test_very_long_boxes(turned):
    def turn(box):
        return [box[1], box[0], box[3], box[2]] if turned else box

    sizes = {"height": 400, "width": 300} if turned else {}
    assert found([turn([10, 10, 40, 315])], **sizes) == [("extreme_aspects", (0,))]
    assert found([turn([10, 10, 40, 305])], **sizes) == []


def test_measures_by_hand():
    measures = measure_objects(record([[0, 0, 150, 200], [30, 40, 60, 130]], [2, 1]))
    np.testing.assert_allclose(measures.sizes, [0.5, np.sqrt(0.1 * 0.225)], rtol=1e-5)
    np.testing.assert_allclose(measures.shorter_sides, [300, 60], rtol=1e-5)
    np.testing.assert_allclose(measures.aspects, [200 / 150, 90 / 30], rtol=1e-5)
    assert measures.class_ids.tolist() == [2, 1]


def test_objects_without_a_good_proposal():
    image = record([[10, 10, 90, 90]] * 4, [1, 2, 1, 1], crowd=[False, False, False, True])
    overlaps = np.float32([0.499, 0.5, 0.2, 0.1])
    assert missed_findings(3, image, NAMES, overlaps) == [
        ("missed_objects", "cat, best IoU 0.499", (3,), (0,)),
        ("missed_objects", "cat, best IoU 0.200", (3,), (2,)),
    ]


@st.composite
def crowded_images(draw):
    """Boxes of which some are others, slightly moved."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    corners = rng.uniform(0, 0.6, (draw(st.integers(1, 8)), 2))
    drawn = np.concatenate([corners, corners + rng.uniform(0.1, 0.4, corners.shape)], axis=1)
    drawn = np.repeat(drawn, rng.integers(1, 4, len(drawn)), axis=0)
    drawn += rng.uniform(-0.004, 0.004, drawn.shape)
    return boxes.clip(drawn.astype(np.float32)), rng.integers(1, 3, len(drawn)), rng.random(len(drawn)) < 0.2


@settings(deadline=None, max_examples=80)
@given(crowded_images())
def test_double_boxes_are_those_of_a_naive_search(image):
    relative, labels, crowd = image
    image = ImageRecord("a", "a.jpg", 480, 640, relative, labels, crowd, crowd)
    expected = {"duplicate_boxes": set(), "boxes_of_two_classes": set()}
    for first in range(len(relative)):
        for second in range(first + 1, len(relative)):
            (top, left, bottom, right), (other_top, other_left, other_bottom, other_right) = relative[[first, second]]
            height = max(min(bottom, other_bottom) - max(top, other_top), 0)
            width = max(min(right, other_right) - max(left, other_left), 0)
            area = (bottom - top) * (right - left) + (other_bottom - other_top) * (other_right - other_left)
            iou = height * width / (area - height * width)
            if iou >= 0.95 and not (crowd[first] or crowd[second]):
                same = labels[first] == labels[second]
                expected["duplicate_boxes" if same else "boxes_of_two_classes"].add((first, second))
    result = box_findings(0, image, NAMES)
    for kind, pairs in expected.items():
        assert {each.objects for each in result if each.kind == kind} == pairs


@pytest.mark.parametrize(
    ("counts", "pairs"),
    [
        ({"RBC": 4155, "WBC": 372, "Platelets": 361}, []),
        ({"Platelets": 300, "platelets": 299}, [("platelets", "Platelets")]),
        ({"t-shirt": 5, "T shirt": 9}, [("t-shirt", "T shirt")]),
        ({"straße": 2, "STRASSE": 7}, [("straße", "STRASSE")]),
        ({"cow": 50, "cows": 5}, [("cows", "cow")]),
        ({"cow": 49, "cows": 5}, []),  # not ten times as frequent
        ({"helmet": 80, "hlemet": 1, "helment": 2}, [("helment", "helmet"), ("hlemet", "helmet")]),
        ({"class1": 500, "class2": 3}, []),
        ({"cat": 1000, "dog": 1}, []),
        ({"?": 100, "!": 1}, []),
        ({"truck": 90, "truk": 0}, [("truk", "truck")]),
    ],
)
def test_mistyped_names(counts, pairs):
    assert findings.mistyped_names(counts) == pairs
    texts = [each.text for each in class_findings(counts) if each.kind == "mistyped_classes"]
    assert len(texts) == len(pairs)
    assert all(f"for {meant!r}" in text for text, (_, meant) in zip(texts, pairs, strict=True))


def test_rare_classes_and_those_without_objects():
    result = class_findings({"a": 10, "b": 9, "c": 0, "d": 1})
    assert [(each.kind, each.text) for each in result] == [
        ("classes_without_objects", "c"),
        ("rare_classes", "d: 1 object"),
        ("rare_classes", "b: 9 objects"),
    ]


def test_docstring_examples():
    result = doctest.testmod(findings)
    assert result.attempted >= 1
    assert result.failed == 0
