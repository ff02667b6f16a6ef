"""CSV files of Open Images, Kaggle, VIA, makesense and Vertex AI, read by `read_csv`."""

import numpy as np
import pytest
from annotation_files import one_line_error, write_image

from tf_fast_rcnn.data.readers.csv_boxes import read_csv
from tf_fast_rcnn.data.specs import load_dataset

OPEN_IMAGES = """\
ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside
a,xclick,/m/01yrx,1,0.1,0.5,0.25,0.5125,0,0,0,0,0
a,xclick,/m/0bt9lr,1,0,1,0,1,0,0,1,0,0
b,xclick,/m/0bt9lr,1,0,0.5,0,0.5,-1,-1,-1,-1,-1
"""
KAGGLE = (
    'image_id,width,height,bbox,source\na,60,40,"[6.0, 10.0, 24.0, 10.5]",usask_1\nb,60,40,"[0, 0, 30, 20]",usask_1\n'
)
VIA = """filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes
a.png,123,"{}",1,0,"{""name"":""rect"",""x"":6,""y"":10,""width"":24,""height"":10.5}","{""label"":""cat""}"
a.png,123,"{}",2,1,"{""name"":""point"",""cx"":6,""cy"":10}","{""label"":""cat""}"
b.png,456,"{}",0,0,"{}","{}"
"""
MAKESENSE = "cat,6,10,24,10.5,a.png,60,40\ncat,0,0,30,20,b.png,60,40\n"
MAKESENSE_HEADER = "label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\n"
VERTEX = """TRAINING,gs://bucket/cells/a.png,cat,0.1,0.25,,,0.5,0.5125,,
TEST,gs://bucket/cells/b.png,cat,0,0,0.5,0,0.5,0.5,0,0.5
TEST,gs://bucket/cells/c.png,,,,,,,,,
"""
BOX = [10, 6, 20.5, 30]


@pytest.fixture
def read(tmp_path):
    """A function that reads the text as a CSV file next to a.png, b.png and c.png."""
    for name in ("a", "b", "c"):
        write_image(tmp_path / f"{name}.png")

    def read_text(text, **options):
        (tmp_path / "boxes.csv").write_text(text)
        return read_csv(tmp_path / "boxes.csv", **options)

    return read_text


def pixels(record):
    return (record.boxes * [40, 60, 40, 60]).round(4).tolist()


def test_open_images(read, tmp_path):
    dataset = read(OPEN_IMAGES)
    assert dataset.class_names == ("/m/01yrx", "/m/0bt9lr")
    assert [record.image_id for record in dataset] == ["a", "b"]
    assert pixels(dataset[0]) == [BOX, [0, 0, 40, 60]]
    assert dataset[0].crowd.tolist() == [False, True]
    # The sets of validation and test have -1 where nothing is known.
    assert dataset[1].crowd.tolist() == [False]
    (tmp_path / "class-descriptions-boxable.csv").write_text("/m/01yrx,Cat\n/m/0bt9lr,Dog\n")
    assert read(OPEN_IMAGES).class_names == ("Cat", "Dog")


def test_kaggle(read):
    dataset = read(KAGGLE)
    assert dataset.class_names == ("object",)
    assert [(record.image_id, pixels(record)) for record in dataset] == [("a", [BOX]), ("b", [[0, 0, 20, 30]])]
    assert read(KAGGLE.replace("source", "label")).class_names == ("usask_1",)
    assert [len(record.boxes) for record in read(KAGGLE.replace('"[0, 0, 30, 20]"', ""))] == [1, 0]
    one_line_error(lambda: read(KAGGLE.replace("60,40", "40,60")), "line 2", "40x60", "60x40")
    one_line_error(lambda: read(KAGGLE.replace("[0, 0, 30, 20]", "[0, 0, 30]")), "line 3", "x, y, width and height")


@pytest.mark.parametrize(
    "text",
    [
        MAKESENSE,
        MAKESENSE_HEADER + MAKESENSE,
        "image,label,x,y,width,height\na.png,cat,6,10,24,10.5\nb.png,cat,0,0,30,20\n",
        "image;label;x;y;w;h\na.png;cat;6;10;24;10.5\nb.png;cat;0;0;30;20\n",
    ],
)
def test_corner_and_size(read, text):
    dataset = read(text)
    assert dataset.class_names == ("cat",)
    assert [(record.image_id, pixels(record)) for record in dataset] == [("a.png", [BOX]), ("b.png", [[0, 0, 20, 30]])]


def test_via(read):
    dataset = read(VIA)
    assert [(record.image_id, pixels(record)) for record in dataset] == [("a.png", [BOX]), ("b.png", [])]
    assert dataset.fixes == {"points, lines and other shapes without an area skipped": 1}
    one_line_error(lambda: read(VIA.replace('"{""name"":""rect""', '"{""name"":')), "line 2", "invalid JSON")


def test_vertex(read):
    train = read(VERTEX, split="train")
    assert [(record.image_id, pixels(record)) for record in train] == [("gs://bucket/cells/a.png", [BOX])]
    test = read(VERTEX, split="test", class_names=["cat"])
    assert [pixels(record) for record in test] == [[[0, 0, 20, 30]], []]
    one_line_error(lambda: read(VERTEX), "several splits", "test, train", "@SPLIT")
    one_line_error(lambda: read(VERTEX, split="validation"), "no split 'validation'", "test, train")
    # Without the first column, and with one split alone, there is nothing to choose.
    without = "".join(line.partition(",")[2] + "\n" for line in VERTEX.splitlines())
    assert [len(record.boxes) for record in read(without)] == [1, 1, 0]
    assert [len(record.boxes) for record in read(VERTEX.replace("TRAINING", "TEST"))] == [1, 1, 0]
    one_line_error(lambda: read(VERTEX.replace("0.5125", "x"), split="train"), "boxes.csv")


def test_spec_of_a_split(read, tmp_path):
    read(VERTEX, split="train")
    (tmp_path / "boxes.csv").rename(tmp_path / "my@boxes.csv")
    for spec in (f"csv:{tmp_path}/my@boxes.csv@test", f"csv:{tmp_path}/my@boxes.csv@test,{tmp_path}"):
        dataset = load_dataset(spec)
        assert dataset.name == spec
        assert [len(record.boxes) for record in dataset] == [1, 0]


def test_splits_of_other_files(read):
    one_line_error(lambda: read(KAGGLE, split="train"), "found no splits", "@train")


def test_own_columns_stay(read):
    """Corners win over width and height, which are those of the image then."""
    dataset = read("image_id,xmin,ymin,xmax,ymax,width,height,class\na,6,10,30,20.5,60,40,cat\n")
    assert pixels(dataset[0]) == [BOX]
    np.testing.assert_array_equal(dataset[0].class_ids, [1])
