"""The client against the embedded server, with a model that finds proposals itself."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from naive_detection import some_image
from servers import served

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.data.images import encode_png
from tf_fast_rcnn.data.proposals import DenseBoxes, ProposalSettings, compute_proposals

SERVING = Path(__file__).parents[2] / "serving"
SETTINGS = frcnn.DetectionSettings(shorter_side=96, longer_side=144, max_detections=20)
GRID = ProposalSettings(dense=DenseBoxes(((0.3, 0.3), (0.6, 0.4)), 0.5), min_size=0.2)
IMAGES = [some_image(90, 120, 0), some_image(130, 80, 1)]


@pytest.fixture(scope="module")
def model_folder(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "cells"
    options = {"class_names": ("cat", "dog", "öx"), "settings": SETTINGS, "class_names_output": True}
    frcnn.export_saved_model(
        tiny_model, folder / "1", proposals=GRID, training={"run": {"proposals": GRID.to_json()}}, **options
    )
    return folder


@pytest.fixture(scope="module")
def ports(model_folder):
    with served("cells", model_folder) as server:
        yield server.ports


def run_client(folder, *options):
    """What client.py prints about the images, in a process of its own."""
    paths = [folder / f"{index}.png" for index in range(len(IMAGES))]
    for path, image in zip(paths, IMAGES, strict=True):
        path.write_bytes(encode_png(image))
    command = [sys.executable, SERVING / "client.py", *paths, "--model", "cells", "--json", *options]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("own_proposals", [False, True])
@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_the_client_gets_what_detect_finds(ports, model_folder, tiny_model, tmp_path, protocol, own_proposals):
    address = f"127.0.0.1:{ports[protocol]}"
    options = [f"--{protocol}", address if protocol == "grpc" else f"http://{address}"]
    if own_proposals:
        options += ["--proposals", model_folder / "1" / "assets" / "metadata.json"]
    for image, result in zip(IMAGES, run_client(tmp_path, *options), strict=True):
        rows = result["detections"]
        expected = frcnn.detect(tiny_model, image, compute_proposals(image, GRID), SETTINGS)
        assert len(rows) == len(expected.scores) > 3
        np.testing.assert_allclose([row["score"] for row in rows], expected.scores, atol=1e-4)
        np.testing.assert_allclose([row["box"] for row in rows], expected.boxes, atol=1e-4)
        assert [row["class"] for row in rows] == [("cat", "dog", "öx")[label - 1] for label in expected.class_ids]


def test_refusals_arrive(ports, tmp_path):
    np.save(tmp_path / "boxes.npy", np.full((1, 4), np.nan, np.float32))
    (tmp_path / "image.png").write_bytes(encode_png(IMAGES[0]))
    command = [sys.executable, str(SERVING / "client.py"), str(tmp_path / "image.png"), "--model", "cells"]
    options = ["--grpc", f"127.0.0.1:{ports['grpc']}", "--proposals", str(tmp_path / "boxes.npy")]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "INVALID_ARGUMENT" in done.stderr
