"""The command line as users see it: help, bad options, exit codes, and only our own messages on standard error."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import __version__, cli

PROGRAM = "import sys; from tf_fast_rcnn import cli; code = cli.main(sys.argv[1:]); print(*sys.modules); sys.exit(code)"
HELP = """
import sys
from tf_fast_rcnn import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as exit:
    assert exit.code == 0
assert "tensorflow" not in sys.modules and "keras" not in sys.modules
"""


def in_a_process(program, *arguments, **environment):
    environment = {**os.environ, **environment}
    environment.pop("TF_CPP_MIN_LOG_LEVEL")
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_a_command_is_quick_and_shows_examples(name):
    started = time.monotonic()
    done = in_a_process(HELP, name, "--help")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 5
    assert done.stderr == ""
    assert done.stdout.startswith(f"usage: tf-fast-rcnn {name}")
    assert f"examples:\n  tf-fast-rcnn {name}" in done.stdout


def test_help_lists_the_commands():
    done = in_a_process(HELP, "--help")
    assert done.returncode == 0, done.stderr
    assert all(re.search(rf"^    {name}\s", done.stdout, re.MULTILINE) for name in cli.COMMANDS)


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"tf-fast-rcnn {__version__}\n"


def test_tensorflow_adds_nothing_to_an_error(tmp_path):
    """In a new process: TensorFlow writes start-up messages to the file descriptor, which capsys does not see."""
    Image.new("RGB", (64, 48)).save(tmp_path / "image.png")
    done = in_a_process(PROGRAM, "detect", "nowhere", str(tmp_path / "image.png"), "--out", "drawings")
    assert done.returncode == 2
    assert done.stderr == (
        "tf-fast-rcnn: error: nowhere: found no run.json; expected a folder that `tf-fast-rcnn train` wrote; "
        "check the path\n"
    )
    assert " tensorflow " in done.stdout


def test_a_run_is_used_in_a_fresh_process_without_noise(prepared_digits, tiny_run, tmp_path):
    """In a new process that has not imported the modules with the saved model's layers."""
    record = prepared_digits[1][0]
    np.save(tmp_path / "boxes.npy", record.proposals())
    program = Path(sys.executable).with_name("tf-fast-rcnn")
    command = [
        program,
        "detect",
        tiny_run[0],
        record.image_path,
        "--proposals",
        "boxes.npy",
        "--score-threshold",
        "0.01",
    ]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [*map(str, command), "--json", "-"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    run = frcnn.load_run(tiny_run[0])
    settings = frcnn.detection_settings(run, score_threshold=0.01)
    expected = frcnn.detect(run.model, record.image_path, record.proposals(), settings)
    scores = [row["score"] for row in json.loads(done.stdout)[0]["detections"]]
    np.testing.assert_allclose(scores, expected.scores, atol=1e-5)


def test_another_keras_backend_is_one_clear_error():
    done = in_a_process(PROGRAM, "export", "nowhere", "--out", "x", KERAS_BACKEND="jax")
    assert done.returncode == 2
    assert done.stderr == "tf-fast-rcnn: error: KERAS_BACKEND: found 'jax'; expected 'tensorflow'; unset it\n"


def test_another_keras_backend_is_one_clear_error_in_python(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(frcnn.InputError, match=r"^KERAS_BACKEND: found 'jax'"):
        frcnn.fast_rcnn  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required: COMMAND; see tf-fast-rcnn --help"),
        ("fly", "argument COMMAND: invalid choice: 'fly'"),
        ("train --out run", "the following arguments are required: --train; see tf-fast-rcnn train --help"),
        ("train --train voc:x@y --out run --speed 3", "unrecognized arguments: --speed 3"),
        ("train --train voc:x@y --out run --steps 0", "--steps: found '0'; expected a whole number from 1;"),
        ("train --train voc:x@y --out run --steps ten", "--steps: found 'ten'; expected a whole number from 1;"),
        ("train --train voc:x@y --out run --learning-rate 0", "--learning-rate: found '0'; expected a number above 0;"),
        (
            "train --train voc:x@y --out run --learning-rate nan",
            "--learning-rate: found 'nan'; expected a number above 0;",
        ),
        (
            "train --train voc:x@y --out run --seed -1",
            "--seed: found '-1'; expected a whole number from 0 to 4294967295",
        ),
        ("train --train voc:x@y --out run --shorter-side 4.5", "--shorter-side: found '4.5'; expected a whole number"),
        ("train --train voc:x@y --out run --proposals grid", "--proposals: found 'grid'; expected dense, selective"),
        ("train --train voc:x@y --out run --workers 0", "--workers: found '0'; expected a whole number from 1;"),
        ("evaluate run --data voc:x@y --protocol voc12", "--protocol: invalid choice: 'voc12'"),
        (
            "detect run image.jpg --score-threshold 1.5",
            "--score-threshold: found '1.5'; expected a number from 0 to 1;",
        ),
        ("detect run image.jpg --draw-threshold -1", "--draw-threshold: found '-1'; expected a number from 0 to 1;"),
        ("detect run", "IMAGE and --data: found neither; expected one of them"),
        ("export run --out x --max-detections 0", "--max-detections: found '0'; expected a whole number from 1;"),
        (
            "export run --out x --nms-iou-threshold inf",
            "--nms-iou-threshold: found 'inf'; expected a number from 0 to 1;",
        ),
        ("export run --out x --format onnx", "--format: invalid choice: 'onnx'"),
        ("demo --images 1", "--images: found '1'; expected a whole number from 2;"),
    ],
)
def test_bad_options_give_one_line(capsys, arguments, message):
    assert cli.main(arguments.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err


def test_interruption(capsys, monkeypatch):
    from tf_fast_rcnn.commands import prepare

    def interrupted(options):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "run", interrupted)
    assert cli.main(["prepare", "voc:x@y", "--out", "z"]) == 130
    assert capsys.readouterr().err == "tf-fast-rcnn: interrupted\n"


def test_errors_of_the_system_give_one_line(capsys, monkeypatch):
    from tf_fast_rcnn.commands import prepare

    def full(options):
        raise OSError(28, "No space left on device", "prepared/x")

    monkeypatch.setattr(prepare, "run", full)
    assert cli.main(["prepare", "voc:x@y", "--out", "z"]) == 2
    assert capsys.readouterr().err == "tf-fast-rcnn: error: [Errno 28] No space left on device: 'prepared/x'\n"
