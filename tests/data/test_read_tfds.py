"""TFDS: its own `voc` and `coco` builders over data made here, beside our readers of the same, and other builders."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from annotation_files import one_line_error, write_image
from tensorflow_datasets.object_detection import coco, voc

from tf_fast_rcnn.data.coco import read_coco
from tf_fast_rcnn.data.tfds import read_tfds
from tf_fast_rcnn.data.voc import read_voc

CORNERS = {"000005": [(1, 1, 60, 40), (16, 11, 45, 30)], "000012": [(7.5, 3, 9, 9), (59, 39, 60, 40)], "000017": []}


def box(ymin, xmin, ymax, xmax):
    return tfds.features.BBox(float(ymin), float(xmin), float(ymax), float(xmax))


class Voc(voc.Voc, skip_registration=True):
    """TFDS's own builder over the small folder of these tests."""

    name = "voc"
    devkit = None

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(str(self.devkit), "train") for split in ("train", "test")}


class Coco(coco.Coco, skip_registration=True):
    """TFDS's own builder over the small file of these tests."""

    name = "coco"
    folder = None

    def _split_generators(self, dl_manager):
        folder = str(self.folder)
        return {
            "validation": self._generate_examples(folder, folder, "val2017", coco.AnnotationType.BBOXES, None),
        }


class Shapes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A data set of a user's: PNG images of equal file names, objects under another name, one box without area."""

    name = "shapes"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        things = {"bbox": tfds.features.BBoxFeature(), "type": tfds.features.ClassLabel(names=["disc", "ring"])}
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "filename": tfds.features.Text(),
            "things": tfds.features.Sequence(things),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for number in range(3):
            image = np.full((8 + number, 6, 3), number, np.uint8)
            things = [{"bbox": box(0, 0, 1, 0.5), "type": "ring"}, {"bbox": box(0.5, 0, 0.5, 1), "type": "disc"}]
            yield number, {"image": image, "filename": "shape.png", "things": things}


class Faces(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Boxes without a class, which no detector can be trained on."""

    name = "faces"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        faces = tfds.features.Sequence({"bbox": tfds.features.BBoxFeature()})
        features = {"image": tfds.features.Image(), "faces": faces}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        yield 0, {"image": np.zeros((4, 4, 3), np.uint8), "faces": []}


def write_voc(folder):
    """Images and annotations with all tags that TFDS's builder asks for."""
    extra = "<pose>Left</pose><truncated>0</truncated><difficult>{}</difficult>"
    for image_id, corners in CORNERS.items():
        folder.image(f"{image_id}.jpg")
        objects = [
            folder.object(("cat", "dog")[number], *values, extra.format(number))
            for number, values in enumerate(corners)
        ]
        folder.annotation(image_id, "".join(objects), size=(60, 40))
    folder.split("train", "\n".join(CORNERS))


def write_coco(folder):
    """Three images, and 80 categories whose ids have gaps, in COCO's own folders."""
    categories = [{"id": number, "name": f"class {number}", "supercategory": "x"} for number in range(10, 90)]
    categories[3]["id"] = 93
    annotations = [
        {"id": 3, "image_id": 139, "category_id": 88, "bbox": [15.5, 10, 30.25, 20], "area": 9, "iscrowd": 0},
        {"id": 4, "image_id": 139, "category_id": 10, "bbox": [0, 0, 60, 40], "area": 9, "iscrowd": 1},
        {"id": 5, "image_id": 632, "category_id": 93, "bbox": [1, 2, 3, 4], "area": 9, "iscrowd": 0},
    ]
    images = [
        {"id": number, "file_name": f"{number:012d}.jpg", "height": 40, "width": 60} for number in (632, 139, 285)
    ]
    for image in images:
        write_image(folder / "val2017" / image["file_name"])
    # TFDS takes the classes in the order of the file, which in COCO's files is that of the ids.
    categories.sort(key=lambda category: category["id"])
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations").mkdir()
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(content))


@pytest.fixture(scope="module")
def built(tmp_path_factory, voc_folder_type):
    """A folder with `data`, where TFDS finds all four, and what the first two were made of."""
    folder = tmp_path_factory.mktemp("tfds")
    Voc.devkit, Coco.folder = folder, folder / "coco"
    write_voc(voc_folder_type(folder / "VOCdevkit" / "VOC2007"))
    write_coco(folder / "coco")
    for builder in (Voc(config="2007", data_dir=folder / "data"), Coco(config="2017", data_dir=folder / "data")):
        builder.download_and_prepare()
    for builder in (Shapes, Faces):
        builder(data_dir=folder / "data").download_and_prepare()
    return folder


@pytest.fixture
def read(built, monkeypatch, tmp_path):
    """`read_tfds` with a cache folder of the test's own."""
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
        assert names[record.labels].tolist() == other_names[other.labels].tolist()
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
        assert record.labels.tolist() == [2]
        np.testing.assert_allclose(record.boxes, [[0, 0, 1, 0.5]])
        assert record.image().shape == (record.height, 6, 3)
        assert np.all(record.image() == record.height - 8)
    assert dataset.mended == {"boxes without area dropped": 3}


def test_class_names_give_the_labels(read):
    assert read("shapes", "train", class_names=["ring", "disc"])[0].labels.tolist() == [1]
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
    one_line_error(lambda: read("voc/2007", "train"), "00000001.jpg", "no readable image")
    dataset = read("voc/2007", "train", skip_bad=True)
    assert len(dataset) == 2
    assert dataset.mended["unreadable images or annotations skipped"] == 1


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
    one_line_error(lambda: read("shapes", "train"), "no readable examples", "build it again")


def test_a_folder_that_cannot_be_written(read, built, tmp_path):
    (tmp_path / "cache").write_text("a file")
    one_line_error(lambda: read("shapes", "train"), "another --cache")
