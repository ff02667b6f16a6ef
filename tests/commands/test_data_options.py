"""Parts and classes of datasets on the command line, and COCO results."""

import dataclasses
import json

import numpy as np
import pytest

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.demo.digits import CLASS_NAMES
from tf_fast_rcnn.training.run import TrainingSummary

SMALL = ("--shorter-side", 64, "--longer-side", 96, "--tile", "none", "--workers", 1)
CLASSES = f"{CLASS_NAMES[1]},low={CLASS_NAMES[0]}+{CLASS_NAMES[2]}"
MAPPING = {CLASS_NAMES[1]: [CLASS_NAMES[1]], "low": [CLASS_NAMES[0], CLASS_NAMES[2]]}


def test_prepare_a_part_in_other_classes(command, digits, tmp_path):
    spec = f"voc:{digits}@train[:50%]"
    done = command("prepare", spec, "--classes", CLASSES, "--out", tmp_path / "out", "--workers", 1)
    assert done.code == 0, done.err
    assert "x objects of other classes dropped" in done.err
    dataset = frcnn.load_dataset(f"prepared:{tmp_path}/out")
    expected = frcnn.with_classes(frcnn.load_dataset(spec), MAPPING)
    assert dataset.class_names == (CLASS_NAMES[1], "low")
    assert [record.image_id for record in dataset] == [record.image_id for record in expected]
    for record, other in zip(dataset, expected, strict=True):
        assert record.class_ids.tolist() == other.class_ids.tolist()
        np.testing.assert_array_equal(record.boxes, other.boxes)


def test_train_in_other_classes(command, digits, tmp_path, monkeypatch):
    """Training and validation images have the new classes, and RUN records them."""
    seen = {}

    def train(data, out, class_map, callbacks, **options):
        seen.update(train=data.dataset, validation=callbacks[0]._dataset, class_map=class_map)
        return TrainingSummary(str(out), 1, 1.0, 1.0, None)

    monkeypatch.setattr(frcnn, "train", train)
    spec = f"voc:{digits}@train"
    data = ("--train", f"{spec}[:75%]", "--val", f"{spec}[75%:]", "--classes", CLASSES)
    done = command("train", *data, "--out", tmp_path / "run", *SMALL)
    assert done.code == 0, done.err
    assert seen["class_map"] == MAPPING
    assert seen["train"].class_names == seen["validation"].class_names == (CLASS_NAMES[1], "low")
    assert (len(seen["train"]), len(seen["validation"])) == (6, 2)


@pytest.mark.parametrize("prepared", [False, True])
def test_evaluate_takes_the_classes_of_training(
    command, prepared_digits, digits, tiny_recipe, tiny_backbone, tmp_path, prepared
):
    """By default, classes of annotation files are mapped; a dataset prepared with the mapping is not changed."""
    train = frcnn.with_classes(prepared_digits[0], MAPPING)
    recipe = dataclasses.replace(tiny_recipe, steps=1)
    run = tmp_path / "run"
    frcnn.train(train, run, recipe=recipe, backbone=tiny_backbone, class_map=MAPPING, progress=False)
    assert frcnn.load_run(run).description["classes"] == MAPPING
    spec = f"voc:{digits}@test"
    if prepared:
        command("prepare", spec, "--classes", CLASSES, "--out", tmp_path / "test", "--workers", 1)
        spec = f"prepared:{tmp_path}/test"
    done = command("evaluate", run, "--data", spec, "--workers", 1, "--json", "-")
    assert done.code == 0, done.err
    found = {row["name"]: row["num_objects"] for row in json.loads(done.out)["classes"]}
    test = prepared_digits[1]
    counts = np.bincount(np.concatenate([record.class_ids for record in test]), minlength=len(CLASS_NAMES) + 1)
    assert found == {CLASS_NAMES[1]: counts[2], "low": counts[1] + counts[3]}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--classes", "unicorn", "classes: found 'unicorn', which voc:"),
        ("--classes", "a=,b", "classes: found 'a='"),
        ("--classes", f"{CLASS_NAMES[0]},x={CLASS_NAMES[0]}", f"classes: found '{CLASS_NAMES[0]}' twice"),
    ],
)
def test_bad_classes(refused, digits, tmp_path, option, value, message):
    for arguments in [("prepare", f"voc:{digits}@train"), ("train", "--train", f"voc:{digits}@train")]:
        assert message in refused(*arguments, option, value, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_part(refused, digits, tmp_path):
    line = refused("prepare", f"voc:{digits}@train[:80]", "--out", tmp_path / "out")
    assert f"voc:{digits}@train: found the part [:80]" in line


def test_coco_results(command, refused, tiny_run, digits, tmp_path):
    categories = [{"id": 10 * number + 7, "name": name} for number, name in enumerate(CLASS_NAMES)]
    (tmp_path / "ids.json").write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
    data = ("evaluate", tiny_run[0], "--data", f"voc:{digits}@test", "--workers", 1)
    done = command(*data, "--coco-results", tmp_path / "r.json", "--category-ids", tmp_path / "ids.json", "--json", "-")
    assert done.code == 0, done.err
    results = json.loads((tmp_path / "r.json").read_text())
    assert len(results) == sum(row["num_detections"] for row in json.loads(done.out)["classes"])
    assert {result["category_id"] for result in results} <= {category["id"] for category in categories}
    assert {result["image_id"] for result in results} <= {f"test_{number:04d}" for number in range(1, 5)}
    (tmp_path / "ids.json").write_text(json.dumps({"images": [], "annotations": [], "categories": categories[1:]}))
    line = refused(*data, "--coco-results", tmp_path / "r2.json", "--category-ids", tmp_path / "ids.json")
    assert f"category ids: found none for class '{CLASS_NAMES[0]}'" in line
