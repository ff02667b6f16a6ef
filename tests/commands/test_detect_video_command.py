"""`tf-fast-rcnn detect` on video files."""

import csv
import json
from fractions import Fraction

import numpy as np
import pytest

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.data.video import writing_video

LOW = ("--score-threshold", 0.01, "--draw-threshold", 0)


@pytest.fixture
def clip(digits, tmp_path):
    """Five frames, one each 0.1 s: the same image, shifted by 8 pixels from frame to frame."""
    image = frcnn.read_image(digits / "JPEGImages" / "test_0001.jpg")
    with writing_video(tmp_path / "clip.mp4", Fraction(10)) as video:
        for number in range(5):
            video.write(np.roll(image, 8 * number, axis=1), number / 10)
    return tmp_path / "clip.mp4"


def test_lines_rows_and_an_annotated_video(command, tiny_run, clip, tmp_path):
    out, lines, rows = tmp_path / "out", tmp_path / "a.jsonl", tmp_path / "a.csv"
    done = command(
        "detect",
        tiny_run[0],
        clip,
        "--every",
        2,
        "--out",
        out,
        "--jsonl",
        lines,
        "--csv",
        rows,
        "--batch-size",
        2,
        *LOW,
    )
    assert done.code == 0, done.err
    values = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [value["frame"] for value in values] == [0, 2, 4]
    assert [value["seconds"] for value in values] == pytest.approx([0, 0.2, 0.4])
    predictor = frcnn.Predictor.load(tiny_run[0], score_threshold=0.01)
    for value, (_, _, frame) in zip(values, frcnn.read_video(clip, every=2), strict=True):
        expected = predictor.detect(frame)
        assert len(value["detections"]) == len(expected) > 0
        np.testing.assert_allclose([row["score"] for row in value["detections"]], expected.scores, atol=1e-5)
    table = list(csv.DictReader(rows.open()))
    flat = [(value["frame"], row["class"], row["score"]) for value in values for row in value["detections"]]
    assert [(int(row["frame"]), row["class"], float(row["score"])) for row in table] == flat
    drawn = list(frcnn.read_video(out / "clip.mp4"))
    assert [time for _, time, _ in drawn] == pytest.approx([0, 0.2, 0.4], abs=1e-3)
    plain = [frame for _, _, frame in frcnn.read_video(clip, every=2)]
    assert all((abs(a[2].astype(int) - b) > 60).any() for a, b in zip(drawn, plain, strict=True))
    assert f"3 frames, {len(flat)} detections" in done.out
    assert "frames per second" in done.out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--json", "a.json"), "--json is only used with images; remove it"),
        (("other.jpg",), "found a video among images"),
        (("--every", "0"), "expected a whole number from 1"),
        (("--out", "."), "would overwrite an input video"),
    ],
)
def test_what_does_not_go_with_videos_is_refused(refused, tiny_run, clip, more, message, monkeypatch):
    monkeypatch.chdir(clip.parent)
    assert message in refused("detect", tiny_run[0], clip.name, *more)


def test_damaged_videos_leave_nothing_behind(refused, tiny_run, clip, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(clip.read_bytes()[:300])
    assert refused("detect", tiny_run[0], bad, "--out", tmp_path / "out", "--csv", tmp_path / "a.csv").startswith(
        str(bad)
    )
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "a.csv").exists()
    assert "--every is only used with videos" in refused("detect", tiny_run[0], "a.jpg", "--every", 2)
