import json

import pytest
from annotation_files import one_line_error, write_image

from tf_fast_rcnn.data.prepared.write import prepare
from tf_fast_rcnn.data.proposals.dense import DEFAULT_DENSE_BOXES
from tf_fast_rcnn.data.proposals.settings import ProposalSettings
from tf_fast_rcnn.data.specs import load_dataset
from tf_fast_rcnn.errors import InputError


def animal(folder, name):
    folder.image("a.png")
    folder.annotation("a", [(name, 1, 1, 30, 20)])
    folder.split("train", "a\n")
    return folder


@pytest.fixture
def cats_and_ants(tmp_path, voc_folder):
    other = type(voc_folder)(tmp_path / "c++" / "me@home" / "cells")
    return animal(voc_folder, "cat").path, animal(other, "ant").path


def test_voc(cats_and_ants):
    dataset = load_dataset(f"voc:{cats_and_ants[0]}@train")
    assert dataset.name == f"voc:{cats_and_ants[0]}@train"
    assert dataset.class_names == ("cat",)


def test_union_has_the_sorted_classes_of_all_parts(cats_and_ants):
    # The second location contains plus signs and an @.
    dataset = load_dataset("+".join(f"voc:{path}@train" for path in cats_and_ants))
    assert dataset.class_names == ("ant", "cat")
    assert [record.class_ids.tolist() for record in dataset] == [[2], [1]]


def test_given_class_names_hold_for_all_parts(cats_and_ants):
    spec = "+".join(f"voc:{path}@train" for path in cats_and_ants)
    dataset = load_dataset(spec, class_names=["cat", "bee", "ant"])
    assert dataset.class_names == ("cat", "bee", "ant")
    assert [record.class_ids.tolist() for record in dataset] == [[1], [3]]
    with pytest.raises(InputError, match="'ant'"):
        load_dataset(spec, class_names=["cat"])


@pytest.mark.parametrize("spec", ["cells", "coko:x.json", "voc:", "", "Voc:x@train", "voc:{}@train+coko:x", "[:80%]"])
def test_unknown_kinds_list_the_known(cats_and_ants, spec):
    kinds = "voc, coco, csv, yolo, tfds, labelme, cvat, label-studio, via, kitti, imagefolder, tfrecord, prepared"
    with pytest.raises(InputError, match=f"one of the kinds {kinds}$"):
        load_dataset(spec.format(cats_and_ants[0]))


def test_voc_without_split_lists_the_splits(cats_and_ants):
    for path in cats_and_ants:
        with pytest.raises(InputError, match="expected one of ImageSets/Main: train"):
            load_dataset(f"voc:{path}")


def test_prepared_follows_class_names(cats_and_ants, tmp_path):
    settings = ProposalSettings(dense=DEFAULT_DENSE_BOXES)
    prepare(load_dataset(f"voc:{cats_and_ants[0]}@train"), tmp_path / "out", settings, workers=1, progress=False)
    dataset = load_dataset(f"prepared:{tmp_path / 'out'}", class_names=["dog", "cat"])
    assert dataset[0].class_ids.tolist() == [2]
    union = load_dataset(f"prepared:{tmp_path / 'out'}+voc:{cats_and_ants[1]}@train")
    assert [record.class_ids.tolist() for record in union] == [[2], [1]]


def test_skip_bad_reaches_the_reader(cats_and_ants):
    (cats_and_ants[0] / "ImageSets/Main/train.txt").write_text("a\nnone\n")
    with pytest.raises(InputError, match=r"none\.xml"):
        load_dataset(f"voc:{cats_and_ants[0]}@train")
    assert len(load_dataset(f"voc:{cats_and_ants[0]}@train", skip_bad=True)) == 1


@pytest.fixture
def ants(tmp_path):
    """The same image with one ant in the files of each kind, and the SPEC of each."""
    image = write_image(tmp_path / "my,images" / "images" / "a.jpg")
    content = {
        "images": [{"id": 3, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 3, "category_id": 7, "bbox": [0, 0, 30, 20], "iscrowd": 1}],
        "categories": [{"id": 7, "name": "ant"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    (tmp_path / "a,b.csv").write_text("a.jpg,0,0,30,20,ant\n")
    image.with_name("beside,it.csv").write_text("a.jpg,0,0,30,20,ant\n")
    (image.parents[1] / "classes.txt").write_text("ant\n")
    (image.parents[1] / "labels").mkdir()
    (image.parents[1] / "labels" / "a.txt").write_text("0 0.25 0.25 0.5 0.5\n")
    return {
        "coco": f"coco:{tmp_path}/a.json,{image.parent}",
        "csv": f"csv:{tmp_path}/a,b.csv,{image.parent}",
        "csv beside": f"csv:{image.parent}/beside,it.csv",
        "yolo": f"yolo:{image.parents[1]}",
    }


@pytest.mark.parametrize("kind", ["coco", "csv", "csv beside", "yolo"])
def test_kinds_of_files(ants, kind):
    # The names of files and folders contain commas.
    dataset = load_dataset(ants[kind])
    assert dataset.name == ants[kind]
    assert dataset.class_names == ("ant",)
    assert dataset[0].boxes.tolist() == [[0, 0, 0.5, 0.5]]


@pytest.mark.parametrize("spec", ["coco:none.json", "coco:none.json,images", "csv:none.csv", "csv:none,images"])
def test_missing_files_are_named(spec):
    one_line_error(lambda: load_dataset(spec), spec.partition(":")[2].partition(",")[0], "cannot read the file")


def test_union_of_kinds(ants, cats_and_ants):
    dataset = load_dataset(f"voc:{cats_and_ants[0]}@train+{ants['coco']}+voc:{cats_and_ants[1]}@train")
    assert dataset.class_names == ("ant", "cat")
    assert [record.class_ids.tolist() for record in dataset] == [[2], [1], [1]]
    assert [record.crowd.tolist() for record in dataset] == [[False], [True], [False]]


def test_tfds_is_read_from_disk_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    one_line_error(lambda: load_dataset("tfds:voc/2007@train"), "tfds.load('voc/2007')")


def test_parts_of_a_split_and_of_each_member_of_a_union(voc_folder):
    voc_folder.simple(10)
    spec = f"voc:{voc_folder.path}@train"
    first, rest = load_dataset(f"{spec}[:70%]"), load_dataset(f"{spec}[70%:]")
    assert (len(first), first.name) == (7, f"{spec}[:70%]")
    assert {record.image_id for record in first}.isdisjoint(record.image_id for record in rest)
    union = load_dataset(f"{spec}[:70%]+{spec}[70%:]")
    assert [record.image_id for record in union] == [record.image_id for part in (first, rest) for record in part]
    other = load_dataset(f"{spec}[:70%,seed=4]")
    assert [record.image_id for record in other] != [record.image_id for record in first]
    one_line_error(lambda: load_dataset(f"{spec}[:70]"), "the part [:70]")
