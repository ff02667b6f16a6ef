"""TFDS: its `voc` and `coco` builders on generated data, compared with our readers of the same; and other builders."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from annotation_files import one_line_error
from tfds_folder import build_all

from tf_fast_rcnn.data.readers.coco import read_coco
from tf_fast_rcnn.data.readers.tfds import read_tfds
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
