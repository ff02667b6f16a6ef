"""`tf-fast-rcnn detect --watch`."""

import csv
import json
import threading

import pytest

from tf_fast_rcnn.commands import detect_watch
from tf_fast_rcnn.commands.detect_watch import new_images


def test_a_file_is_taken_once_it_is_complete(digits, tmp_path):
    data = (digits / "JPEGImages" / "test_0001.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data)
    (tmp_path / "b.jpg").write_bytes(data[:300])
    (tmp_path / "c.txt").write_text("no image")
    timer = threading.Timer(1.5, (tmp_path / "b.jpg").write_bytes, [data])
    timer.start()
    assert [path.name for path in new_images(tmp_path, seconds=3)] == ["a.jpg", "b.jpg"]
    timer.join()


def test_results_are_appended_and_drawn(command, tiny_run, digits, tmp_path):
    watched, out, lines, rows = (tmp_path / name for name in ("in", "out", "a.jsonl", "a.csv"))
    watched.mkdir()
    (watched / "a.jpg").write_bytes((digits / "JPEGImages" / "test_0001.jpg").read_bytes())
    outputs = ("--out", out, "--jsonl", lines, "--csv", rows, "--score-threshold", 0.01)
    done = command("detect", tiny_run[0], watched, "--watch", "--watch-seconds", 1, *outputs)
    assert done.code == 0, done.err
    (value,) = map(json.loads, lines.read_text().splitlines())
    assert value["image"] == str(watched / "a.jpg")
    assert [row["class"] for row in csv.DictReader(rows.open())] == [row["class"] for row in value["detections"]] != []
    assert [path.name for path in out.iterdir()] == ["a.jpg.png"]
    assert done.out.startswith(f"1 images, {len(value['detections'])} detections")


def test_one_folder_and_an_output_are_needed(refused, tiny_run, tmp_path):
    assert "expected one folder" in refused("detect", tiny_run[0], "a.jpg", "--watch", "--out", tmp_path)
    assert "found no output" in refused("detect", tiny_run[0], tmp_path, "--watch")


def test_ctrl_c_ends_with_the_summary(command, tiny_run, digits, tmp_path, monkeypatch):
    def one_image_and_ctrl_c(*_):
        yield digits / "JPEGImages" / "test_0001.jpg"
        raise KeyboardInterrupt

    monkeypatch.setattr(detect_watch, "new_images", one_image_and_ctrl_c)
    done = command("detect", tiny_run[0], tmp_path, "--watch", "--jsonl", tmp_path / "a.jsonl")
    assert done.code == 0, done.err
    assert done.out.startswith("1 images, ")
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("options", [("--every", 2), ("--proposals", "dense"), ("--json", "-"), ("--save-to", "x")])
def test_options_that_watch_does_not_use_are_refused(refused, tiny_run, tmp_path, options):
    line = refused("detect", tiny_run[0], tmp_path, "--watch", "--out", tmp_path / "out", *options)
    assert f"{options[0]} cannot be used with --watch; remove it" in line
