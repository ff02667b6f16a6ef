"""`tf-fast-rcnn benchmark training` and `benchmark detection`: all rows are present, and the ratios match them."""

import json

import pytest

from tf_fast_rcnn.cli import main

SMALL = ["--network", "efficientnet_lite0", "--dtype", "float32", "--shorter-side", "64", "--rounds", "1"]
TRAINING_PARTS = {"convolutions", "RoI pooling", "fully connected", "backward", "update"}
DETECTION_PARTS = {"decode and resize", "convolutions", "RoI pooling", "fc6", "fc7", "predictor layers", "NMS"}


@pytest.fixture
def without_pytorch(tmp_path, monkeypatch):
    """Importing PyTorch fails in processes that this one starts."""
    package = tmp_path / "path" / "torch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('no PyTorch here')\n")
    monkeypatch.syspath_prepend(package.parent)


@pytest.mark.slow  # times whole networks or peers
def test_training_against_pytorch(tmp_path, capsys):
    pytest.importorskip("torch", reason="PyTorch, which the benchmarks compare with, is the extra 'pytorch'")
    path, plot = tmp_path / "found.json", tmp_path / "parts.svg"
    assert main(["benchmark", "training", *SMALL, "--json", str(path), "--plot", str(plot)]) == 0
    (result,) = json.loads(path.read_text())
    assert (result["network"], result["image"], result["threads"]) == ("efficientnet_lite0", [64, 85], 2)
    contestants = {"ours, float32", "PyTorch, float32"}
    assert set(result["seconds"]) == set(result["parts"]) == set(result["memory_gb"]) == contestants
    assert set(result["parts"]["ours, float32"]) == TRAINING_PARTS
    assert set(result["parts"]["PyTorch, float32"]) == TRAINING_PARTS - {"RoI pooling"}
    assert result["seconds"]["PyTorch, float32"] == pytest.approx(sum(result["parts"]["PyTorch, float32"].values()))
    # Gradients and momentum alone take 8 bytes for each of 6.8 million trained weights.
    assert all(0.05 < memory < 2 for memory in result["memory_gb"].values())
    printed = capsys.readouterr().out
    times = result["seconds"]["PyTorch, float32"] / result["seconds"]["ours, float32"]
    assert f"float32: {times:.2f} times as fast as PyTorch" in printed
    assert "efficientnet_lite0, a training step" in plot.read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("without_pytorch")
def test_detection_without_one_peer(tmp_path, capsys):
    path, plot = tmp_path / "found.json", tmp_path / "parts.svg"
    outputs = ["--json", str(path), "--plot", str(plot)]
    assert main(["benchmark", "detection", *SMALL, "--proposals", "5", "9", *outputs]) == 0
    (result,) = json.loads(path.read_text())
    assert (result["network"], result["dtype"], result["image"]) == ("efficientnet_lite0", "float32", [64, 85])
    assert result["missing"] == {"PyTorch": "no PyTorch here"}
    rows = {(row["contestant"], row["proposals"]): row for row in result["rows"]}
    assert set(rows) == {(name, number) for name in ("ours", "ours, SVD", "OpenVINO") for number in (5, 9)}
    assert set(rows["ours", 5]["parts"]) == set(rows["ours, SVD", 9]["parts"]) == DETECTION_PARTS
    peer = rows["OpenVINO", 9]
    assert set(peer["parts"]) == {"convolutions", "fc6", "fc7", "predictor layers"}
    assert peer["total"] == pytest.approx(sum(peer["parts"].values()))
    printed = capsys.readouterr().out
    assert "PyTorch skipped: no PyTorch here; install it with pip install '.[pytorch]'" in printed
    ours = rows["ours", 9]
    share = sum(ours["parts"][name] for name in peer["parts"]) / sum(ours["parts"].values())
    assert f"{1 - share:.3g} (9)" in printed
    assert result["ratios"]["9"]["detect: times the bare network"] == pytest.approx(ours["total"] / ours["bare"])
    assert "efficientnet_lite0, float32, 9 proposals" in plot.read_text()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("training", ["--network", "vgg61"], "backbone: found 'vgg61'; expected one of"),
        ("training", ["--dtype", "float16"], "invalid choice: 'float16'"),
        ("detection", ["--shorter-side", "8"], "found '8'; expected a whole number from 32"),
        ("detection", ["--proposals", "0"], "found '0'; expected a whole number from 1"),
    ],
)
def test_bad_input_gets_one_line(name, options, message, capsys):
    try:
        status = main(["benchmark", name, *options])
    except SystemExit as stopped:
        status = stopped.code
    error = capsys.readouterr().err
    assert status == 2
    assert message in error
    assert "Traceback" not in error
