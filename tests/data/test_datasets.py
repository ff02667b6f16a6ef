import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.detections import Detections
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.errors import InputError


def record(image_id="a", class_ids=(1, 2), **options):
    boxes = [[0, 0, 0.5, 1]] * len(class_ids)
    return ImageRecord(image_id, f"{image_id}.png", 4, 6, boxes, class_ids, [False] * len(class_ids), **options)


def test_union_and_slices():
    first = DetectionDataset("voc:A@x", ["cat", "dog"], [record("a"), record("b")], {"clipped": 2, "dropped": 0})
    second = DetectionDataset("voc:B@x", ["cat", "dog"], [record("c")], {"clipped": 1})
    union = first + second
    assert [each.image_id for each in union] == ["a", "b", "c"]
    assert union.name == "voc:A@x+voc:B@x"
    assert union.fixes == {"clipped": 3}
    assert union[-1].image_id == "c"
    assert isinstance(union[1:], DetectionDataset)
    assert [each.image_id for each in union[1:]] == ["b", "c"]
    assert union[1:].class_names == ("cat", "dog")


class OnDemand(Sequence):
    """Records created on demand, like those of a prepared data set; counts how many are created."""

    def __init__(self, names, class_ids=(1, 2)):
        self.names, self.class_ids, self.read = names, class_ids, 0

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        self.read += 1
        return record(self.names[index], self.class_ids)


def test_views_read_nothing_until_a_record_is_asked_for():
    first, second = OnDemand("abcd"), OnDemand("xyz")
    dataset = DetectionDataset("A", ["cat", "dog"], first)[1:] + DetectionDataset("B", ["cat", "dog"], second)
    chosen = dataset[np.array([5, 0, 3])].with_class_names(["ox", "dog", "cat"])
    assert (len(dataset), len(chosen), first.read, second.read) == (6, 3, 0, 0)
    assert [each.image_id for each in chosen] == ["z", "b", "x"]
    assert [each.class_ids.tolist() for each in chosen] == [[3, 2]] * 3
    assert chosen[-1].image_id == "x"
    assert (first.read, second.read) == (2, 5)
    with pytest.raises(IndexError):
        chosen[3]


def test_sizes_follow_views_and_are_not_read_where_the_source_knows_them():
    class Lazy(Sequence):
        image_sizes = np.int32([[1, 2], [3, 4]])

        def __len__(self):
            return 2

        def __getitem__(self, index):
            raise AssertionError("read")

    listed = [dataclasses.replace(record(), height=height) for height in (5, 7)]
    union = DetectionDataset("a", ["cat", "dog"], listed) + DetectionDataset("b", ["cat", "dog"], Lazy())
    np.testing.assert_array_equal(union.records.image_sizes(), [[5, 6], [7, 6], [1, 2], [3, 4]])
    np.testing.assert_array_equal(union[[3, 0]].records.image_sizes(), [[3, 4], [5, 6]])
    assert union[:0].records.image_sizes().shape == (0, 2)


def test_classes_can_be_dropped_and_merged():
    dataset = DetectionDataset("A", ["cat", "dog", "cow"], [record(class_ids=[1, 2, 3, 2])])
    tame = dataset.relabelled(["beast"], [0, 1, 1])
    again = tame.relabelled(["ant", "beast"], [2])
    assert tame[0].class_ids.tolist() == [1, 1, 1]
    assert again[0].class_ids.tolist() == [2, 2, 2]
    assert [len(values) for values in (tame[0].boxes, tame[0].difficult, tame[0].crowd)] == [3, 3, 3]


def test_union_of_other_classes_is_an_error():
    with pytest.raises(InputError, match="found classes cat, dog and dog, cat"):
        DetectionDataset("A", ["cat", "dog"], []) + DetectionDataset("B", ["dog", "cat"], [])


def test_labels_follow_another_list_of_class_names():
    dataset = DetectionDataset("A", ["cat", "dog", "cow"], [record(class_ids=[1, 2, 1]), record(class_ids=[])])
    moved = dataset.with_class_names(["dog", "ant", "cat"])
    assert moved.class_names == ("dog", "ant", "cat")
    assert moved[0].class_ids.tolist() == [3, 1, 3]
    assert dataset[0].class_ids.tolist() == [1, 2, 1]
    with pytest.raises(InputError, match="A: found class 'dog'; expected one of cat, cow"):
        dataset.with_class_names(["cat", "cow"])


def test_a_union_has_proposal_settings_only_where_its_parts_agree():
    parts = [DetectionDataset("A", ["cat"], [record(class_ids=[1])], proposals=value) for value in ("s", "s", "t")]
    assert parts[0][:1].proposals == "s"
    assert parts[0].with_class_names(["cat", "dog"]).proposals == "s"
    assert (parts[0] + parts[1]).proposals == "s"
    assert (parts[0] + parts[2]).proposals is None


def test_the_names_of_version_0_1():
    dataset = DetectionDataset("made", ["x", "y"], [record(class_ids=(2, 1))], {"boxes clipped": 3})
    assert dataset.mended == {"boxes clipped": 3}
    assert dataset[0].labels.tolist() == [2, 1]
    assert Detections(np.zeros((2, 4)), np.ones(2), np.int32([2, 1])).classes.tolist() == [2, 1]
