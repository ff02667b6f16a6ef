"""CVAT's XML files, "CVAT for images 1.1"."""

import pytest
from annotation_files import one_line_error, write_image

from tf_fast_rcnn.data.readers.cvat import read_cvat

HEADER = """<version>1.1</version><meta><task><id>7</id><labels>
<label><name>dog</name><color>#a0b0c0</color><type>any</type><attributes></attributes></label>
<label><name>cat</name><attributes></attributes></label>
<label><name>nose</name><parent>dog</parent><attributes></attributes></label>
</labels></task></meta>"""
BOX = (
    '<box label="cat" source="manual" occluded="0" xtl="6.00" ytl="10.00" xbr="30.00" ybr="20.50" z_order="0">{}</box>'
)
SECOND = '<image id="1" name="night/b.png" subset="{}" width="60" height="40"></image>'


@pytest.fixture
def file(tmp_path):
    """A function that writes a file with the shapes of a.png, and returns its path."""
    for name in ("a.png", "night/b.png"):
        write_image(tmp_path / "images" / name)

    def write(shapes, header=HEADER, size='width="60" height="40"', subset="val"):
        first = f'<image id="0" name="a.png" subset="train" {size}>{shapes}</image>'
        path = tmp_path / "annotations.xml"
        path.write_text(f"<annotations>{header}{first}{SECOND.format(subset)}</annotations>")
        return path

    return write


def pixels(dataset):
    return (dataset[0].boxes * [40, 60, 40, 60]).round(4).tolist()


def test_boxes(file):
    path = file(BOX.format('<attribute name="score">0.5</attribute>'))
    dataset = read_cvat(path)
    # The labels of the header in its order, without the parts of skeletons.
    assert dataset.class_names == ("dog", "cat")
    assert [record.image_id for record in dataset] == ["a.png", "night/b.png"]
    assert pixels(dataset) == [[10, 6, 20.5, 30]]
    assert dataset[0].class_ids.tolist() == [2]
    assert dataset.fixes == {}
    assert read_cvat(path, path.parent / "images").name == f"cvat:{path},{path.parent / 'images'}"


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ('<polygon label="cat" points="1.5,2.0;9.0,2.0;4.0,8.0"></polygon>', [2, 1.5, 8, 9]),
        ('<ellipse label="cat" cx="30" cy="20" rx="5" ry="3"></ellipse>', [17, 25, 23, 35]),
        ('<ellipse label="cat" cx="30" cy="20" rx="5" ry="3" rotation="90"></ellipse>', [15, 27, 25, 33]),
        ('<mask label="cat" rle="1, 2" left="10" top="11" width="7" height="5"></mask>', [11, 10, 16, 17]),
        # Rotated clockwise about its centre, (30, 20).
        ('<box label="cat" xtl="20" ytl="16" xbr="40" ybr="24" rotation="90.00"></box>', [10, 26, 30, 34]),
        (
            '<box label="cat" xtl="25" ytl="15" xbr="35" ybr="25" rotation="45"></box>',
            [12.9289, 22.9289, 27.0711, 37.0711],
        ),
    ],
)
def test_shapes(file, shape, box):
    dataset = read_cvat(file(shape))
    assert pixels(dataset) == [box]
    assert dataset.fixes == {"outlines and rotated boxes replaced by their bounding boxes": 1}


def test_shapes_without_area_and_tags(file):
    shapes = '<polyline label="cat" points="1,2;3,4"/><points label="cat" points="1,2"/><tag label="cat"/>'
    dataset = read_cvat(file(shapes + BOX))
    assert pixels(dataset) == [[10, 6, 20.5, 30]]
    assert dataset.fixes == {"points, lines and other shapes without an area skipped": 2}


def test_subsets(file):
    path = file(BOX)
    assert [record.image_id for record in read_cvat(path, split="train")] == ["a.png"]
    one_line_error(lambda: read_cvat(path, split="test"), "no subset 'test'", "train, val")


def test_without_header_the_classes_are_those_found(file):
    assert read_cvat(file(BOX, header="<version>1.1</version>")).class_names == ("cat",)


def test_videos_are_refused(tmp_path):
    path = tmp_path / "a.xml"
    path.write_text("<annotations><version>1.1</version><track id='0' label='cat'/></annotations>")
    one_line_error(lambda: read_cvat(path), "tracks of a video", "CVAT for images 1.1")


@pytest.mark.parametrize(
    ("shapes", "patterns"),
    [
        ('<box label="cat" xtl="1" ytl="2" xbr="x" ybr="4"/>', ["image a.png, shape 1", "xtl, ytl, xbr, ybr"]),
        ('<box label="cat" xtl="1" ytl="2" xbr="nan" ybr="4"/>', ["xtl, ytl, xbr, ybr"]),
        ('<box xtl="1" ytl="2" xbr="3" ybr="4"/>', ["the label"]),
        ('<polygon label="cat" points="1,2;3"/>', ["without y"]),
        ('<polygon label="cat" points=""/>', ["points x,y"]),
    ],
)
def test_bad_shapes_give_one_line_or_are_skipped_and_counted(file, shapes, patterns):
    path = file(shapes)
    one_line_error(lambda: read_cvat(path), "annotations.xml", *patterns)
    dataset = read_cvat(path, skip_bad=True)
    assert [record.image_id for record in dataset] == ["night/b.png"]
    assert dataset.fixes == {"unreadable images or annotations skipped": 1}


def test_another_size(file):
    one_line_error(lambda: read_cvat(file(BOX, size='width="30" height="20"')), "30x20", "60x40")


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("<annotation/>", "found <annotation>"),
        ("<annotations>", "invalid XML"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotations>&a;</annotations>', "entities"),
        ("<annotations/>", "no images"),
    ],
)
def test_other_files(tmp_path, text, pattern):
    (tmp_path / "a.xml").write_text(text)
    one_line_error(lambda: read_cvat(tmp_path / "a.xml"), "a.xml", pattern)
