"""`tf-fast-rcnn benchmark`: what it prints for machines agrees with itself and with what was asked."""

import json

import numpy as np
import pytest

from tf_fast_rcnn.benchmarks.roi_pooling import random_rois
from tf_fast_rcnn.cli import main

CONTESTANTS = {"native", "native, bfloat16", "native with argmax", "native backward", "portable"}
PEERS = {"ONNX Runtime", "OpenVINO"}
FLOORS = {"write float32", "write float32 + int32", "write bfloat16", "read float32 + int32"}


def test_roi_pooling(tmp_path, capsys):
    path = tmp_path / "found.json"
    small = ["--rois", "3", "5", "--channels", "8", "--rounds", "2", "--threads", "1", "--json", str(path)]
    assert main(["benchmark", "roi-pooling", *small]) == 0
    printed = capsys.readouterr().out
    results = json.loads(path.read_text())
    assert [result["rois"] for result in results] == [3, 5]
    for result in results:
        assert set(result["milliseconds"]) == CONTESTANTS | PEERS | FLOORS
        assert result["missing"] == {}
        assert all(milliseconds > 0 for milliseconds in result["milliseconds"].values())
        assert all(result["times_floor"][floor] == 1 for floor in FLOORS)
        native = result["milliseconds"]["native"]
        assert result["times_floor"]["native"] == pytest.approx(native / result["milliseconds"]["write float32"])
        assert f"{result['rois']} RoIs" in printed
        assert f"{native:.1f}" in printed


def test_random_rois_lie_in_the_image():
    (rois,) = random_rois(100, np.random.default_rng(0))
    assert rois.shape == (100, 4)
    assert (rois >= 0).all()
    assert (rois <= [600, 1000, 600, 1000]).all()
    assert (rois[:, :2] < rois[:, 2:]).all()
