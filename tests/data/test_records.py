import dataclasses

import numpy as np
import pytest
from PIL import Image

from tf_fast_rcnn.data.records import CocoObjects, ImageRecord
from tf_fast_rcnn.errors import InputError


def record(image_id="a", class_ids=(1, 2), **options):
    boxes = [[0, 0, 0.5, 1]] * len(class_ids)
    return ImageRecord(image_id, f"{image_id}.png", 4, 6, boxes, class_ids, [False] * len(class_ids), **options)


def test_fields_get_their_types_and_shapes():
    empty = ImageRecord("a", "a.png", 4, 6, [], [], [])
    assert (empty.boxes.shape, empty.boxes.dtype) == ((0, 4), np.float32)
    assert (empty.class_ids.shape, empty.class_ids.dtype) == ((0,), np.int32)
    assert (empty.difficult.shape, empty.difficult.dtype) == ((0,), bool)


def test_every_object_needs_a_label():
    with pytest.raises(ValueError, match="image a: 1 boxes, 2 labels"):
        ImageRecord("a", "a.png", 4, 6, [[0, 0, 1, 1]], [1, 2], [False])


def test_proposals_are_those_that_the_record_holds():
    boxes = np.float32([[0, 0, 1, 1], [0, 0, 0.5, 0.5]])
    found = record(proposal_boxes=boxes.tolist()).proposals()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, boxes)
    assert record(proposal_boxes=[]).proposals().shape == (0, 4)
    with pytest.raises(InputError, match="image a: found no proposals"):
        record().proposals()


def test_an_image_is_read_from_its_bytes_or_its_file(tmp_path):
    pixels = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    contents = (tmp_path / "a.png").read_bytes()
    from_file = dataclasses.replace(record(), image_path=str(tmp_path / "a.png"))
    from_bytes = record("nowhere", image_bytes=contents)
    for each in (from_file, from_bytes):
        np.testing.assert_array_equal(each.image(), pixels)
        assert each.encoded_image() == contents
    with pytest.raises(InputError, match=r"nowhere\.png: cannot read the image"):
        record("nowhere", image_bytes=contents[:50]).image()


def test_the_objects_of_a_coco_file_are_relabelled_with_the_record():
    """Class 2 goes; the second and the fourth object of the file, one of them without a box, are of class 3."""
    windows, areas = np.arange(16.0).reshape(4, 4), np.arange(4.0)
    coco = CocoObjects(windows, areas, np.int32([2, 3, 1, 3]), np.array([1, 0, 1, 0], bool), np.array([0, 1, 2, -1]))
    whole = dataclasses.replace(record(class_ids=[2, 3, 1]), coco_objects=coco)
    left = whole.relabelled(np.int32([0, 2, 0, 1]))
    assert left.class_ids.tolist() == [1, 2]
    assert left.coco_objects.class_ids.tolist() == [1, 2, 1]
    assert left.coco_objects.objects.tolist() == [0, 1, -1]
    assert left.coco_objects.crowd.tolist() == [False, True, False]
    np.testing.assert_array_equal(left.coco_objects.windows, windows[1:])
    np.testing.assert_array_equal(left.coco_objects.areas, areas[1:])
    for column, again in zip(coco, CocoObjects.from_rows(coco.to_rows()), strict=True):
        np.testing.assert_array_equal(column, again)
        assert column.dtype == again.dtype


def test_areas_stay_with_their_objects():
    whole = dataclasses.replace(record(class_ids=[1, 2, 3, 2]), areas=[0.1, 0.2, 0.3, 0.4])
    np.testing.assert_array_equal(whole.relabelled(np.int32([0, 0, 1, 0])).areas, [0.2, 0.4])
    with pytest.raises(ValueError, match="4 crowd flags and 3 areas"):
        dataclasses.replace(whole, areas=[0.1, 0.2, 0.3])
