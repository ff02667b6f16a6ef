"""Checks of requests in the exported graph; the client gets an InvalidArgument error if one fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from tf_fast_rcnn.data.network_input import decode_image

if TYPE_CHECKING:
    from tf_fast_rcnn.export.limits import ServingLimits


def read_image(image_bytes: tf.Tensor, limits: ServingLimits) -> tf.Tensor:
    """Decodes an image, uint8 `[H, W, 3]`, after checking the size in its header.

    Args:
        image_bytes: string `[]`, JPEG, PNG or WebP.
        limits: `ServingLimits`.

    Raises:
        tf.errors.InvalidArgumentError: at run time, for other bytes or an image beyond the limits.
    """
    with tf.control_dependencies([checked_size(image_bytes, limits)]):
        return decode_image(image_bytes)


def checked_size(image_bytes: tf.Tensor, limits: ServingLimits) -> tf.Tensor:
    """Height and width of an encoded image, int32 `[2]`, from its header; arguments and errors as of `read_image`."""
    size = image_size(image_bytes)
    # This cannot overflow: no format has more than 2^31 pixels per side.
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    fits = (tf.reduce_min(size) >= 1) & (tf.reduce_max(size) <= limits.max_side) & (pixels <= limits.max_pixels)
    expected = (
        f"JPEG, PNG or WebP with at most {limits.max_side} pixels per side and {limits.max_pixels} pixels in total"
    )
    message = f"image_bytes: found the size {{}} (0: unknown); expected {expected}; send another image"
    with tf.control_dependencies([_require(fits, message, size)]):
        return tf.identity(size)


def check_batch(numbers: Sequence[tf.Tensor], max_images: int) -> tf.Operation:
    """An operation that fails if a request has no images or too many, or if its inputs have different batch sizes.

    Args:
        numbers: batch size of each input, int32 `[]`.
        max_images: maximum batch size.
    """
    message = (
        f"inputs: found {{}} images; expected 1 to {max_images}, the same number in each input; send another request"
    )
    fits = tf.reduce_all(tf.equal(numbers, numbers[0])) & (numbers[0] >= 1) & (numbers[0] <= max_images)
    return _require(fits, message, tf.stack(numbers))


def check_proposals(number: tf.Tensor, max_proposals: int) -> tf.Operation:
    """An operation that fails if the `number` `[]` of proposals of an image is above the maximum."""
    message = (
        f"proposals: found {{}} for an image; expected at most {max_proposals}; send fewer proposals, or another image"
    )
    return _require(number <= max_proposals, message, number)


def image_size(image_bytes: tf.Tensor) -> tf.Tensor:
    """Height and width in the header of a JPEG, PNG or WebP file, int32 `[2]`; zeros for other bytes and animated WebP.

    References: RFC 2083, sections 3.1 and 4.1.1 (PNG); RFC 9649, sections 2.4 to 2.7 and 3.4 (WebP).

    Raises:
        tf.errors.InvalidArgumentError: at run time, for a JPEG file with a broken header.
    """
    header = tf.cast(tf.io.decode_raw(image_bytes, tf.uint8, fixed_length=30), tf.int32)
    webp = _reads(header, b"RIFF", 0) & _reads(header, b"WEBP", 8)
    is_animated = tf.bitwise.bitwise_and(header[20], 0x02) > 0
    return tf.case(
        [
            (tf.io.is_jpeg(image_bytes), lambda: tf.image.extract_jpeg_shape(image_bytes)[:2]),
            (_reads(header, b"\x89PNG\r\n\x1a\n", 0), lambda: _number(header, [[23, 22, 21, 20], [19, 18, 17, 16]])),
            # The upper 2 of the 16 bits are the scale, which decoders ignore.
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
    """int32 `[N]`: the integers whose bytes, least significant first, are at the offsets `places` `[N, bytes]`."""
    shifts = tf.range(0, 8 * len(places[0]), 8)
    return tf.reduce_sum(tf.bitwise.left_shift(tf.gather(header, places), shifts), axis=1)


def _webp_lossless_size(header):
    """After a signature byte: width - 1 and height - 1, 14 bits each."""
    bits = _number(header, [[21, 22, 23, 24]])[0]
    return tf.stack([tf.bitwise.right_shift(bits, 14), bits]) % 2**14 + 1


def _require(condition, message, value):
    """An operation that fails with the message, with {} replaced by the value, unless the condition holds."""
    return tf.debugging.Assert(condition, [tf.strings.format(message, value)])
