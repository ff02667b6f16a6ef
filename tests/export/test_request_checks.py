"""Image sizes read from headers, decoding compared with Pillow, and rejected requests."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from served import encoded

import tf_fast_rcnn as frcnn
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.export.request_checks import check_batch, check_proposals, image_size, read_image

LIMITS = frcnn.ServingLimits(max_side=700, max_pixels=100_000, max_images=3, max_proposals=10)


def in_graph(function):
    return tf.function(function, input_signature=[tf.TensorSpec([], tf.string)], autograph=False)


size_of = in_graph(image_size)
decode = in_graph(lambda image_bytes: read_image(image_bytes, LIMITS))


def noise(height, width, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"
KINDS = {
    "JPEG": lambda image: encoded(image, "JPEG"),
    "progressive JPEG": lambda image: encoded(image, "JPEG", progressive=True),
    "PNG": lambda image: encoded(image, "PNG"),
    "lossy WebP": lambda image: encoded(image, "WEBP", quality=80),
    "lossless WebP": lambda image: encoded(image, "WEBP", lossless=True),
    "extended WebP": lambda image: encoded(image, "WEBP", exif=EXIF),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (300, 1), (257, 129), (64, 511)])
def test_the_header_tells_the_size(kind, height, width):
    contents = KINDS[kind](noise(height, width))
    assert size_of(contents).numpy().tolist() == [height, width]
    expected = np.asarray(Image.open(io.BytesIO(contents)).convert("RGBA"))[..., :3]
    np.testing.assert_array_equal(decode(contents), expected)


def cmyk_jpeg():
    file = io.BytesIO()
    Image.fromarray(noise(40, 60)).convert("CMYK").save(file, "JPEG", quality=95)
    return file.getvalue()


def sixteen_bit_png(values):
    """A PNG of samples uint16 `[H, W, C]`, written by hand, because Pillow only writes greyscale ones."""
    height, width, channels = values.shape
    colour = {1: 0, 3: 2}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in [*chunks, (b"IEND", b"")]
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_samples_keep_their_high_byte(channels):
    values = np.random.default_rng(0).integers(0, 2**16, (20, 30, channels), np.uint16)
    np.testing.assert_array_equal(decode(sixteen_bit_png(values)), np.broadcast_to(values >> 8, (20, 30, 3)))


def test_cmyk_is_what_pillow_makes_of_it():
    contents = cmyk_jpeg()
    expected = np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"), int)
    assert np.abs(decode(contents).numpy().astype(int) - expected).max() <= 1


def animated(kind):
    file, frames = io.BytesIO(), [Image.fromarray(noise(20, 30) // (1 + index)) for index in range(3)]
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


def test_of_an_animated_png_the_default_image_is_read():
    np.testing.assert_array_equal(decode(animated("PNG")), noise(20, 30))


def test_webp_with_alpha_is_refused():
    """TensorFlow's decoder rejects an alpha channel if three channels are requested; the size is read anyway."""
    contents = encoded(np.dstack([noise(20, 30), noise(20, 30, 1)]), "WEBP", quality=80)
    assert size_of(contents).numpy().tolist() == [20, 30]
    with pytest.raises(tf.errors.InvalidArgumentError, match="Number of channels requested does not match"):
        decode(contents)


def huge_png(height, width):
    """A few bytes whose header declares a large image."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


REFUSED = {
    "animated GIF": animated("GIF"),
    "GIF": encoded(noise(20, 30), "GIF"),
    "animated WebP": animated("WEBP"),
    "BMP": encoded(noise(20, 30), "BMP"),
    "empty": b"",
    "text": b"not an image",
    "RIFF": b"RIFF" + bytes(40),
    "too long": encoded(noise(1, 701), "PNG"),
    "too high": encoded(noise(701, 1), "JPEG"),
    "too many pixels": encoded(noise(400, 251), "JPEG"),
    "too many pixels, PNG": huge_png(2**31 - 1, 2**31 - 1),
    "negative size": huge_png(2**32 - 1, 5),
    "no pixels": huge_png(0, 5),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_by_its_header(what):
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="expected JPEG, PNG or WebP with at most 700 pixels per side and 1000"
    ):
        decode(REFUSED[what])


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_damaged_files_give_an_image_or_an_invalid_argument(kind, data):
    contents = bytearray(KINDS[kind](noise(24, 31)))
    for place in data.draw(st.lists(st.integers(0, len(contents) - 1), max_size=4)):
        contents[place] = data.draw(st.integers(0, 255))
    end = data.draw(st.one_of(st.just(len(contents)), st.integers(0, len(contents))))
    try:
        image = decode(bytes(contents[:end]))
    except tf.errors.InvalidArgumentError:
        return
    assert image.shape[0] * image.shape[1] <= LIMITS.max_pixels
    assert image.shape[0] == size_of(bytes(contents[:end]))[0]


def test_batches():
    check_all = tf.function(lambda numbers: [check_batch(tf.unstack(numbers), 3), numbers][1], autograph=False)
    for numbers in ([3, 3, 3], [1, 1], [2]):
        assert check_all(tf.constant(numbers)).numpy().tolist() == numbers
    for numbers in ([4, 4, 4], [2, 1, 2], [4], [0]):
        found = " ".join(map(str, numbers))
        message = rf"inputs: found \[{found}\] images; expected 1 to 3, the same number in each input"
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            check_all(tf.constant(numbers))


def test_numbers_of_proposals():
    check = tf.function(lambda number: [check_proposals(number, 10), number][1], autograph=False)
    assert check(tf.constant(10)) == 10
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="proposals: found 11 for an image; expected at most 10; send"
    ):
        check(tf.constant(11))


@pytest.mark.parametrize("name", ["max_side", "max_pixels", "max_images", "max_proposals"])
def test_limits_begin_at_one(name):
    with pytest.raises(InputError, match=f"{name}: found 0; expected a whole number from 1"):
        frcnn.ServingLimits(**{name: 0})
