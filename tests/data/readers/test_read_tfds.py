"""TFDS: its `voc` and `coco` builders on generated data, compared with our readers of the same; and other builders."""

import json
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from annotation_files import one_line_error
from tfds_folder import build_all, build_boxes

from tf_fast_rcnn.data.readers.coco import read_coco
from tf_fast_rcnn.data.readers.tfds import read_tfds
from tf_fast_rcnn.data.readers.tfds_layout import find_layouts, own_builder
from tf_fast_rcnn.data.readers.voc import read_voc


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """See `build_all`."""
    return build_all(tmp_path_factory.mktemp("tfds"))


@pytest.fixture
def read(built, monkeypatch, tmp_path):
    """`read_tfds` with a separate cache folder."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(built / "data"))

    def read(name, split, **options):
        return read_tfds(name, split, cache_dir=tmp_path / "cache", progress=False, **options)

    return read


def check_equal(dataset, others):
    expected = {record.image_id: record for record in others}
    assert sorted(record.image_id for record in dataset) == sorted(expected)
    names, other_names = (np.array(["", *part.class_names]) for part in (dataset, others))
    for record in dataset:
        other = expected[record.image_id]
        np.testing.assert_allclose(record.boxes, other.boxes, atol=1e-6)
        assert names[record.class_ids].tolist() == other_names[other.class_ids].tolist()
        assert record.difficult.tolist() == other.difficult.tolist()
        assert record.crowd.tolist() == other.crowd.tolist()
        np.testing.assert_array_equal(record.image(), other.image())


def test_voc_is_that_of_the_voc_reader(read, built):
    dataset = read("voc/2007", "train")
    check_equal(dataset, read_voc(built / "VOCdevkit" / "VOC2007", "train"))
    assert dataset.name == "tfds:voc/2007@train"
    assert len(dataset.class_names) == 20
    assert dataset.class_names[:2] == ("aeroplane", "bicycle")


def test_coco_is_that_of_the_coco_reader(read, built):
    dataset = read("coco/2017", "validation")
    others = read_coco(built / "coco" / "annotations" / "instances_val2017.json", built / "coco" / "val2017")
    check_equal(dataset, others)
    assert dataset.class_names == others.class_names
    ids = {record.image_id: record.source_id for record in dataset}
    assert ids == {record.image_id: record.source_id for record in others} == {"139": 139, "285": 285, "632": 632}
    assert sum(record.crowd.sum() for record in dataset) == 1


def test_any_sequence_of_boxes_with_a_class(read):
    dataset = read("shapes", "train")
    assert dataset.class_names == ("disc", "ring")
    assert sorted(record.image_id for record in dataset) == ["00000000", "00000001", "00000002"]
    for record in dataset:
        assert record.class_ids.tolist() == [2]
        np.testing.assert_allclose(record.boxes, [[0, 0, 1, 0.5]])
        assert record.image().shape == (record.height, 6, 3)
        assert np.all(record.image() == record.height - 8)
    assert dataset.fixes == {"boxes without area dropped": 3}


def test_class_names_give_the_labels(read):
    assert read("shapes", "train", class_names=["ring", "disc"])[0].class_ids.tolist() == [1]
    one_line_error(lambda: read("shapes", "train", class_names=["disc"]), "tfds:shapes@train", "'ring'")


def test_images_are_copied_once_and_byte_for_byte(read, built, tmp_path):
    first = read("voc/2007", "train")
    (folder,) = (tmp_path / "cache" / "tfds").iterdir()
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert sorted(times) == ["00000000.jpg", "00000001.jpg", "00000002.jpg", "annotations.json"]
    for record in first:
        original = built / "VOCdevkit/VOC2007/JPEGImages" / f"{record.image_id}.jpg"
        assert Path(record.image_path).read_bytes() == original.read_bytes()
    read("voc/2007", "train")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == times


def test_an_interrupted_copy_goes_on(read, tmp_path):
    expected = {record.image_id: record.boxes.tolist() for record in read("voc/2007", "train")}
    (folder,) = (tmp_path / "cache" / "tfds").iterdir()
    (folder / "annotations.json").unlink()
    (folder / "00000001.jpg").unlink()
    kept = (folder / "00000000.jpg").stat().st_mtime_ns
    assert {record.image_id: record.boxes.tolist() for record in read("voc/2007", "train")} == expected
    assert (folder / "00000000.jpg").stat().st_mtime_ns == kept


def test_annotations_of_an_earlier_version_are_copied_again(read, tmp_path):
    """Those of 0.1 had no areas and no groups."""
    expected = [record.areas.tolist() for record in read("coco/2017", "validation") if len(record.boxes)]
    (folder,) = (tmp_path / "cache" / "tfds").iterdir()
    content = json.loads((folder / "annotations.json").read_text())
    old = [image | {"objects": []} for image in content["images"]]
    (folder / "annotations.json").write_text(json.dumps(old))
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.jpg")}
    again = [record.areas.tolist() for record in read("coco/2017", "validation") if len(record.boxes)]
    assert again == expected
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("*.jpg")} == times


def test_data_that_were_built_again_are_copied_again(read, built, tmp_path, monkeypatch):
    shutil.copytree(built / "data", tmp_path / "data")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    read("shapes", "train")
    info = next((tmp_path / "data" / "shapes").glob("*/dataset_info.json"))
    info.write_text(info.read_text())
    read("shapes", "train")
    assert len(list((tmp_path / "cache" / "tfds").iterdir())) == 2


def test_broken_images_are_one_line_or_skipped(read, tmp_path):
    read("voc/2007", "train")
    (folder,) = (tmp_path / "cache" / "tfds").iterdir()
    (folder / "00000001.jpg").write_bytes(b"no image")
    one_line_error(lambda: read("voc/2007", "train"), "00000001.jpg", "cannot read the image")
    dataset = read("voc/2007", "train", skip_bad=True)
    assert len(dataset) == 2
    assert dataset.fixes["unreadable images or annotations skipped"] == 1


@pytest.mark.parametrize(
    ("name", "split", "patterns"),
    [
        ("voc/2007", "trainval", ["'trainval'", "test, train"]),
        ("voc/2007", "", ["expected one of test, train"]),
        ("voc/2012", "train", ["tfds.load('voc/2012')", "TFDS_DATA_DIR"]),
        ("kitti", "train", ["found nothing in", "tfds.load('kitti')"]),
        ("no_such_set", "train", ["no such data set"]),
        ("a b", "train", ["no such data set"]),
        ("faces", "train", ["the features faces, image", "class label"]),
    ],
)
def test_what_is_not_there_is_one_line(read, name, split, patterns):
    one_line_error(lambda: read(name, split), f"tfds:{name}", *patterns)


def test_damaged_examples_are_one_line(read, built, tmp_path, monkeypatch):
    shutil.copytree(built / "data", tmp_path / "data")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    (shard,) = (tmp_path / "data" / "shapes").glob("*/*train*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 255
    shard.write_bytes(content)
    one_line_error(lambda: read("shapes", "train"), "cannot read the examples", "rebuild them")


def test_a_folder_that_cannot_be_written(read, built, tmp_path):
    (tmp_path / "cache").write_text("a file")
    one_line_error(lambda: read("shapes", "train"), "another --cache")


IMAGE, LABEL = tfds.features.Image(), tfds.features.ClassLabel(names=["cat", "dog"])
BOX, TEXT = tfds.features.BBoxFeature(), tfds.features.Text()
OBJECTS = tfds.features.Sequence({"bbox": BOX, "label": LABEL})
BOXES = tfds.features.Sequence({"bbox": BOX})


def layouts_of(features, name="mine"):
    """The layouts of a data set of a user's with these features."""
    info = types.SimpleNamespace(features=tfds.features.FeaturesDict(features))
    builder = types.SimpleNamespace(name=name, info=info, version=tfds.core.Version("1.0.0"))
    return find_layouts(builder, own_builder(builder, name), name)


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"image": IMAGE, "objects": OBJECTS}, ("", "image", "objects", "bbox", True, "label", False)),
        (
            {"image": IMAGE, "faces": OBJECTS, "objects": OBJECTS},
            ("", "image", "objects", "bbox", True, "label", False),
        ),
        ({"photo": IMAGE, "label": LABEL, "dogs": BOXES}, ("", "photo", "dogs", "bbox", True, "label", True)),
        ({"image": IMAGE, "mask": IMAGE, "kind": LABEL, "box": BOX}, ("", "image", "", "box", False, "kind", True)),
        (
            {"image": IMAGE, "objects": tfds.features.Sequence({"corners": BOX, "type": LABEL, "pose": LABEL})},
            ("", "image", "objects", "corners", True, "type", False),
        ),
        ({"left": {"image": IMAGE, "objects": OBJECTS}}, ("left", "image", "objects", "bbox", True, "label", False)),
        (
            {"image": IMAGE, "bboxes": tfds.features.Sequence(BOX), "labels": tfds.features.Sequence(LABEL)},
            ("", "image", "", "bboxes", True, "labels", False),
        ),
        (
            {"image": IMAGE, "objects": {"bbox": tfds.features.Sequence(BOX), "label": tfds.features.Sequence(LABEL)}},
            ("", "image", "objects", "bbox", True, "label", False),
        ),
        # Objects with a label come before boxes without one.
        ({"image": IMAGE, "label": LABEL, "a": BOXES, "b": OBJECTS}, ("", "image", "b", "bbox", True, "label", False)),
    ],
)
def test_where_objects_are(features, expected):
    (layout,) = layouts_of(features)
    assert layout[:7] == expected
    assert layout.class_names == ["cat", "dog"]


@pytest.mark.parametrize("name", ["kitti", "voc", "coco", "gref"])
def test_data_of_a_user_with_the_name_of_one_of_tfds_are_as_they_are(name):
    builder = types.SimpleNamespace(
        name=name, info=types.SimpleNamespace(features=tfds.features.FeaturesDict({"image": IMAGE, "objects": OBJECTS}))
    )
    own = own_builder(builder, name)
    box = np.array([[0.1, 0.2, 0.3, 0.4]])
    np.testing.assert_array_equal(own.to_relative(box, 40, 60), box)
    assert not own.areas_truncated


def of_format(name):
    return tfds.features.Sequence({"bbox": tfds.features.BBoxFeature(bbox_format=name), "label": LABEL})


@pytest.mark.parametrize(
    ("features", "patterns"),
    [
        (
            {"image": IMAGE, "cats": OBJECTS, "dogs": OBJECTS},
            ["several sequences of boxes, cats, dogs", "named objects"],
        ),
        ({"image": IMAGE, "objects": of_format("XYXY")}, ["the format XYXY", "REL_YXYX"]),
        ({"image": IMAGE, "objects": of_format("REL_XYXY")}, ["the format REL_XYXY", "REL_YXYX"]),
        ({"image": IMAGE, "objects": of_format("XYWH")}, ["the format XYWH", "REL_YXYX"]),
        (
            {"image": tfds.features.Image(shape=(4, 4, 1), dtype=np.float32), "o": OBJECTS},
            ["images of float32", "uint8"],
        ),
        ({"a": IMAGE, "b": IMAGE, "objects": OBJECTS}, ["the features a, b, objects", "or without an image"]),
        ({"image": IMAGE, "label": LABEL}, ["the features image, label, without boxes"]),
        ({"image": IMAGE, "kind": LABEL, "pose": LABEL, "box": BOX}, ["without a class label next to the boxes box"]),
        (
            {
                "image": IMAGE,
                "objects": tfds.features.Sequence({"bbox": tfds.features.Tensor(shape=(4,), dtype=np.float32)}),
            },
            ["without boxes", "BBoxFeature"],
        ),
        (
            {side: {"image": IMAGE, "objects": objects} for side, objects in [("left", OBJECTS), ("right", BOXES)]}
            | {"rear": {"image": IMAGE, "label": tfds.features.ClassLabel(names=["x"]), "bbox": BOX}},
            ["left, rear with different classes"],
        ),
    ],
)
def test_other_features_are_one_line(features, patterns):
    one_line_error(lambda: layouts_of(features), "tfds:mine", *patterns)


def test_boxes_of_an_unknown_format_are_checked(read, built):
    """`bbox_format=None`, which is what data of older TFDS have: relative boxes are read, pixels are one line."""
    build_boxes(built, {"relative": [0.25, 0.5, 0.75, 1.0], "pixels": [10, 5, 30, 20], "sizes": [0.5, 0.5, 0.25, 0.25]})
    assert read("boxes", "relative")[0].boxes.tolist() == [[0.25, 0.5, 0.75, 1.0]]
    one_line_error(lambda: read("boxes", "pixels"), "[10.0, 5.0, 30.0, 20.0]", "from 0 to 1")
    one_line_error(lambda: read("boxes", "sizes"), "[0.5, 0.5, 0.25, 0.25]", "ymin, xmin, ymax and xmax")


def test_names_of_images(read, built):
    """White space at the ends and known extensions are dropped; another dot stays."""
    build_boxes(built, {f"s{number}": name for number, name in enumerate(["a/1.jpg\n", "2011.05.01 cat", " b.PNG "])})
    names = [read("boxes", f"s{number}")[0].image_id for number in range(3)]
    assert names == ["a/1", "2011.05.01 cat", "b"]


def test_sequences_next_to_each_other(read, built):
    """A sequence of boxes and one of labels; as many of one as of the other."""
    build_boxes(built, {"two": [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]}, labels=[1, 0])
    (record,) = dataset = read("boxes", "two")
    assert [dataset.class_names[label - 1] for label in record.class_ids] == ["b", "a"]
    assert record.boxes.tolist() == [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]
    build_boxes(built, {"three": [[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]}, labels=[1, 0, 0])
    one_line_error(lambda: read("boxes", "three"), "image three", "2 of bbox, 3 of label")
