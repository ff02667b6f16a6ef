"""Mutated files of annotation tools, as in test_fuzz_readers: a valid data set, or an error of one line."""

import json
import random

import pytest
from annotation_files import write_image
from test_fuzz_readers import check_sound, mutate, read_or_refuse

from tf_fast_rcnn.data.specs import load_dataset

MUTATIONS = 60

RECT = {"name": "rect", "x": 6, "y": 10, "width": 24, "height": 10.5}
LABELME = {
    "version": "6.3.1",
    "shapes": [
        {"label": "cat", "points": [[30, 20.5], [6, 10]], "shape_type": "rectangle"},
        {"label": "dog", "points": [[1.5, 2], [9, 2], [4, 8]], "shape_type": "polygon"},
    ],
    "imagePath": "a.png",
    "imageHeight": 40,
    "imageWidth": 60,
}
VIA = {
    "a.png1": {
        "filename": "a.png",
        "size": 1,
        "regions": [
            {"shape_attributes": RECT, "region_attributes": {"label": "cat"}},
            {"shape_attributes": RECT, "region_attributes": {"label": "dog"}},
        ],
    },
    "b.png1": {"filename": "b.png", "size": 1, "regions": []},
}
REGION = {"type": "rectanglelabels", "original_width": 60, "original_height": 40, "image_rotation": 0}
VALUE = {"x": 10.0, "y": 25.0, "width": 40.0, "height": 26.25, "rotation": 0}
LABEL_STUDIO = [
    {
        "id": 1,
        "data": {"image": "/data/upload/1/0a1b2c3d-a.png"},
        "annotations": [
            {
                "was_cancelled": False,
                "result": [{**REGION, "value": {**VALUE, "rectanglelabels": [name]}} for name in ("cat", "dog")],
            }
        ],
    },
    {"id": 2, "data": {"image": "/data/upload/1/0a1b2c3d-b.png"}, "annotations": [{"result": []}]},
]
CVAT = """<?xml version="1.0"?>
<annotations><version>1.1</version><meta><task><labels><label><name>cat</name></label><label><name>dog</name></label>
</labels></task></meta>
<image id="0" name="a.png" width="60" height="40">
<box label="cat" xtl="6.00" ytl="10.00" xbr="30.00" ybr="20.50" rotation="10"></box>
<polygon label="dog" points="1.5,2.0;9.0,2.0;4.0,8.0"></polygon></image>
<image id="1" name="b.png" width="60" height="40"></image></annotations>
"""
KITTI = "cat 0.00 0 -1.58 6.00 10.00 30.00 20.50 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
IMAGEFOLDER = (
    '{"file_name": "a.png", "objects": {"bbox": [[6, 10, 24, 10.5], [0, 0, 30, 20]], "categories": [1, 0]}}\n'
    '{"file_name": "b.png", "objects": {"bbox": [], "categories": []}}\n'
)
VIA_CSV = (
    "filename,file_size,region_count,region_id,region_shape_attributes,region_attributes\n"
    'a.png,1,2,0,"{""name"":""rect"",""x"":6,""y"":10,""width"":24,""height"":10.5}","{""label"":""cat""}"\n'
    'a.png,1,2,1,"{""name"":""circle"",""cx"":6,""cy"":10,""r"":4}","{""label"":""dog""}"\n'
    'b.png,1,0,0,"{}","{}"\n'
)
OPEN_IMAGES = "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\na,cat,0.1,0.5,0.25,0.5,0\na,dog,0,1,0,1,1\n"

# The mutated file, its content, and the SPEC.
FILES = {
    "labelme": ("a.json", json.dumps(LABELME), "labelme:{}"),
    "via": ("via.json", json.dumps(VIA), "via:{}/via.json"),
    "label-studio": ("export.json", json.dumps(LABEL_STUDIO), "label-studio:{}/export.json"),
    "cvat": ("annotations.xml", CVAT, "cvat:{}/annotations.xml"),
    "kitti": ("label_2/a.txt", KITTI * 2, "kitti:{}"),
    "imagefolder": ("metadata.jsonl", IMAGEFOLDER, "imagefolder:{}"),
    "via csv": ("via.csv", VIA_CSV, "csv:{}/via.csv"),
    "open images": ("boxes.csv", OPEN_IMAGES, "csv:{}/boxes.csv"),
}


@pytest.fixture(params=FILES)
def case(request, tmp_path):
    """The path of a file, its bytes, and the SPEC that reads it."""
    name, text, spec = FILES[request.param]
    for image in ("a.png", "b.png"):
        write_image(tmp_path / "image_2" / image if request.param == "kitti" else tmp_path / image)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    return tmp_path / name, text.encode(), spec.format(tmp_path)


def test_unchanged_files_are_read(case):
    dataset = load_dataset(case[2])
    check_sound(dataset)
    assert len(dataset[0].boxes) == 2


@pytest.mark.filterwarnings("error")
def test_mutated_files_are_read_or_refused_in_one_line(case):
    path, original, spec = case
    refused = 0
    for seed in range(MUTATIONS):
        path.write_bytes(mutate(original, random.Random(f"{path.name} {seed}")))
        for skip_bad in (False, True):
            dataset = read_or_refuse(spec, skip_bad=skip_bad)
            if dataset is not None:
                check_sound(dataset)
            refused += dataset is None
    assert 0 < refused < 2 * MUTATIONS
