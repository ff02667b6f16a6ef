"""`tf-fast-rcnn evaluate`."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from servers import served

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.boxes import to_coco
from tf_fast_rcnn.evaluation.detection_files import read_detections, write_comp4


def test_evaluate_end_to_end(command, tiny_run, digits, tmp_path):
    run = frcnn.load_run(tiny_run[0])
    arguments = ("--data", f"voc:{digits}@test", "--workers", 1)
    done = command("evaluate", tiny_run[0], *arguments, "--json", "-", "--report", tmp_path / "report")
    assert done.code == 0, done.err
    metrics = json.loads(done.out)
    dataset = frcnn.load_dataset(f"voc:{digits}@test", class_names=run.class_names)
    settings = frcnn.detection_settings(run, score_threshold=0.01)
    expected = frcnn.evaluate(run.model, dataset, proposals=run.proposals, settings=settings, progress=False)
    assert metrics.items() >= expected.to_json().items()
    assert sum(row["num_detections"] for row in metrics["classes"]) > 0
    assert metrics["proposals"]["recall"] > 0.5
    assert set(metrics["breakdown"]["gains"]) > {"localisation", "missed"}
    with_curves = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert with_curves["mean_ap"] == metrics["mean_ap"]
    assert len(with_curves["classes"][0]["recall"]) == metrics["classes"][0]["num_detections"]
    page = (tmp_path / "report" / "index.html").read_text()
    assert f"{tiny_run[0]} on voc:{digits}@test" in page
    assert "small-data" in page  # the run's recipe


def test_confidence(command, tiny_run, prepared_folders):
    arguments = ("evaluate", tiny_run[0], "--data", f"prepared:{prepared_folders[1]}", "--json", "-")
    first, other = (
        json.loads(command(*arguments, "--confidence", *options).out) for options in [(), ("0.5", "--seed", 1)]
    )
    assert first["confidence"].items() > {"level": 0.95, "samples": 1000, "seed": 0}.items()
    low, high = first["confidence"]["mean_ap"]
    assert low <= first["mean_ap"] <= high
    assert other["confidence"].items() > {"level": 0.5, "samples": 1000, "seed": 1}.items()
    assert other["mean_ap"] == first["mean_ap"]


@pytest.fixture(scope="module")
def exported(tiny_run, tmp_path_factory):
    """The tiny run as a SavedModel with the score threshold of `evaluate`."""
    run = frcnn.load_run(tiny_run[0])
    folder = tmp_path_factory.mktemp("export") / "1"
    settings = frcnn.detection_settings(run, score_threshold=0.01)
    frcnn.export_saved_model(run.model, folder, class_names=run.class_names, settings=settings)
    return folder


def test_a_saved_model_scores_as_its_run(command, tiny_run, exported, prepared_folders):
    data = ("--data", f"prepared:{prepared_folders[1]}", "--json", "-")
    of_run = json.loads(command("evaluate", tiny_run[0], *data).out)
    done = command("evaluate", exported, *data)
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["mean_ap"] == pytest.approx(of_run["mean_ap"], abs=1e-3)
    assert found["mean_ap"] > 0
    detections = [[row["num_detections"] for row in facts["classes"]] for facts in (found, of_run)]
    assert detections[0] == pytest.approx(detections[1], abs=2)
    assert found["proposals"] == of_run["proposals"]


def test_a_server_scores_as_its_saved_model(command, exported, prepared_folders):
    data = ("--data", f"prepared:{prepared_folders[1]}", "--json", "-")
    expected = json.loads(command("evaluate", exported, *data).out)
    assert expected["mean_ap"] > 0
    with served("digits", exported.parent) as server:
        for model in (f"grpc://127.0.0.1:{server.ports['grpc']}/digits", server.url()):
            done = command("evaluate", model, *data)
            assert done.code == 0, done.err
            assert json.loads(done.out)["mean_ap"] == pytest.approx(expected["mean_ap"], abs=1e-6)


def test_a_saved_model_gets_proposals_by_a_method(command, exported, digits):
    done = command("evaluate", exported, "--data", f"voc:{digits}@test", "--proposals", "dense", "--json", "-")
    assert done.code == 0, done.err
    assert json.loads(done.out)["proposals"]["recall"] > 0.5


@pytest.mark.parametrize("kind", ["coco", "voc"])
def test_detections_of_another_tool(command, tiny_run, prepared_digits, prepared_folders, tmp_path, kind):
    """The run's own detections, written to a file and read back, score the same up to rounding."""
    data = ("--data", f"prepared:{prepared_folders[1]}", "--json", "-")
    results = tmp_path / "results.json"
    of_run = json.loads(command("evaluate", tiny_run[0], *data, "--coco-results", results).out)
    if kind == "voc":
        found = read_detections(results, prepared_digits[1])
        write_comp4(tmp_path, prepared_digits[1], found, prepared_digits[1].class_names)
        results = tmp_path / "comp4_det_test_*.txt"
    done = command("evaluate", "--detections", results, *data, "--report", tmp_path / "report")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert facts["mean_ap"] == pytest.approx(of_run["mean_ap"], abs=1e-6)
    assert facts["mean_ap"] > 0
    assert facts["breakdown"]["counts"] == of_run["breakdown"]["counts"]
    assert (tmp_path / "report" / "index.html").is_file()


def test_category_ids_are_those_of_the_coco_file_that_is_evaluated(command, tmp_path):
    """The data has the ids 5 and 9, and --category-ids is not given."""
    Image.new("RGB", (100, 80)).save(tmp_path / "a.png")
    annotation = {"id": 1, "image_id": 3, "category_id": 9, "bbox": [10, 10, 40, 40], "area": 1600, "iscrowd": 0}
    content = {
        "images": [{"id": 3, "file_name": "a.png", "width": 100, "height": 80}],
        "categories": [{"id": 9, "name": "dog"}, {"id": 5, "name": "cat"}],
        "annotations": [annotation],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    detection = {name: annotation[name] for name in ("image_id", "category_id", "bbox")} | {"score": 0.9}
    (tmp_path / "results.json").write_text(json.dumps([detection]))
    data = ("--data", f"coco:{tmp_path}/truth.json", "--protocol", "coco")
    done = command("evaluate", "--detections", tmp_path / "results.json", *data, "--coco-results", tmp_path / "b.json")
    assert done.code == 0, done.err
    assert [line.split() for line in done.out.splitlines() if line.startswith("dog")] == [["dog", "1", "1", "1.000"]]
    assert "proposals" not in done.out
    (written,) = json.loads((tmp_path / "b.json").read_text())
    assert written == pytest.approx(detection | {"score": pytest.approx(0.9), "bbox": pytest.approx([10, 10, 40, 40])})


@pytest.fixture
def crowded(tmp_path):
    """Options of `evaluate` for 105 objects in an image, found with an IoU of 0.6, and a class without objects."""
    Image.new("RGB", (1000, 80)).save(tmp_path / "a.png")
    windows = [[9 * n, 10, 5, 50] for n in range(105)]
    content = {
        "images": [{"id": 3, "file_name": "a.png", "width": 1000, "height": 80}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"id": n, "image_id": 3, "category_id": 1, "bbox": window, "area": 250, "iscrowd": 0}
            for n, window in enumerate(windows, start=1)
        ],
    }
    results = [
        {"image_id": 3, "category_id": 1, "bbox": [x, y, width, 30], "score": 1 - n / 200}
        for n, (x, y, width, _) in enumerate(windows)
    ]
    (tmp_path / "truth.json").write_text(json.dumps(content))
    (tmp_path / "results.json").write_text(json.dumps(results))
    return ("--detections", tmp_path / "results.json", "--data", f"coco:{tmp_path}/truth.json")


def test_the_iou_of_a_match(command, refused, crowded):
    for options, expected in (((), 1.0), (("--iou", "0.6"), 1.0), (("--iou", "0.61"), 0.0)):
        done = command("evaluate", *crowded, *options, "--json", "-")
        assert done.code == 0, done.err
        found = json.loads(done.out)
        assert found["mean_ap"] == expected
        assert found["iou_threshold"] == float(options[1] if options else 0.5)
    assert "--iou: found it with --protocol coco" in refused("evaluate", *crowded, "--protocol", "coco", "--iou", 0.5)
    assert "expected a number above 0" in refused("evaluate", *crowded, "--iou", 0)


def test_the_number_of_detections_that_count(command, refused, crowded):
    done = command("evaluate", *crowded, "--protocol", "coco")
    assert "5 detections do not count: they are beyond the 100 best of their class in an image" in done.out
    found = json.loads(command("evaluate", *crowded, "--protocol", "coco", "--max-detections", 200, "--json", "-").out)
    assert found["metrics"]["AP50"] == pytest.approx(1.0)
    assert (found["max_detections"], found["detections_beyond"]) == (200, 0)
    assert "--max-detections: found it with --detections and --protocol voc07" in refused(
        "evaluate", *crowded, "--max-detections", 200
    )


def test_a_run_keeps_as_many_detections_as_asked(command, tiny_run, prepared_folders):
    arguments = ("evaluate", tiny_run[0], "--data", f"prepared:{prepared_folders[1]}", "--max-detections", 2)
    found = json.loads(command(*arguments, "--json", "-").out)
    assert 0 < sum(row["num_detections"] for row in found["classes"]) <= 2 * found["num_images"]
    assert "images have more objects" in command(*arguments[:-1], 1).out


def test_an_exported_model_keeps_its_number_of_detections(refused, exported, prepared_folders):
    data = ("--data", f"prepared:{prepared_folders[1]}", "--max-detections", 2)
    assert "because an exported model keeps the settings of its export" in refused("evaluate", exported, *data)


def test_a_run_suppresses_as_asked(command, refused, tiny_run, exported, prepared_folders, tmp_path):
    data = ("--data", f"prepared:{prepared_folders[1]}")
    kinds = {
        (): {},
        ("--tile", 300): {"tile": 300},
        ("--nms", "soft"): {"nms": "soft"},
        ("--box-voting",): {"box_voting": True},
    }
    dataset, results = frcnn.load_dataset(f"prepared:{prepared_folders[1]}"), tmp_path / "results.json"
    found = {}
    for options, changes in kinds.items():
        assert command("evaluate", tiny_run[0], *data, *options, "--coco-results", results).code == 0
        predictor = frcnn.Predictor.load(tiny_run[0], score_threshold=0.01, **changes)
        expected = frcnn.coco_results(dataset, list(predictor.detect_each(dataset)), None)
        found[options] = json.loads(results.read_text())
        assert [row["category_id"] for row in found[options]] == [row["category_id"] for row in expected]
        for key in ("score", "bbox"):
            np.testing.assert_allclose(*([row[key] for row in rows] for rows in (found[options], expected)), atol=1e-3)
    assert len({json.dumps(rows) for rows in found.values()}) == 4
    assert "--overlap: found it with" in refused("evaluate", exported, *data, "--overlap", 0.3)
    assert "--tile: found it with --detections" in refused("evaluate", "--detections", results, *data, "--tile", 90)
    assert "--box-voting: found it with" in refused("evaluate", exported, *data, "--box-voting")
    assert "export it with --nms" in refused("evaluate", exported, *data, "--nms", "soft")
    assert "--nms: found it with --detections" in refused("evaluate", "--detections", results, *data, "--nms", "soft")
    assert "--soft-nms-sigma: found with --nms per-class" in refused(
        "evaluate", tiny_run[0], *data, "--soft-nms-sigma", 0.3
    )


def test_bad_detections(refused, digits, tmp_path):
    data = ("--data", f"voc:{digits}@test")
    assert "MODEL and --detections: found neither" in refused("evaluate", *data)
    assert "expected a number above 0 to 0.999" in refused("evaluate", "run", *data, "--confidence", "95")
    assert "MODEL and --detections: found both" in refused("evaluate", "run", "--detections", "a.json", *data)
    results = tmp_path / "results.json"
    results.write_text("")
    report = ("--report", tmp_path / "report")
    assert "found an empty file" in refused("evaluate", "--detections", results, *data, *report)
    results.write_text('[{"image_id": "x", "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]')
    assert "found the image 'x'; expected one of the 4" in refused("evaluate", "--detections", results, *data, *report)
    assert not (tmp_path / "report").exists()


def test_bad_saved_models(refused, digits, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"nothing")
    found = refused("evaluate", tmp_path, "--data", f"voc:{digits}@test")
    assert f"{tmp_path}: found no readable SavedModel" in found
    module = tf.Module()
    module.weight = tf.Variable(1.0)
    signature = tf.function(lambda x: {"y": x * module.weight}, input_signature=[tf.TensorSpec([], name="x")])
    tf.saved_model.save(module, str(tmp_path / "other"), signatures=signature)
    found = refused("evaluate", tmp_path / "other", "--data", f"voc:{digits}@test")
    assert "serving_default has the inputs x; expected image_bytes, num_proposals, proposals" in found


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
    assert "test_0002.jpg: cannot read the image" in done.err.splitlines()[-1]
    annotation = broken_digits / "Annotations" / "test_0001.xml"
    annotation.write_text(annotation.read_text().replace("<name>", "<name>x"))
    assert "found class 'x" in refused("evaluate", tiny_run[0], "--data", f"voc:{broken_digits}@test")


def test_detections_are_matched_by_the_names_of_files_and_it_is_said(command, refused, digits, tmp_path):
    """Those of `detect IMAGES --coco-results` and of other tools, by the stem; VOC's ids are stems, too."""
    data = frcnn.load_dataset(f"voc:{digits}@test")
    results = [
        {"image_id": f"{record.image_id}.jpg", "category_id": int(label) - 1, "bbox": box.tolist(), "score": 1}
        for record in data
        for box, label in zip(to_coco(record.boxes, record.height, record.width), record.class_ids, strict=True)
    ]
    path = tmp_path / "found.json"
    path.write_text(json.dumps(results))
    arguments = ("evaluate", "--detections", path, "--data", f"voc:{digits}@test", "--json", "-")
    assert "--category-ids 0 if they number the classes in order" in refused(*arguments)
    done = command(*arguments, "--category-ids", 0)
    assert done.code == 0, done.err
    assert json.loads(done.out)["mean_ap"] == pytest.approx(1)
    assert f"{path}: detections of 4 of 4 images, matched by file name\n" in done.err
    assert "expected one of" in refused(*arguments, "--category-ids", 0, "--images-by", "id")
    assert "--images-by is only used with --detections" in refused(
        "evaluate", tmp_path, "--data", f"voc:{digits}@test", "--images-by", "id"
    )
