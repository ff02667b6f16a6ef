"""KITTI's label files: the devkit's lines, those of Datumaro 1.13.12, and the folders of both and of NVIDIA TAO."""

import pytest
from annotation_files import one_line_error, write_image

from tf_fast_rcnn.data.readers.kitti import read_kitti

CAR = "Car 0.00 0 -1.58 6.00 10.00 30.00 20.50 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59"
DONT_CARE = "DontCare -1 -1 -10 0.00 0.00 60.00 40.00 -1 -1 -1 -1000 -1000 -1000 -10"
DATUMARO = "traffic light 0.0 0 -1 6.0 10.0 30.0 20.5 -1 -1 -1 -1 -1 -1 -1 1.0"


def write(folder, line, images="image_2", labels="label_2"):
    for name in ("000001", "night/000002"):
        write_image(folder / images / f"{name}.png")
    (folder / labels).mkdir()
    (folder / labels / "000001.txt").write_text(line + "\n")


@pytest.mark.parametrize(
    ("place", "split", "folders"),
    [
        ("", "", ("image_2", "label_2")),
        ("training", "", ("image_2", "label_2")),
        ("training", "training", ("image_2", "label_2")),
        ("train", "train", ("image_2", "label_2")),
        ("", "", ("images", "labels")),
    ],
)
@pytest.mark.parametrize(("line", "name"), [(CAR, "Car"), (f"{CAR}\n{DONT_CARE}", "Car"), (DATUMARO, "traffic light")])
def test_folders(tmp_path, place, split, folders, line, name):
    write(tmp_path / place, line, *folders)
    dataset = read_kitti(tmp_path, split)
    assert dataset.class_names == (name,)
    assert [record.image_id for record in dataset] == ["000001", "night/000002"]
    assert (dataset[0].boxes * [40, 60, 40, 60]).round(4).tolist() == [[10, 6, 20.5, 30]]
    assert len(dataset[1].boxes) == 0
    assert dataset.fixes["images without a label file (no objects)"] == 1
    assert dataset.fixes.get("DontCare regions dropped", 0) == line.count("DontCare")


def test_lists_of_images(tmp_path):
    write(tmp_path / "training", CAR)
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets" / "val.txt").write_text("000001\n\n")
    assert [record.image_id for record in read_kitti(tmp_path, "val")] == ["000001"]


@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("Car 0 0 0 1 2 3 4", "14 numbers"),
        (CAR.replace("6.00", "nan", 1), "14 numbers"),
        # The number of the class would be taken for the truncation, and the box would be another.
        (CAR.replace("Car", "Car 2"), "14 numbers"),
        ("\ufeff" + CAR + " 1 2", "14 numbers"),
    ],
)
def test_bad_lines_give_one_line_or_are_skipped_and_counted(tmp_path, line, pattern):
    write(tmp_path, line)
    one_line_error(lambda: read_kitti(tmp_path), "000001.txt, line 1", pattern)
    dataset = read_kitti(tmp_path, skip_bad=True)
    assert [record.image_id for record in dataset] == ["night/000002"]


def test_no_folders_and_no_labels(tmp_path):
    one_line_error(lambda: read_kitti(tmp_path), "image_2/ and label_2/")
    write(tmp_path, CAR)
    one_line_error(lambda: read_kitti(tmp_path, "val"), "no split 'val'")
    (tmp_path / "label_2" / "000001.txt").unlink()
    one_line_error(lambda: read_kitti(tmp_path), "no image has a label file")
