"""`tf-fast-rcnn detect`."""

import json
import re

import numpy as np
import pytest
from PIL import Image

import tf_fast_rcnn as frcnn

LOW = ("--score-threshold", 0.01)


@pytest.fixture
def image(digits):
    return digits / "JPEGImages" / "test_0001.jpg"


def test_detect_end_to_end(command, tiny_run, digits, image, tmp_path):
    run = frcnn.load_run(tiny_run[0])
    other = digits / "JPEGImages" / "test_0002.jpg"
    done = command(
        "detect", tiny_run[0], image, other, "--out", tmp_path / "drawn", "--json", tmp_path / "a.json", *LOW
    )
    assert done.code == 0, done.err
    results = json.loads((tmp_path / "a.json").read_text())
    assert [result["image"] for result in results] == [str(image), str(other)]
    settings = frcnn.detection_settings(run, score_threshold=0.01)
    for result in results:
        expected = frcnn.detect(run.model, result["image"], run.proposals, settings)
        assert len(expected.scores) == len(result["detections"]) > 0
        for row, box, score, label in zip(result["detections"], *expected, strict=True):
            assert row["class"] == run.class_names[label - 1]
            assert row["score"] == pytest.approx(score, abs=1e-6)
            np.testing.assert_allclose(row["box"], box, atol=1e-6)
    number = sum(len(result["detections"]) for result in results)
    told = rf"2 images, {number} detections with a score above 0.01, [\d.]+ images a second; drawn in {tmp_path}/drawn"
    assert re.fullmatch(f"{told}\n", done.out)
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["test_0001.png", "test_0002.png"]


def test_boxes_are_drawn_above_the_threshold(command, tiny_run, image, tmp_path):
    for name, threshold in (("all", 0), ("none", 1)):
        command("detect", tiny_run[0], image, "--out", tmp_path / name, "--draw-threshold", threshold, *LOW)
    drawn, bare = (np.asarray(Image.open(tmp_path / name / "test_0001.png")) for name in ("all", "none"))
    np.testing.assert_array_equal(bare, frcnn.read_image(image))
    assert (drawn != bare).any()


def test_proposals_of_a_file(command, tiny_run, image, tmp_path):
    np.save(tmp_path / "boxes.npy", np.float32([[0.1, 0.1, 0.5, 0.5]]))
    done = command("detect", tiny_run[0], image, "--proposals", tmp_path / "boxes.npy", "--json", "-", *LOW)
    assert done.code == 0, done.err
    (result,) = json.loads(done.out)
    # One proposal gives at most one detection a class.
    classes = [row["class"] for row in result["detections"]]
    assert 0 < len(classes) == len(set(classes))


def test_images_of_one_name_are_drawn_apart(command, tiny_run, image, tmp_path):
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy" / "test_0001.jpg"
    copy.write_bytes(image.read_bytes())
    assert command("detect", tiny_run[0], image, copy, "--out", tmp_path / "drawn").code == 0
    assert sorted(path.name for path in (tmp_path / "drawn").iterdir()) == ["test_0001-2.png", "test_0001.png"]


def test_an_input_is_never_overwritten(refused, tiny_run, tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "cell.png")
    before = (tmp_path / "cell.png").read_bytes()
    line = refused("detect", tiny_run[0], tmp_path / "cell.png", "--out", tmp_path)
    assert "cell.png: found an input where its drawing belongs" in line
    assert (tmp_path / "cell.png").read_bytes() == before


def test_bad_images(refused, tiny_run, image, tmp_path):
    out = ("--out", tmp_path / "drawn")
    assert "missing.jpg" in refused("detect", tiny_run[0], tmp_path / "missing.jpg", *out)
    (tmp_path / "notes.jpg").write_text("no image")
    assert "notes.jpg: found no readable image" in refused("detect", tiny_run[0], tmp_path / "notes.jpg", *out)
    (tmp_path / "half.jpg").write_bytes(image.read_bytes()[:3000])
    assert "half.jpg: found no readable image" in refused("detect", tiny_run[0], tmp_path / "half.jpg", *out)


def test_bad_proposals(refused, tiny_run, image, tmp_path):
    def error(path):
        return refused("detect", tiny_run[0], image, "--proposals", path, "--json", "-")

    (tmp_path / "text.npy").write_text("1 2 3 4")
    np.save(tmp_path / "pixels.npy", np.float32([[10, 10, 50, 50]]))
    np.save(tmp_path / "words.npy", np.array([["a", "b", "c", "d"]]))
    np.savez(tmp_path / "archive.npz", boxes=np.zeros((1, 4)))
    assert "missing.npy: found no such file; expected an .npy file" in error(tmp_path / "missing.npy")
    assert "text.npy: found no readable proposals" in error(tmp_path / "text.npy")
    assert "pixels.npy: found proposals that do not fit the images when read as yxyx-relative; they fit as" in error(
        tmp_path / "pixels.npy"
    )
    assert "words.npy: found <U1 [1, 4]; expected numbers" in error(tmp_path / "words.npy")
    assert "archive.npz: found no proposals of 1 of 1 images (test_0001.jpg); expected" in error(
        tmp_path / "archive.npz"
    )
    np.save(tmp_path / "one.npy", np.float32([[0.1, 0.1, 0.5, 0.5]]))
    line = refused("detect", tiny_run[0], image, image, "--proposals", tmp_path / "one.npy")
    assert "one.npy: found '*' for 2 images; expected an entry for each" in line
