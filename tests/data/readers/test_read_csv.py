"""CSV files: header variants, pixels computed by hand, and invalid input that is rejected, skipped or fixed."""

import numpy as np
import pytest
from annotation_files import one_line_error, write_image

from tf_fast_rcnn.data.readers.csv_boxes import read_csv

HEADER = "filename,xmin,ymin,xmax,ymax,class\n"


@pytest.fixture
def table(tmp_path):
    """Writes a CSV file next to the images a.jpg and b.jpg; returns a function that reads it."""
    for name in ("a.jpg", "b.jpg"):
        write_image(tmp_path / "images" / name)

    def write(text):
        (tmp_path / "boxes.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        return lambda **options: read_csv(tmp_path / "boxes.csv", tmp_path / "images", **options)

    return write


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "a.jpg,15,10,45,30,cat\nb.jpg,0,0,60,40,dog\na.jpg,0,0,6,4,dog\n",
        # TensorFlow Object Detection tutorials.
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,60,40,cat,15,10,45,30\nb.jpg,60,40,dog,0,0,60,40\n"
        "a.jpg,60,40,dog,0,0,6,4\n",
        # keras-retinanet, which has no header.
        "a.jpg,15,10,45,30,cat\nb.jpg,0,0,60,40,dog\na.jpg,0,0,6,4,dog\n",
        # As saved by spreadsheets.
        "\ufeffImage;X1;Y1;X2;Y2;Label;Note\r\na.jpg;15;10;45;30;cat;\r\n;;;;;;\r\nb.jpg;0;0;60;40;dog;x\r\n"
        "a.jpg;0;0;6;4.0;dog\r\n",
        'path\tx_min\ty_min\tx_max\ty_max\tname\n"a.jpg"\t 15\t10\t45\t30\tcat\nb.jpg\t0\t0\t60\t40\tdog\n'
        "a.jpg\t0\t0\t6\t4\tdog",
        HEADER + "/data/cells/a.jpg,15,10,45,30,cat\nC:\\cells\\b.jpg,0,0,60,40,dog\n/data/cells/a.jpg,0,0,6,4,dog\n",
    ],
)
def test_variants_of_one_table(table, text):
    dataset = table(text)()
    assert dataset.class_names == ("cat", "dog")
    assert [record.class_ids.tolist() for record in dataset] == [[1, 2], [2]]
    np.testing.assert_allclose(dataset[0].boxes, [[0.25, 0.25, 0.75, 0.75], [0, 0, 0.1, 0.1]], atol=1e-6)
    np.testing.assert_allclose(dataset[1].boxes, [[0, 0, 1, 1]], atol=1e-6)
    assert (dataset[0].height, dataset[0].width) == (40, 60)
    assert dataset.fixes == {}


def test_ids_names_and_further_columns(table, tmp_path):
    text = HEADER.strip() + ",difficult,iscrowd\na.jpg,1,1,9,9,cat,1,0\na.jpg,1,1,9,9,cat,0,true\na.jpg,1,1,9,9,cat,,\n"
    dataset = table(text)()
    assert dataset[0].image_id == "a.jpg"
    assert dataset[0].difficult.tolist() == [True, False, False]
    assert dataset[0].crowd.tolist() == [False, True, False]
    assert dataset.name == f"csv:{tmp_path}/boxes.csv,{tmp_path}/images"


@pytest.mark.parametrize("text", [HEADER + "a.jpg,,,,,\nb.jpg,1,1,9,9,cat\n", "a.jpg,,,,,\nb.jpg,1,1,9,9,cat\n"])
def test_images_without_objects(table, text):
    dataset = table(text)()
    assert [len(record.boxes) for record in dataset] == [0, 1]
    assert dataset.class_names == ("cat",)


def test_images_beside_the_table(tmp_path):
    write_image(tmp_path / "a.jpg")
    (tmp_path / "boxes.csv").write_text("a.jpg,1,1,9,9,cat\n")
    assert read_csv(tmp_path / "boxes.csv")[0].image_path == str(tmp_path / "a.jpg")


def test_boxes_are_clipped_and_dropped(table):
    dataset = table(HEADER + "a.jpg,-5,0,30,45,cat\na.jpg,9,9,9,20,cat\na.jpg,20,5,10,9,cat\na.jpg,1e308,0,2e308,9,x\n")
    one_line_error(dataset, "line 5", "xmax '2e308'")
    dataset = table(HEADER + "a.jpg,-5,0,30,45,cat\na.jpg,9,9,9,20,cat\na.jpg,20,5,10,9,cat\na.jpg,0,0,1e308,9,cat\n")()
    np.testing.assert_allclose(dataset[0].boxes, [[0, 0, 1, 0.5], [0, 0, 9 / 40, 1]], atol=1e-6)
    assert dataset.fixes == {"boxes without area dropped": 2, "boxes clipped to their image": 2}


def test_class_names_give_the_labels(table):
    read = table("a.jpg,1,1,9,9,cat\n")
    assert read(class_names=["dog", "cat"])[0].class_ids.tolist() == [2]
    one_line_error(lambda: read(class_names=["dog"]), "boxes.csv, line 1", "'cat'", "dog")


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ("", ["no column filename in an empty file"]),
        ("\n\n", ["no column filename"]),
        ("filename,x1,y1,x2,y2\na.jpg,1,1,9,9\n", ["no column class", "filename, x1, y1, x2, y2"]),
        ("filename,path,xmin,ymin,xmax,ymax,class\na,a.jpg,1,1,9,9,cat\n", ["two columns for filename"]),
        (HEADER, ["no usable image"]),
        (HEADER + "a.jpg,0.1,0.1,0.9,1.0,cat\nb.jpg,0,0.1,0.9,0.5,cat\n", ["0 to 1", "expected pixels"]),
        (HEADER + ",1,1,9,9,cat\n", ["line 2", "no file name"]),
        (HEADER.encode() + "a.jpg,1,1,9,9,kät\n".encode("latin-1"), ["not valid UTF-8"]),
        (HEADER.encode("utf-16"), ["not valid UTF-8"]),
        (HEADER + "a.jpg,1,1,9,9," + "x" * 200_000 + "\n", ["field larger than field limit"]),
        (HEADER + 'a.jpg,1,1,9,9,"' + "x,\n" * 100_000, ["field larger than field limit"]),
    ],
)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_broken_table_is_one_line(table, text, patterns, skip_bad):
    one_line_error(lambda: table(text)(skip_bad=skip_bad), "boxes.csv", *patterns)


@pytest.mark.parametrize(
    ("lines", "patterns"),
    [
        ("a.jpg,60,40,1,1,9,,cat\n", ["line 2", "ymax ''"]),
        ("a.jpg,60,40,1,1,9,nan,cat\n", ["ymax 'nan'"]),
        ("a.jpg,60,40,1,1,9,1e999,cat\n", ["ymax '1e999'"]),
        ("a.jpg,60,40,1,1,9,9\n", ["no class"]),
        ("a.jpg,60,41,1,1,9,9,cat\n", ["line 2", "60x41", "60x40"]),
        ("a.jpg,wide,40,1,1,9,9,cat\n", ["width 'wide'"]),
        ("c.jpg,60,40,1,1,9,9,cat\n", ["no such image", "c.jpg"]),
        ("a.jpg,,,1,1,9,9,cat\na.jpg,,,1,one,9,9,cat\n", ["line 3", "ymin 'one'"]),
        ("a.jpg\x00,60,40,1,1,9,9,cat\n", ["no such image"]),
    ],
)
def test_a_bad_line_is_one_line_or_its_image_is_skipped_and_counted(table, lines, patterns):
    read = table("filename,width,height,xmin,ymin,xmax,ymax,class\n" + lines + "b.jpg,60,40,1,1,9,9,cat\n")
    one_line_error(read, "boxes.csv", *patterns)
    dataset = read(skip_bad=True)
    assert [record.image_id for record in dataset] == ["b.jpg"]
    assert dataset.fixes == {"unreadable images or annotations skipped": 1}


def test_missing_table(tmp_path):
    one_line_error(lambda: read_csv(tmp_path / "none.csv"), "none.csv", "cannot read the file")
