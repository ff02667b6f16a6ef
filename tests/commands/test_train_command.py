"""`tf-fast-rcnn train`."""

import dataclasses
import json

import pytest
import tensorflow as tf

import tf_fast_rcnn
from tf_fast_rcnn import InputError, cli, load_run

SMALL = ("--shorter-side", 64, "--longer-side", 96, "--tile", "none", "--workers", 1)


def test_train_end_to_end(command, refused, digits, tmp_path):
    """A few steps of a real backbone with validation, then the same command again."""
    arguments = (
        "train",
        "--train",
        f"voc:{digits}@train",
        "--out",
        tmp_path / "run",
        "--steps",
        2,
        "--learning-rate",
        0.001,
    )
    validation = ("--val", f"voc:{digits}@test")
    done = command(*arguments, *validation, *SMALL, "--seed", 3, "--json", tmp_path / "summary.json")
    assert done.code == 0, done.err
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["run"] == str(tmp_path / "run")
    assert summary["steps"] == 2
    assert f"2 mini-batches in {summary['seconds']:.0f} s, last loss {summary['loss']:.3f}" in done.out
    assert f"validation mAP {summary['validation_map']:.3f}" in done.out
    assert f"next: tf-fast-rcnn evaluate {tmp_path}/run --data SPEC" in done.out
    assert "Traceback" not in done.err
    assert "RoIs are pooled from strides 8, 16 and 32: the small objects of class " in done.err
    assert "recall of the proposals at IoU 0.5 on the training objects: all " in done.err
    run = load_run(tmp_path / "run")
    assert (run.shorter_side, run.longer_side) == (64, 96)
    (pictures,) = (tmp_path / "run" / "tensorboard" / "validation").iterdir()
    events = list(tf.compat.v1.train.summary_iterator(str(pictures)))
    tags = [(value.tag, event.step) for event in events for value in event.summary.value]
    assert tags == [(f"detections/test_{number:04d}", 2) for number in range(1, 5)]
    assert (run.description["seed"], run.description["recipe"]["optimizer"]["learning_rate"]) == (3, 0.001)
    assert "found a finished run" in refused(*arguments, *SMALL, "--seed", 3)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--recipe", "secret", "recipe: found 'secret'; expected one of small-data, voc07, voc0712"),
        ("--set", "rate=1", "rate: found no such setting of a recipe; expected one of name, backbone, class_names, "),
        (
            "--set",
            "optimizer.learning_rate=fast",
            "optimizer.learning_rate: found 'fast'; expected a number; change it",
        ),
        ("--set", 'class_weights={"cat": 2}', "class_weights: found class 'cat'; expected one of background, 0, 1"),
        ("--recipe", "voc07", "recipe voc07: found class '0' in voc:"),
        ("--early-stopping", "3", "--early-stopping needs validation images; pass --val SPEC"),
        ("--backbone", "vgg61", "backbone: found 'vgg61'; expected one of "),
        ("--weights", "nowhere.h5", "weights: found 'nowhere.h5', which is not a file"),
        ("--finetune-from", "conv9", "finetune_from: found 'conv9'; expected one of the layers "),
        ("--val", "voc:nowhere@test", "nowhere"),
    ],
)
def test_bad_choices(command, digits, tmp_path, option, value, message):
    run = tmp_path / "run"
    done = command("train", "--train", f"voc:{digits}@train", "--out", run, *SMALL, option, value)
    assert done.code == 2
    # If proposals were computed first, their progress bar is on standard error too.
    lines = [line for line in done.err.splitlines() if line and "proposals:" not in line]
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize("text", ["flip", "=1", ""])
def test_a_setting_is_key_and_value(refused, text):
    assert f"argument --set: found {text!r}; expected KEY=VALUE" in refused("train", "--set", text)


def test_options_and_set_change_the_recipe(digits, tmp_path, command, monkeypatch):
    """--set takes precedence, and RUN's recipe can be reused."""
    taken = []

    def train(data, out, **_):
        taken.append(data.recipe)
        raise InputError("enough")

    monkeypatch.setattr(tf_fast_rcnn, "train", train, raising=False)
    arguments = ["train", "--train", f"voc:{digits}@train", "--out", tmp_path / "run", *SMALL, "--dtype"]
    arguments += [
        "mixed_bfloat16",
        "--learning-rate",
        0.5,
        "--set",
        "optimizer.learning_rate=0.25",
        "--set",
        "sampling.horizontal_flip_prob=0",
    ]
    arguments += ["--set", "network.fc_units=32,16", "--val", f"voc:{digits}@test", "--early-stopping", 4]
    assert command(*arguments).code == 2
    (recipe,) = taken
    assert (recipe.dtype, recipe.early_stopping, recipe.optimizer.learning_rate) == ("mixed_bfloat16", 4, 0.25)
    assert (recipe.sampling.horizontal_flip_prob, recipe.sampling.shorter_side, recipe.network.fc_units) == (
        0.0,
        64,
        (32, 16),
    )

    run = tmp_path / "other"
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"recipe": dataclasses.asdict(recipe)}))
    arguments = ["train", "--train", f"voc:{digits}@train", "--out", tmp_path / "run", "--recipe", run]
    assert command(*arguments, "--val", f"voc:{digits}@test", "--steps", 3, "--workers", 1).code == 2
    assert taken[1] == dataclasses.replace(recipe, steps=3)


def test_classes_of_validation_images_must_be_known(refused, broken_digits, tmp_path):
    annotation = next((broken_digits / "Annotations").glob("test_*.xml"))
    annotation.write_text(annotation.read_text().replace("<name>", "<name>x"))
    spec = f"voc:{broken_digits}"
    line = refused("train", "--train", f"{spec}@train", "--val", f"{spec}@test", "--out", tmp_path / "run", *SMALL)
    assert "found class 'x" in line
    assert not (tmp_path / "run").exists()


def test_prepared_proposals_are_not_replaced_silently(refused, prepared_folders, tmp_path):
    folder = prepared_folders[0]
    line = refused("train", "--train", f"prepared:{folder}", "--proposals", "dense", "--out", tmp_path / "run")
    assert f"--proposals: found dense for prepared:{folder}, which already has proposals" in line


def test_weights_of_a_folder_that_is_not_a_run(command, digits, tmp_path):
    (tmp_path / "empty").mkdir()
    done = command(
        "train", "--train", f"voc:{digits}@train", "--out", tmp_path / "run", "--weights", tmp_path / "empty", *SMALL
    )
    assert done.code == 2
    assert "empty: found no run.json" in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("command_name", "required", "alias", "option", "value"),
    [
        ("train", "--train voc:x --out run", "--rate", "--learning-rate", "0.25"),
        ("train", "--train voc:x --out run", "--tune-from", "--finetune-from", "conv2"),
        ("detect", "run image.jpg", "--nms-iou", "--nms-iou-threshold", "0.5"),
        ("detect", "run image.jpg", "--box-passes", "--box-refinement-steps", "2"),
        ("export", "run --out 1", "--max-proposals", "--max-request-proposals", "50"),
    ],
)
def test_options_of_0_1_are_accepted_and_hidden(command_name, required, alias, option, value):
    parser = cli._parser([command_name])
    default = parser.parse_args([command_name, *required.split()])
    found, expected = (parser.parse_args([command_name, *required.split(), name, value]) for name in (alias, option))
    assert found == expected != default
    (part,) = (action for action in parser._actions if hasattr(action, "choices") and action.choices)
    assert alias not in part.choices[command_name].format_help().split()


def test_the_graphs_proposals_of_0_1_are_accepted():
    arguments = ["export", "run", "--out", "1", "--proposals"]
    assert cli._parser(["export"]).parse_args([*arguments, "grid"]).proposals == "dense"


def test_crowds_alone_are_not_trained_on(refused, digits, tmp_path):
    """All objects of an export may have iscrowd=1, which leaves the background alone."""
    images, annotations = [], []
    for number, path in enumerate(sorted((digits / "JPEGImages").glob("train_*.jpg"))):
        images.append({"id": number, "file_name": path.name})
        box = {"id": number, "image_id": number, "category_id": 1, "bbox": [5, 5, 30, 30], "iscrowd": 1}
        annotations.append(box)
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    spec = f"coco:{tmp_path / 'a.json'},{digits / 'JPEGImages'}"
    line = refused("train", "--train", spec, "--out", tmp_path / "run", "--weights", "none")
    assert "all 8 objects are crowds (iscrowd=1), which are ignored in training" in line
