"""Numbers and text from files that people and other programs write."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath


def finite(text: Any) -> float | None:
    """A finite number from text or a JSON value, or None."""
    try:
        value = float(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return value if math.isfinite(value) and not isinstance(text, bool) else None


def whole_pixels(text: Any) -> int | None:
    """An image's side in whole pixels from text or a JSON value: 0 if missing, None if it is not a number."""
    value = finite(text) if text not in (None, "") else 0.0
    return None if value is None else round(value)


def read_text(path: StrPath, expected: str) -> str:
    """Reads a UTF-8 text file, with or without a byte order mark.

    Args:
        path: the file.
        expected: a description of the expected content, for error messages.

    Raises:
        InputError: if the file is missing or not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid UTF-8 ({error}); expected {expected}; re-save the file as UTF-8") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot read the file ({error}); expected {expected}; check the path") from None
