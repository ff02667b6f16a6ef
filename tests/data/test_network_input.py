"""Decoding compared with Pillow, resizing compared with OpenCV."""

import io

import cv2
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tf_fast_rcnn.data.network_input import decode_image, network_size, resize_to_network


def smooth_pixels(height=37, width=52, channels=3, seed=0):
    """Gradients with noise, whose colours JPEG changes."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, height)[:, None, None] + np.linspace(0, 55, width)[None, :, None]
    noise = rng.normal(scale=20, size=(height, width, channels))
    return np.clip(ramp + noise, 0, 255).astype(np.uint8)


def encoded(pixels, **options):
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, **options)
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
@pytest.mark.parametrize(
    "options",
    [
        {"format": "JPEG", "quality": 60, "subsampling": "4:2:0"},
        {"format": "JPEG", "quality": 95, "subsampling": "4:4:4"},
        {"format": "JPEG", "progressive": True},
        {"format": "PNG"},
        {"format": "BMP"},
    ],
    ids=str,
)
def test_decoding_equals_pillows(options, channels):
    if channels == 1:
        options = {name: value for name, value in options.items() if name != "subsampling"}
    contents = encoded(smooth_pixels(channels=channels), **options)
    expected = np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))
    image = decode_image(tf.constant(contents))
    assert image.dtype == tf.uint8
    np.testing.assert_array_equal(image, expected)


def test_decoding_in_a_graph_knows_the_channels():
    decode = tf.function(decode_image, input_signature=[tf.TensorSpec([], tf.string)])
    assert decode.get_concrete_function().output_shapes.as_list() == [None, None, 3]
    for options in ({"format": "JPEG"}, {"format": "PNG"}):
        contents = encoded(smooth_pixels(), **options)
        np.testing.assert_array_equal(decode(contents), np.asarray(Image.open(io.BytesIO(contents))))


@pytest.mark.parametrize("contents", [b"", b"no image", encoded(smooth_pixels(), format="PNG")[:200]])
def test_what_is_no_image_is_an_error(contents):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(tf.constant(contents))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (600, 800)),
        ((640, 480), (800, 600)),
        ((375, 500), (600, 800)),
        ((300, 600), (500, 1000)),  # the cap: 1200 would be too long
        ((600, 1000), (600, 1000)),
        ((1200, 1200), (600, 600)),
        ((2000, 400), (1000, 200)),
        ((3, 4000), (1, 1000)),
        ((1, 4000), (1, 1000)),  # never 0
    ],
)
def test_shorter_side_600_unless_the_longer_exceeds_1000(size, expected):
    image = resize_to_network(tf.zeros([*size, 3]))
    assert tuple(image.shape) == (*expected, 3)
    assert image.dtype == tf.float32


@pytest.mark.parametrize(
    ("size", "within", "expected"),
    [
        ((480, 640), (1000, 1000), (600, 800)),
        ((480, 640), (600, 800), (600, 800)),
        ((480, 640), (300, 1000), (300, 400)),
        ((480, 640), (1000, 400), (300, 400)),
        ((3, 4000), (600, 50), (1, 50)),
    ],
)
def test_a_size_to_stay_within(size, within, expected):
    np.testing.assert_array_equal(network_size(size, within=within), expected)


def test_sizes_of_many_images_and_scales_at_once():
    sizes = network_size([[480, 640], [640, 480], [300, 600]], tf.constant([600.0, 300.0, 600.0]))
    np.testing.assert_array_equal(sizes, [[600, 800], [400, 300], [500, 1000]])


@settings(deadline=None, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    sides=st.tuples(st.integers(8, 70), st.integers(8, 90)),
    seed=st.integers(0, 9),
)
def test_values_equal_opencvs_bilinear_interpolation(size, sides, seed):
    """Enlarging and reducing without antialiasing, with pixel centres at 0.5."""
    shorter, longer = min(sides), max(sides)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    resized = resize_to_network(tf.constant(pixels), shorter, longer).numpy()
    factor = min(shorter / min(size), longer / max(size))
    assert resized.shape[2] == 3
    assert all(abs(new - max(1, old * factor)) <= 0.5001 for new, old in zip(resized.shape, size, strict=False))
    expected = cv2.resize(pixels.astype(np.float32), resized.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(resized, expected, atol=0.02)
