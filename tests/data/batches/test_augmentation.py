"""Flips compared with NumPy and the box formulas, scales with their list, colours with Pillow."""

import numpy as np
import pytest
import tensorflow as tf
from naive_sampler import naive_target, near, random_boxes
from PIL import Image, ImageEnhance

from tf_fast_rcnn.data.batches.augmentation import drawn_shorter_side, jitter_colours, mirror
from tf_fast_rcnn.data.batches.settings import SamplingRules

FLIPS = [(False, False), (True, False), (False, True), (True, True)]


def random_image(height=21, width=34, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("horizontally", "vertically"), FLIPS)
def test_mirrored_targets_lead_to_the_mirrored_object(horizontally, vertically):
    """The same targets as when encoding boxes flipped by hand."""
    rng = np.random.default_rng(1)
    truth = random_boxes(rng, 1)
    rois = near(rng, truth, 6)
    targets = np.float32([naive_target(roi, truth[0]) for roi in rois])
    pixels = random_image()
    image, found_rois, found_targets = mirror(
        tf.constant(pixels), tf.constant(rois), tf.constant(targets), tf.constant(horizontally), tf.constant(vertically)
    )

    def by_hand(box):
        top, left, bottom, right = box
        if horizontally:
            left, right = 1 - right, 1 - left
        return [1 - bottom, left, 1 - top, right] if vertically else [top, left, bottom, right]

    expected = pixels[:: -1 if vertically else 1, :: -1 if horizontally else 1]
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_allclose(found_rois, [by_hand(roi) for roi in rois], atol=1e-6)
    mirrored = [naive_target(by_hand(roi), by_hand(truth[0])) for roi in rois]
    np.testing.assert_allclose(found_targets, mirrored, atol=1e-4)


def test_scales_come_from_the_list_equally_often():
    rules = SamplingRules(shorter_side=(480, 576, 688, 864, 1200), longer_side=2000)
    chances = np.linspace(0, 1, 1000, endpoint=False, dtype=np.float32)
    sides = [float(drawn_shorter_side(rules, chance, 0.3)) for chance in chances]
    values, counts = np.unique(sides, return_counts=True)
    np.testing.assert_array_equal(values, [480, 576, 688, 864, 1200])
    np.testing.assert_array_equal(counts, 200)
    assert drawn_shorter_side(rules, np.nextafter(np.float32(1), np.float32(0)), 0.3) == 1200


@pytest.mark.parametrize(("chance", "expected"), [(0.0, 400.0), (0.5, 500.0), (0.999999, 600.0)])
def test_scale_jitter_multiplies_the_shorter_side(chance, expected):
    rules = SamplingRules(shorter_side=500, scale_jitter=(0.8, 1.2))
    assert float(drawn_shorter_side(rules, 0.5, chance)) == pytest.approx(expected, abs=0.01)


def jittered(pixels, chances, **rules):
    image = jitter_colours(tf.constant(pixels, tf.float32), SamplingRules(**rules), tf.constant(chances, tf.float32))
    return image.numpy()


def test_without_colour_rules_nothing_changes():
    pixels = random_image()
    np.testing.assert_array_equal(jittered(pixels, [0.9] * 4), pixels)


@pytest.mark.parametrize("rule", ["brightness", "contrast", "saturation", "hue"])
def test_half_a_chance_changes_nothing_and_another_does(rule):
    pixels = random_image()
    np.testing.assert_allclose(jittered(pixels, [0.5] * 4, **{rule: 0.4}), pixels, atol=1e-3)
    changed = jittered(pixels, [0.9] * 4, **{rule: 0.4})
    assert np.abs(changed - pixels).mean() > 5
    assert changed.min() >= 0
    assert changed.max() <= 255


def test_brightness_by_hand():
    found = jittered(np.uint8([[[0, 100, 250]]]), [1.0, 0, 0, 0], brightness=0.1)
    np.testing.assert_allclose(found, [[[25.5, 125.5, 255]]])


def test_contrast_by_hand():
    """Twice as far from the mean of 100, clipped to 0 and 255."""
    found = jittered(np.uint8([[[20, 100, 180]], [[100, 90, 110]]]), [0.5, 1.0, 0, 0], contrast=1.0)
    np.testing.assert_allclose(found, [[[0, 100, 255]], [[100, 80, 120]]], atol=1e-4)


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_saturation_is_pillows(factor):
    pixels = random_image()
    expected = np.asarray(ImageEnhance.Color(Image.fromarray(pixels)).enhance(factor))
    found = jittered(pixels, [0, 0, factor - 0.5, 0], saturation=0.5)
    np.testing.assert_allclose(found, expected, atol=1.6)


def test_hue_turns_red_to_green():
    """A third of the colour circle."""
    found = jittered(np.uint8([[[200, 0, 0]]]), [0, 0, 0, 0.5 + 1 / 3], hue=0.5)
    np.testing.assert_allclose(found, [[[0, 200, 0]]], atol=0.1)
