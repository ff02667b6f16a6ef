"""`tf-fast-rcnn convert`."""

import json

import pytest

from tf_fast_rcnn import load_dataset


@pytest.mark.parametrize("kind", ["voc", "coco", "yolo", "csv"])
def test_convert(command, digits, tmp_path, kind):
    out = tmp_path / "out"
    done = command("convert", f"voc:{digits}@train", "--to", kind, "--out", out, "--json", tmp_path / "summary.json")
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "summary.json").read_text())
    original, found = load_dataset(f"voc:{digits}@train"), load_dataset(summary["specs"]["train"])
    total = sum(len(record.boxes) for record in original)
    assert (summary["images"], summary["objects"]) == (8, total)
    assert done.out == f"8 images, {total} objects\nread it as {summary['specs']['train']}\n"
    boxes = sorted(record.boxes.tolist() for record in original)
    assert sorted(record.boxes.tolist() for record in found) == boxes


def test_splits_and_classes(command, digits, tmp_path):
    specs = (f"voc:{digits}@train", f"val=voc:{digits}@test")
    classes = ("--classes", "low=0+1+2+3+4,high=5+6+7+8+9")
    done = command("convert", *specs, "--to", "yolo", "--out", tmp_path / "out", *classes)
    assert done.code == 0, done.err
    for split, count in (("train", 8), ("val", 4)):
        dataset = load_dataset(f"yolo:{tmp_path}/out@{split}")
        assert dataset.class_names == ("low", "high")
        assert len(dataset) == count


def test_what_a_format_cannot_express_is_told(command, digits, tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "JPEGImages/test_0001.jpg"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "iscrowd": 1}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    done = command("convert", f"coco:{tmp_path}/a.json,{digits}", "--to", "yolo", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "yolo cannot express: 1 x crowd flags" in done.out


def test_prepared(command, digits, tmp_path):
    done = command("convert", f"voc:{digits}@test", "--to", "prepared", "--out", tmp_path / "out", "--workers", 1)
    assert done.code == 0, done.err
    dataset = load_dataset(f"prepared:{tmp_path}/out")
    assert len(dataset) == 4
    assert len(dataset[0].proposals()) > 0
    done = command("convert", f"prepared:{tmp_path}/out", "--to", "voc", "--out", tmp_path / "back")
    assert done.code == 0, done.err
    back, original = load_dataset(f"voc:{tmp_path}/back@train"), load_dataset(f"voc:{digits}@test")
    for one, other in zip(back, original, strict=True):
        assert one.image_id == other.image_id
        assert one.boxes.tolist() == other.boxes.tolist()


def test_bad_input(refused, digits, tmp_path):
    spec, out = f"voc:{digits}@train", ("--out", tmp_path / "out")
    for arguments, message in [
        ((spec, "--to", "vott", *out), "invalid choice: 'vott'"),
        ((spec, "--to", "yolo", "--out", tmp_path), "found an existing file or folder"),
        ((spec, f"train={spec}", "--to", "yolo", *out), "split 'train': found twice"),
        ((spec, f"val=voc:{digits}@test", "--to", "prepared", *out), "expected one SPEC"),
        ((f"voc:{digits}@trian", "--to", "yolo", *out), "no split 'trian'"),
    ]:
        assert message in refused("convert", *arguments)
    assert not (tmp_path / "out").exists()
