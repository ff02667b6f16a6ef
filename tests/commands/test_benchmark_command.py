"""`tf-fast-rcnn benchmark`: its JSON is consistent and matches the options."""

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
    small = ["--rois", "5", "--channels", "8", "--rounds", "2", "--threads", "1", "--json", str(path)]
    assert main(["benchmark", "roi-pooling", *small]) == 0
    printed = capsys.readouterr().out
    (result,) = json.loads(path.read_text())
    assert (result["rois"], result["threads"], result["channels"], result["missing"]) == (5, 1, 8, {})
    assert set(result["milliseconds"]) == CONTESTANTS | PEERS | FLOORS
    assert all(milliseconds > 0 for milliseconds in result["milliseconds"].values())
    assert all(result["times_floor"][floor] == 1 for floor in FLOORS)
    native = result["milliseconds"]["native"]
    assert result["times_floor"]["native"] == pytest.approx(native / result["milliseconds"]["write float32"])
    assert "5 RoIs" in printed
    assert f"{native:.1f}" in printed


def test_random_rois_lie_in_the_image():
    (rois,) = random_rois(100, np.random.default_rng(0))
    assert rois.shape == (100, 4)
    assert (rois >= 0).all()
    assert (rois <= [600, 1000, 600, 1000]).all()
    assert (rois[:, :2] < rois[:, 2:]).all()


@pytest.mark.slow  # times whole networks or peers
def test_sampling(digits, tmp_path, capsys):
    path, plot = tmp_path / "found.json", tmp_path / "speed.svg"
    options = ["--images", "1", "4", "--rois", "8", "--shorter-side", "64", "--at-once", "2", "--steps", "2"]
    outputs = ["--json", str(path), "--plot", str(plot)]
    assert main(["benchmark", "sampling", "--data", f"voc:{digits}@train", *options, *outputs]) == 0
    hierarchical, accumulated = json.loads(path.read_text())
    assert (hierarchical["images"], hierarchical["parts"]) == (1, 1)
    assert (accumulated["images"], accumulated["parts"]) == (4, 2)
    for result in (hierarchical, accumulated):
        assert result["rois_per_second"] == pytest.approx(8 / result["seconds"])
        assert 0.2 < result["memory_gb"] < 20
    printed = capsys.readouterr().out
    assert "gradients of 2 parts accumulated, 2 parts timed" in printed
    assert "RoIs per second" in plot.read_text()


def test_sampling_takes_divisors(digits, capsys):
    assert main(["benchmark", "sampling", "--data", f"voc:{digits}@train", "--images", "1", "3"]) == 2
    assert "--images: found 3; expected divisors of 128, the RoIs per mini-batch; change" in capsys.readouterr().err


@pytest.mark.slow  # times whole networks or peers
def test_proposals(digits, tmp_path, capsys):
    path, plot = tmp_path / "found.json", tmp_path / "growth.svg"
    options = ["--mode", "fast", "quality", "--images", "1", "--growth", "60", "120", "--plot", str(plot)]
    assert main(["benchmark", "proposals", "--data", f"voc:{digits}@train", *options, "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    for search, mode in zip(found["searches"], ("fast", "quality"), strict=True):
        assert (search["mode"], search["images"]) == (mode, 1)
        assert search["times_faster"] > 1
        for quality in search["quality"].values():
            assert 0 < quality["500"]["recall_0.7"] <= quality["500"]["recall_0.5"] <= 1
            assert quality["500"]["abo"] <= quality["2000"]["abo"] <= 1
    assert [row["pixels"] for row in found["growth"]] == sorted(row["pixels"] for row in found["growth"])
    printed = capsys.readouterr().out
    assert "times as fast with one thread" in printed
    assert "n log n" in plot.read_text()
