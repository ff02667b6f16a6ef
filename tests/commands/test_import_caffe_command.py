"""`tf-fast-rcnn import-caffe` and docs/caffe.md, on networks with a sixteenth of the channels."""

import functools
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from caffe_files import write
from caffe_numpy import SHRINK, random_layer, random_weights
from PIL import Image

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.commands.import_caffe import NETWORKS
from tf_fast_rcnn.models.backbones.caffe import CAFFE_NETWORKS
from tf_fast_rcnn.training.recipes import VOC_CLASSES

PAGE = (Path(__file__).parents[2] / "docs" / "caffe.md").read_text()


@pytest.fixture(autouse=True)
def small_networks(monkeypatch):
    for name, constructor in list(CAFFE_NETWORKS.items()):
        monkeypatch.setitem(CAFFE_NETWORKS, name, functools.partial(constructor, width=1 / SHRINK))


def write_detector(path, name="caffenet", classes=20, **more):
    weights, rng = random_weights(name), np.random.default_rng(2)
    units = weights.pop("fc8")[0].shape[1]
    weights["cls_score"] = random_layer(rng, (classes + 1, units))
    weights["bbox_pred"] = [0.1 * part for part in random_layer(rng, (4 * (classes + 1), units))]
    return write(path, {**weights, **more})


@pytest.fixture
def detector(tmp_path):
    return write_detector(tmp_path / "detector.caffemodel")


@pytest.fixture
def image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "000004.png")
    return tmp_path / "000004.png"


def test_the_command_knows_all_networks():
    assert set(CAFFE_NETWORKS) == set(NETWORKS)


def test_a_detector_becomes_a_run_that_detects_and_exports(command, detector, image, tmp_path):
    out = tmp_path / "runs" / "original"
    done = command("import-caffe", detector, "--network", "caffenet", "--out", out)
    assert done.code == 0, done.err
    assert done.out.startswith(f"{out}: caffenet detector with 20 classes: aeroplane, bicycle,")
    run = frcnn.load_run(out)
    assert run.class_names == VOC_CLASSES
    assert (run.shorter_side, run.longer_side) == (600, 1000)
    expected = frcnn.load_caffe_detector(detector, "caffenet")
    inputs = {"images": np.ones((1, 64, 64, 3), "f4"), "rois": np.float32([[[0, 0, 40, 50]]])}
    np.testing.assert_allclose(run.model(inputs)["class_logits"], expected(inputs)["class_logits"], rtol=1e-5)

    np.save(tmp_path / "boxes.npy", np.float32([[0.1, 0.1, 0.6, 0.7], [0, 0, 1, 1]]))
    for proposals in ((), ("--proposals", tmp_path / "boxes.npy")):
        done = command("detect", out, image, *proposals, "--score-threshold", 0, "--json", "-")
        assert done.code == 0, done.err
        detections = json.loads(done.out)[0]["detections"]
        assert {found["class"] for found in detections} <= set(VOC_CLASSES)
        assert detections
    assert command("export", out, "--out", tmp_path / "1").code == 0
    assert "serving_default" in tf.saved_model.load(str(tmp_path / "1")).signatures


def test_an_imported_run_is_evaluated(command, digits, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("".join(f"{digit}\n" for digit in range(10)))
    path = write_detector(tmp_path / "digits.caffemodel", "vgg_cnn_m_1024", classes=10)
    done = command(
        *("import-caffe", path, "--network", "vgg_cnn_m_1024", "--class-names", names, "--out", tmp_path / "run")
    )
    assert done.code == 0, done.err
    done = command("evaluate", tmp_path / "run", "--data", f"voc:{digits}@test", "--json", "-")
    assert done.code == 0, done.err
    assert 0 <= json.loads(done.out)["mean_ap"] < 0.2


def test_skipped_layers_are_named(command, tmp_path):
    extra = {"rpn_conv/3x3": random_layer(np.random.default_rng(0), (2, 2, 3, 3))}
    path = write_detector(tmp_path / "faster.caffemodel", **extra)
    done = command("import-caffe", path, "--network", "caffenet", "--out", tmp_path / "run", "--json", "-")
    assert json.loads(done.out)["unread_layers"] == ["rpn_conv/3x3"]
    done = command("import-caffe", path, "--network", "caffenet", "--out", tmp_path / "run2")
    assert "skipped layers that are not part of Fast R-CNN: rpn_conv/3x3\n" in done.out


def test_an_imagenet_network_becomes_a_weights_file(command, refused, tmp_path):
    weights = random_weights("caffe_vgg16")
    path = write(tmp_path / "VGG16.v2.caffemodel", weights)
    to_network = ("import-caffe", path, "--network", "caffe_vgg16", "--out")
    assert "this is an ImageNet network, which is imported into a .weights.h5 file; pass --out" in refused(
        *to_network, tmp_path / "a"
    )
    assert "--class-names is only used with a trained detector, but" in refused(
        *to_network, tmp_path / "a.weights.h5", "--class-names", "voc"
    )
    out = tmp_path / "weights" / "vgg.weights.h5"
    done = command(*to_network, out)
    assert done.code == 0, done.err
    assert done.out.endswith(f"tf-fast-rcnn train --backbone caffe_vgg16 --weights {out}\n")
    assert [file.name for file in out.parent.iterdir()] == ["vgg.weights.h5"]
    for source in (out, path):
        convolutions = frcnn.fast_rcnn("caffe_vgg16", 2, weights=source).get_layer("convolutions")
        kernel = convolutions.get_layer("conv3_2").kernel.numpy()
        np.testing.assert_array_equal(kernel, weights["conv3_2"][0].transpose(2, 3, 1, 0))


def test_bad_input_is_one_line(refused, detector, tmp_path):
    to_run = ("--network", "caffenet", "--out", tmp_path / "run")
    assert "none.caffemodel: found No such file" in refused("import-caffe", tmp_path / "none.caffemodel", *to_run)
    (tmp_path / "cut.caffemodel").write_bytes(detector.read_bytes()[:-5000])
    line = refused("import-caffe", tmp_path / "cut.caffemodel", *to_run)
    assert "cut.caffemodel: found" in line
    assert "expected a complete .caffemodel" in line
    line = refused("import-caffe", detector, "--network", "caffe_vgg16", "--out", tmp_path / "run")
    assert "detector.caffemodel: found no layer conv1_1 among conv1, conv2" in line
    assert "invalid choice: 'vgg16'" in refused("import-caffe", detector, "--network", "vgg16", "--out", tmp_path)
    assert "expected a new one; choose another --out" in refused(
        "import-caffe", detector, "--network", "caffenet", "--out", tmp_path
    )
    assert "this is a trained detector, which is imported into a new folder" in refused(
        "import-caffe", detector, "--network", "caffenet", "--out", tmp_path / "a.weights.h5"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"cat\ndog\n", r"names\.txt: found 2 class names for a network of 20 classes; expected one for each"),
        (b"cat\n" * 20, r"names\.txt: found a class name twice"),
        (b"\xff\xfe\x00", r"names\.txt: not valid UTF-8 text; expected one class name per line"),
        (None, r"No such file or directory: '.*names\.txt'"),
    ],
)
def test_bad_class_names(refused, detector, tmp_path, text, message):
    if text is not None:
        (tmp_path / "names.txt").write_bytes(text)
    to_run = ("--network", "caffenet", "--class-names", tmp_path / "names.txt", "--out", tmp_path / "run")
    assert re.search(message, refused("import-caffe", detector, *to_run))
    assert not (tmp_path / "run").exists()


def test_other_numbers_of_classes_need_names(refused, tmp_path):
    path = write_detector(tmp_path / "coco.caffemodel", classes=80)
    line = refused("import-caffe", path, "--network", "caffenet", "--out", tmp_path / "run")
    assert "--class-names: found 20 class names for a network of 80 classes" in line


def test_the_pages_commands_and_python_run(command, digits, image, tmp_path, monkeypatch):
    """Runs every command of docs/caffe.md on small files with the names used there; training takes two steps."""
    monkeypatch.chdir(tmp_path)
    write_detector(tmp_path / "vgg16_fast_rcnn_iter_40000.caffemodel", "caffe_vgg16")
    write(tmp_path / "VGG16.v2.caffemodel", random_weights("caffe_vgg16"))
    Image.open(image).save("000004.jpg")
    shutil.copytree(digits, "VOC2007")
    shutil.copy("VOC2007/ImageSets/Main/train.txt", "VOC2007/ImageSets/Main/trainval.txt")
    commands = re.findall(r"^    tf-fast-rcnn (.*)$", PAGE, flags=re.MULTILINE)
    assert len(commands) >= 4
    for line in commands:
        words = shlex.split(line.split("#")[0])
        if words[0] == "train":
            words += ["--steps", "2", "--shorter-side", "96", "--longer-side", "144", "--proposals", "dense"]
        if words[0] == "evaluate":
            continue  # the digits do not have VOC's classes; see test_an_imported_run_is_evaluated
        done = command(*words)
        assert done.code == 0, done.err
    for code in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(code, {})
