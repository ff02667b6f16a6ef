"""Checks of requests in the exported graph; what fails is told to the client as an InvalidArgument."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from tf_fast_rcnn.data.network_input import decode_image

if TYPE_CHECKING:
    from tf_fast_rcnn.export.limits import ServingLimits


def read_image(image_bytes: tf.Tensor, limits: ServingLimits) -> tf.Tensor:
    """The image of an encoded file, uint8 `[H, W, 3]`, decoded only where its header keeps to the limits.

    Args:
        image_bytes: string `[]`, JPEG, PNG or WebP.
        limits: `ServingLimits`.

    Raises:
        tf.errors.InvalidArgumentError: when run on other bytes, or an image beyond the limits.
    """
    with tf.control_dependencies([checked_size(image_bytes, limits)]):
        return decode_image(image_bytes)


def checked_size(image_bytes: tf.Tensor, limits: ServingLimits) -> tf.Tensor:
    """An encoded image's height and width, int32 `[2]`, from its header alone; arguments and errors as `read_image`."""
    size = image_size(image_bytes)
    # Nothing overflows: no format has more than 2^31 pixels a side.
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    fits = (tf.reduce_min(size) >= 1) & (tf.reduce_max(size) <= limits.max_side) & (pixels <= limits.max_pixels)
    expected = f"JPEG, PNG or WebP of at most {limits.max_side} a side and {limits.max_pixels} pixels in all"
    message = f"image_bytes: found the size {{}} (0: not known); expected {expected}; send another image"
    with tf.control_dependencies([_require(fits, message, size)]):
        return tf.identity(size)


def check_batch(numbers: Sequence[tf.Tensor], max_images: int) -> tf.Operation:
    """An operation that fails where a request has no images or too many, or not as many in each of its inputs:
    `numbers`, a list of int32 `[]`."""
    message = f"inputs: found {{}} images; expected 1 to {max_images}, as many in each; send another request"
    fits = tf.reduce_all(tf.equal(numbers, numbers[0])) & (numbers[0] >= 1) & (numbers[0] <= max_images)
    return _require(fits, message, tf.stack(numbers))


def check_proposals(number: tf.Tensor, max_proposals: int) -> tf.Operation:
    """An operation that fails where an image has more proposals, `number` `[]`, than allowed."""
    message = f"proposals: found {{}} of an image; expected at most {max_proposals}; send the best, or another image"
    return _require(number <= max_proposals, message, number)


def image_size(image_bytes: tf.Tensor) -> tf.Tensor:
    """Height and width that the header of a JPEG, PNG or WebP file gives, int32 `[2]`; zeros for other bytes, animated
    WebP among them.

    (PNG: RFC 2083, sections 3.1 and 4.1.1. WebP: RFC 9649, sections 2.4 to 2.7 and 3.4.)

    Raises:
        tf.errors.InvalidArgumentError: when run on a JPEG file of a broken header.
    """
    header = tf.cast(tf.io.decode_raw(image_bytes, tf.uint8, fixed_length=30), tf.int32)
    webp = _reads(header, b"RIFF", 0) & _reads(header, b"WEBP", 8)
    is_animated = tf.bitwise.bitwise_and(header[20], 0x02) > 0
    return tf.case(
        [
            (tf.io.is_jpeg(image_bytes), lambda: tf.image.extract_jpeg_shape(image_bytes)[:2]),
            (_reads(header, b"\x89PNG\r\n\x1a\n", 0), lambda: _number(header, [[23, 22, 21, 20], [19, 18, 17, 16]])),
            # Two bits of 16 are the scale, which decoders ignore.
            (webp & _reads(header, b"VP8 ", 12), lambda: _number(header, [[28, 29], [26, 27]]) % 2**14),
            (webp & _reads(header, b"VP8L", 12), lambda: _webp_lossless_size(header)),
            (
                webp & _reads(header, b"VP8X", 12) & ~is_animated,
                lambda: _number(header, [[27, 28, 29], [24, 25, 26]]) + 1,
            ),
        ],
        default=lambda: tf.zeros([2], tf.int32),
    )


def _reads(header, text, start):
    return tf.reduce_all(tf.equal(header[start : start + len(text)], list(text)))


def _number(header, places):
    """int32 `[N]` of numbers whose bytes, the lowest first, are at the places `[N, bytes]`."""
    shifts = tf.range(0, 8 * len(places[0]), 8)
    return tf.reduce_sum(tf.bitwise.left_shift(tf.gather(header, places), shifts), axis=1)


def _webp_lossless_size(header):
    """After a byte of signature: 14 bits of the width less 1, 14 bits of the height less 1."""
    bits = _number(header, [[21, 22, 23, 24]])[0]
    return tf.stack([tf.bitwise.right_shift(bits, 14), bits]) % 2**14 + 1


def _require(condition, message, value):
    """An operation that fails with the message, whose {} stands for the value, where the condition does not hold."""
    return tf.debugging.Assert(condition, [tf.strings.format(message, value)])
