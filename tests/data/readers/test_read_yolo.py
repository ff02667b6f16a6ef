"""YOLO's text files: layouts, names, boxes computed by hand, and invalid input that is rejected, skipped or fixed."""

import numpy as np
import pytest
from annotation_files import one_line_error, write_image

from tf_fast_rcnn.data.readers.yolo import read_yolo

LABELS = "1 0.5 0.5 0.5 0.5\n\n0 0.05 0.05 0.1 0.1\n"
YAML = "train: images/train\nval: images/val\nnc: 2\nnames: [cat, dog]\n"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.fixture
def yolo(tmp_path):
    """A folder with two images: a has two objects, b has no labels file."""
    for name in ("a", "b"):
        write_image(tmp_path / "images" / "train" / f"{name}.jpg")
    write(tmp_path / "labels" / "train" / "a.txt", LABELS)
    write(tmp_path / "data.yaml", YAML)
    return tmp_path


def check(dataset, image_ids=("images/train/a.jpg", "images/train/b.jpg")):
    assert dataset.class_names == ("cat", "dog")
    assert tuple(record.image_id for record in dataset) == image_ids
    assert [record.class_ids.tolist() for record in dataset] == [[2, 1], []]
    np.testing.assert_allclose(dataset[0].boxes, [[0.25, 0.25, 0.75, 0.75], [0, 0, 0.1, 0.1]], atol=1e-6)
    assert (dataset[0].height, dataset[0].width) == (40, 60)
    assert dataset.fixes == {"images without a labels file (no objects)": 1}


@pytest.mark.parametrize(
    "yaml",
    [
        YAML,
        "path: ../somewhere\ntrain: images/train\nnames:\n  1: dog\n  0: cat\n",
        "path: images\ntrain: train\nnames: [cat, dog]\n",
        "train: ../images/train\nnames: ['cat', \"dog\"]\n",
        "train: [images/train/../train]\nnames: [cat, dog]\n",
        "names: [cat, dog]\n",
    ],
)
def test_data_yaml(yolo, yaml):
    write(yolo / "data.yaml", yaml)
    dataset = read_yolo(yolo, "train")
    assert dataset.name == f"yolo:{yolo}@train"
    if ".." not in yaml.partition("train:")[2]:
        check(dataset)
    assert dataset[0].class_ids.tolist() == [2, 1]


@pytest.mark.parametrize("name", ["classes.txt", "obj.names", "labels/classes.txt"])
def test_lists_of_names(yolo, name):
    (yolo / "data.yaml").unlink()
    write(yolo / name, "cat\r\ndog\n")
    check(read_yolo(yolo, "train"))


def test_a_class_may_be_named_no(yolo):
    write(yolo / "data.yaml", "names: [no, 1.0]\n")
    assert read_yolo(yolo, "train").class_names == ("no", "1.0")


def test_split_before_images(tmp_path):
    """Roboflow's layout: train/images, train/labels, and a data.yaml with paths that begin with ../."""
    for name in ("a", "b"):
        write_image(tmp_path / "train" / "images" / f"{name}.jpg")
    write(tmp_path / "train" / "labels" / "a.txt", LABELS)
    write(tmp_path / "data.yaml", YAML.replace("images/train", "../train/images"))
    check(read_yolo(tmp_path, "train"), ("train/images/a.jpg", "train/images/b.jpg"))
    write(tmp_path / "data.yaml", "names: [cat, dog]\n")
    check(read_yolo(tmp_path, "train"), ("train/images/a.jpg", "train/images/b.jpg"))


def test_images_and_labels_in_one_folder(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / "train" / f"{name}.png")
    write(tmp_path / "train" / "a.txt", LABELS)
    write(tmp_path / "obj.names", "cat\ndog\n")
    check(read_yolo(tmp_path, "train"), ("train/a.png", "train/b.png"))


def test_no_split_is_the_images_folder(yolo):
    dataset = read_yolo(yolo, "")
    check(dataset)
    assert dataset.name == f"yolo:{yolo}"


@pytest.mark.parametrize(
    "lines", ["images/train/a.jpg\n\nimages/train/b.jpg\n", "./images/train/a.jpg\nimages/train/b.jpg"]
)
@pytest.mark.parametrize("yaml", ["train: lists/some.txt\nnames: [cat, dog]\n", "names: [cat, dog]\n"])
def test_lists_of_images(yolo, lines, yaml):
    for path in (yolo / "lists" / "some.txt", yolo / "some.txt"):
        write(path, lines)
    write(yolo / "data.yaml", yaml)
    check(read_yolo(yolo, "train" if "train" in yaml else "some"))


def test_boxes_are_clipped_and_dropped(yolo):
    write(yolo / "labels/train/a.txt", "0 0.1 0.5 0.4 0.5\n0 0.5 0.5 0 0.5\n0 1.5 0.5 0.5 0.5\n0 0.5 0.5 1.000002 1\n")
    dataset = read_yolo(yolo, "train")
    np.testing.assert_allclose(dataset[0].boxes, [[0.25, 0, 0.75, 0.3], [0, 0, 1, 1]], atol=1e-6)
    assert dataset.fixes["boxes without area dropped"] == 2
    assert dataset.fixes["boxes clipped to their image"] == 1


def test_class_names_give_the_labels(yolo):
    assert read_yolo(yolo, "train", ["dog", "cat"])[0].class_ids.tolist() == [1, 2]
    one_line_error(lambda: read_yolo(yolo, "train", ["dog"]), "labels/train/a.txt", "'cat'")


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30))


@pytest.mark.parametrize(
    ("yaml", "patterns"),
    [
        ("names: [cat", ["invalid YAML"]),
        ("- cat\n", ["not a mapping"]),
        ("", ["not a mapping"]),
        ("names: []\n", ["not a list of names"]),
        ("names: cat\n", ["not a list of names"]),
        ("names: [cat, [dog]]\n", ["not a list of names"]),
        ("names: {0: cat, 2: dog}\n", ["numbers of names are not 0, 1, 2"]),
        (f"names: {{0: cat, {'9' * 900}: dog}}\n", ["numbers of names are not"]),
        ("names: [cat, cat]\n", ["'cat' twice"]),
        ("train: nowhere\nnames: [cat, dog]\n", ["train 'nowhere'"]),
        ("train:\nnames: [cat, dog]\n", ["'train' is not a path"]),
        ("train: []\nnames: [cat, dog]\n", ["no images of the split 'train'"]),
        ("train: {a: b}\nnames: [cat, dog]\n", ["'train' is not a path"]),
        (BOMB + "names: *a29\n", ["not a list of names"]),
        (BOMB + "path: *a29\ntrain: *a29\nnames: [cat, dog]\n", ["'train' is not a path"]),
        ("names: " + "[" * 10_000, ["invalid YAML"]),
        (b"names: [\xff]\n", ["not valid UTF-8"]),
        ("names: [\x01]\n", ["invalid YAML"]),
    ],
)
def test_bad_data_yaml_is_one_line(yolo, yaml, patterns):
    write(yolo / "data.yaml", yaml)
    one_line_error(lambda: read_yolo(yolo, "train"), "data.yaml", *patterns)


def test_an_instruction_in_data_yaml_is_not_run(yolo):
    write(yolo / "data.yaml", f"names: !!python/object/apply:os.mkdir [{yolo}/made]\n")
    one_line_error(lambda: read_yolo(yolo, "train"), "a.txt", "class '1'")  # The mapping is read as a list of one name.
    assert not (yolo / "made").exists()


def test_no_names(yolo):
    (yolo / "data.yaml").unlink()
    one_line_error(lambda: read_yolo(yolo, "train"), "no class names", "classes.txt")


def test_unknown_split_lists_those_there_are(yolo):
    write_image(yolo / "images" / "test" / "c.jpg")
    one_line_error(lambda: read_yolo(yolo, "tran"), "'tran'", "test, train, val")


def test_no_labels_at_all(yolo):
    (yolo / "labels" / "train" / "a.txt").unlink()
    one_line_error(lambda: read_yolo(yolo, "train"), "labels/train/a.txt", "no image has a labels file")


@pytest.mark.parametrize(
    ("lines", "patterns"),
    [
        ("0 0.5 0.5 0.5", ["a.txt, line 1", "five numbers"]),
        ("0 0.5 0.5 0.5 0.5 1.5", ["five numbers", "of a polygon"]),
        ("0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2 7", ["of a polygon"]),
        ("0 0.5 0.5 0.5 0.5\n0 0.5 0.5 nan 0.5", ["a.txt, line 2", "five numbers"]),
        ("2 0.5 0.5 0.5 0.5", ["class '2'", "0 to 1"]),
        ("-1 0.5 0.5 0.5 0.5", ["class '-1'"]),
        ("cat 0.5 0.5 0.5 0.5", ["class 'cat'"]),
        ("9" * 5000 + " 0.5 0.5 0.5 0.5", ["class '9999"]),
        ("0 30 20 10 10", ["relative to the image"]),
        ("0 10 10 20 10 20 20", ["relative to the image"]),
        ("0.5 0.5 0.5 0.5 0.5", ["class '0.5'"]),
        (b"0 \xff", ["not valid UTF-8"]),
    ],
)
def test_a_bad_line_is_one_line_or_its_image_is_skipped_and_counted(yolo, lines, patterns):
    write(yolo / "labels" / "train" / "a.txt", lines)
    write(yolo / "labels" / "train" / "b.txt", LABELS)
    one_line_error(lambda: read_yolo(yolo, "train"), "a.txt", *patterns)
    dataset = read_yolo(yolo, "train", skip_bad=True)
    assert [record.image_id for record in dataset] == ["images/train/b.jpg"]
    assert dataset.fixes == {"unreadable images or annotations skipped": 1}


def test_labels_without_an_image_are_counted(tmp_path):
    write_image(tmp_path / "images" / "train" / "a.png")
    write_image(tmp_path / "images" / "train" / "b.png")
    (tmp_path / "labels" / "train").mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("cat\n")
    for name in ("a", "c", "d", "classes"):
        (tmp_path / "labels" / "train" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    assert read_yolo(tmp_path, "train").fixes == {
        "images without a labels file (no objects)": 1,
        "labels files without an image": 2,
    }


@pytest.mark.parametrize(
    ("line", "box", "fix"),
    [
        ("0 0.5 0.5 0.2 0.4 0.9", [0.3, 0.4, 0.7, 0.6], "confidences of boxes ignored"),
        ("0.0 0.5 0.5 0.2 0.4", [0.3, 0.4, 0.7, 0.6], None),
        # A triangle, an oriented box and a polygon with a confidence.
        (
            "0 0.1 0.9 0.5 0.2 0.3 0.4",
            [0.2, 0.1, 0.9, 0.5],
            "polygons and oriented boxes replaced by their bounding boxes",
        ),
        (
            "0 0.3 0.1 0.5 0.3 0.3 0.5 0.1 0.3",
            [0.1, 0.1, 0.5, 0.5],
            "polygons and oriented boxes replaced by their bounding boxes",
        ),
        ("0 0.1 0.9 0.5 0.2 0.3 0.4 0.8", [0.2, 0.1, 0.9, 0.5], "confidences of boxes ignored"),
    ],
)
def test_lines_with_more_than_a_box(yolo, line, box, fix):
    write(yolo / "labels" / "train" / "a.txt", line)
    dataset = read_yolo(yolo, "train")
    np.testing.assert_allclose(dataset[0].boxes, [box], atol=1e-6)
    assert fix is None or dataset.fixes[fix] == 1


@pytest.mark.parametrize("confidence", ["", " 0.75"])
def test_keypoints_are_not_a_polygon(yolo, confidence):
    """`class x y width height`, then x, y and visibility of two keypoints: eleven numbers, as a polygon may have."""
    write(yolo / "data.yaml", YAML + "kpt_shape: [2, 3]\n")
    write(yolo / "labels" / "train" / "a.txt", f"0 0.5 0.5 0.2 0.4 0.45 0.5 2 0.5 0.5 0{confidence}\n1 0.5 0.5 0.5 0.5")
    dataset = read_yolo(yolo, "train")
    np.testing.assert_allclose(dataset[0].boxes, [[0.3, 0.4, 0.7, 0.6], [0.25, 0.25, 0.75, 0.75]], atol=1e-6)
    assert dataset.fixes["keypoints ignored"] == 1
    write(yolo / "labels" / "train" / "a.txt", "0 0.1 0.1 0.5 0.1 0.5 0.5")
    one_line_error(lambda: read_yolo(yolo, "train"), "6 of the keypoints (kpt_shape)")


def side_by_side(folder):
    """As labelImg writes them: images, labels and classes.txt in one folder."""
    for name in ("a", "b"):
        write_image(folder / f"{name}.jpg")
    write(folder / "a.txt", LABELS)
    write(folder / "classes.txt", "cat\ndog\n")


@pytest.mark.parametrize("name", ["cells", "images", "images/cells"])
def test_labelimg(tmp_path, name):
    side_by_side(tmp_path / name)
    write_image(tmp_path / name / "other" / "c.jpg")
    check(read_yolo(tmp_path / name, ""), ("a.jpg", "b.jpg"))
    one_line_error(lambda: read_yolo(tmp_path / name, "a"), "no split 'a'", "images/SPLIT")


def test_names_in_the_folder_of_the_split(tmp_path):
    side_by_side(tmp_path / "train")
    check(read_yolo(tmp_path, "train"), ("train/a.jpg", "train/b.jpg"))


def darknet(folder, prefix="data/"):
    """As Darknet's users and CVAT write them: obj.data, obj.names and lists of paths relative to another folder."""
    for name in ("a", "b"):
        write_image(folder / "obj_train_data" / f"{name}.jpg")
    write(folder / "obj_train_data" / "a.txt", LABELS)
    write(folder / "obj.names", "cat\ndog\n")
    write(folder / "obj.data", "classes = 2\ntrain = data/some.list\nnames = data/obj.names\nbackup = backup/\n")
    lines = "".join(f"{prefix}obj_train_data/{name}.jpg\n" for name in ("a", "b"))
    write(folder / "some.list", lines)
    write(folder / "train.txt", lines)


DARKNET_IDS = ("obj_train_data/a.jpg", "obj_train_data/b.jpg")


@pytest.mark.parametrize("prefix", ["data/", "", "./", "/home/someone/darknet/data/", "data\\"])
def test_darknet(tmp_path, prefix):
    darknet(tmp_path, prefix)
    check(read_yolo(tmp_path, "train"), DARKNET_IDS)
    check(read_yolo(tmp_path / "obj.data", "train"), DARKNET_IDS)
    (tmp_path / "obj.data").unlink()
    check(read_yolo(tmp_path, "train"), DARKNET_IDS)
    one_line_error(lambda: read_yolo(tmp_path, "valid"), "expected one of train")


def test_absolute_paths_of_this_machine(tmp_path):
    darknet(tmp_path, f"{tmp_path}/")
    check(read_yolo(tmp_path, "train"), DARKNET_IDS)


def test_lists_whose_paths_lead_to_one_file_are_refused(tmp_path):
    """Two cameras have images of one name, and only one of the files is here."""
    darknet(tmp_path)
    write(tmp_path / "some.list", "cam1/obj_train_data/a.jpg\ncam2/obj_train_data/a.jpg\n")
    one_line_error(lambda: read_yolo(tmp_path, "train"), "some.list", "'cam1/obj_train_data/a.jpg'", "of which only")


@pytest.mark.parametrize("path", ["", "/home/someone/cells", "{}", "."])
def test_any_yaml_file_itself(yolo, path):
    (yolo / "data.yaml").unlink()
    write(yolo / "my cells.yaml", f"path: '{path.format(yolo)}'\n{YAML}")
    dataset = read_yolo(yolo / "my cells.yaml", "train")
    check(dataset)
    assert dataset.name == f"yolo:{yolo}/my cells.yaml@train"


def test_absolute_paths_of_another_machine(yolo):
    write(yolo / "data.yaml", YAML.replace("images/train", "/home/someone/cells/images/train"))
    check(read_yolo(yolo, "train"))


def test_names_may_be_the_path_of_a_list(yolo):
    write(yolo / "my.names", "cat\ndog\n")
    write(yolo / "data.yaml", "train: images/train\nnames: my.names\n")
    check(read_yolo(yolo, "train"))
