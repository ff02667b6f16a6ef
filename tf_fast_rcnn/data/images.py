"""Reads image files: one decoder for data sets, proposals and detection.

Files that `tf.io.decode_image(channels=3)` can read are decoded to the same pixels, so a model sees the same images in
training and in serving: 16-bit samples keep their high byte, alpha is dropped, and colour profiles are not applied.
Unlike in TensorFlow, EXIF orientation is applied.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image

from tf_fast_rcnn.data.image_damage import damage, png_bit_depth
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

# EXIF orientation (tag 0x0112) -> transposition from the stored image to the displayed one.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Orientations that swap height and width.
_SIDEWAYS = (5, 6, 7, 8)

# The high byte of 4095.
_LARGEST_OF_12_BITS = 15

# Number of pixels that are converted to an array at a time.
_CONVERTED_PIXELS = 1 << 22

# Pillow's modes of files that TensorFlow decodes to the same pixels. MPO is a phone's JPEG with a second image inside.
_PLAIN_MODES = {
    "JPEG": {"L", "RGB"},
    "MPO": {"L", "RGB"},
    "PNG": {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"},
}


def read_image(path: StrPath, contents: bytes | None = None) -> np.ndarray:
    """Reads an image as displayed, uint8 `[H, W, 3]` RGB.

    Greyscale, palette, CMYK and 16-bit files are converted (16-bit samples keep their high byte), alpha is dropped and
    EXIF orientation is applied. The first frame of an animation is read.

    Args:
        path: the image file.
        contents: the file's bytes if they are in memory; `path` is then only used in error messages.

    Raises:
        InputError: if the file is missing, truncated, damaged so that TensorFlow refuses it (see `image_damage`), not
            an image, larger than Pillow's limit against decompression bombs, or has 32-bit samples, whose range is
            unknown.

    Example:
        >>> read_image("photo.jpg").shape           # doctest: +SKIP
        (480, 640, 3)
    """
    with _opened(path, contents) as image:
        # Before the pixels are loaded, as in image_layout; afterwards Pillow would also use trailing chunks of a PNG.
        orientation = _orientation(image)
        rgb = _to_rgb(image, path)
        if image.format in _PLAIN_MODES:
            _refuse_damage(path, Path(path).read_bytes() if contents is None else contents)
        return _to_array(rgb.transpose(_TURNS[orientation]) if orientation in _TURNS else rgb)


def image_layout(path: StrPath) -> tuple[int, int, int]:
    """Size and orientation from the file's header: `(height, width, orientation)`.

    Height and width are those of the displayed image in pixels; orientation is EXIF's, 1 to 8.

    Raises:
        InputError: as in `read_image`, but the pixels are not read.
    """
    with _opened(path) as image:
        orientation = _orientation(image)
        width, height = image.size
        return (width, height, orientation) if orientation in _SIDEWAYS else (height, width, orientation)


def is_plain(path: StrPath, contents: bytes | None = None) -> bool:
    """Whether TensorFlow decodes a file to exactly the same pixels as `read_image`.

    True for upright JPEG (grey or YCbCr; TensorFlow needs `dct_method="INTEGER_ACCURATE"`) and PNG files; false for
    CMYK, for other orientations and formats, and for animations. `prepare` converts all other files to PNG.
    """
    with _opened(path, contents) as image:
        plain_mode = image.mode in _PLAIN_MODES.get(image.format, ())
        animated = image.format == "PNG" and getattr(image, "is_animated", False)
        return plain_mode and not animated and _orientation(image) == 1


def read_encoded(path: StrPath, contents: bytes | None = None) -> bytes:
    """The bytes of an image file that TensorFlow decodes to the same pixels as `read_image`.

    These are the file's own bytes if it is plain (see `is_plain`), otherwise those of a PNG.

    Raises:
        InputError: as in `read_image`, but the pixels of a plain file are not checked.
    """
    if not is_plain(path, contents):
        return encode_png(read_image(path, contents))
    return Path(path).read_bytes() if contents is None else contents


def encode_png(image: np.ndarray) -> bytes:
    """Encodes an image, uint8 `[H, W, 3]`, as the bytes of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def uses_few_bits(path: StrPath, image: np.ndarray, contents: bytes | None = None) -> bool:
    """Whether a file has 16 bits per sample, of which the image only uses the lower 12 or fewer.

    Cameras and microscopes of 12 bits write such files. As their high bytes are at most 15 of 255, they are read as
    almost black images.

    Args:
        path: the image file.
        image: uint8 `[H, W, 3]`, as `read_image` returns it.
        contents: the file's bytes if they are in memory.
    """
    if image.max(initial=0) > _LARGEST_OF_12_BITS:
        return False
    with _opened(path, contents) as opened:
        if opened.mode.startswith("I;16"):
            return True
    # Pillow reads colours of 16 bits as 8 bits.
    return png_bit_depth(Path(path).read_bytes() if contents is None else contents) == 16


def _refuse_damage(path, contents):
    problem = damage(contents)
    if problem is not None:
        raise InputError(
            f"{path}: cannot read the image ({problem}); expected a complete image file; replace or remove it, or open "
            "it and save it again"
        )


@contextlib.contextmanager
def _opened(path, contents=None):
    try:
        with Image.open(path if contents is None else io.BytesIO(contents)) as image:
            yield image
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected an image; correct the path or restore the file") from None
    except Exception as error:  # On broken files Pillow's many plugins raise errors of many types.
        # For bytes in memory, Pillow's message contains an address.
        reason = " ".join(re.sub("<_io.BytesIO[^>]*>", "", str(error)).split()) or type(error).__name__
        raise InputError(
            f"{path}: cannot read the image ({reason}); expected a complete image file; replace or remove it"
        ) from None


def _orientation(image):
    # Pillow rotates TIFF files itself. A PNG's EXIF is read only if it is in the header: otherwise Pillow would decode
    # the pixels to look for it after them.
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return 1
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return orientation if orientation in _TURNS else 1


def _to_rgb(image, path):
    if image.mode.startswith("I;16"):
        high_byte = (np.asarray(image) >> 8).astype(np.uint8)
        return Image.fromarray(high_byte).convert("RGB")
    if image.mode in ("I", "F"):
        raise InputError(f"{path}: found 32-bit samples; expected 8 or 16 bits; convert the image to PNG")
    if image.mode == "P":
        # Via RGBA, because Pillow otherwise warns about transparent palettes; the colours are the same.
        image = image.convert("RGBA")
    # Of an image in the same mode, `convert` would make a copy.
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_array(image):
    """The pixels of an RGB image, a few rows at a time: Pillow needs 4 bytes for each pixel, and as many again for each
    one that it converts. Memory thus peaks at 7 bytes for each pixel of the image instead of 14."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _CONVERTED_PIXELS // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        pixels[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return pixels
