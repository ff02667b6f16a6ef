"""All detection builders of TFDS itself, over raw files that their own parsers read.

Expected boxes are those of our readers of the same raw files, or worked out by hand.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tfds_own_builders as raw
from annotation_files import one_line_error
from tfds_folder import build_all, write_coco

from tf_fast_rcnn import Detections, read_detections, score_detections, write_comp4
from tf_fast_rcnn.data.readers import tfds_layout
from tf_fast_rcnn.data.readers.coco import read_coco
from tf_fast_rcnn.data.readers.csv_boxes import read_csv
from tf_fast_rcnn.data.readers.kitti import read_kitti
from tf_fast_rcnn.data.readers.tfds import read_tfds
from tf_fast_rcnn.data.readers.voc import read_voc

PAGE = (Path(__file__).parents[3] / "docs" / "tfds.md").read_text()


@pytest.fixture
def read(tmp_path, monkeypatch):
    """`read_tfds` of what was built in tmp_path."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))

    def read(name, split, **options):
        return read_tfds(name, split, cache_dir=tmp_path / "cache", progress=False, **options)

    return read


def names_of(record, dataset):
    return [dataset.class_names[label - 1] for label in record.class_ids]


def check_objects(record, dataset, *expected):
    """Each expected object: class name, xmin, ymin, xmax, ymax in pixels."""
    assert names_of(record, dataset) == [name for name, *_ in expected]
    scale = [record.height, record.width] * 2
    corners = np.array([corners for _, *corners in expected]).reshape(-1, 4)
    np.testing.assert_allclose(record.boxes * scale, corners[:, [1, 0, 3, 2]], atol=1e-3)


def check_as_voc(dataset, others):
    assert sorted(record.image_id for record in dataset) == [record.image_id for record in others]
    for record, other in zip(sorted_by_id(dataset), others, strict=True):
        np.testing.assert_allclose(record.boxes, other.boxes, atol=1e-6)
        assert names_of(record, dataset) == names_of(other, others)
        np.testing.assert_array_equal(record.image(), other.image())


def sorted_by_id(dataset):
    return sorted(dataset, key=lambda record: record.image_id)


def test_kitti_is_not_upside_down(read, tmp_path):
    folder = raw.kitti(tmp_path)
    dataset = read("kitti", "train")
    (record,) = dataset
    (other,) = others = read_kitti(folder, "training")
    np.testing.assert_allclose(record.boxes, other.boxes, atol=1e-6)
    assert names_of(record, dataset) == names_of(other, others)
    check_objects(record, dataset, ("Car", 30, 20, 130, 60), ("Pedestrian", 150.5, 10.25, 160, 90.75))
    assert record.image()[20:60, 30:130].min() == 255
    assert record.image_id == "000007"


def test_bccd_is_that_of_the_voc_reader(read, tmp_path):
    folder = raw.bccd(tmp_path)
    dataset, others = read("bccd", "test"), read_voc(folder, "test")
    assert dataset.class_names == ("RBC", "WBC", "Platelets")
    check_as_voc(dataset, others)
    found = [Detections(record.boxes, np.full(len(record.boxes), 0.5, "f4"), record.class_ids) for record in dataset]
    write_comp4(tmp_path / "results", dataset, found, dataset.class_names)
    again = read_detections(tmp_path / "results", dataset)
    for before, after in zip(found, again, strict=True):
        assert sorted(after.class_ids.tolist()) == sorted(before.class_ids.tolist())


def test_stanford_dogs_have_the_class_of_their_image(read, tmp_path):
    others = read_voc(raw.stanford_dogs(tmp_path), "train")
    dataset = read("stanford_dogs", "train")
    assert len(dataset.class_names) == 120
    expected = {record.image_id: record for record in others}
    for record in dataset:
        other = expected.pop(record.image_id.rpartition("/")[2])
        np.testing.assert_allclose(record.boxes, other.boxes, atol=1e-6)
        assert names_of(record, dataset) == names_of(other, others)
    assert not expected


def test_oxford_pets_without_annotation_are_no_background(read, tmp_path):
    others = read_voc(raw.oxford_iiit_pet(tmp_path), "trainval")
    dataset = read("oxford_iiit_pet", "train")
    check_as_voc(dataset, others)
    assert dataset.fixes["images without annotation left out"] == 1
    one_line_error(lambda: read("oxford_iiit_pet", "test"), "oxford_iiit_pet@test", "no usable images")


AREAS = [9.25, 1023.9, 1024.25, 1024.9, 2000.5, 9215.5, 9216.5, 20000.75]


@pytest.fixture
def coco_of_all_sizes(tmp_path, monkeypatch):
    """TFDS's coco over objects whose areas are close to the bounds of COCO's size classes."""

    def write(folder):
        write_coco(folder)
        path = folder / "annotations" / "instances_val2017.json"
        content = json.loads(path.read_text())
        content["annotations"] = [
            {"id": number, "image_id": 139, "category_id": 10, "iscrowd": 0, "area": area}
            | {"bbox": [6 * number, 2 * number, 10, 8]}
            for number, area in enumerate(AREAS)
        ]
        path.write_text(json.dumps(content))

    monkeypatch.setattr("tfds_folder.write_coco", write)
    return build_all(tmp_path)


def test_coco_has_the_size_classes_of_the_coco_reader(read, coco_of_all_sizes):
    dataset = read("coco/2017", "validation")
    path = coco_of_all_sizes / "coco" / "annotations" / "instances_val2017.json"
    others = read_coco(path, coco_of_all_sizes / "coco" / "val2017")
    figures = []
    for part in (dataset, others):
        # Every second object is found, so that each size class has a figure of its own.
        found = [
            Detections(record.boxes[::2], np.linspace(0.9, 0.5, len(record.boxes[::2])), record.class_ids[::2])
            for record in part
        ]
        metrics = score_detections(part, found, protocol="coco").metrics
        figures.append([metrics[f"AP_{size}"] for size in ("small", "medium", "large")])
    assert figures[0] == figures[1]
    assert len(set(figures[0])) > 1
    assert all(0 < figure < 1 for figure in figures[0])
    record = next(record for record in dataset if record.image_id == "139")
    expected = [9, 1023, 1024.5, 1024.5, 2000, 9215, 9216.5, 20000]
    np.testing.assert_allclose(record.areas * 2400, expected, rtol=1e-6)


def test_panoptic_segments_are_objects(read, tmp_path):
    raw.coco_panoptic(tmp_path)
    dataset = read("coco/2017_panoptic", "validation")
    (record,) = dataset
    check_objects(record, dataset, ("class 3", 6, 4, 36, 24), ("class 200", 0, 20, 60, 40))
    assert record.crowd.tolist() == [False, True]
    np.testing.assert_allclose(record.areas * 2400, [500, 1024])  # counted pixels, which have no decimals
    assert len(dataset.class_names) == 133


def test_coco_captions_are_coco(read, tmp_path):
    build_all(tmp_path)
    raw.coco_captions(tmp_path, tmp_path / "coco")
    dataset, other = read("coco_captions/2014", "val"), read("coco/2017", "validation")
    for record, expected in zip(sorted_by_id(dataset), sorted_by_id(other), strict=True):
        assert record.boxes.tolist() == expected.boxes.tolist()
        assert np.array_equal(record.areas, expected.areas) or record.areas is expected.areas is None


def test_lvis_is_that_of_the_coco_reader(read, tmp_path):
    others = read_coco(*raw.lvis(tmp_path))
    dataset = read("lvis", "validation")
    assert dataset.class_names == others.class_names
    assert len(dataset.class_names) == 1203
    for record, other in zip(sorted_by_id(dataset), sorted_by_id(others), strict=True):
        assert record.image_id == str(other.image_id)
        np.testing.assert_allclose(record.boxes, other.boxes, atol=1e-6)
        assert record.class_ids.tolist() == other.class_ids.tolist()
    np.testing.assert_allclose(sorted_by_id(dataset)[0].areas * 2400, [590])


def test_open_images_mark_groups_as_crowds(read, tmp_path):
    files = raw.open_images_v4(tmp_path)
    dataset = read("open_images_v4/original", "test")
    first, second = sorted_by_id(dataset)
    others = read_csv(*files)
    for record, other in zip((first, second), sorted_by_id(others), strict=True):
        np.testing.assert_allclose(record.boxes, other.boxes, atol=1e-6)
        assert names_of(record, dataset) == names_of(other, others)
        assert record.crowd.tolist() == other.crowd.tolist()
    check_objects(first, dataset, ("/m/01g317", 4, 4, 20, 18), ("/m/01g317", 0, 10, 40, 20))
    assert first.crowd.tolist() == [False, True]
    check_objects(second, dataset, ("/m/011k07", 10, 5, 30, 10))
    assert second.crowd.tolist() == [False]  # -1: unknown
    assert (first.image_id, len(dataset.class_names)) == ("000000000000000a", 601)


def test_open_images_challenge(read, tmp_path):
    raw.open_images_challenge2019(tmp_path, annotated=True)
    dataset = read("open_images_challenge2019_detection/200k", "train")
    first, second = sorted_by_id(dataset)
    check_objects(first, dataset, ("/m/01g317", 4, 4, 20, 18), ("/m/01g317", 0, 10, 40, 20))
    assert first.crowd.tolist() == [False, True]
    assert (first.image_id, second.image_id) == ("000000000000000a", "000000000000000c")


def test_a_split_without_any_object_is_reported(read, tmp_path):
    raw.open_images_challenge2019(tmp_path, annotated=False)
    dataset = read("open_images_challenge2019_detection/200k", "train")
    assert dataset.fixes == {"images of a split without any object": 2}


def test_wider_face_has_one_class(read, tmp_path):
    raw.wider_face(tmp_path)
    dataset = read("wider_face", "train")
    first, second = sorted_by_id(dataset)
    assert dataset.class_names == ("face",)
    check_objects(first, dataset, ("face", 6, 4, 36, 24), ("face", 50, 30, 60, 40))
    assert first.difficult.tolist() == [False, True]
    assert (first.image_id, len(second.boxes)) == ("0--Parade/a_1", 0)


def test_caltech_birds_have_one_box_and_names_of_their_examples(read, tmp_path):
    raw.caltech_birds2011(tmp_path)
    dataset = read("caltech_birds2011", "train")
    first, second = sorted_by_id(dataset)
    check_objects(first, dataset, ("black_footed_albatross", 6, 4, 36, 24))
    check_objects(second, dataset, ("least_auklet", 0, 0, 60, 40))
    assert dataset.class_names[:4] == ("black_footed_albatross", "1", "least_auklet", "3")
    assert len(dataset.class_names) == 200


def test_caltech_birds_of_2010(read, tmp_path):
    raw.caltech_birds2010(tmp_path)
    dataset = read("caltech_birds2010", "train")
    check_objects(dataset[0], dataset, ("black_footed_albatross", 6, 4, 36, 24))


def test_cars_have_one_box(read, tmp_path):
    raw.cars196(tmp_path)
    dataset = read("cars196", "train")
    first, second = sorted_by_id(dataset)
    check_objects(first, dataset, ("AM General Hummer SUV 2000", 6, 4, 36, 24))
    check_objects(second, dataset, ("Ram C/V Cargo Van Minivan 2012", 1, 1, 60, 40))
    assert (first.image_id, second.image_id) == ("00001", "00002")


def test_ai2d_has_bounds(read, tmp_path):
    raw.ai2dcaption(tmp_path)
    dataset = read("ai2dcaption", "test")
    check_objects(dataset[0], dataset, ("arrow", 4, 4, 20, 18), ("object", 0, 0, 40, 10))
    assert dataset[0].image_id == "7"
    assert dataset.fixes["boxes without area dropped"] == 1


def test_waymo_has_an_image_per_camera(read, tmp_path):
    raw.waymo_open_dataset(tmp_path)
    dataset = read("waymo_open_dataset/v1.2", "train")
    records = {record.image_id: record for record in dataset}
    assert sorted(records) == sorted(f"00000000-camera_{camera}" for camera in raw.CAMERAS)
    check_objects(records["00000000-camera_FRONT"], dataset, ("TYPE_VEHICLE", 720, 480, 1200, 800))
    check_objects(records["00000000-camera_SIDE_RIGHT"], dataset, ("TYPE_PEDESTRIAN", 1860, 221.5, 1920, 664.5))
    assert records["00000000-camera_SIDE_RIGHT"].image().shape == (886, 1920, 3)
    assert len(records["00000000-camera_SIDE_LEFT"].boxes) == 0


@pytest.mark.parametrize(
    ("name", "patterns"),
    [
        ("flic", ["without a class label next to the boxes torsobox"]),
        ("ref_coco", ["without a class label next to the boxes coco_annotations/bbox, objects/bbox"]),
        ("segment_anything", ["without a class label next to the boxes annotations/bbox, annotations/crop_box"]),
        ("tao", ["a video", "a data set of images"]),
        ("youtube_vis", ["a video", "a data set of images"]),
        ("gref", ["only the objects that its texts refer to", "use tfds:coco"]),
        ("mnist", ["without boxes"]),
    ],
)
def test_what_is_refused_is_one_line(tmp_path, name, patterns):
    builder = tfds.builder_cls(name)(data_dir=tmp_path)

    def layouts():
        return tfds_layout.find_layouts(builder, tfds_layout.own_builder(builder, name), name)

    one_line_error(layouts, f"tfds:{name}", *patterns)


def test_later_versions_of_corrected_builders_are_refused(tmp_path):
    builder = tfds.builder_cls("kitti")(data_dir=tmp_path)
    builder.info.as_proto.version = "3.4.0"
    later = type("Later", (), {"name": "kitti", "info": builder.info, "version": tfds.core.Version("3.4.0")})
    one_line_error(lambda: tfds_layout.own_builder(later, "kitti"), "found version 3.4.0", "at most 3.3.0")


def test_the_page_lists_every_builder_with_boxes():
    """All sources of TFDS with a `BBoxFeature` are in the table of docs/tfds.md."""
    root = Path(tfds.__file__).parent
    sources = [path for path in root.rglob("*.py") if not path.name.endswith("_test.py") and "core" not in path.parts]
    with_boxes = [path for path in sources if "BBoxFeature" in path.read_text()]
    names = {name for path in with_boxes for name in registered_names(path)}
    assert len(names) >= 20
    rows = set(re.findall(r"^\| `(\w+)`", PAGE, flags=re.MULTILINE))
    assert names - rows == set()
    assert rows - names == {"coco_captions"}  # its features are those of coco


def registered_names(path):
    if path.name.endswith("_dataset_builder.py"):
        return [path.parent.name]
    classes = re.findall(r"^class (\w+)\(.*(?:Builder|CaltechBirds2010)\)", path.read_text(), flags=re.MULTILINE)
    return [tfds.core.naming.camelcase_to_snakecase(name) for name in classes]
