"""The steps of detection around the network, compared with naive loops: image pyramids, box refinement, RoIs of equal
cells, batches, precision."""

import dataclasses
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_detection import assert_same, naive_detections, naive_suppression, raw_outputs, some_image, some_proposals

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import DetectionSettings, InputError, Predictor, classify_regions, detect, detect_batch
from tf_fast_rcnn.inference import graph
from tf_fast_rcnn.inference.detect import detect_dataset
from tf_fast_rcnn.inference.graph import Detector

SETTINGS = DetectionSettings(shorter_side=96, longer_side=144)


def regions(model, images, proposals, detection_settings, spy=None):
    """The result of `Detector.regions`, run eagerly; `spy` is called with the RoIs that are pooled."""
    found = Detector(model, detection_settings)
    if spy:
        pool = found.stages.pool
        found.stages = found.stages._replace(pool=lambda maps, rois: (spy(rois.numpy()[0]), pool(maps, rois))[1])
    rows = tf.RaggedTensor.from_row_lengths(np.concatenate(proposals), [len(each) for each in proposals])
    return found.regions(lambda index: tf.constant(images[int(index)]), rows)


# --- image pyramids ---------------------------------------------------------------------------------------------------


def naive_scale(proposal, size, sides, longer_side):
    """The index of the shorter side at which a box's area is closest to 224 x 224; the first one in a tie."""
    distances = []
    for side in sides:
        factor = min(side / min(size), longer_side / max(size))
        height, width = (round(length * factor) for length in size)
        distances.append(abs((proposal[2] - proposal[0]) * height * (proposal[3] - proposal[1]) * width - 224 * 224))
    return int(np.argmin(distances))


@pytest.mark.parametrize(("sides", "longer_side"), [((96, 300, 620), 900), ((620, 96), 700), ((200, 200), 900)])
def test_each_roi_uses_the_scale_where_its_area_is_nearest_to_224(tiny_model, sides, longer_side):
    image, proposals = some_image(), some_proposals(80)
    proposals[:10], proposals[10:20] = [0.0, 0.0, 0.9, 1.0], [0.1, 0.1, 0.7, 0.9]
    pyramid = dataclasses.replace(SETTINGS, shorter_side=sides, longer_side=longer_side)
    scales = np.array([naive_scale(proposal, image.shape[:2], sides, longer_side) for proposal in proposals])
    assert len(set(scales)) == len(set(sides))
    at_scales = [
        raw_outputs(tiny_model, image, proposals, dataclasses.replace(pyramid, shorter_side=side)) for side in sides
    ]
    probabilities, boxes = (
        np.stack([at_scales[scale][output][row] for row, scale in enumerate(scales)]) for output in (0, 1)
    )
    found_probabilities, found_boxes = regions(tiny_model, [image], [proposals], pyramid)
    np.testing.assert_allclose(found_probabilities.values, probabilities, atol=1e-4)
    np.testing.assert_allclose(found_boxes.values, boxes, atol=1e-4)
    np.testing.assert_allclose(classify_regions(tiny_model, image, proposals, pyramid), probabilities, atol=1e-4)


# --- box refinement ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("passes", [2, 3])
def test_later_passes_take_the_box_of_the_best_class(tiny_model, passes):
    several = dataclasses.replace(SETTINGS, box_refinement_steps=passes)
    image, proposals = some_image(), some_proposals()
    rows = proposals
    for _ in range(passes):
        probabilities, boxes = raw_outputs(tiny_model, image, rows, several)
        rows = boxes[np.arange(len(rows)), probabilities[:, 1:].argmax(axis=1)]
    assert np.abs(rows - proposals).max() > 0.05
    assert_same(detect(tiny_model, image, proposals, several), naive_suppression(probabilities, boxes, several))


# --- RoIs of equal cells, and parts of them ---------------------------------------------------------------------------


def naive_cells(roi, stride=8):
    """Cells of a RoI's corners: halves round away from zero, the last row and column are inclusive."""
    return tuple(int(np.floor(abs(x) / stride + 0.5) * np.sign(x)) for x in (roi[0], roi[1], roi[2] - 1, roi[3] - 1))


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 10**6),
    number=st.integers(1, 60),
    jitter=st.sampled_from([0.0, 0.004, 0.02, 0.3]),
    pooled_bytes=st.sampled_from([1, 2000, 1 << 27]),
)
def test_rois_of_equal_cells_are_pooled_once_and_nothing_else_changes(tiny_model, seed, number, jitter, pooled_bytes):
    rng = np.random.default_rng(seed)
    image = some_image()
    proposals = some_proposals(4, seed)[rng.integers(0, 4, number)] + rng.uniform(0, jitter, (number, 4))
    proposals = np.clip(proposals, 0, 1).astype(np.float32)
    proposals[:, 2:] = np.maximum(proposals[:, :2], proposals[:, 2:])
    pooled = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "_POOLED_BYTES", pooled_bytes)
        probabilities, boxes = regions(tiny_model, [image], [proposals], SETTINGS, pooled.append)
    cells = {naive_cells(roi) for roi in proposals * np.float32([96, 128, 96, 128])}
    assert sum(map(len, pooled)) == len(cells)
    # A pooled RoI of 3 x 3 bins and 8 channels takes 288 bytes.
    assert max(map(len, pooled)) <= max(1, pooled_bytes // 288)
    expected = raw_outputs(tiny_model, image, proposals, SETTINGS)
    np.testing.assert_allclose(probabilities.values, expected[0], atol=1e-4)
    np.testing.assert_allclose(boxes.values, expected[1], atol=1e-4)


def test_rois_of_several_strides_are_told_apart_by_each(tiny_backbone):
    model = frcnn.fast_rcnn(tiny_backbone, 2, stride=(4, 8), roi_output_size=(2, 2), fc_units=(6,))
    # Some RoIs share a corner cell at 8 pixels per cell but not at 4, others at 4 but not at 8.
    rois = np.float32([[8, 8, 49, 49], [11, 8, 49, 49], [9, 8, 49, 49], [21, 8, 49, 49], [19, 8, 49, 49]])
    proposals = rois / np.float32([96, 128, 96, 128])
    pooled = []
    probabilities, _ = regions(model, [some_image()], [proposals], SETTINGS, pooled.append)
    both = {(naive_cells(roi, 4), naive_cells(roi, 8)) for roi in rois}
    assert len(both) == 4 > len({naive_cells(roi, 8) for roi in rois})
    assert len(pooled[0]) == 4
    expected, _ = raw_outputs(model, some_image(), proposals, SETTINGS)
    np.testing.assert_allclose(probabilities.values, expected, atol=1e-5)


FIFTY_THOUSAND = """
import resource
import keras, numpy as np
import tf_fast_rcnn as frcnn

network = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(256, 3, 8, "same"),
                            keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
model = frcnn.fast_rcnn(network, 2, stride=8, roi_output_size=(7, 7), fc_units=(8,))
rng = np.random.default_rng(0)
image = rng.integers(0, 256, (400, 400, 3), np.uint8)
corner = rng.uniform(0, 0.6, (50_000, 2))
proposals = np.concatenate([corner, corner + rng.uniform(0.05, 0.4, (50_000, 2))], axis=1).astype(np.float32)
settings = frcnn.DetectionSettings(400, 400, score_threshold=0.0)
peaks = []
for number in (4_000, 50_000):
    found = frcnn.detect(model, image, proposals[:number], settings)
    assert len(found.scores) == 100
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(*peaks)
"""


def test_memory_does_not_grow_with_the_number_of_proposals():
    """50,000 RoIs of 7 x 7 x 256 pooled at once would take 2.5 GB; 4,000 already exceed the limit of one part."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", FIFTY_THOUSAND]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    few, many = map(int, found.stdout.split())
    assert many - few < 250_000  # kB


# --- compiled convolutions --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def separable_model():
    """A detector over depthwise and 1x1 convolutions with batch normalisation, of random weights."""
    maps = inputs = keras.Input((64, 64, 3))
    for filters in (24, 40):
        for convolution in (keras.layers.DepthwiseConv2D(3, 2, "same"), keras.layers.Conv2D(filters, 1)):
            maps = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization()(convolution(maps)))
    outputs = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(maps))
    network, rng = keras.Model(inputs, outputs), np.random.default_rng(0)
    for weight in network.variables:
        is_positive = weight.path.endswith(("variance", "gamma"))
        weight.assign(rng.uniform(0.5, 2, weight.shape) if is_positive else rng.normal(0, 0.5, weight.shape))
    model = frcnn.fast_rcnn(network, 3, stride=4, roi_output_size=(3, 3), fc_units=(16,), dropout=0.0)
    layer = model.get_layer("class_logits")
    layer.kernel.assign(rng.normal(0, 1, layer.kernel.shape))
    return model


@pytest.mark.parametrize("roi_pooling", ["native", "portable"])
def test_convolutions_are_compiled_where_pooling_is(separable_model, roi_pooling):
    """Graphs with the portable pooling are exported to stock TensorFlow."""
    detector, image, proposals = Detector(separable_model, SETTINGS, roi_pooling), some_image(), some_proposals(30)

    @tf.function(autograph=False)
    def detected(pixels):
        return [
            each.values for each in detector.regions(lambda _: pixels, tf.RaggedTensor.from_tensor(proposals[None]))
        ]

    graph_def = detected.get_concrete_function(tf.constant(image)).graph.as_graph_def()
    names = {node.op for function in graph_def.library.function for node in function.node_def}
    assert ("TfFastRcnn>DepthwiseConv" in names) == (roi_pooling == "native")
    assert ("DepthwiseConv2dNative" in names) == ("Conv2D" in names) == (roi_pooling == "portable")
    assert {name for name in names if name.startswith("TfFastRcnn")} == (
        {"TfFastRcnn>DepthwiseConv", "TfFastRcnn>RoiPool"} if roi_pooling == "native" else set()
    )
    expected = raw_outputs(separable_model, image, proposals, SETTINGS)
    assert expected[0].std(axis=0).max() > 0.05  # the regions do not look alike
    for found, exact in zip(detected(tf.constant(image)), expected, strict=True):
        np.testing.assert_allclose(found, exact, atol=1e-4)


# --- tied scores ------------------------------------------------------------------------------------------------------

EQUAL_ROWS = """
import keras, numpy as np, tensorflow as tf
import tf_fast_rcnn as frcnn
from tf_fast_rcnn.inference.graph import Detector

for classes in (1, 3, 20):
    network = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(2, 3, 8), keras.layers.Flatten()])
    model = frcnn.fast_rcnn(network, classes, stride=8, fc_units=(4,))
    for scores in ("softmax", "sigmoid"):
        detector = Detector(model, frcnn.DetectionSettings(scores=scores))
        for seed, count in enumerate((0, 1, 7, 16, 37, 2913)):
            logits = np.random.default_rng(seed).normal(0, 3, classes + 1).astype(np.float32)
            found = detector._tied_scores(tf.constant(np.tile(logits, (count, 1)))).numpy()
            exact = np.exp(np.float64(logits))
            exact = exact / exact.sum() if scores == "softmax" else exact / (1 + exact)
            np.testing.assert_allclose(found, np.tile(exact, (count, 1)), rtol=1e-5)
            assert (found == found[:1]).all(), (classes, scores, count)
"""


@pytest.mark.parametrize("onednn", ["0", "1"])
def test_equal_logits_have_equal_scores(onednn):
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": onednn}
    ran = subprocess.run([sys.executable, "-c", EQUAL_ROWS], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sides", [96, (96, 300)], ids=str)
def test_detections_do_not_depend_on_the_batch(tiny_model, sides):
    chosen = dataclasses.replace(SETTINGS, shorter_side=sides, longer_side=420)
    images = [some_image(90, 120, 0), some_image(130, 80, 1), some_image(60, 60, 2), some_image(90, 120, 3)]
    proposals = [some_proposals(40, 0), some_proposals(25, 1), np.zeros((0, 4), np.float32), some_proposals(3, 3)]
    together = detect_batch(tiny_model, images, proposals, chosen)
    assert [len(found.scores) > 0 for found in together] == [True, True, False, True]
    for found, image, rows in zip(together, images, proposals, strict=True):
        assert_same(found, detect(tiny_model, image, rows, chosen))
    reverse = detect_batch(tiny_model, images[::-1], proposals[::-1], chosen)
    for found, other in zip(together, reverse[::-1], strict=True):
        assert_same(found, other)


def test_a_batch_is_classified_together(tiny_model):
    pooled, classified = [], []
    found = Detector(tiny_model, SETTINGS)
    pool, classify = found.stages.pool, found.stages.classify

    def spied(rois, training):
        classified.append(rois.shape[1])
        return classify(rois, training=training)

    spied.input = classify.input
    found.stages = found.stages._replace(
        pool=lambda maps, rois: (pooled.append(rois.shape[1]), pool(maps, rois))[1], classify=spied
    )
    images = [some_image(90, 120, 0), some_image(130, 80, 1)]
    proposals = tf.RaggedTensor.from_row_lengths(
        np.concatenate([some_proposals(30, 0), some_proposals(20, 1)]), [30, 20]
    )
    found.regions(lambda index: tf.constant(images[int(index)]), proposals)
    assert len(pooled) == 2
    assert classified == [sum(pooled)]
    assert sum(pooled) <= 50


def test_a_batch_needs_proposals_for_each_image(tiny_model):
    assert detect_batch(tiny_model, []) == []
    with pytest.raises(
        InputError, match=r"^proposals: found 1 entries for 2 images; expected one per image; for an image"
    ):
        detect_batch(tiny_model, [some_image()] * 2, [some_proposals()], SETTINGS)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_data_sets_and_files_in_batches(tiny_model, prepared_digits, digits, batch_size):
    _, test = prepared_digits
    expected = [detect(tiny_model, record.image_path, record.proposals(), SETTINGS) for record in test]
    found = list(detect_dataset(tiny_model, test, SETTINGS, progress=False, batch_size=batch_size))
    assert len(found) == 4
    for of_image, alone in zip(found, expected, strict=True):
        assert_same(of_image, alone)
    proposals = frcnn.proposal_settings("dense", dataset=())
    paths = [record.image_path for record in test]
    predictor = Predictor(tiny_model, settings=SETTINGS)
    found = predictor.detect(paths, proposals, batch_size=batch_size, progress=False)
    assert len(found) == 4
    for of_image, path in zip(found, paths, strict=True):
        assert_same(of_image, detect(tiny_model, path, proposals, SETTINGS))


# --- scores, classes, regions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_ids", [(2,), (3, 1), [1, 2, 3], (1, 1)], ids=str)
def test_other_classes_are_dropped_before_suppression(tiny_model, class_ids):
    chosen = dataclasses.replace(SETTINGS, class_ids=class_ids)
    probabilities, boxes = raw_outputs(tiny_model, some_image(), some_proposals(), chosen)
    for label in {1, 2, 3}.difference(class_ids):
        probabilities[:, label] = 0.0
    found = detect(tiny_model, some_image(), some_proposals(), chosen)
    assert set(found.class_ids) == set(class_ids)
    assert_same(found, naive_suppression(probabilities, boxes, chosen))


def test_sigmoid_scores_are_independent_of_each_other(tiny_model):
    independent = dataclasses.replace(SETTINGS, scores="sigmoid", score_threshold=0.3)
    _, boxes = raw_outputs(tiny_model, some_image(), some_proposals(), independent)
    rois = some_proposals() * np.float32([96, 128, 96, 128])
    resized = tf.image.resize(some_image(), (96, 128)).numpy()
    logits = tiny_model({"images": resized[None], "rois": rois[None]}, training=False)["class_logits"].numpy()[0]
    found = detect(tiny_model, some_image(), some_proposals(), independent)
    assert_same(found, naive_suppression(1 / (1 + np.exp(-logits)), boxes, independent))


def test_regions_are_classified_as_they_are(tiny_model):
    given_regions = some_proposals()[::-1]
    expected, _ = raw_outputs(tiny_model, some_image(), given_regions, SETTINGS)
    for passes in (1, 2):
        several = dataclasses.replace(SETTINGS, box_refinement_steps=passes)
        found = classify_regions(tiny_model, some_image(), given_regions, several)
        assert found.shape == (60, 4)
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert classify_regions(tiny_model, some_image(), np.zeros((0, 4)), SETTINGS).shape == (0, 4)
    with pytest.raises(InputError, match=r"^proposals: found a coordinate of 100; expected"):
        classify_regions(tiny_model, some_image(), [[10, 20, 50, 100]], SETTINGS)


# --- bfloat16 ---------------------------------------------------------------------------------------------------------


def test_bfloat16_is_near_and_follows_the_model(tiny_backbone):
    keras.utils.set_random_seed(1)
    model = frcnn.fast_rcnn(tiny_backbone, 3, stride=8, roi_output_size=(3, 3), fc_units=(12,), seed=5)
    half = dataclasses.replace(SETTINGS, dtype="bfloat16")
    for spread in (4.0, -2.0):
        for name in ("class_logits", "fc6"):
            kernel, bias = model.get_layer(name).get_weights()
            model.get_layer(name).set_weights([kernel / kernel.std() * spread / 4, bias])
        exact = classify_regions(model, some_image(), some_proposals(), SETTINGS)
        found = classify_regions(model, some_image(), some_proposals(), half)
        assert 1e-5 < np.abs(found - exact).max() < 0.1
        assert np.abs(found - exact).mean() < 0.01
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}


def test_bfloat16_weights_take_half_the_memory(tiny_model):
    found = Detector(tiny_model, dataclasses.replace(SETTINGS, dtype="bfloat16"))
    types = {variable.path.split("/")[-2]: variable.dtype for variable in found.variables}
    assert {types[name] for name in ("conv1", "conv2", "fc6")} == {"bfloat16"}
    assert {types[name] for name in ("class_logits", "box_regression")} == {"float32"}
    assert Detector(tiny_model, SETTINGS).variables[0] is tiny_model.variables[0]


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shorter_side": 0}, r"shorter_side, longer_side: found \(0, 1000\); expected numbers of pixels from 1"),
        ({"shorter_side": ()}, r"shorter_side, longer_side: found \(1000,\); expected"),
        ({"longer_side": -1}, "shorter_side, longer_side: found"),
        ({"score_threshold": 1.5}, r"score_threshold: found 1.5; expected a number from 0 to 1"),
        ({"nms_iou_threshold": float("nan")}, "nms_iou_threshold: found nan"),
        ({"max_detections": 0}, "max_detections: found 0; expected a whole number from 1"),
        ({"box_refinement_steps": 0}, "box_refinement_steps: found 0; expected a whole number from 1"),
        ({"class_ids": ()}, r"class_ids: found \(\); expected class ids from 1"),
        ({"class_ids": (0, 1)}, r"class_ids: found \(0, 1\); expected class ids from 1"),
        ({"scores": "svm"}, "scores: found 'svm'; expected one of softmax, sigmoid"),
        ({"nms": "hard"}, "nms: found 'hard'; expected one of per-class, across-classes, soft"),
        ({"soft_nms_sigma": 0}, "soft_nms_sigma: found 0; expected a number greater than 0"),
        ({"soft_nms_sigma": float("nan")}, "soft_nms_sigma: found nan"),
        ({"box_voting": 0.0}, "box_voting: found 0.0; expected an IoU greater than 0, up to 1"),
        ({"box_voting": 1.5}, "box_voting: found 1.5"),
        ({"screening_rank": 0}, "screening_rank: found 0; expected a whole number from 1"),
        ({"dtype": "float16"}, "dtype: found 'float16'; expected one of float32, bfloat16"),
    ],
)
def test_settings_out_of_range(changes, message):
    with pytest.raises(InputError, match=f"^{message}"):
        DetectionSettings(**changes)


def test_a_class_that_the_model_does_not_have(tiny_model):
    with pytest.raises(InputError, match=r"^class_ids: found \(4,\); expected class ids 1..3"):
        detect(tiny_model, some_image(), some_proposals(), dataclasses.replace(SETTINGS, class_ids=(4,)))


def test_lists_are_taken_as_tuples():
    assert DetectionSettings(shorter_side=[480, 600], class_ids=[3, 1]) == DetectionSettings(
        (480, 600), class_ids=(1, 3)
    )


def test_a_naive_detection_of_one_scale_agrees(tiny_model):
    """A pyramid with one scale equals no pyramid."""
    one = dataclasses.replace(SETTINGS, shorter_side=(96,))
    expected = naive_detections(tiny_model, some_image(), some_proposals(), SETTINGS)
    assert_same(detect(tiny_model, some_image(), some_proposals(), one), expected)


@pytest.mark.parametrize("changes", [{}, {"nms": "soft", "soft_nms_sigma": 0.2, "box_voting": 0.6, "class_ids": (2,)}])
def test_settings_are_stored_as_json(changes):
    settings = DetectionSettings(**changes)
    stored = json.loads(json.dumps(settings.to_json()))
    assert DetectionSettings.from_json(stored) == settings
    # Exports before these fields existed.
    for name in ("nms", "soft_nms_sigma", "box_voting"):
        del stored[name]
    defaults = {"nms": "per-class", "soft_nms_sigma": 0.5, "box_voting": None}
    assert DetectionSettings.from_json(stored) == dataclasses.replace(settings, **defaults)


# --- the first pass ---------------------------------------------------------------------------------------------------


def in_first_pass(model, image, proposals, chosen):
    """The class probabilities of the model with fc6 truncated by NumPy's SVD."""
    kernel, bias = model.get_layer("fc6").get_weights()
    left, values, right = np.linalg.svd(kernel, full_matrices=False)
    rank = chosen.screening_rank
    try:
        model.get_layer("fc6").set_weights([(left[:, :rank] * values[:rank]) @ right[:rank], bias])
        return classify_regions(model, image, proposals, dataclasses.replace(chosen, screening_rank=None))
    finally:
        model.get_layer("fc6").set_weights([kernel, bias])


@pytest.fixture(scope="module")
def decaying(tiny_backbone):
    """A detector whose fc6 has singular values that fall fast, and for which half of the proposals are background."""
    model = frcnn.fast_rcnn(tiny_backbone, 3, stride=8, roi_output_size=(3, 3), fc_units=(24,), seed=5)
    kernel, bias = model.get_layer("fc6").get_weights()
    left, values, right = np.linalg.svd(kernel, full_matrices=False)
    model.get_layer("fc6").set_weights([(left * values * 0.6 ** np.arange(24)) @ right, bias])
    for name, spread in (("class_logits", 8.0), ("box_regression", 1.0)):
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([kernel / kernel.std() * spread, bias])
    kernel, bias = model.get_layer("class_logits").get_weights()
    model.get_layer("class_logits").set_weights([kernel, bias + np.float32([6, 0, 0, 0])])
    return model


@pytest.mark.parametrize("scores", ["softmax", "sigmoid"])
@pytest.mark.parametrize("part", [None, 7])
def test_clear_background_is_not_classified(decaying, monkeypatch, scores, part):
    image, proposals = some_image(), some_proposals(300)
    chosen = dataclasses.replace(SETTINGS, screening_rank=2, scores=scores, score_threshold=0.3)
    first = in_first_pass(decaying, image, proposals, chosen)
    foreground = first[:, 1:].max(axis=1) if scores == "sigmoid" else 1 - first[:, 0]
    assert np.abs(foreground - 0.15).min() > 1e-4
    kept = foreground > 0.15
    assert 0.1 < kept.mean() < 0.9
    exact = dataclasses.replace(chosen, screening_rank=None)
    lost = len(detect(decaying, image, proposals, exact)) - len(detect(decaying, image, proposals[kept], exact))
    assert lost, "the first pass should be so coarse here that it loses something"
    if part:
        monkeypatch.setattr(graph, "_POOLED_BYTES", part * 4 * 3 * 3 * decaying.get_layer("fc6").kernel.shape[0] // 9)
    assert_same(detect(decaying, image, proposals, chosen), detect(decaying, image, proposals[kept], exact))


def test_the_first_pass_with_enough_singular_values_loses_nothing(decaying):
    image, proposals = some_image(), some_proposals(300)
    found = detect(decaying, image, proposals, dataclasses.replace(SETTINGS, screening_rank=12))
    assert len(found) > 5
    assert_same(found, detect(decaying, image, proposals, SETTINGS))


def test_everything_is_background(decaying):
    chosen = dataclasses.replace(SETTINGS, screening_rank=2, score_threshold=1.0)
    assert len(detect(decaying, some_image(), some_proposals(), chosen)) == 0
    assert len(detect(decaying, some_image(), np.zeros((0, 4)), chosen)) == 0


@pytest.mark.parametrize("changes", [{"box_voting": True}, {"box_refinement_steps": 2}])
def test_settings_that_need_all_boxes(decaying, changes):
    exact = dataclasses.replace(SETTINGS, score_threshold=0.3, **changes)
    chosen = dataclasses.replace(exact, screening_rank=1)
    image, proposals = some_image(), some_proposals(300)
    assert_same(detect(decaying, image, proposals, chosen), detect(decaying, image, proposals, exact))


def test_regions_are_not_screened(decaying):
    chosen = dataclasses.replace(SETTINGS, screening_rank=1, score_threshold=0.9)
    image, proposals = some_image(), some_proposals(50)
    np.testing.assert_allclose(
        classify_regions(decaying, image, proposals, chosen),
        classify_regions(decaying, image, proposals, SETTINGS),
        atol=1e-6,
    )


def test_screening_in_tiles_and_batches(decaying):
    chosen = dataclasses.replace(SETTINGS, score_threshold=0.3, screening_rank=12)
    images, proposals = [some_image(90, 120, 0), some_image(130, 80, 1)], [some_proposals(80, 0), some_proposals(50, 1)]
    for changed in (chosen, dataclasses.replace(chosen, tile=64)):
        exact = dataclasses.replace(changed, screening_rank=None)
        for image, rows, found in zip(
            images, proposals, detect_batch(decaying, images, proposals, changed), strict=True
        ):
            assert_same(found, detect(decaying, image, rows, exact))


@pytest.mark.parametrize("changes", [{"screening_rank": 12}, {"dtype": "bfloat16"}, {}])
def test_new_weights_are_used_in_the_same_graph(decaying, monkeypatch, changes):
    model = keras.models.clone_model(decaying)
    model.set_weights(decaying.get_weights())
    chosen = dataclasses.replace(SETTINGS, **changes)
    image, proposals = some_image(), some_proposals(100)
    before = detect(model, image, proposals, chosen)
    built = []
    monkeypatch.setattr(Detector, "detect", lambda *arguments: built.append(arguments))
    for layer in ("conv1", "fc6", "class_logits"):
        part = model.get_layer("convolutions").get_layer(layer) if layer == "conv1" else model.get_layer(layer)
        kernel, *bias = part.get_weights()
        part.set_weights([kernel * 1.1, *bias])
        after = detect(model, image, proposals, chosen)
        assert not built
        assert not np.array_equal(after.scores, before.scores)
        before = after
    monkeypatch.undo()
    fresh = keras.models.clone_model(model)
    fresh.set_weights(model.get_weights())
    assert_same(before, detect(fresh, image, proposals, chosen))
