import numpy as np
import pytest

from tf_fast_rcnn.data.records import DetectionDataset, ImageRecord
from tf_fast_rcnn.errors import InputError


def record(image_id="a", labels=(1, 2), **options):
    boxes = [[0, 0, 0.5, 1]] * len(labels)
    return ImageRecord(image_id, f"{image_id}.png", 4, 6, boxes, labels, [False] * len(labels), **options)


def test_fields_get_their_types_and_shapes():
    empty = ImageRecord("a", "a.png", 4, 6, [], [], [])
    assert (empty.boxes.shape, empty.boxes.dtype) == ((0, 4), np.float32)
    assert (empty.labels.shape, empty.labels.dtype) == ((0,), np.int32)
    assert (empty.difficult.shape, empty.difficult.dtype) == ((0,), bool)


def test_every_object_needs_a_label():
    with pytest.raises(ValueError, match="image a: 1 boxes, 2 labels"):
        ImageRecord("a", "a.png", 4, 6, [[0, 0, 1, 1]], [1, 2], [False])


def test_proposals_are_read_from_their_file(tmp_path):
    boxes = np.float32([[0, 0, 1, 1], [0, 0, 0.5, 0.5]])
    np.save(tmp_path / "a.npy", boxes)
    np.testing.assert_array_equal(record(proposals_path=str(tmp_path / "a.npy")).proposals(), boxes)


@pytest.mark.parametrize(
    ("array", "pattern"),
    [
        (np.zeros((2, 5), np.float32), r"found float32 \[2, 5\]"),
        (np.zeros((2, 4)), "found float64"),
        (np.array([{}]), "no readable proposals"),
    ],
)
def test_wrong_proposals_are_told(tmp_path, array, pattern):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=pattern):
        record(proposals_path=str(tmp_path / "a.npy")).proposals()


def test_missing_or_truncated_proposals_are_told(tmp_path):
    with pytest.raises(InputError, match="image a: found no proposals"):
        record().proposals()
    with pytest.raises(InputError, match="no readable proposals"):
        record(proposals_path=str(tmp_path / "none.npy")).proposals()
    (tmp_path / "cut.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match="no readable proposals"):
        record(proposals_path=str(tmp_path / "cut.npy")).proposals()


def test_union_and_slices():
    first = DetectionDataset("voc:A@x", ["cat", "dog"], [record("a"), record("b")], {"clipped": 2, "dropped": 0})
    second = DetectionDataset("voc:B@x", ["cat", "dog"], [record("c")], {"clipped": 1})
    union = first + second
    assert [each.image_id for each in union] == ["a", "b", "c"]
    assert union.name == "voc:A@x+voc:B@x"
    assert union.mended == {"clipped": 3}
    assert union[-1].image_id == "c"
    assert isinstance(union[1:], DetectionDataset)
    assert [each.image_id for each in union[1:]] == ["b", "c"]
    assert union[1:].class_names == ("cat", "dog")


def test_union_of_other_classes_is_an_error():
    with pytest.raises(InputError, match="found classes cat, dog and dog, cat"):
        DetectionDataset("A", ["cat", "dog"], []) + DetectionDataset("B", ["dog", "cat"], [])


def test_labels_follow_another_list_of_class_names():
    dataset = DetectionDataset("A", ["cat", "dog", "cow"], [record(labels=[1, 2, 1]), record(labels=[])])
    moved = dataset.with_class_names(["dog", "ant", "cat"])
    assert moved.class_names == ("dog", "ant", "cat")
    assert moved[0].labels.tolist() == [3, 1, 3]
    assert dataset[0].labels.tolist() == [1, 2, 1]
    with pytest.raises(InputError, match="A: found class 'dog'; expected one of cat, cow"):
        dataset.with_class_names(["cat", "cow"])


def test_a_union_has_proposal_settings_only_where_its_parts_agree():
    parts = [DetectionDataset("A", ["cat"], [record(labels=[1])], proposal_settings=value) for value in ("s", "s", "t")]
    assert parts[0][:1].proposal_settings == "s"
    assert parts[0].with_class_names(["cat", "dog"]).proposal_settings == "s"
    assert (parts[0] + parts[1]).proposal_settings == "s"
    assert (parts[0] + parts[2]).proposal_settings is None
