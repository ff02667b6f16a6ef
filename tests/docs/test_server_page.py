"""What docs/serving.md says of `tf-fast-rcnn serve` and of load: its defaults, its answer and its commands."""

import json
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest

from tf_fast_rcnn import cli
from tf_fast_rcnn.inference.signature import signature_detections
from tf_fast_rcnn.serving.server import ServerSettings

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "serving.md").read_text()


def test_defaults_of_limits():
    told = dict(re.findall(r"^\| `--([\w-]+)` \| ([^|]+) \| [^|]*(?:wait|503|413) ?[^|]*\|$", PAGE, re.MULTILINE))
    settings = ServerSettings()
    options = cli._parser(["serve", "models/cells"]).parse_args(["serve", "models/cells"])
    assert told == {
        "concurrency": "one per processor",
        "queue": str(settings.queue),
        "max-message-mb": str(settings.max_message_bytes >> 20),
    }
    assert (options.queue, options.max_message_mb) == (settings.queue, settings.max_message_bytes >> 20)


def test_the_gateways_answer():
    answer = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])
    (shown,) = answer.pop("detections")
    outputs = {"num_detections": [1], "detection_classes": [[2]], "detection_scores": [[0.98]]}
    outputs["detection_boxes"] = [[shown["box"]]]
    arrays = {name: np.array(values) for name, values in outputs.items()}
    [found] = signature_detections(arrays, ["RBC", "WBC"])
    (row,) = found.to_dicts()
    assert row | {"score": round(row["score"], 6), "box": [round(side, 6) for side in row["box"]]} == shown
    assert set(answer) == {"image", "proposals", "model_version", "seconds"}


@pytest.mark.parametrize(
    "line", re.findall(r"^    (?:python serving/load_test.py|tf-fast-rcnn benchmark) .*$", PAGE, re.M)
)
def test_commands(line, monkeypatch):
    program, *arguments = shlex.split(line)
    if program == "tf-fast-rcnn":
        assert cli._parser(arguments).parse_args(arguments).soak == 600
        return
    script = runpy.run_path(str(PROJECT / arguments[0]))
    seen = []
    monkeypatch.setitem(script["main"].__globals__, "load", lambda options: seen.append(options) or _nothing())
    with pytest.raises(KeyError):  # The numbers that `load` did not report.
        script["main"](arguments[1:])
    assert seen[0].model == "cells"


async def _nothing():
    return {}
