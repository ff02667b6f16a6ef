"""TF Lite files, run by interpreters in processes that do not import this package."""

import dataclasses
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from naive_detection import assert_same, naive_detections, some_image, some_proposals
from runtimes import run_tflite, tflite_detections, tflite_inputs

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import DetectionSettings, InputError, TFLiteDetector, detect, export_tflite
from tf_fast_rcnn.export.quantization import quantize_layers
from tf_fast_rcnn.inference.tflite import fit

CLASS_NAMES = ("cat", "dog", "ox")
SETTINGS = DetectionSettings(shorter_side=96, longer_side=144, max_detections=20)
IMAGE, PROPOSALS = some_image(90, 120), some_proposals(40)


@pytest.fixture(scope="module")
def any_size(tiny_model, tmp_path_factory):
    """A file for images of any size and any number of proposals."""
    path = tmp_path_factory.mktemp("tflite") / "any.tflite"
    export_tflite(tiny_model, path, class_names=CLASS_NAMES, settings=SETTINGS)
    return path


@pytest.fixture(scope="module")
def fixed(tiny_model, tmp_path_factory):
    """A file for images of 90x120 pixels and 50 proposals."""
    path = tmp_path_factory.mktemp("tflite") / "fixed.tflite"
    export_tflite(tiny_model, path, class_names=CLASS_NAMES, settings=SETTINGS, image_size=(90, 120), num_proposals=50)
    return path


@pytest.mark.parametrize("kind", ["litert", "tensorflow"])
def test_images_of_any_size_give_what_loops_give(any_size, tiny_model, tmp_path, kind):
    pairs = [(some_image(90, 120, 0), some_proposals(40, 0)), (some_image(130, 80, 1), some_proposals(7, 1))]
    for outputs, pair in zip(
        run_tflite(any_size, [tflite_inputs(*pair) for pair in pairs], tmp_path, kind), pairs, strict=True
    ):
        assert_same(tflite_detections(outputs), naive_detections(tiny_model, *pair, SETTINGS))


def test_shapes_and_what_fills_up(any_size, tmp_path):
    (outputs,) = run_tflite(any_size, [tflite_inputs(IMAGE, PROPOSALS[:0])], tmp_path)
    assert {name: (values.dtype, values.shape) for name, values in outputs.items()} == {
        "detection_boxes": (np.float32, (1, 20, 4)),
        "detection_scores": (np.float32, (1, 20)),
        "detection_classes": (np.int32, (1, 20)),
        "num_detections": (np.int32, (1,)),
    }
    assert not any(values.any() for values in outputs.values())


def test_rows_that_are_not_real_change_nothing(fixed, tiny_model, tmp_path):
    expected = naive_detections(tiny_model, IMAGE, PROPOSALS, SETTINGS)
    fills = [np.zeros((10, 4), np.float32), np.full((10, 4), np.nan, np.float32), np.repeat(PROPOSALS[:1], 10, 0)]
    calls = [tflite_inputs(IMAGE, np.concatenate([PROPOSALS, fill]), 40) for fill in fills]
    for outputs in run_tflite(fixed, calls, tmp_path):
        assert_same(tflite_detections(outputs), expected)


def test_counts_beyond_the_proposals_mean_all_or_none(any_size, tmp_path):
    calls = [tflite_inputs(IMAGE, PROPOSALS, count) for count in (40, 99, -1)]
    every, more, none = run_tflite(any_size, calls, tmp_path)
    np.testing.assert_array_equal(more["detection_scores"], every["detection_scores"])
    assert every["num_detections"] > 0
    assert none["num_detections"] == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"class_ids": (3,)},
        {"class_ids": (1, 3), "nms_iou_threshold": 0.1, "score_threshold": 0.4},
        {"box_refinement_steps": 2},
        {"scores": "sigmoid"},
        {"max_detections": 3},
    ],
    ids=str,
)
def test_settings_are_fixed_in_the_file(tiny_model, tmp_path, changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    export_tflite(tiny_model, tmp_path / "m.tflite", class_names=CLASS_NAMES, settings=settings)
    (outputs,) = run_tflite(tmp_path / "m.tflite", [tflite_inputs(IMAGE, PROPOSALS)], tmp_path)
    expected = detect(tiny_model, IMAGE, PROPOSALS, settings)
    assert len(expected.scores)
    assert_same(tflite_detections(outputs), expected)


def operators(path):
    """Names of the custom and of the built-in operators."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    codes = flatbuffer_utils.read_model(str(path)).operatorCodes
    return [code.customCode for code in codes if code.customCode], {names[code.builtinCode] for code in codes}


def test_all_operators_are_built_in(any_size, fixed):
    for path in (any_size, fixed):
        custom, built_in = operators(path)
        assert custom == []
        assert {"CONV_2D", "FULLY_CONNECTED", "NON_MAX_SUPPRESSION_V4", "GATHER"} <= built_in


def types_of_constants(path):
    details = tf.lite.Interpreter(str(path)).get_tensor_details()
    return {detail["name"]: (detail["dtype"], detail["shape"]) for detail in details}


def test_float16_halves_the_weights(tiny_model, tmp_path):
    path = tmp_path / "half.tflite"
    export_tflite(tiny_model, path, class_names=CLASS_NAMES, settings=SETTINGS, precision="float16")
    kernels = [dtype for dtype, shape in types_of_constants(path).values() if tuple(shape) == (8, 3, 3, 8)]
    assert np.float16 in kernels
    (outputs,) = run_tflite(path, [tflite_inputs(IMAGE, PROPOSALS)], tmp_path)
    expected = detect(tiny_model, IMAGE, PROPOSALS, SETTINGS)
    np.testing.assert_allclose(tflite_detections(outputs).scores[:5], expected.scores[:5], atol=2e-2)


def test_dynamic_range_keeps_weights_in_bytes(tiny_run, tmp_path):
    run = frcnn.load_run(tiny_run[0])
    sizes = {}
    for precision in ("float32", "dynamic"):
        path = tmp_path / f"{precision}.tflite"
        export_tflite(run.model, path, class_names=run.class_names, precision=precision)
        sizes[precision] = {
            name: dtype for name, (dtype, shape) in types_of_constants(path).items() if np.prod(shape) == 7 * 7 * 8 * 16
        }
    assert set(sizes["float32"].values()) == {np.float32}
    assert np.int8 in sizes["dynamic"].values()


@pytest.fixture(scope="module")
def int8(tiny_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("tflite") / "int8.tflite"
    calibration = [(some_image(90, 120, seed), some_proposals(40, seed)) for seed in range(4)]
    export_tflite(
        tiny_model, path, class_names=CLASS_NAMES, settings=SETTINGS, precision="int8", calibration=calibration
    )
    return path


def test_int8_leaves_rois_and_boxes_in_float(int8):
    details = types_of_constants(int8)
    whole = [name for name, (dtype, _) in details.items() if dtype == np.int8]
    assert any("conv2" in name for name in whole)
    assert any("fc6" in name for name in whole)
    assert not [name for name in whole if not name.startswith(("convolve", "classify"))]
    assert details["serving_default_proposals:0"][0] == np.float32


def test_int8_detects_nearly_the_same(int8, tiny_model, tmp_path):
    image, proposals = some_image(90, 120, 9), some_proposals(40, 9)
    (outputs,) = run_tflite(int8, [tflite_inputs(image, proposals)], tmp_path)
    found, expected = tflite_detections(outputs), detect(tiny_model, image, proposals, SETTINGS)
    np.testing.assert_allclose(found.scores[:5], expected.scores[:5], atol=0.05)


def test_a_channel_without_weights_keeps_its_bias(tmp_path):
    """Batch normalisation may disable a channel; the scale of its quantised bias is then almost zero."""
    inputs_ = keras.Input((8, 8, 3), batch_size=1)
    convolution = keras.layers.Conv2D(4, 1, name="convolution")
    model = keras.Model(inputs_, convolution(inputs_), name="convolve")
    kernel = np.random.default_rng(0).normal(size=(1, 1, 3, 4)).astype(np.float32)
    kernel[..., 2] = 1e-20
    convolution.set_weights([kernel, np.float32([0.5, -1.0, 3.0, 0.0])])
    function = tf.function(
        lambda images: {"features": tf.transpose(model(images))}, input_signature=[tf.TensorSpec([1, 8, 8, 3])]
    )
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    data = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module).convert()
    image = np.random.default_rng(1).uniform(0, 1, (1, 8, 8, 3)).astype(np.float32)
    run = tf.lite.Interpreter(model_content=quantize_layers(data, [{"images": image}])).get_signature_runner()
    expected = image @ kernel[0, 0] + [0.5, -1, 3, 0]
    np.testing.assert_allclose(run(images=image)["features"], expected.T, atol=0.05)


def test_an_image_of_another_size_is_put_on_grey():
    image = np.full((20, 40, 3), 200, np.uint8)
    proposals = np.float32([[0, 0, 1, 1], [0.5, 0.25, 1, 0.5]])
    found, window = fit(image, proposals, (30, 30), 4)
    assert found["images"].shape == (1, 30, 30, 3)
    assert np.all(found["images"][0, :15] == 200)
    assert np.all(found["images"][0, 15:] == 114)
    assert window == (0.5, 1.0)
    np.testing.assert_allclose(found["proposals"][0], [[0, 0, 0.5, 1], [0.25, 0.25, 0.5, 0.5], [0] * 4, [0] * 4])
    assert found["num_proposals"].tolist() == [2]


def test_detections_in_an_image_of_another_size_are_relative_to_it(fixed, tiny_model):
    # Twice as wide as the images of the file: its upper 30 rows are scaled to 15, and grey padding follows.
    image = np.zeros((90, 240, 3), np.uint8)
    image[:, :120] = IMAGE
    canvas = np.full((90, 120, 3), 114, np.uint8)
    canvas[:45] = np.asarray(tf.cast(tf.round(tf.image.resize(image, (45, 120))), tf.uint8))
    shrunk = PROPOSALS * np.float32([0.5, 1, 0.5, 1])
    expected = detect(tiny_model, canvas, shrunk, SETTINGS)
    found = TFLiteDetector(fixed).detect(image, PROPOSALS)
    np.testing.assert_allclose(found.scores, expected.scores, atol=0.02)
    best = np.clip(expected.boxes[0] * np.float32([2, 1, 2, 1]), 0, 1)
    np.testing.assert_allclose(found.boxes[0], best, atol=0.02)


def test_the_file_tells_its_classes_and_proposals(tiny_run, tmp_path):
    run = frcnn.load_run(tiny_run[0])
    path = tmp_path / "m.tflite"
    export_tflite(run.model, path, class_names=run.class_names, proposals=run.proposals, num_proposals=9)
    with zipfile.ZipFile(path) as archive:
        assert archive.read("labels.txt").decode().split() == list(run.class_names)
    detector = TFLiteDetector(path, threads=1)
    assert detector.class_names == tuple(run.class_names)
    assert detector.proposals == run.proposals
    assert detector.metadata["num_proposals"] == 9
    with pytest.raises(InputError, match=r"m.tflite: proposals: found 40 for an image; expected at most 9, the limit"):
        detector.detect(IMAGE, PROPOSALS)


REFUSED = {
    "two names": ({"class_names": ("a", "b")}, "class_names: found 2; expected the model's 3"),
    "half": ({"precision": "half"}, "precision: found 'half'; expected one of float32, float16, dynamic, int8"),
    "pyramid": ({"settings": DetectionSettings((480, 600))}, "shorter_side: found several; expected one"),
    "bfloat16": ({"settings": DetectionSettings(dtype="bfloat16")}, "dtype: found bfloat16; expected float32"),
    "no images": ({"precision": "int8"}, "calibration: found no images; expected a few dozen"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_what_a_file_cannot_be(tiny_model, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        export_tflite(tiny_model, tmp_path / "m.tflite", **{"class_names": CLASS_NAMES, "settings": SETTINGS} | changes)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_tflite_has_no_op_for(detector_with_igamma, tmp_path):
    with pytest.raises(InputError, match=r"TF Lite: found a model that cannot be converted .*; expected layers"):
        export_tflite(detector_with_igamma, tmp_path / "m.tflite", class_names=CLASS_NAMES, settings=SETTINGS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"TFL3 and no archive"], ids=["missing", "empty", "no archive"])
def test_a_file_of_another_kind(tmp_path, content):
    path = tmp_path / "other.tflite"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"other.tflite: (found no|no such file).*; expected a TF Lite file that `export"
    ):
        TFLiteDetector(path)
