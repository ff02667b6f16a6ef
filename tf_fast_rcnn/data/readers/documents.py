"""What the readers of JSON files of annotation tools share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_fast_rcnn.data.parsing import finite
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath

# Counted in `fixes` by all readers of shapes.
NO_AREA = "points, lines and other shapes without an area skipped"
TO_BOXES = "outlines and rotated boxes replaced by their bounding boxes"


def load_json(path: StrPath, expected: str) -> Any:
    """The content of a JSON file; `expected` describes it for error messages.

    Raises:
        InputError: if the file cannot be read or is not JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot read the file ({error}); expected {expected}; check the path") from None
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: invalid JSON ({reason}); expected {expected}; fix the file") from None


def numbers_of(source: str, values: Any, expected: str) -> list[float]:
    """Finite numbers of a JSON value, a list or a list of lists of them.

    Raises:
        InputError: for any other value; `expected` describes it.
    """
    flat: list[Any] = []
    for value in values if isinstance(values, list) else [None]:
        flat += value if isinstance(value, list) else [value]
    found = [finite(value) for value in flat]
    numbers = [number for number in found if number is not None]
    if len(numbers) < len(found) or not found:
        raise InputError(f"{source}: found {str(values)[:60]}; expected {expected}; fix or remove the object")
    return numbers


def fields_of(source: str, value: Any, names: tuple[str, ...]) -> list[float]:
    """The finite numbers of a dict's fields.

    Raises:
        InputError: if one is missing or not a number.
    """
    values = [value.get(name) if isinstance(value, dict) else None for name in names]
    return numbers_of(source, values, f"numbers {', '.join(names)}")


def text_of(source: str, value: Any, what: str) -> str:
    """A JSON value that must be text and not empty.

    Raises:
        InputError: for any other value; `what` names it.
    """
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{source}: found {what} {str(value)[:40]!r}; expected text; add it or remove the object")
    return value.strip()


def name_in(image: Path, folder: Path) -> str:
    """The id of an image: its path relative to a folder, with slashes; the whole path if it is elsewhere.

    Example:
        >>> name_in(Path("cells/day 1/a.jpg"), Path("cells"))
        'day 1/a.jpg'
    """
    path, root = os.path.abspath(image), os.path.abspath(folder)
    return Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else Path(image).as_posix()
