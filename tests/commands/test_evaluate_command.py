"""`tf-fast-rcnn evaluate`."""

import json

import pytest
from PIL import Image

import tf_fast_rcnn as frcnn


def test_evaluate_end_to_end(command, tiny_run, digits, tmp_path):
    run = frcnn.load_run(tiny_run[0])
    arguments = ("--data", f"voc:{digits}@test", "--workers", 1)
    done = command("evaluate", tiny_run[0], *arguments, "--json", "-", "--report", tmp_path / "report")
    assert done.code == 0, done.err
    metrics = json.loads(done.out)
    dataset = frcnn.load_dataset(f"voc:{digits}@test", class_names=run.class_names)
    settings = frcnn.detection_settings(run, score_threshold=0.01)
    expected = frcnn.evaluate(run.model, dataset, proposals=run.proposals, settings=settings, progress=False)
    assert metrics == expected.to_json()
    assert sum(row["num_detections"] for row in metrics["classes"]) > 0
    with_curves = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert with_curves["mean_ap"] == metrics["mean_ap"]
    assert len(with_curves["classes"][0]["recall"]) == metrics["classes"][0]["num_detections"]
    with Image.open(tmp_path / "report" / "precision_recall.png") as picture:
        picture.verify()


@pytest.mark.parametrize("protocol", ["voc10", "coco"])
def test_protocols(command, tiny_run, prepared_folders, protocol):
    done = command("evaluate", tiny_run[0], "--data", f"prepared:{prepared_folders[1]}", "--protocol", protocol)
    assert done.code == 0, done.err
    assert done.out.startswith("class")
    assert f"({protocol}, IoU 0.50" in done.out


def test_skip_bad_leaves_an_unreadable_image_out_and_says_so(command, tiny_run, broken_digits):
    image = broken_digits / "JPEGImages" / "test_0002.jpg"
    image.write_bytes(image.read_bytes()[:2000])
    arguments = ("evaluate", tiny_run[0], "--data", f"voc:{broken_digits}@test", "--workers", 1)
    done = command(*arguments)
    assert done.code == 2
    assert "test_0002.jpg" in done.err.splitlines()[-1]
    done = command(*arguments, "--skip-bad", "--json", "-")
    assert done.code == 0, done.err
    assert json.loads(done.out)["num_images"] == 3
    assert f"voc:{broken_digits}@test: 1 x unreadable images skipped" in done.err


def test_bad_runs(refused, digits, tmp_path):
    data = ("--data", f"voc:{digits}@test")
    assert "nowhere: found no run.json" in refused("evaluate", tmp_path / "nowhere", *data)
    (tmp_path / "run.json").write_text("{")
    (tmp_path / "model.keras").write_text("")
    assert "run.json: found broken JSON" in refused("evaluate", tmp_path, *data)
    (tmp_path / "run.json").write_text("{}")
    assert "model.keras: found no readable model" in refused("evaluate", tmp_path, *data)


def test_unknown_class_and_truncated_image(refused, command, tiny_run, broken_digits):
    image = broken_digits / "JPEGImages" / "test_0002.jpg"
    image.write_bytes(image.read_bytes()[:3000])
    done = command("evaluate", tiny_run[0], "--data", f"voc:{broken_digits}@test", "--workers", 1)
    assert done.code == 2
    assert "test_0002.jpg: found no readable image" in done.err.splitlines()[-1]
    annotation = broken_digits / "Annotations" / "test_0001.xml"
    annotation.write_text(annotation.read_text().replace("<name>", "<name>x"))
    assert "found class 'x" in refused("evaluate", tiny_run[0], "--data", f"voc:{broken_digits}@test")
