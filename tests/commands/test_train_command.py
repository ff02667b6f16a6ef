"""`tf-fast-rcnn train`."""

import json

import pytest

from tf_fast_rcnn import load_run

SMALL = ("--shorter-side", 64, "--longer-side", 96, "--workers", 1)


def test_train_end_to_end(command, refused, digits, tmp_path):
    """Few steps of a real backbone with validation, then again into the same folder."""
    arguments = ("train", "--train", f"voc:{digits}@train", "--out", tmp_path / "run", "--steps", 2, "--rate", 0.001)
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
    run = load_run(tmp_path / "run")
    assert (run.shorter_side, run.longer_side) == (64, 96)
    assert (run.description["seed"], run.description["recipe"]["optimizer"]["rate"]) == (3, 0.001)
    assert "found a finished run" in refused(*arguments, *SMALL, "--seed", 3)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--recipe", "secret", "recipe: found 'secret'; expected one of small-data, voc07, voc0712"),
        ("--backbone", "vgg61", "backbone: found 'vgg61'; expected one of "),
        ("--weights", "nowhere.h5", "weights: found 'nowhere.h5', which is no file"),
        ("--tune-from", "conv9", "tune_from: found 'conv9'; expected a layer of the backbone"),
        ("--val", "voc:nowhere@test", "nowhere"),
    ],
)
def test_bad_choices(command, digits, tmp_path, option, value, message):
    run = tmp_path / "run"
    done = command("train", "--train", f"voc:{digits}@train", "--out", run, *SMALL, option, value)
    assert done.code == 2
    # Proposals may have been computed before, with a progress bar.
    lines = [line for line in done.err.splitlines() if "proposals:" not in line]
    assert len(lines) == 1
    assert message in lines[0]


def test_classes_of_validation_images_must_be_known(refused, broken_digits, tmp_path):
    annotation = next((broken_digits / "Annotations").glob("test_*.xml"))
    annotation.write_text(annotation.read_text().replace("<name>", "<name>x"))
    spec = f"voc:{broken_digits}"
    line = refused("train", "--train", f"{spec}@train", "--val", f"{spec}@test", "--out", tmp_path / "run", *SMALL)
    assert "found class 'x" in line
    assert not (tmp_path / "run").exists()


def test_prepared_proposals_are_not_exchanged_unsaid(refused, prepared_folders, tmp_path):
    folder = prepared_folders[0]
    line = refused("train", "--train", f"prepared:{folder}", "--proposals", "dense", "--out", tmp_path / "run")
    assert f"--proposals: found dense for prepared:{folder}, which has proposals" in line


def test_weights_of_a_folder_that_is_no_run(command, digits, tmp_path):
    (tmp_path / "empty").mkdir()
    done = command(
        "train", "--train", f"voc:{digits}@train", "--out", tmp_path / "run", "--weights", tmp_path / "empty", *SMALL
    )
    assert done.code == 2
    assert "empty: found no run.json" in done.err.splitlines()[-1]
