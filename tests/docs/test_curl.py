"""The curl commands of README and docs/serving.md, with an image whose request is longer than an argument may be."""

import base64
import contextlib
import json
import re
import subprocess
from pathlib import Path

import pytest
import tensorflow as tf

PROJECT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/serving.md")
COMMANDS = [
    command
    for page in PAGES
    for command in re.findall(r"^    \{ echo .*(?:\n    .+)*curl.*$", (PROJECT / page).read_text(), re.MULTILINE)
]
IMAGE = bytes(range(256)) * 800  # 273 kB in base64; Linux takes arguments of up to 128 kB.


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """The REST port of a server with a model that returns the images that it was sent."""
    from servers import served

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")], autograph=False)
    def detect_image_bytes(image_bytes):
        return {"sent_bytes": tf.identity(image_bytes), "rows": tf.ones_like(tf.strings.length(image_bytes))}

    specs = [
        tf.TensorSpec([None], tf.string, "image_bytes"),
        tf.TensorSpec([None, None, 4], tf.float32, "proposals"),
        tf.TensorSpec([None], tf.int32, "num_proposals"),
    ]

    @tf.function(input_signature=specs, autograph=False)
    def serving_default(image_bytes, proposals, num_proposals):
        del proposals
        return {"sent_bytes": tf.identity(image_bytes), "rows": tf.identity(num_proposals)}

    folder = tmp_path_factory.mktemp("models") / "cells"
    signatures = {"serving_default": serving_default, "detect_image_bytes": detect_image_bytes}
    tf.saved_model.save(tf.Module(), str(folder / "1"), signatures=signatures)
    with served("cells", folder) as server:
        yield server.ports["rest"]


def test_commands_were_found():
    assert len(COMMANDS) == 3
    for page in PAGES:
        assert "$(base64" not in (PROJECT / page).read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_commands(command, port, tmp_path):
    (tmp_path / "cell.jpg").write_bytes(IMAGE)
    done = subprocess.run(
        ["bash", "-c", re.sub(r"http://(?:localhost|127\.0\.0\.1):8501", f"http://127.0.0.1:{port}", command)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    with contextlib.suppress(KeyError):
        (row,) = answer["predictions"]
        assert (base64.b64decode(row["sent_bytes"]["b64"]), row["rows"]) == (IMAGE, 2)
        return
    (sent,), rows = (answer["outputs"][name] for name in ("sent_bytes", "rows"))
    assert (base64.b64decode(sent["b64"]), rows) == (IMAGE, [1])
