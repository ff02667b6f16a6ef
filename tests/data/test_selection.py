"""Random parts by seed, and selecting, renaming and merging classes."""

import collections
import contextlib
import itertools

import numpy as np
import pytest
from annotation_files import one_line_error
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.records import ImageRecord
from tf_fast_rcnn.data.selection import (
    class_map_to_text,
    parse_class_map,
    select_part,
    split_dataset,
    with_classes,
    without_part,
)
from tf_fast_rcnn.errors import InputError

NAMES = ("bus", "car", "person", "truck")


def dataset_of(count, name="voc:streets@train"):
    """`count` images with one object of each class; the box of class i begins at row i / 10."""
    boxes = [[0.1 * row, 0, 1, 1] for row in range(4)]
    flags = {"difficult": [True, False, False, False], "crowd": [False, False, False, True]}
    records = [ImageRecord(f"i{n}", f"i{n}.jpg", 40, 60, boxes, [1, 2, 3, 4], **flags) for n in range(count)]
    return DetectionDataset(name, NAMES, records, {"boxes without area dropped": 2})


def ids(dataset):
    return [record.image_id for record in dataset]


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 60), st.floats(0, 100), st.floats(0, 100), st.integers(0, 10**9 - 1))
def test_parts_that_meet_are_complementary(count, first, second, seed):
    dataset = dataset_of(count)
    low, high = sorted((first, second))
    bounds = ["", f"{low:.6f}%", f"{high:.6f}%", ""]
    found = []
    for start, stop in itertools.pairwise(bounds):
        with contextlib.suppress(InputError):  # A part may have no images; the others then have all of them.
            found.append(ids(select_part(dataset, f"[{start}:{stop},seed={seed}]")))
    assert sorted(itertools.chain.from_iterable(found)) == sorted(ids(dataset))
    for part in found:
        assert part == [image_id for image_id in ids(dataset) if image_id in part]


@pytest.mark.parametrize(
    ("part", "count"), [("[:80%]", 8), ("[80%:]", 2), ("[25%:75%]", 6), ("[:3]", 3), ("[3:]", 7), ("[:]", 10)]
)
def test_sizes_of_parts(part, count):
    # A quarter and three quarters of ten are 2.5 and 7.5, rounded to the even numbers 2 and 8.
    selected = select_part(dataset_of(10), part)
    assert len(selected) == count
    assert selected.name == f"voc:streets@train{part}"
    assert (selected.class_names, selected.fixes) == (NAMES, {"boxes without area dropped": 2})


def test_parts_are_drawn_as_numpy_documents_it():
    """RandomState's stream never changes: the permutation of ten by seed 0, hard-coded."""
    permutation = [2, 8, 4, 9, 1, 6, 7, 3, 0, 5]
    assert ids(select_part(dataset_of(10), "[:30%]")) == [f"i{n}" for n in sorted(permutation[:3])]
    assert ids(select_part(dataset_of(10), "[:3,seed=1]")) != ids(select_part(dataset_of(10), "[:3]"))


def test_every_image_is_drawn_equally_often():
    counts = collections.Counter()
    for seed in range(600):
        counts.update(ids(select_part(dataset_of(12), f"[:25%,seed={seed}]")))
    expected = 600 * 3 / 12
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    # 11 degrees of freedom: 31.3 is exceeded by chance once in a thousand times.
    assert len(counts) == 12
    assert chi_square < 31.3


@pytest.mark.parametrize("fraction", [0.8, 0.5, 0.29, 0.07])
def test_split_dataset_gives_the_parts_of_a_spec(fraction):
    dataset = dataset_of(150)
    part, rest = split_dataset(dataset, fraction, seed=3)
    assert set(ids(part)).isdisjoint(ids(rest))
    assert len(part) + len(rest) == 150
    assert abs(len(part) - 150 * fraction) <= 0.5 + 1e-9
    text = part.name.removeprefix(dataset.name)
    assert text == f"[:{100 * fraction:g}%,seed=3]"
    assert ids(select_part(dataset, text)) == ids(part)


def test_the_name_of_a_unions_part_is_not_that_of_its_last_members():
    assert select_part(dataset_of(4, "voc:A@x+voc:B@x"), "[:50%]").name == "(voc:A@x+voc:B@x)[:50%]"


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 2, float("nan")])
def test_fractions_outside_are_refused(fraction):
    one_line_error(lambda: split_dataset(dataset_of(4), fraction), "fraction: found")


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ("[:x]", "found the part [:x]"),
        ("[:120%]", "found the part [:120%]"),
        ("[:11]", "found the part [:11]"),
        ("[-10%:]", "found the part"),
        ("[:2.5]", "found the part"),
        ("[:1.2.3%]", "found the part"),
        ("[:80%;seed=3]", "found the part"),
        ("[:80%,seed=-1]", "found the part"),
        ("[:80%:2]", "found the part"),
        ("[50%:50%]", "no images in the part"),
        ("[80%:20%]", "no images in the part"),
        ("[:1%]", "no images in the part"),
    ],
)
def test_bad_parts_are_one_line(part, found):
    one_line_error(lambda: select_part(dataset_of(10), part), "voc:streets@train", found)


def test_parts_of_specs():
    assert without_part("voc:dir@train[:80%]") == ("voc:dir@train", "[:80%]")
    assert without_part("voc:dir@train[:80%,seed=3]") == ("voc:dir@train", "[:80%,seed=3]")
    # Brackets in folder names are not parts.
    for spec in ("voc:dir[1]@train", "coco:a.json,images[old]", "voc:dir[a:b]/c@train", "voc:dir@train"):
        assert without_part(spec) == (spec, None)


def test_classes_are_dropped_renamed_and_merged():
    dataset = with_classes(dataset_of(3), {"person": ["person"], "vehicle": ["truck", "bus"]})
    assert dataset.class_names == ("person", "vehicle")
    for record in dataset:
        assert record.class_ids.tolist() == [2, 1, 2]
        np.testing.assert_allclose(record.boxes[:, 0], [0, 0.2, 0.3], atol=1e-6)
        assert record.difficult.tolist() == [True, False, False]
        assert record.crowd.tolist() == [False, False, True]
    assert dataset.fixes == {"boxes without area dropped": 2, "objects of other classes dropped": 3}
    assert dataset.name == "voc:streets@train --classes person,vehicle=truck+bus"


def test_images_that_lose_all_objects_stay():
    records = [ImageRecord("i", "i.jpg", 40, 60, [[0, 0, 1, 1]], [2], [False])]
    dataset = with_classes(DetectionDataset("x", NAMES, records), {"bus": ["bus"]})
    assert len(dataset) == 1
    assert dataset[0].boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("classes", "found"),
    [
        ({"vehicle": ["car", "lorry"]}, "found 'lorry'"),
        ({"vehicle": ["car"], "other": ["car"]}, "found 'car' twice"),
        ({}, "found none"),
        ({"vehicle": []}, "found none"),
    ],
)
def test_bad_classes_are_one_line(classes, found):
    one_line_error(lambda: with_classes(dataset_of(2), classes), "classes", found)


def test_classes_that_test_data_lack():
    classes = {"animal": ["dog"], "vehicle": ["car", "lorry"]}
    dataset = with_classes(dataset_of(2), classes, ignore_missing=True)
    assert dataset.class_names == ("animal", "vehicle")
    assert dataset[0].class_ids.tolist() == [2]


def test_classes_as_text():
    text = "person,vehicle=car+truck,a cat=cat"
    classes = {"person": ["person"], "vehicle": ["car", "truck"], "a cat": ["cat"]}
    assert parse_class_map(text) == parse_class_map(" person, vehicle = car + truck ,a cat=cat") == classes
    assert class_map_to_text(classes) == text


@pytest.mark.parametrize("text", ["", ",", "person,", "=car", "vehicle=", "vehicle=car+", "person,person"])
def test_bad_text_of_classes_is_one_line(text):
    one_line_error(lambda: parse_class_map(text), "classes: found", repr(text))
