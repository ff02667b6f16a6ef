"""From the bytes of an image to the network's input: decoding and resizing, in TensorFlow's graph.

Training, detection and the exported models share these functions, so that none of them sees other pixels.
"""

from __future__ import annotations

import tensorflow as tf

# Mean of ImageNet's mean colour: close to zero for any backbone once it has preprocessed it, as the original pads with
# zeros after it subtracted the mean. One number, since padding each channel with its own costs as much as decoding.
PADDING_GREY = 114.5


def decode_image(image_bytes: tf.Tensor) -> tf.Tensor:
    """JPEG or PNG bytes as uint8 `[H, W, 3]` RGB, with the values that Pillow gives.

    Args:
        image_bytes: string tensor `[]`. EXIF orientation is not applied: readers and clients do that.

    Raises:
        tf.errors.InvalidArgumentError: when run on bytes that are no image, or an animated one.
    """
    image = tf.cond(
        tf.io.is_jpeg(image_bytes),
        # TensorFlow's default for JPEG is faster and differs by up to 4.
        lambda: tf.io.decode_jpeg(image_bytes, channels=3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(image_bytes, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, (None, None, 3))


def resize_to_network(image: tf.Tensor, shorter_side: int = 600, longer_side: int = 1000) -> tf.Tensor:
    """Resizes so that the shorter side has a given length, unless the longer one then exceeds its limit.

    (Section 5.2 of the paper: s = 600, the longest side capped at 1000.) Bilinear, without antialiasing, as the
    released system.

    Args:
        image: uint8 or float32 `[H, W, 3]`.
        shorter_side, longer_side: pixels.

    Returns:
        float32 `[H', W', 3]`, values 0..255.

    Example:
        >>> resize_to_network(tf.zeros([480, 640, 3])).shape
        TensorShape([600, 800, 3])
    """
    return resize(image, network_size(tf.shape(image)[:2], shorter_side, longer_side))


def network_size(
    size: tf.Tensor,
    shorter_side: int | tf.Tensor = 600,
    longer_side: int | tf.Tensor = 1000,
    within: tuple[int, int] | None = None,
) -> tf.Tensor:
    """The height and width that `resize_to_network` gives images.

    Args:
        size: int `[..., 2]`, height and width of the images.
        shorter_side, longer_side: pixels; numbers or float32 `[...]`.
        within: (height, width) that is not to be exceeded either, or None.

    Returns:
        int32 `[..., 2]`, at least 1.
    """
    size = tf.cast(size, tf.float32)
    factor = tf.minimum(shorter_side / tf.reduce_min(size, axis=-1), longer_side / tf.reduce_max(size, axis=-1))
    if within is not None:
        factor = tf.minimum(factor, tf.reduce_min(tf.constant(within, tf.float32) / size, axis=-1))
    return tf.maximum(tf.cast(tf.round(size * factor[..., None]), tf.int32), 1)


def resize(image: tf.Tensor, new_size: tf.Tensor) -> tf.Tensor:
    """An image, uint8 or float32 `[H, W, 3]`, as float32 of a new height and width, as `resize_to_network` does it."""
    # TensorFlow resizes float32 to the same values in half the time; a large image takes longer to be converted.
    large = tf.size(image) > 5 * tf.reduce_prod(new_size)
    resized = tf.cond(
        large, lambda: tf.image.resize(image, new_size), lambda: tf.image.resize(tf.cast(image, tf.float32), new_size)
    )
    return tf.ensure_shape(resized, (None, None, 3))
