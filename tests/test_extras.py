"""Packages that only an extra installs: without them everything else works, and what needs them says so in one line."""

import pathlib
import re
import subprocess
import sys
import tomllib

import numpy as np
import pytest

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.data.proposals.selective_search import use_one_thread
from tf_fast_rcnn.demo.digits import generate_digits
from tf_fast_rcnn.inference.tflite import fit
from tf_fast_rcnn.tables.linear_svms import linear_svc

PROJECT = pathlib.Path(__file__).parent.parent
EXTRAS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
MODULE_OF = {
    "opencv-contrib-python-headless": "cv2",
    "scikit-learn": "sklearn",
    "tensorflow-datasets": "tensorflow_datasets",
}
IMAGE = np.zeros((32, 48, 3), np.uint8)


@pytest.mark.parametrize(
    ("module", "extra", "call"),
    [
        ("cv2", "opencv", lambda folder: frcnn.selective_search(IMAGE, implementation="opencv")),
        ("cv2", "tflite", lambda folder: fit(IMAGE, np.zeros((0, 4), np.float32), image_size=(64, 64))),
        ("tensorflow_datasets", "tfds", lambda folder: frcnn.load_dataset("tfds:voc/2007@train")),
        ("sklearn", "demo", lambda folder: generate_digits(folder / "digits")),
        ("sklearn", "tables", lambda folder: linear_svc()),
        ("av", "video", lambda folder: next(frcnn.read_video(folder / "a.mp4"))),
    ],
    ids=["selective search", "TF Lite", "tfds", "demo", "tables", "video"],
)
def test_what_needs_an_extra_says_so(module, extra, call, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # how Python notes that there is no such module
    with pytest.raises(frcnn.InputError, match=rf"found no package {module}.*'tf-fast-rcnn\[{extra}\]'$") as raised:
        call(tmp_path)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_workers_do_without_opencv(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    use_one_thread()


def test_the_extras_bring_what_their_messages_promise():
    brings = {extra: " ".join(EXTRAS[extra]) for extra in ("opencv", "tflite", "tfds", "demo", "tables", "benchmark")}
    assert "opencv-contrib-python-headless" in brings["opencv"]
    assert "[opencv]" in brings["tflite"]
    assert "tensorflow-datasets" in brings["tfds"]
    assert brings["demo"] == brings["tables"] == "scikit-learn"
    assert "[demo,opencv]" in brings["benchmark"]


def test_the_tests_have_all_extras_but_those_of_other_hardware():
    (ours,) = [line for line in EXTRAS["test"] if line.startswith("tf-fast-rcnn[")]
    assert set(re.findall(r"\w+", ours.removeprefix("tf-fast-rcnn"))) == set(EXTRAS) - {"gpu", "pytorch", "test"}


def test_without_extras_the_package_imports():
    """All modules but the server's and the benchmarks', in a process where no extra's module can be imported."""
    code = """
import importlib, pathlib, sys
for name in ("cv2", "sklearn", "tensorflow_datasets", "tensorflow_serving", "grpc", "grpc_health", "aiohttp",
             "prometheus_client", "ai_edge_litert", "ai_edge_quantizer", "onnx", "onnxruntime", "openvino", "torch",
             "av"):
    sys.modules[name] = None
import tf_fast_rcnn
root = pathlib.Path(tf_fast_rcnn.__file__).parent
for path in sorted(root.rglob("*.py")):
    parts = path.relative_to(root.parent).with_suffix("").parts
    if parts[1] not in ("serving", "benchmarks") and parts[-1] != "__init__":
        importlib.import_module(".".join(parts))
print(len(sys.modules["tf_fast_rcnn"].__all__))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-1500:]
    assert ran.stdout.strip() == str(len(frcnn.__all__))
