"""Hugging Face's image folders, as the documentation of `datasets` describes them."""

import json

import pytest
from annotation_files import one_line_error, write_image

from tf_fast_rcnn.data.readers.imagefolder import read_imagefolder

CARD = """---
license: mit
dataset_info:
  features:
  - name: objects
    sequence:
    - name: categories
      dtype:
        class_label:
          names:
            '0': dog
            '1': cat
---
# Cells
"""
OBJECTS = {"bbox": [[6, 10, 24, 10.5], [0, 0, 30, 20]], "categories": [1, 0]}


def write(folder, objects, place="train", more=None):
    for name in ("a.png", "sub/b.png"):
        write_image(folder / place / name)
    entries = [{"file_name": "a.png", "objects": objects, **(more or {})}]
    entries.append({"file_name": "sub/b.png", "objects": {"bbox": [], "categories": []}})
    (folder / place / "metadata.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


@pytest.mark.parametrize(("place", "split"), [("train", "train"), ("data/train", "train"), ("", "")])
@pytest.mark.parametrize("card", ["", CARD, "# Cells\n"])
def test_folders(tmp_path, place, split, card):
    write(tmp_path, OBJECTS, place)
    (tmp_path / "README.md").write_text(card)
    dataset = read_imagefolder(tmp_path, split)
    assert dataset.class_names == (("dog", "cat") if card == CARD else ("0", "1"))
    assert [record.image_id for record in dataset] == ["a.png", "sub/b.png"]
    assert (dataset[0].boxes * [40, 60, 40, 60]).round(4).tolist() == [[10, 6, 20.5, 30], [0, 0, 20, 30]]
    assert dataset[0].class_ids.tolist() == [2, 1]
    assert len(dataset[1].boxes) == 0


@pytest.mark.parametrize(
    "objects",
    [
        {"bbox": [[6, 10, 24, 10.5]], "category": ["cat"], "area": [100], "iscrowd": [1]},
        {"bbox": [[6, 10, 24, 10.5]], "labels": ["cat"], "area": [100], "iscrowd": [True], "id": [4]},
        [{"bbox": [6, 10, 24, 10.5], "category_id": "cat", "area": 100, "iscrowd": 1}],
    ],
)
def test_forms_of_objects(tmp_path, objects):
    write(tmp_path, objects, more={"width": 60, "height": 40, "image_id": 4})
    record = read_imagefolder(tmp_path, "train")[0]
    assert (record.boxes * [40, 60, 40, 60]).round(4).tolist() == [[10, 6, 20.5, 30]]
    assert record.crowd.tolist() == [True]
    assert record.areas.round(5).tolist() == pytest.approx([100 / 2400], abs=1e-5)


def test_numbers_are_sorted_by_value(tmp_path):
    write(tmp_path, {"bbox": [[0, 0, 1, 1]] * 3, "categories": [10, 9, 2]})
    assert read_imagefolder(tmp_path, "train").class_names == ("2", "9", "10")


def test_csv_metadata(tmp_path):
    write(tmp_path, OBJECTS)
    (tmp_path / "train" / "metadata.jsonl").unlink()
    text = json.dumps(OBJECTS).replace('"', '""')
    (tmp_path / "train" / "metadata.csv").write_text(f'file_name,objects\na.png,"{text}"\nsub/b.png,\n')
    assert [len(record.boxes) for record in read_imagefolder(tmp_path, "train")] == [2, 0]


@pytest.mark.parametrize(
    ("objects", "pattern"),
    [
        ({"bbox": [[1, 2, 3, 4]], "categories": []}, "equal length"),
        ({"bbox": [[1, 2, 3, 4]]}, "equal length"),
        ({"bbox": [[1, 2, 3]], "categories": [0]}, "3 numbers"),
        ({"bbox": [[1, 2, 3, None]], "categories": [0]}, "x, y, width and height"),
        ({"bbox": [[1, 2, 3, 4]], "categories": [2]}, "category 2"),
        ({"bbox": [[1, 2, 3, 4]], "categories": [None]}, "the category"),
        ([1], "equal length"),
    ],
)
def test_bad_objects_give_one_line_or_are_skipped_and_counted(tmp_path, objects, pattern):
    write(tmp_path, objects)
    (tmp_path / "README.md").write_text(CARD)
    one_line_error(lambda: read_imagefolder(tmp_path, "train"), "metadata.jsonl, line 1", pattern)
    assert [record.image_id for record in read_imagefolder(tmp_path, "train", skip_bad=True)] == ["sub/b.png"]


def test_splits_and_bad_files(tmp_path):
    one_line_error(lambda: read_imagefolder(tmp_path), "no metadata.jsonl")
    write(tmp_path, OBJECTS)
    one_line_error(lambda: read_imagefolder(tmp_path, "test"), "no metadata.jsonl", "@train")
    (tmp_path / "train" / "metadata.jsonl").write_text('{"file_name": "a.png"\n')
    one_line_error(lambda: read_imagefolder(tmp_path, "train"), "line 1: invalid JSON")
    (tmp_path / "train" / "metadata.jsonl").write_text("\n")
    one_line_error(lambda: read_imagefolder(tmp_path, "train"), "no entries")
