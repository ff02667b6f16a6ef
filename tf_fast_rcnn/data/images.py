"""Reading image files: one decoder for data sets, proposals and detection.

The rules are those of `tf.io.decode_image(channels=3)` where it can read a file at all, so that a model sees the same
pixels in training and in serving: 16-bit samples keep their high byte, alpha is dropped, colour profiles are not
applied. Unlike TensorFlow, EXIF orientation is applied.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image

from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

# EXIF orientation (tag 0x0112) -> what turns the stored image into the displayed one.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Orientations that exchange height and width.
_SIDEWAYS = (5, 6, 7, 8)

# Pillow's modes of files that TensorFlow decodes to the same pixels. MPO is the JPEG of phones with a second picture.
_PLAIN_MODES = {
    "JPEG": {"L", "RGB"},
    "MPO": {"L", "RGB"},
    "PNG": {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"},
}


def read_image(path: StrPath, contents: bytes | None = None) -> np.ndarray:
    """The image as displayed, uint8 `[H, W, 3]` RGB.

    Greyscale, palette, CMYK and 16-bit files are converted (16-bit samples by their high byte), alpha is dropped and
    EXIF orientation applied. Of an animation the first frame is read.

    Args:
        path: the image file.
        contents: its bytes where they are in memory; `path` then only names them in errors.

    Raises:
        InputError: if the file is missing, truncated, no image, larger than Pillow's limit against decompression
            bombs, or has samples of 32 bits, whose range is unknown.

    Example:
        >>> read_image("photo.jpg").shape           # doctest: +SKIP
        (480, 640, 3)
    """
    with _opened(path, contents) as image:
        # Before the pixels are loaded: Pillow would look at trailing chunks of a PNG afterwards, image_layout does not.
        orientation = _orientation(image)
        rgb = _to_rgb(image, path)
        return np.array(rgb.transpose(_TURNS[orientation]) if orientation in _TURNS else rgb)


def image_layout(path: StrPath) -> tuple[int, int, int]:
    """Size and orientation from the file's header alone: `(height, width, orientation)`.

    Height and width are those of the displayed image; orientation is EXIF's, 1 to 8.

    Raises:
        InputError: as `read_image`, but pixels are not looked at.
    """
    with _opened(path) as image:
        orientation = _orientation(image)
        width, height = image.size
        return (width, height, orientation) if orientation in _SIDEWAYS else (height, width, orientation)


def is_plain(path: StrPath, contents: bytes | None = None) -> bool:
    """Whether TensorFlow's decoders give exactly the pixels that `read_image` gives.

    True for upright JPEG (grey or YCbCr; TensorFlow needs `dct_method="INTEGER_ACCURATE"`) and PNG files; false for
    CMYK, for other orientations and formats, and for animations. `prepare` converts what is not plain to PNG.
    """
    with _opened(path, contents) as image:
        plain_mode = image.mode in _PLAIN_MODES.get(image.format, ())
        animated = image.format == "PNG" and getattr(image, "is_animated", False)
        return plain_mode and not animated and _orientation(image) == 1


def read_encoded(path: StrPath, contents: bytes | None = None) -> bytes:
    """The bytes of an image file that TensorFlow decodes to the pixels of `read_image`: those of the file itself where
    it is plain (see `is_plain`), else of a PNG.

    Raises:
        InputError: as `read_image`, but the pixels of a plain file are not looked at.
    """
    if not is_plain(path, contents):
        return encode_png(read_image(path, contents))
    return Path(path).read_bytes() if contents is None else contents


def encode_png(image: np.ndarray) -> bytes:
    """The bytes of a PNG file with an image, uint8 `[H, W, 3]`."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@contextlib.contextmanager
def _opened(path, contents=None):
    try:
        with Image.open(path if contents is None else io.BytesIO(contents)) as image:
            yield image
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: found no such file; expected an image; correct the path or restore it") from None
    except Exception as error:  # On broken files Pillow's many plugins raise errors of many types.
        # Pillow names what it was given: of bytes in memory, an address.
        reason = " ".join(re.sub("<_io.BytesIO[^>]*>", "", str(error)).split()) or type(error).__name__
        raise InputError(
            f"{path}: found no readable image ({reason}); expected a whole image file; replace or remove it"
        ) from None


def _orientation(image):
    # Pillow itself turns TIFF files. A PNG's EXIF is asked for only where the header has it: else Pillow would decode
    # the pixels to look behind them.
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
        # By way of RGBA because Pillow warns of transparent palettes otherwise; the colours are the same.
        image = image.convert("RGBA")
    return image.convert("RGB")
