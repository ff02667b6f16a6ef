"""`tf-fast-rcnn prepare`."""

import json

import pytest

from tf_fast_rcnn import load_dataset


def test_prepare_end_to_end(command, digits, tmp_path):
    done = command("prepare", f"voc:{digits}@train", "--out", tmp_path / "train", "--workers", 1, "--json", "-")
    assert done.code == 0
    summary = json.loads(done.out)
    dataset = load_dataset(f"prepared:{tmp_path}/train")
    assert summary["images"] == len(dataset) == 8
    assert summary["objects"] == sum(len(record.boxes) for record in dataset)
    assert summary["proposals_per_image"] == pytest.approx(sum(len(r.proposals()) for r in dataset) / 8)
    assert set(summary["recall_at_iou_0.5"]) == set(dataset.class_names)
    assert min(summary["recall_at_iou_0.5"].values()) > 0.5

    done = command("prepare", f"voc:{digits}@test", "--like", tmp_path / "train", "--out", tmp_path / "test")
    assert done.code == 0
    assert f"next: tf-fast-rcnn train --train prepared:{tmp_path}/test --out RUN" in done.out
    assert load_dataset(f"prepared:{tmp_path}/test").proposal_settings == dataset.proposal_settings


def test_skip_bad_counts_what_it_leaves_out(command, broken_digits, tmp_path):
    image = broken_digits / "JPEGImages" / "train_0003.jpg"
    image.write_bytes(image.read_bytes()[:2000])
    done = command(
        "prepare", f"voc:{broken_digits}@train", "--out", tmp_path / "out", "--workers", 1, "--skip-bad", "--json", "-"
    )
    assert done.code == 0
    assert json.loads(done.out)["images"] == 7
    assert f"voc:{broken_digits}@train: 1 x unreadable images skipped" in done.err


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cells", "data set 'cells': found no known kind; expected KIND:LOCATION"),
        ("yolo:cells@train", "found no known kind; expected KIND:LOCATION[@SPLIT] with one of the kinds voc, prepared"),
        ("prepared:nowhere", "nowhere: found no manifest.json"),
    ],
)
def test_bad_specs(refused, tmp_path, spec, message):
    assert message in refused("prepare", spec, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_missing_folder_and_unknown_split(refused, digits, tmp_path):
    assert f"{tmp_path}/nowhere" in refused("prepare", f"voc:{tmp_path}/nowhere@train", "--out", tmp_path / "out")
    line = refused("prepare", f"voc:{digits}@validation", "--out", tmp_path / "out")
    assert "validation" in line
    assert "test, train" in line


def test_empty_split(refused, broken_digits, tmp_path):
    (broken_digits / "ImageSets" / "Main" / "train.txt").write_text("\n")
    assert "train.txt" in refused("prepare", f"voc:{broken_digits}@train", "--out", tmp_path / "out")


def test_a_split_that_names_a_missing_image(refused, broken_digits, tmp_path):
    (broken_digits / "JPEGImages" / "train_0003.jpg").unlink()
    assert "train_0003" in refused("prepare", f"voc:{broken_digits}@train", "--out", tmp_path / "out")


def test_a_folder_that_cannot_be_written(refused, digits, tmp_path):
    (tmp_path / "file").write_text("")
    assert f"{tmp_path}/file" in refused("prepare", f"voc:{digits}@train", "--out", tmp_path / "file" / "out")
