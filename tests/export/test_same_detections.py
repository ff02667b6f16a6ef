"""One model as a Keras model, a SavedModel, TF Lite files and a TensorFlow.js model: the same detections."""

import dataclasses

import keras
import numpy as np
import pytest
from naive_detection import assert_same, naive_detections, some_image, some_proposals
from runtimes import node_detections, run_in_node, run_tflite, tflite_detections, tflite_inputs
from served import assert_same_detections, detections_in, encoded, run_saved_model

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import DetectionSettings, detect, export_saved_model, export_tfjs, export_tflite
from tf_fast_rcnn.boxes import BoxStatistics

CLASS_NAMES = ("cat", "dog", "ox")


def by_saved_model(model, settings, pairs, folder):
    export_saved_model(model, folder / "saved", class_names=CLASS_NAMES, settings=settings)
    calls = [
        (
            "serving_default",
            {"image_bytes": [encoded(image, "PNG")], "proposals": rows[None], "num_proposals": [len(rows)]},
        )
        for image, rows in pairs
    ]
    return [detections_in(found, 0) for found in run_saved_model(folder / "saved", calls, folder)["outputs"]]


def by_tflite(model, settings, pairs, folder, **options):
    export_tflite(model, folder / "m.tflite", class_names=CLASS_NAMES, settings=settings, **options)
    calls = [tflite_inputs(*pair) for pair in pairs]
    return [tflite_detections(outputs) for outputs in run_tflite(folder / "m.tflite", calls, folder)]


def by_tfjs(model, settings, pairs, folder, example, backend):
    if not (folder / "js").exists():
        export_tfjs(model, folder / "js", class_names=CLASS_NAMES, settings=settings)
    found = run_in_node(example, backend, folder / "js", pairs, folder)
    return [node_detections(each["detections"], CLASS_NAMES) for each in found]


# --- ties, overlaps equal to the threshold, boxes without area --------------------------------------------------------


@pytest.fixture(scope="module")
def model_with_ties():
    """A detector whose scores have four levels, those of the first pixel of each cell, and whose boxes keep to the grid
    of the proposals: class 1 has the proposals, class 2 the boxes to their right, of the same size, and class 3 those
    higher by half their height. Classes 1 and 2 have the same scores."""
    network = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            keras.layers.Conv2D(1, 8, 8, use_bias=False, name="first_pixel"),
            keras.layers.GlobalAveragePooling2D(name="pooling"),
            keras.layers.Dense(2, name="predictions"),
        ]
    )
    kernel = np.zeros((8, 8, 3, 1), np.float32)
    kernel[0, 0, 0] = 1.0
    network.get_layer("first_pixel").set_weights([kernel])
    statistics = BoxStatistics(np.zeros((3, 4), np.float32), np.ones((3, 4), np.float32))
    model = frcnn.fast_rcnn(
        network, 3, stride=8, roi_output_size=(1, 1), fc_units=(1,), dropout=0.0, box_statistics=statistics
    )
    model.get_layer("fc6").set_weights([np.ones((1, 1), np.float32), np.zeros(1, np.float32)])
    model.get_layer("class_logits").set_weights([np.float32([[0, 1, 1, 0.5]]), np.zeros(4, np.float32)])
    kernel, _ = model.get_layer("box_regression").get_weights()
    shifts = np.float32([[0, 0, 0, 0], [0, 1, 0, 0], [-0.5, 0, 0, 0]])
    model.get_layer("box_regression").set_weights([0 * kernel, shifts.ravel()])
    return model


def image_and_rows(seed, number=40):
    """An image of 8 x 8 cells, and proposals whose corners are corners of cells; several lie at the right edge."""
    rng = np.random.default_rng(seed)
    image = np.repeat(rng.integers(0, 4, (64, 64, 1), np.uint8), 3, axis=2)
    corner = rng.integers(0, 7, (number, 2))
    far = np.minimum(corner + rng.integers(1, 5, (number, 2)), 8)
    return image, (np.concatenate([corner, far], axis=1) / 8).astype(np.float32)


PAIRS = [image_and_rows(seed) for seed in range(6)]
TIED = DetectionSettings(shorter_side=64, longer_side=64, max_detections=60)


SLOW = (
    {"nms_iou_threshold": 0.0},
    {"nms_iou_threshold": 1 / 3},
    {"box_voting": True},
    {"nms": "soft"},
    {"nms": "across-classes", "nms_iou_threshold": 1.0, "class_ids": (1, 3)},
    {"nms": "soft", "soft_nms_sigma": 0.1, "class_ids": (2, 3), "max_detections": 7},
)
CHANGES = (
    {"nms_iou_threshold": 0.5},
    {"nms_iou_threshold": 1.0},
    {"nms": "across-classes", "nms_iou_threshold": 0.5},
    {"nms": "soft", "box_voting": True},
    *(pytest.param(changes, marks=pytest.mark.slow) for changes in SLOW),
)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_every_runtime_keeps_the_same_of_ties(model_with_ties, example, tmp_path, changes):
    settings = dataclasses.replace(TIED, **changes)
    expected = [detect(model_with_ties, *pair, settings) for pair in PAIRS]
    for found, pair in zip(expected, PAIRS, strict=True):
        assert_same(found, naive_detections(model_with_ties, *pair, settings))
        # Many scores are tied, within a class and between classes; of scores that soft-NMS has lowered, still some.
        share = 1.0 if settings.nms == "soft" else 0.5
        assert len(np.unique(found.scores.round(5))) < len(found.scores) * share
        assert np.all(found.boxes[:, 3] > found.boxes[:, 1])
    for runtime in (
        by_saved_model(model_with_ties, settings, PAIRS, tmp_path),
        by_tflite(model_with_ties, settings, PAIRS, tmp_path),
        by_tfjs(model_with_ties, settings, PAIRS, tmp_path, example, "cpu"),
        by_tfjs(model_with_ties, settings, PAIRS, tmp_path, example, "wasm"),
    ):
        for found, other in zip(runtime, expected, strict=True):
            assert_same_detections(found, other, 1e-6)


# --- the network of the recipe small-data -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_of_small_data(tiny_backbone):
    """The network that the recipe makes (several strides, lateral convolutions, surroundings) of a small backbone."""
    recipe = frcnn.recipe("small-data", {"network.stride": (4, 8), "network.lateral_channels": 6})
    options = {name: getattr(recipe.network, name) for name in ("stride", "lateral_channels", "context", "dropout")}
    assert options["context"] > 1
    model = frcnn.fast_rcnn(tiny_backbone, 3, roi_output_size=(3, 3), fc_units=(16, 16), seed=5, **options)
    # The predictor layers start so small that all RoIs would look alike.
    for name, spread in (("class_logits", 0.3), ("box_regression", 0.3)):
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([kernel / kernel.std() * spread, bias])
    return model


SMALL = DetectionSettings(shorter_side=96, longer_side=144, max_detections=40, nms_iou_threshold=0.4)
PICTURES = [(some_image(90, 120, 0), some_proposals(40, 0)), (some_image(130, 80, 1), some_proposals(25, 1))]


@pytest.fixture(scope="module")
def expected_of_small_data(model_of_small_data):
    expected = [detect(model_of_small_data, *pair, SMALL) for pair in PICTURES]
    for found, pair in zip(expected, PICTURES, strict=True):
        assert {*found.class_ids} == {1, 2, 3}
        assert_same(found, naive_detections(model_of_small_data, *pair, SMALL))
    return expected


def test_the_network_of_small_data_as_a_saved_model(model_of_small_data, expected_of_small_data, tmp_path):
    for found, other in zip(
        by_saved_model(model_of_small_data, SMALL, PICTURES, tmp_path), expected_of_small_data, strict=True
    ):
        assert_same_detections(found, other)


@pytest.mark.parametrize("options", [{}, {"image_size": (90, 120), "num_proposals": 40}], ids=["any size", "fixed"])
def test_the_network_of_small_data_as_tflite(model_of_small_data, expected_of_small_data, tmp_path, options):
    pairs = PICTURES[:1] if options else PICTURES
    for found, other in zip(
        by_tflite(model_of_small_data, SMALL, pairs, tmp_path, **options), expected_of_small_data, strict=False
    ):
        assert_same_detections(found, other)


@pytest.mark.parametrize("backend", ["cpu", "wasm"])
def test_the_network_of_small_data_in_javascript(
    model_of_small_data, expected_of_small_data, example, tmp_path, backend
):
    for found, other in zip(
        by_tfjs(model_of_small_data, SMALL, PICTURES, tmp_path, example, backend), expected_of_small_data, strict=True
    ):
        assert_same_detections(found, other)


def test_the_network_of_small_data_in_8_bits(model_of_small_data, tmp_path):
    """Each proposal alone, without suppression: which of two nearly equal scores is higher does not matter."""
    settings = dataclasses.replace(SMALL, score_threshold=0.0, nms_iou_threshold=1.0, max_detections=3)
    image, rows = PICTURES[0]
    pairs = [(image, rows[index : index + 1]) for index in range(12)]
    calibration = [(some_image(90, 120, seed), some_proposals(40, seed)) for seed in range(4)]
    found = by_tflite(model_of_small_data, settings, pairs, tmp_path, precision="int8", calibration=calibration)
    for each, pair in zip(found, pairs, strict=True):
        other = detect(model_of_small_data, *pair, settings)
        mine, theirs = np.argsort(each.class_ids), np.argsort(other.class_ids)
        np.testing.assert_array_equal(each.class_ids[mine], other.class_ids[theirs])
        np.testing.assert_allclose(each.scores[mine], other.scores[theirs], atol=0.02)
        np.testing.assert_allclose(each.boxes[mine], other.boxes[theirs], atol=0.01)
