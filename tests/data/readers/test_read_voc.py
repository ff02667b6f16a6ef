import numpy as np
import pytest
from annotation_files import one_line_error, write_image
from PIL import Image
from voc_folder import VocFolder

from tf_fast_rcnn.data.readers.voc import read_voc, read_voc_images


def one_image(folder, objects, **annotation):
    folder.image("a.jpg")
    folder.annotation("a", objects, **annotation)
    folder.split("train", "a\n")
    return read_voc(folder.path, "train")


def test_boxes_are_relative_with_continuous_edges_and_labels_count_from_1(voc_folder):
    dataset = one_image(voc_folder, [("dog", 1, 1, 60, 40), ("cat", 31, 11, 45, 20)])
    record = dataset[0]
    assert dataset.class_names == ("cat", "dog")
    assert (record.image_id, record.height, record.width) == ("a", 40, 60)
    np.testing.assert_allclose(record.boxes, [[0, 0, 1, 1], [0.25, 0.5, 0.5, 0.75]], atol=1e-6)
    assert record.boxes.dtype == np.float32
    assert record.class_ids.tolist() == [2, 1]
    assert record.difficult.tolist() == [False, False]
    assert dataset.fixes == {}


def test_difficult_flag_and_parts_of_objects(voc_folder):
    # In VOC's person layout, objects contain parts with their own boxes.
    part = "<difficult>1</difficult><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    record = one_image(voc_folder, voc_folder.object("person", 1, 1, 6, 4, part))[0]
    assert record.difficult.tolist() == [True]
    assert len(record.boxes) == 1


def test_fractional_coordinates(voc_folder):
    record = one_image(voc_folder, [("cat", "1.0", "1.0", "30.5", "12.5")])[0]
    np.testing.assert_allclose(record.boxes, [[0, 0, 12.5 / 40, 30.5 / 60]], atol=1e-6)


def test_boxes_beyond_the_image_are_clipped_and_counted(voc_folder):
    dataset = one_image(voc_folder, [("cat", -5, 0, 70, 45), ("cat", 1, 1, 2, 2)])
    np.testing.assert_array_equal(dataset[0].boxes[0], [0, 0, 1, 1])
    assert dataset.fixes == {"boxes clipped to their image": 1}


@pytest.mark.parametrize("corners", [(22, 5, 20, 9), (21, 5, 20, 9), (5, 10, 20, 9), (61, 1, 80, 40), (1, 41, 9, 50)])
def test_boxes_without_area_are_dropped_and_counted(voc_folder, corners):
    dataset = one_image(voc_folder, [("cat", *corners), ("dog", 1, 1, 30, 20)])
    assert dataset[0].class_ids.tolist() == [1]
    assert dataset.class_names == ("dog",)
    assert dataset.fixes == {"boxes without area dropped": 1}


def test_image_without_objects_is_legal(voc_folder):
    record = one_image(voc_folder, "")[0]
    assert record.boxes.shape == (0, 4)
    assert record.class_ids.shape == (0,)


@pytest.mark.parametrize("name", ["a.jpg", "a.JPG", "a.jpeg", "a.png", "a.PNG", "a.bmp", "a.tif"])
def test_images_are_found_by_any_usual_extension(voc_folder, name):
    path = voc_folder.image(name)
    voc_folder.annotation("a")
    voc_folder.split("train", "a\n")
    assert read_voc(voc_folder.path, "train")[0].image_path == str(path)


def test_images_are_found_by_the_filename_tag(voc_folder):
    path = voc_folder.image("other.jpg")
    voc_folder.annotation("a", filename=r"C:\photos\other.jpg")
    voc_folder.split("train", "a\n")
    assert read_voc(voc_folder.path, "train")[0].image_path == str(path)


def test_split_lines_may_have_a_column_blanks_and_repetitions(voc_folder):
    voc_folder.simple(3)
    voc_folder.image("scan 1.png")
    voc_folder.annotation("scan 1")
    voc_folder.split("cat_train", "\ufeffa0  1\na1 -1 \n\nscan 1\na2\t0\na0\n")
    dataset = read_voc(voc_folder.path, "cat_train")
    assert [record.image_id for record in dataset] == ["a0", "a1", "scan 1", "a2"]
    assert dataset.fixes == {"repeated images of the split left out": 1}


def test_class_names_give_the_labels(voc_folder):
    voc_folder.simple(1)
    dataset = read_voc(voc_folder.path, "train", class_names=["dog", "cat"])
    assert dataset.class_names == ("dog", "cat")
    assert dataset[0].class_ids.tolist() == [2]


@pytest.mark.parametrize("skip_bad", [False, True])
def test_unknown_class_names_the_file_the_class_and_the_known(voc_folder, skip_bad):
    voc_folder.simple(1)
    one_line_error(lambda: read_voc(voc_folder.path, "train", ["dog", "cow"], skip_bad), "a0.xml", "'cat'", "dog, cow")


def test_unknown_split_lists_those_there_are(voc_folder):
    voc_folder.simple(1, split="trainval")
    one_line_error(lambda: read_voc(voc_folder.path, "tran"), "'tran'", "trainval")
    one_line_error(lambda: read_voc(voc_folder.path / "JPEGImages", "train"), "no split 'train'", "ImageSets/Main")
    one_line_error(lambda: read_voc(voc_folder.path / "JPEGImages"), "no XML files", "ImageSets/Main")


def test_empty_split(voc_folder):
    voc_folder.split("train", "\n \n")
    one_line_error(lambda: read_voc(voc_folder.path, "train"), "train.txt", "no image names")


def test_a_listed_image_without_xml_is_background(voc_folder):
    """Datumaro, the library of CVAT's exports, lists images without objects and writes no XML file for them."""
    voc_folder.simple(3)
    (voc_folder.path / "Annotations" / "a1.xml").unlink()
    dataset = read_voc(voc_folder.path, "train")
    assert [(record.image_id, len(record.boxes)) for record in dataset] == [("a0", 1), ("a1", 0), ("a2", 1)]
    assert dataset.fixes == {"images without an XML file (no objects)": 1}
    (voc_folder.path / "JPEGImages" / "a1.png").unlink()
    one_line_error(lambda: read_voc(voc_folder.path, "train"), "a1: found no image", "Annotations/a1.xml")


def test_a_split_without_any_xml_is_an_error(voc_folder):
    voc_folder.simple(2)
    for path in voc_folder.path.glob("Annotations/*"):
        path.unlink()
    one_line_error(lambda: read_voc(voc_folder.path, "train"), "a0.xml: no such file, and no other image")


def side_by_side(folder, names=("b", "a"), background="c"):
    """Images with their XML files in one folder, and an image without one."""
    write_image(folder / f"{background}.png")
    for name in names:
        write_image(folder / f"{name}.jpg")
        write_xml_with_a_cat(folder / f"{name}.xml", f"{name}.jpg")


def write_xml_with_a_cat(path, filename):
    path.parent.mkdir(parents=True, exist_ok=True)
    box = VocFolder.object("cat", 1, 1, 30, 20)
    path.write_text(f"<annotation><folder>x</folder><filename>{filename}</filename>{box}</annotation>")


def check_flat(dataset, ids=("a", "b", "c")):
    assert tuple(record.image_id for record in dataset) == ids
    assert [record.boxes.tolist() for record in dataset] == [[[0, 0, 0.5, 0.5]], [[0, 0, 0.5, 0.5]], []]
    assert dataset.fixes == {"images without an XML file (no objects)": 1}


def test_images_and_xml_files_side_by_side(tmp_path):
    """As labelImg writes them; the class list that it adds for YOLO is ignored."""
    side_by_side(tmp_path / "cells")
    (tmp_path / "cells" / "predefined_classes.txt").write_text("dog\n")
    dataset = read_voc(tmp_path / "cells")
    check_flat(dataset)
    assert dataset.name == f"voc:{tmp_path / 'cells'}"
    assert [record.image_id for record in read_voc_images(tmp_path / "cells", "", ["cat"])] == ["a", "b", "c"]


def test_splits_as_folders(tmp_path):
    """As Roboflow writes them: train/, valid/ and test/, each with images and XML files."""
    side_by_side(tmp_path / "train")
    side_by_side(tmp_path / "valid", names=("e", "d"), background="f")
    check_flat(read_voc(tmp_path, "train"))
    check_flat(read_voc(tmp_path, "valid"), ("d", "e", "f"))
    for split in ("test", ""):
        one_line_error(lambda split=split: read_voc(tmp_path, split), "expected one of train, valid", "as @SPLIT")


@pytest.mark.parametrize("images", ["images", "JPEGImages"])
@pytest.mark.parametrize("split", ["", "train"])
def test_folders_of_xml_files_and_of_images(tmp_path, images, split):
    """As Label Studio writes them: Annotations/ and images/, without lists."""
    write_xml_with_a_cat(tmp_path / "Annotations" / split / "night" / "a.xml", "a.jpg")
    write_xml_with_a_cat(tmp_path / "Annotations" / split / "b.xml", "b.jpg")
    for name in ("night/a", "b", "c"):
        write_image(tmp_path / images / split / f"{name}.jpg")
    dataset = read_voc(tmp_path, split)
    counts = {record.image_id: len(record.boxes) for record in dataset}
    assert counts == {"night/a": 1, "b": 1, "c": 0}
    if split:
        one_line_error(lambda: read_voc(tmp_path, "val"), "expected one of train")


def test_an_image_that_only_the_filename_tag_names_is_not_background_too(tmp_path):
    write_image(tmp_path / "IMG 7.jpg")
    write_xml_with_a_cat(tmp_path / "7.xml", "C:\\photos\\IMG 7.jpg")
    assert [(record.image_id, len(record.boxes)) for record in read_voc(tmp_path)] == [("7", 1)]


def test_an_xml_file_without_image_is_an_error_or_skipped(tmp_path):
    side_by_side(tmp_path)
    (tmp_path / "b.jpg").unlink()
    one_line_error(lambda: read_voc(tmp_path), "b: found no image", "b.xml")
    assert [record.image_id for record in read_voc(tmp_path, skip_bad=True)] == ["a", "c"]


def remove_image(folder):
    (folder.path / "JPEGImages" / "a1.png").unlink()


def write_xml(text):
    return lambda folder: (folder.path / "Annotations" / "a1.xml").write_text(text)


def no_image(folder):
    (folder.path / "JPEGImages" / "a1.png").write_bytes(b"not an image")


def wrong_size(folder):
    folder.annotation("a1", size=(61, 40))


def objects(xml):
    return lambda folder: folder.annotation("a1", xml)


ENTITY_BOMB = (
    '<!DOCTYPE x [<!ENTITY e0 "lol">'
    + "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10}">' for i in range(1, 10))
    + "]><annotation>&e9;</annotation>"
)


@pytest.mark.parametrize(
    ("spoil", "patterns"),
    [
        (remove_image, ["a1", "no image"]),
        (no_image, ["a1.png", "cannot read the image"]),
        (wrong_size, ["a1.xml", "61x40", "60x40"]),
        (write_xml("<annotation>\n<object>\n</annotation>"), ["a1.xml", "line 3"]),
        (write_xml(""), ["a1.xml", "invalid XML"]),
        (write_xml("<html></html>"), ["a1.xml", "<html>"]),
        (write_xml('<?xml version="1.0" encoding="no-such"?><annotation/>'), ["a1.xml", "invalid XML"]),
        (write_xml(ENTITY_BOMB), ["a1.xml", "entities"]),
        (objects("<object><name>cat</name></object>"), ["a1.xml", "xmin ''", "object 1"]),
        (objects("<object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>x</xmax></bndbox></object>"), ["xmax 'x'"]),
        (
            objects("<object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>nan</xmax><ymax>4</ymax></bndbox></object>"),
            ["xmax 'nan'"],
        ),
        (
            objects("<object><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"),
            ["a1.xml", "no <name>", "object 1"],
        ),
    ],
)
def test_bad_files_give_one_line_or_are_skipped_and_counted(voc_folder, spoil, patterns):
    voc_folder.simple(3)
    spoil(voc_folder)
    one_line_error(lambda: read_voc(voc_folder.path, "train"), *patterns)
    dataset = read_voc(voc_folder.path, "train", skip_bad=True)
    assert [record.image_id for record in dataset] == ["a0", "a2"]
    assert dataset.fixes == {"unreadable images or annotations skipped": 1}


@pytest.mark.parametrize("size", [None, (0, 0)])
def test_missing_size_is_the_images_own(voc_folder, size):
    record = one_image(voc_folder, [("cat", 1, 1, 30, 20)], size=size)[0]
    np.testing.assert_allclose(record.boxes, [[0, 0, 0.5, 0.5]], atol=1e-6)


def test_size_that_is_no_number(voc_folder):
    voc_folder.simple(1)
    voc_folder.annotation("a0", size=("wide", 40))
    one_line_error(lambda: read_voc(voc_folder.path, "train"), "a0.xml", "<width> 'wide'")


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize(
    ("orientation", "box"),
    [
        # Where the top left block of 10 rows and 30 columns of the stored image (40 x 60) is displayed.
        (5, [0, 0, 0.5, 0.25]),
        (6, [0, 0.75, 0.5, 1]),
        (7, [0.5, 0.75, 1, 1]),
        (8, [0.5, 0, 1, 0.25]),
    ],
)
def test_boxes_of_tools_that_ignore_exif_turn_with_the_image(voc_folder, orientation, box):
    voc_folder.image("a.jpg", exif=exif(orientation))
    voc_folder.annotation("a", [("cat", 1, 1, 30, 10)], size=(60, 40))
    voc_folder.split("train", "a\n")
    dataset = read_voc(voc_folder.path, "train")
    assert (dataset[0].height, dataset[0].width) == (60, 40)
    np.testing.assert_allclose(dataset[0].boxes, [box], atol=1e-6)
    assert dataset.fixes == {"boxes rotated with their image (EXIF)": 1}


def test_boxes_of_tools_that_apply_exif_stay(voc_folder):
    voc_folder.image("a.jpg", exif=exif(6))
    voc_folder.annotation("a", [("cat", 1, 1, 20, 30)], size=(40, 60))
    voc_folder.split("train", "a\n")
    dataset = read_voc(voc_folder.path, "train")
    np.testing.assert_allclose(dataset[0].boxes, [[0, 0, 0.5, 0.5]], atol=1e-6)
    assert dataset.fixes == {}


def test_exchanged_size_without_exif_is_an_error(voc_folder):
    voc_folder.image("a.jpg")
    voc_folder.annotation("a", size=(40, 60))
    voc_folder.split("train", "a\n")
    one_line_error(lambda: read_voc(voc_folder.path, "train"), "40x60", "60x40")
