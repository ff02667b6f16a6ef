"""Detection compared with a naive implementation: Python loops over the model's raw outputs."""

import dataclasses
import gc
import weakref

import keras
import numpy as np
import pytest
from naive_detection import assert_same, naive_detections, some_image, some_proposals
from PIL import Image, ImageOps

import tf_fast_rcnn as frcnn
from tf_fast_rcnn import DetectionSettings, InputError, detect
from tf_fast_rcnn.data.proposals import compute_proposals
from tf_fast_rcnn.inference.detect import detect_dataset

SETTINGS = DetectionSettings(shorter_side=96, longer_side=144)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"nms_iou_threshold": 0.6},
        {"score_threshold": 0.4},
        {"max_detections": 7},
        {"shorter_side": 200, "longer_side": 168},
        {"nms_iou_threshold": 1.0, "score_threshold": 0.0, "max_detections": 200},
    ],
)
def test_against_naive_detection(tiny_model, changes):
    settings = dataclasses.replace(SETTINGS, **changes)
    image, proposals = some_image(), some_proposals()
    expected = naive_detections(tiny_model, image, proposals, settings)
    assert len(expected) >= min(7, settings.max_detections)
    assert_same(detect(tiny_model, image, proposals, settings), expected)


def test_types_and_order(tiny_model):
    found = detect(tiny_model, some_image(), some_proposals(), SETTINGS)
    assert [array.dtype for array in (found.boxes, found.scores, found.class_ids)] == [np.float32, np.float32, np.int32]
    assert np.all(np.diff(found.scores) <= 0)
    assert set(found.class_ids) == {1, 2, 3}
    assert found.scores.min() > SETTINGS.score_threshold


def test_the_largest_number_counts_all_classes_together(tiny_model):
    everything = detect(tiny_model, some_image(), some_proposals(), SETTINGS)
    few = detect(tiny_model, some_image(), some_proposals(), dataclasses.replace(SETTINGS, max_detections=5))
    assert len(everything.scores) > 5
    assert_same(few, everything[:5])


def test_repeated_and_reordered_proposals_change_nothing(tiny_model):
    proposals = some_proposals()
    repeated = np.concatenate([proposals, proposals[:1].repeat(20, axis=0)])[::-1]
    expected = detect(tiny_model, some_image(), proposals, SETTINGS)
    assert_same(detect(tiny_model, some_image(), repeated, SETTINGS), expected)


def test_no_proposals_no_detections(tiny_model):
    found = detect(tiny_model, some_image(), np.zeros((0, 4), np.float32), SETTINGS)
    assert [array.shape for array in (found.boxes, found.scores, found.class_ids)] == [(0, 4), (0,), (0,)]


@pytest.mark.parametrize(
    ("proposals", "message"),
    [
        ([[10.0, 20.0, 50.0, 100.0]], "found a coordinate of 100; expected .* relative to the image"),
        ([[0.1, np.nan, 0.5, 0.5]], "not finite"),
        ([[0.1, 0.1, np.inf, 0.5]], "not finite"),
        ([[0.5, 0.1, 0.1, 0.5]], "ymin > ymax"),
        ([0.1, 0.1, 0.5, 0.5], r"found shape \[4\]; expected \[R, 4\]"),
        (np.zeros((3, 5)), r"found shape \[3, 5\]; expected \[R, 4\]"),
        (np.array([["a", "b", "c", "d"]]), "not an array of numbers"),
    ],
)
def test_bad_proposals_give_one_line(tiny_model, proposals, message):
    with pytest.raises(InputError, match=message) as error:
        detect(tiny_model, some_image(), proposals, SETTINGS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_images(tiny_model, image):
    with pytest.raises(InputError, match=r"image: found .* expected uint8 \[H, W, 3\], RGB"):
        detect(tiny_model, image, some_proposals(), SETTINGS)


def test_path_and_array_give_the_same(tiny_model, tmp_path):
    Image.fromarray(some_image()).save(tmp_path / "image.png")
    expected = detect(tiny_model, some_image(), some_proposals(), SETTINGS)
    assert_same(detect(tiny_model, tmp_path / "image.png", some_proposals(), SETTINGS), expected)
    assert_same(detect(tiny_model, str(tmp_path / "image.png"), some_proposals(), SETTINGS), expected)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_a_rotated_file_is_detected_as_displayed(tiny_model, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "rotated.jpg"
    Image.fromarray(some_image()).save(path, exif=exif, quality=95)
    with Image.open(path) as file:
        upright = np.asarray(ImageOps.exif_transpose(file))
    assert_same(
        detect(tiny_model, path, some_proposals(), SETTINGS),
        naive_detections(tiny_model, upright, some_proposals(), SETTINGS),
    )


def test_proposals_are_computed_where_none_are_given(tiny_model, digits):
    image = some_image()
    settings = frcnn.proposal_settings("dense", frcnn.load_dataset(f"voc:{digits}@train"))
    computed = compute_proposals(image, settings)
    assert_same(detect(tiny_model, image, settings, SETTINGS), detect(tiny_model, image, np.array(computed), SETTINGS))
    assert len(detect(tiny_model, image, None, SETTINGS).scores)


def test_default_settings_are_the_released_systems():
    of_the_paper = (600, 1000, 0.05, 0.3, 100, 1, None, "softmax", "float32")
    without_tiles, plain_nms, no_first_pass = (None, 0.2, True), ("per-class", 0.5, None), None
    assert dataclasses.astuple(DetectionSettings()) == (*of_the_paper, *without_tiles, *plain_nms, no_first_pass)


def test_a_data_set_is_detected_image_by_image_in_order(tiny_model, prepared_digits):
    _, test = prepared_digits
    found = list(detect_dataset(tiny_model, test, SETTINGS, progress=False))
    assert len(found) == len(test) == 4
    for record, of_image in zip(test, found, strict=True):
        assert_same(of_image, detect(tiny_model, record.image_path, record.proposals(), SETTINGS))
    assert len({tuple(of_image.scores) for of_image in found}) == 4


def test_an_empty_data_set_gives_nothing(tiny_model, prepared_digits):
    assert list(detect_dataset(tiny_model, prepared_digits[1][:0], SETTINGS, progress=False)) == []


def test_models_are_not_kept_alive():
    network = keras.Sequential(
        [keras.Input((32, 32, 3)), keras.layers.Conv2D(2, 3, 4, "same"), keras.layers.GlobalAveragePooling2D()]
    )
    model = frcnn.fast_rcnn(network, 1, stride=4, roi_output_size=(2, 2), fc_units=(4,))
    detect(model, some_image(), some_proposals(3), SETTINGS)
    kept = weakref.ref(model)
    del model
    gc.collect()
    assert kept() is None
