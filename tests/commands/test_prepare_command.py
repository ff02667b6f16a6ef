"""`tf-fast-rcnn prepare`."""

import json

import numpy as np
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
    assert load_dataset(f"prepared:{tmp_path}/test").proposals == dataset.proposals


def test_given_dense_boxes(command, refused, digits, tmp_path):
    spec = f"voc:{digits}@train"
    grid = ("--dense-scales", "0.2,0.4", "--dense-aspects", "0.5,1,2", "--dense-stride", "0.5")
    done = command("prepare", spec, "--out", tmp_path / "out", "--workers", 1, *grid, "--json", "-")
    assert done.code == 0, done.err
    assert json.loads(done.out)["images_per_second"] > 0
    sizes = load_dataset(f"prepared:{tmp_path}/out").proposals.dense.sizes
    assert {round((height * width) ** 0.5, 6) for height, width in sizes} == {0.2, 0.4}
    assert {round(width / height, 6) for height, width in sizes} == {0.5, 1, 2}
    for arguments, message in [
        (("--dense-scales", "0.2,x"), "--dense-scales: found 'x'; expected a number above 0"),
        (("--dense-stride", "0"), "--dense-stride: found '0'"),
        (("--dense-scales", "0.2", "--proposals", "selective-search"), "found dense boxes for the method"),
        (("--dense-scales", "0.2", "--proposals", digits / "proposals.npz"), "expected dense, selective-search, "),
        (("--dense-scales", "0.0001", "--dense-stride", "0.1"), "increase the scales or the stride"),
        (("--proposals-order", "xyxy-0based"), "--proposals-order is only used with a proposal file, not with dense"),
        (("--max-proposals", "5"), "--max-proposals is only used with selective search or a proposal file, not dense"),
    ]:
        assert message in refused("prepare", spec, "--out", tmp_path / "other", *arguments)


@pytest.fixture
def proposal_file(digits, tmp_path):
    """An .npz file with the training images' ground truth boxes and a few more, so its recall is 1."""
    more = np.float32([[0, 0, 1, 1], [0.2, 0.1, 0.6, 0.9], [0.5, 0.5, 1.2, 1]])
    dataset = load_dataset(f"voc:{digits}@train")
    np.savez(
        tmp_path / "proposals.npz", **{record.image_id: np.concatenate([record.boxes, more]) for record in dataset}
    )
    return tmp_path / "proposals.npz"


def test_proposals_of_a_file(command, refused, digits, proposal_file, tmp_path):
    spec, out = f"voc:{digits}@train", tmp_path / "out"
    done = command("prepare", spec, "--out", out, "--proposals", proposal_file, "--workers", 1, "--json", "-")
    assert done.code == 0, done.err
    assert f"{proposal_file}: 8 x proposals clipped to their image" in done.err
    assert set(json.loads(done.out)["recall_at_iou_0.5"].values()) == {1.0}
    source, prepared = load_dataset(spec), load_dataset(f"prepared:{out}")
    for before, after in zip(source, prepared, strict=True):
        np.testing.assert_allclose(after.proposals()[: len(before.boxes)], before.boxes, atol=1e-6)
        np.testing.assert_allclose(after.proposals()[-1], [0.5, 0.5, 1, 1])
    assert prepared.proposals.file == "proposals.npz"

    again = ("prepare", spec, "--out", tmp_path / "other", "--proposals", proposal_file)
    line = refused(*again, "--proposals-order", "xyxy-relative")
    assert "read as xyxy-relative (recall at IoU 0.5: 0." in line
    assert "they fit as yxyx-relative (recall 1.000); use --proposals-order yxyx-relative" in line
    assert "found no proposals for 4 of 4 images (test_0001, test_0002" in refused(
        "prepare", f"voc:{digits}@test", *again[2:]
    )
    # A prepared folder records the file of its proposals but has none for other images.
    like = ("prepare", spec, "--like", out, "--out", tmp_path / "other")
    assert "trained on proposals from proposals.npz, so they must come from a file; pass `--proposals" in refused(*like)
    assert command(*like, "--proposals", proposal_file, "--workers", 1).code == 0


def test_skip_bad_counts_what_it_skips(command, broken_digits, tmp_path):
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
        ("cells", "data set 'cells': unknown kind; expected KIND:LOCATION"),
        ("xml:cells@train", "unknown kind; expected KIND:LOCATION[@SPLIT] with one of the kinds voc, "),
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
