"""COCO's instances JSON: boxes computed by hand, ids, classes, and invalid input that is rejected, skipped or fixed."""

import json

import numpy as np
import pytest
from annotation_files import one_line_error, write_image
from PIL import Image

from tf_fast_rcnn.data.readers.coco import coco_category_ids, read_coco, read_coco_images
from tf_fast_rcnn.data.specs import load_images
from tf_fast_rcnn.data.writers.coco_results import result_image_ids

CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}]


def image(number, file_name=None, **values):
    return {"id": number, "file_name": file_name or f"{number:012d}.jpg", "height": 40, "width": 60} | values


def annotation(image_id, category_id, bbox, **values):
    return {"id": 7, "image_id": image_id, "category_id": category_id, "bbox": bbox, "area": 1, "iscrowd": 0} | values


def content(images=None, annotations=None, categories=None):
    return {
        "info": {},
        "images": [image(5)] if images is None else images,
        "annotations": [annotation(5, 13, [15, 10, 30, 20])] if annotations is None else annotations,
        "categories": CATEGORIES if categories is None else categories,
    }


@pytest.fixture
def coco(tmp_path):
    """Writes the JSON and the images that it lists; returns a function that reads them."""

    def write(value, write_images=True):
        (tmp_path / "instances.json").write_text(value if isinstance(value, str) else json.dumps(value))
        if write_images:
            for entry in value["images"]:
                write_image(tmp_path / "images" / entry["file_name"].replace("\\", "/"))
        return lambda **options: read_coco(tmp_path / "instances.json", tmp_path / "images", **options)

    return write


def test_boxes_labels_and_ids(coco, tmp_path):
    found = [annotation(5, 13, [15, 10, 30, 20]), annotation(5, 1, [0, 0, 60, 40]), annotation(9, 90, [0.5, 0, 30, 4])]
    dataset = coco(content([image(9), image(5)], found))()
    # Class ids follow the order of the category ids 1, 13 and 90; images keep the order of the file.
    assert dataset.class_names == ("person", "stop sign", "toothbrush")
    assert [record.image_id for record in dataset] == ["9", "5"]
    assert [record.class_ids.tolist() for record in dataset] == [[3], [2, 1]]
    np.testing.assert_allclose(dataset[1].boxes, [[0.25, 0.25, 0.75, 0.75], [0, 0, 1, 1]], atol=1e-6)
    np.testing.assert_allclose(dataset[0].boxes, [[0, 0.5 / 60, 0.1, 30.5 / 60]], atol=1e-6)
    assert dataset[1].image_path == str(tmp_path / "images" / "000000000005.jpg")
    assert (dataset[1].height, dataset[1].width) == (40, 60)
    assert dataset.fixes == {}
    assert dataset.name == f"coco:{tmp_path}/instances.json,{tmp_path}/images"


def test_category_ids_come_back(coco, tmp_path):
    dataset = coco(content())()
    ids = coco_category_ids(tmp_path / "instances.json")
    assert [ids[name] for name in dataset.class_names] == [1, 13, 90]


def test_crowds_and_images_without_objects(coco):
    crowd = annotation(5, 1, [0, 0, 9, 9], iscrowd=1, segmentation={"counts": [1, 2], "size": [40, 60]})
    person = annotation(5, 1, [1, 1, 9, 9], segmentation=[[1, 1, 9, 9, 4, 5]])
    dataset = coco(content([image(4), image(5)], [person, crowd]))()
    assert len(dataset[0].boxes) == 0
    assert dataset[1].crowd.tolist() == [False, True]
    assert not dataset[1].difficult.any()


def test_areas_of_outlines_are_shares_of_the_image(coco):
    """Images of 40 x 60. Invalid areas are replaced by that of the box."""
    boxes = [[0, 0, 30, 20], [0, 0, 30, 20], [0, 0, 6, 10], [0, 0, 6, 10]]
    areas = [480, 36.5, 0, "many"]
    both = [annotation(4, 1, box, area=area) for box, area in zip(boxes, areas, strict=True)]
    plain = [{name: value for name, value in both[0].items() if name != "area"} | {"image_id": 5}]
    first, second = coco(content([image(4), image(5)], both + plain))()
    np.testing.assert_allclose(first.areas, [480 / 2400, 36.5 / 2400, 60 / 2400, 60 / 2400], rtol=1e-6)
    assert second.areas is None


def test_boxes_are_clipped_and_dropped(coco):
    boxes = [[-5, 0, 20, 20], [50, 30, 30, 30], [10, 10, 0, 5], [10, 10, -5, 5], [70, 0, 5, 5], [10, 10, 5, 5]]
    boxes.append([0, 0, 60.002, 40.001])  # Rounding to two decimals does not count as clipping.
    dataset = coco(content(annotations=[annotation(5, 1, box) for box in boxes]))()
    expected = [[0, 0, 0.5, 0.25], [0.75, 50 / 60, 1, 1], [0.25, 10 / 60, 0.375, 0.25], [0, 0, 1, 1]]
    np.testing.assert_allclose(dataset[0].boxes, expected, atol=1e-6)
    assert dataset.fixes == {"boxes without area dropped": 3, "boxes clipped to their image": 2}


def test_what_clipping_changes_is_kept_for_cocos_metrics(coco):
    """Boxes that the record restores to three decimals are not kept twice."""
    boxes = [[-5, 0, 20, 20], [70, 0, 5, 5], [10.25, 10, 5, 5]]
    beyond = [annotation(5, 1, box, area=7.5, iscrowd=n == 2) for n, box in enumerate(boxes)]
    kept = coco(content(annotations=beyond))()[0].coco_objects
    np.testing.assert_array_equal(kept.windows, boxes)
    assert kept.objects.tolist() == [0, -1, 1]
    assert kept.areas.tolist() == [7.5] * 3
    assert kept.crowd.tolist() == [False, False, True]
    assert coco(content(annotations=beyond[2:]))()[0].coco_objects is None
    digits = [annotation(5, 1, [10.123456789, 10, 5, 5])]
    np.testing.assert_array_equal(
        coco(content(annotations=digits))()[0].coco_objects.windows, [[10.123456789, 10, 5, 5]]
    )


@pytest.mark.parametrize("file_name", ["train/a.jpg", r"train\a.jpg", "../images/train/a.jpg", "/elsewhere/b.jpg"])
def test_file_names_with_folders(coco, tmp_path, file_name):
    write_image(tmp_path / "images" / "train" / "a.jpg")
    write_image(tmp_path / "images" / "b.jpg")
    record = coco(content([image(5, file_name)]), write_images=False)()[0]
    assert Image.open(record.image_path).size == (60, 40)


def test_images_beside_the_json(tmp_path):
    write_image(tmp_path / "000000000005.jpg")
    (tmp_path / "_annotations.coco.json").write_text(json.dumps(content()))
    assert len(read_coco(tmp_path / "_annotations.coco.json")) == 1


def test_class_names_give_the_labels(coco):
    read = coco(content())
    assert read(class_names=["stop sign", "person", "toothbrush"])[0].class_ids.tolist() == [1]
    one_line_error(lambda: read(class_names=["person"]), "instances.json", "'stop sign'", "person")


def test_boxes_of_tools_that_ignore_exif_turn_with_the_image(coco, tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6
    read = coco(content())
    write_image(tmp_path / "images" / "000000000005.jpg", exif=tags)
    dataset = read()
    assert (dataset[0].height, dataset[0].width) == (60, 40)
    # A quarter turn clockwise: rows 0.25 to 0.75 become columns 1 - 0.75 to 1 - 0.25.
    np.testing.assert_allclose(dataset[0].boxes, [[0.25, 0.25, 0.75, 0.75]], atol=1e-6)
    assert dataset.fixes == {"boxes rotated with their image (EXIF)": 1}


def one(**values):
    return content(annotations=[annotation(5, 13, [15, 10, 30, 20]) | values])


@pytest.mark.parametrize(
    ("value", "patterns"),
    [
        ("{", ["invalid JSON", "line 1"]),
        ("[" * 100_000, ["invalid JSON"]),
        ("[]", ["no list 'images'"]),
        ({"images": [], "categories": CATEGORIES}, ["no list 'annotations'"]),
        (content(images=[image(5), image(5)]), ["the id 5 twice in images"]),
        (content(images=[image(5), {"file_name": "a.jpg"}]), ["no id in images[1]"]),
        (content(categories=[*CATEGORIES, {"id": 13, "name": "car"}]), ["the id 13 twice in categories"]),
        (content(categories=[*CATEGORIES, {"id": 14, "name": "person"}]), ["the category 'person' twice"]),
        (content(categories=[*CATEGORIES, {"id": "x", "name": "car"}]), ["both numbers and text as ids in categories"]),
        (content(categories=[{"id": 13}]), ["no name for category 13"]),
        (content(images=[], annotations=[]), ["no usable image"]),
    ],
)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_broken_file_is_one_line(coco, value, patterns, skip_bad):
    read = coco(value, write_images=False)
    one_line_error(lambda: read(skip_bad=skip_bad), "instances.json", *patterns)


@pytest.mark.parametrize(
    ("value", "patterns"),
    [
        (one(bbox=[1, 2, 3]), ["image 000000000005.jpg", "the bbox [1, 2, 3] in annotation 7"]),
        (one(bbox=[1, 2, 3, float("nan")]), ["nan", "four finite numbers"]),
        (one(bbox=[1, 2, 3, float("-inf")]), ["-inf"]),
        (one(bbox=[1, 2, 3, 10**400]), ["four finite numbers"]),
        (one(bbox=[1, 2, 3, True]), ["four finite numbers"]),
        (one(bbox=None), ["the bbox None"]),
        (one(bbox="1234"), ["the bbox '1234'"]),
        (one(category_id=2), ["the category_id 2"]),
        (one(category_id=[13]), ["the category_id [13]"]),
        (content(images=[image(5, height=41)]), ["60x41", "60x40"]),
        (content(images=[image(5, height=10**30)]), ["60x10000000000", "60x40"]),
        (content(images=[image(5, width="wide")]), ["width 'wide'"]),
        (content(images=[image(5) | {"file_name": None}]), ["no file_name for image 5"]),
        (content(images=[image(5) | {"file_name": "none.jpg"}]), ["no such image", "none.jpg"]),
        (content(images=[image(5) | {"file_name": "a\nb\x00.jpg"}]), ["no such image"]),
        (content(images=[image(5) | {"file_name": "a" * 5000}]), ["no such image"]),
    ],
)
def test_a_bad_image_is_one_line_or_skipped_and_counted(coco, tmp_path, value, patterns):
    value["images"].append(image(6))
    read = coco(value, write_images=False)
    for name in ("000000000005.jpg", "000000000006.jpg"):
        write_image(tmp_path / "images" / name)
    one_line_error(read, "instances.json", *patterns)
    dataset = read(skip_bad=True)
    assert [record.image_id for record in dataset] == ["6"]
    assert dataset.fixes == {"unreadable images or annotations skipped": 1}


@pytest.mark.parametrize("image_id", [6, None, [5], "5"])
def test_annotations_of_unknown_images(coco, image_id):
    read = coco(content(annotations=[annotation(5, 1, [1, 1, 9, 9]), annotation(image_id, 1, [1, 1, 9, 9])]))
    one_line_error(read, "annotations[1]", f"the image_id {image_id!r}")
    dataset = read(skip_bad=True)
    assert len(dataset[0].boxes) == 1
    assert dataset.fixes == {"annotations of images that are not listed skipped": 1}


def test_missing_file(tmp_path):
    one_line_error(lambda: read_coco(tmp_path / "none.json"), "none.json", "cannot read the file")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_other_encodings_of_json(coco, tmp_path, encoding):
    read = coco(content())
    (tmp_path / "instances.json").write_bytes(json.dumps(content()).encode(encoding))
    assert len(read()) == 1


def test_outlines_do_not_stay_in_memory(coco, tmp_path):
    """COCO's own file has 450 MB, of which 400 MB are segmentation masks."""
    import tracemalloc

    outline = [[round(0.1 * step, 1) for step in range(20_000)]]
    annotations = [annotation(5, 1, [1, 1, 9, 9], segmentation=outline) for _ in range(10)]
    read = coco(content(annotations=annotations))
    size = (tmp_path / "instances.json").stat().st_size
    tracemalloc.start()
    dataset = read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(dataset[0].boxes) == 10
    # Ten masks of 20,000 floats take 6.4 MB in Python; one at a time is allowed, besides the file's bytes and text.
    assert peak < 2 * size + 3e6


# --- ids, names and files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [[42, -1, 7], ["000042", "42", "-1"], ["007", "7", "a b"]])
def test_image_ids_come_out_as_they_went_in(coco, ids):
    entries = [image(number, f"{place}.jpg") for place, number in enumerate(ids)]
    dataset = coco(content(entries, [annotation(ids[1], 1, [1, 1, 9, 9])]))()
    assert [record.image_id for record in dataset] == [str(number) for number in ids]
    assert [record.source_id for record in dataset] == ids
    found = result_image_ids(dataset)
    assert found == ids
    assert [type(number) for number in found] == [type(number) for number in ids]


def test_a_file_with_two_names_is_refused_or_left_out(coco):
    entries = [image(5, "a.jpg"), image(6, "./a.jpg"), image(7, "b.jpg")]
    read = coco(content(entries, []))
    one_line_error(read, "image a.jpg", "for 2 images (5, 6)", "expected a file for each")
    dataset = read(skip_bad=True)
    assert [record.image_id for record in dataset] == ["7"]
    assert dataset.fixes == {"unreadable images or annotations skipped": 2}


def test_a_file_listed_twice_is_counted(coco):
    dataset = coco(
        content([image(5, "a.jpg"), image(9, "b.jpg"), image(7, "a.jpg")], [annotation(7, 1, [1, 1, 9, 9])])
    )()
    assert [(record.source_id, len(record.boxes)) for record in dataset] == [(5, 0), (9, 0), (7, 1)]
    assert dataset[0].image_path == dataset[2].image_path
    assert dataset.fixes == {"images listed again under another id": 1}


@pytest.mark.parametrize("name", ["cam1/0001.png", r"C:\data\cam1\0001.png", "/data/cam1/0001.png"])
def test_folders_of_a_name_choose_among_files_of_that_name(coco, tmp_path, name):
    for camera in ("cam1", "cam2"):
        write_image(tmp_path / "images" / camera / "0001.png")
    write_image(tmp_path / "images" / "0001.png")
    record = coco(content([image(5, name)]), write_images=False)()[0]
    assert record.image_path == str(tmp_path / "images" / "cam1" / "0001.png")


def test_the_folder_of_other_images_is_refused(tmp_path):
    """IMAGES is one camera's folder; both cameras have a file of the same name."""
    for camera in ("cam1", "cam2"):
        write_image(tmp_path / camera / "0001.png")
    entries = [image(1, "cam1/0001.png"), image(2, "cam2/0001.png")]
    (tmp_path / "a.json").write_text(json.dumps(content(entries, [])))
    one_line_error(lambda: read_coco(tmp_path / "a.json", tmp_path / "cam1"), "cam2/0001.png", f"pass {tmp_path} as")
    dataset = read_coco(tmp_path / "a.json", tmp_path / "cam1", skip_bad=True)
    assert [record.image_id for record in dataset] == ["1"]


def test_names_that_come_down_to_one_file_are_refused(tmp_path):
    write_image(tmp_path / "flat" / "0001.png")
    entries = [image(1, "cam1/0001.png"), image(2, "cam2/0001.png")]
    (tmp_path / "a.json").write_text(json.dumps(content(entries, [])))
    one_line_error(lambda: read_coco(tmp_path / "a.json", tmp_path / "flat"), "for 2 images (1, 2)")


def test_all_bad_images_are_named_in_one_message(coco, tmp_path):
    read = coco(content([image(number) for number in range(13)], []), write_images=False)
    write_image(tmp_path / "images" / "000000000012.jpg")
    line = one_line_error(read, "12 images or annotations cannot be used: (1) ", "(10) ", "and 2 more", "--skip-bad")
    assert "000000000009.jpg" in line
    assert "000000000010.jpg" not in line
    assert len(read(skip_bad=True)) == 1


# --- what is told -----------------------------------------------------------------------------------------------------


def test_the_root_category_of_roboflow_is_left_out(coco):
    categories = [
        {"id": 0, "name": "cells", "supercategory": "none"},
        {"id": 1, "name": "RBC", "supercategory": "cells"},
        {"id": 2, "name": "WBC", "supercategory": "cells"},
    ]
    dataset = coco(content(annotations=[annotation(5, 2, [1, 1, 9, 9])], categories=categories))()
    assert dataset.class_names == ("RBC", "WBC")
    assert dataset.fixes == {"categories that only group others and have no objects left out": 1}
    used = coco(content(annotations=[annotation(5, 0, [1, 1, 9, 9])], categories=categories))()
    assert used.class_names == ("cells", "RBC", "WBC")
    assert used.fixes == {}


def test_a_file_of_crowds_alone_is_told(coco):
    dataset = coco(content(annotations=[annotation(5, 1, [1, 1, 9, 9], iscrowd=1)] * 3))()
    assert dataset.fixes == {"crowds (iscrowd=1), which all objects are: training and evaluation ignore them": 3}


def test_images_alone_of_a_file_without_annotations(coco, tmp_path):
    value = content([image(5), image(9)])
    del value["annotations"]
    one_line_error(coco(value), "no list 'annotations'")
    dataset = read_coco_images(tmp_path / "instances.json", tmp_path / "images")
    assert dataset.class_names == ("person", "stop sign", "toothbrush")
    assert [(record.source_id, len(record.boxes)) for record in dataset] == [(5, 0), (9, 0)]
    named = load_images(f"coco:{tmp_path / 'instances.json'},{tmp_path / 'images'}", ["cat"])
    assert named.class_names == ("cat",)
