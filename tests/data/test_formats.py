"""Files as tools write them are recognised, and errors about SPECs of the wrong kind name the right one."""

import json

import pytest
from annotation_files import one_line_error, write_image

from tf_fast_rcnn.data.formats import hint, recognise
from tf_fast_rcnn.data.specs import load_dataset

VOC = (
    "<annotation><filename>a.png</filename><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
    "<xmax>30</xmax><ymax>20</ymax></bndbox></object></annotation>"
)
CVAT = (
    '<?xml version="1.0"?>\n<annotations><version>1.1</version><image id="0" name="a.png">'
    '<box label="cat" xtl="0" ytl="0" xbr="30" ybr="20"/></image></annotations>'
)
COCO = {
    "images": [{"id": 1, "file_name": "a.png"}],
    "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 30, 20]}],
    "categories": [{"id": 1, "name": "cat"}],
}
VALUE = {"x": 0, "y": 0, "width": 50, "height": 50, "rectanglelabels": ["cat"]}
LABEL_STUDIO = [
    {
        "id": 1,
        "data": {"image": "/data/upload/a.png"},
        "annotations": [
            {"result": [{"type": "rectanglelabels", "original_width": 60, "original_height": 40, "value": VALUE}]}
        ],
    }
]
RECT = {"name": "rect", "x": 0, "y": 0, "width": 30, "height": 20}
VIA = {"a": {"filename": "a.png", "regions": [{"shape_attributes": RECT, "region_attributes": {"label": "cat"}}]}}
LABELME = {
    "shapes": [{"label": "cat", "shape_type": "rectangle", "points": [[0, 0], [30, 20]]}],
    "imagePath": "a.png",
    "imageWidth": 60,
    "imageHeight": 40,
}
KITTI = "cat 0 0 0 0 0 30 20 0 0 0 0 0 0 0"
HUGGING_FACE = {"file_name": "a.png", "objects": {"bbox": [[0, 0, 30, 20]], "categories": ["cat"]}}
YOLO = "0 0.25 0.25 0.5 0.5\n"

# Files, and the SPECs that must be found for the folder; all have a.png where the reader looks for it.
CASES = {
    "voc": ({"Annotations/a.xml": VOC, "ImageSets/Main/train.txt": "a\n", "JPEGImages/a.png": 0}, ["voc:{}@train"]),
    "labelimg": ({"a.xml": VOC, "a.png": 0}, ["voc:{}"]),
    "roboflow": ({"train/a.xml": VOC, "train/a.png": 0}, ["voc:{}@train"]),
    "label studio, voc": ({"Annotations/a.xml": VOC, "images/a.png": 0}, ["voc:{}"]),
    "cvat": ({"annotations.xml": CVAT, "images/a.png": 0}, ["cvat:{}/annotations.xml"]),
    "coco": ({"x.json": COCO, "a.png": 0}, ["coco:{}/x.json"]),
    "coco's folders": (
        {"annotations/instances_val2017.json": COCO, "val2017/a.png": 0},
        ["coco:{0}/annotations/instances_val2017.json,{0}/val2017"],
    ),
    "label studio": ({"export.json": LABEL_STUDIO, "a.png": 0}, ["label-studio:{}/export.json"]),
    "via": ({"via.json": VIA, "a.png": 0}, ["via:{}/via.json"]),
    "labelme": ({"a.json": LABELME, "a.png": 0}, ["labelme:{}"]),
    "kitti": ({"training/image_2/a.png": 0, "training/label_2/a.txt": KITTI}, ["kitti:{}"]),
    "tao": ({"images/a.png": 0, "labels/a.txt": KITTI}, ["kitti:{}"]),
    "hugging face": ({"train/a.png": 0, "train/metadata.jsonl": HUGGING_FACE}, ["imagefolder:{}@train"]),
    "csv": (
        {"boxes.csv": "filename,xmin,ymin,xmax,ymax,class\na.png,0,0,30,20,cat\n", "a.png": 0},
        ["csv:{}/boxes.csv"],
    ),
    "csv without header": ({"boxes.csv": "a.png,0,0,30,20,cat\n", "a.png": 0}, ["csv:{}/boxes.csv"]),
    "ultralytics": (
        {"data.yaml": "train: images\nnames: [cat]\n", "images/a.png": 0, "labels/a.txt": YOLO},
        ["yolo:{}@train"],
    ),
    "another yaml": (
        {"my.yaml": "train: images\nnames: [cat]\n", "images/a.png": 0, "labels/a.txt": YOLO},
        ["yolo:{}/my.yaml@train"],
    ),
    "labelimg, yolo": ({"classes.txt": "cat\n", "a.png": 0, "a.txt": YOLO}, ["yolo:{}"]),
    "darknet": (
        {
            "obj.names": "cat\n",
            "obj.data": "names = data/obj.names\n",
            "train.txt": "data/obj_train_data/a.png\n",
            "obj_train_data/a.png": 0,
            "obj_train_data/a.txt": YOLO,
        },
        ["yolo:{}@train"],
    ),
}


def write(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".png"):
            write_image(path)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize("name", CASES)
def test_the_spec_of_a_folder_reads_it(tmp_path, name):
    files, specs = CASES[name]
    write(tmp_path, files)
    expected = [spec.format(tmp_path) for spec in specs]
    assert recognise(tmp_path) == expected
    for spec in expected:
        dataset = load_dataset(spec)
        assert dataset.class_names == ("cat",)
        assert dataset[0].boxes.tolist() == [[0, 0, 0.5, 0.5]]


@pytest.mark.parametrize("name", CASES)
def test_the_wrong_kind_names_the_right_one(tmp_path, name):
    files, specs = CASES[name]
    write(tmp_path, files)
    right = specs[0].format(tmp_path)
    kind, _, location = right.partition(":")
    wrong = "yolo" if kind != "yolo" else "voc"
    one_line_error(lambda: load_dataset(f"{wrong}:{tmp_path}@train"), "it looks like", kind)
    one_line_error(lambda: load_dataset(str(tmp_path)), "unknown kind", f"it looks like {right}")
    assert hint(kind, tmp_path) == ""
    assert location


def test_records(tmp_path):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(tmp_path / "train.tfrecord")) as writer:
        writer.write(
            tf.train.Example(features=tf.train.Features(feature={"a": tf.train.Feature()})).SerializeToString()
        )
    assert recognise(tmp_path / "train.tfrecord") == [f"tfrecord:{tmp_path}/train.tfrecord"]
    assert recognise(tmp_path) == [f"tfrecord:{tmp_path}/*.tfrecord*"]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"a.png": 0},
        {"notes.txt": "hello", "package.json": {"name": "x"}, "pom.xml": "<project/>", "ci.yaml": "on: push\n"},
        {"table.csv": "name,age\nx,3\n"},
        {"bad.json": "{", "bad.xml": "\x00", "bad.yaml": "names", "empty.csv": ""},
    ],
)
def test_what_is_no_dataset(tmp_path, files):
    write(tmp_path, files)
    assert recognise(tmp_path) == []
    assert hint("voc", tmp_path) == ""


def test_a_right_kind_with_another_fault_has_no_hint(tmp_path):
    write(tmp_path, {"a.xml": VOC.replace("30", "x"), "a.png": 0})
    message = one_line_error(lambda: load_dataset(f"voc:{tmp_path}"), "xmax 'x'")
    assert "looks like" not in message
