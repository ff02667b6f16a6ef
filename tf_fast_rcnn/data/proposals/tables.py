"""The result type of all readers of proposal files, and their protection against malicious files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

    from tf_fast_rcnn.files import StrPath

# The original reads this many of an image's ranked proposals.
MAX_PROPOSALS = 2000
# The image name of an .npy file's boxes, which are for a single image of any name.
ANY_IMAGE = "*"
# Boxes never compress this well; a file that claims to is meant to exhaust memory.
_MAX_EXPANSION = 100
_ALWAYS_ALLOWED_BYTES = 1 << 20


class Rows(NamedTuple):
    """An image's proposals as in the file: `corners` `[P, 4]` in its coordinate order, and `scores` `[P]` or None."""

    corners: np.ndarray
    scores: np.ndarray | None = None


class ProposalTable(NamedTuple):
    """The content of a proposal file.

    Attributes:
        rows: `Rows` by image name.
        order: the format's coordinate order.
        max_proposals: default maximum number of proposals per image; None for all.
    """

    rows: Mapping
    order: str
    max_proposals: int | None = MAX_PROPOSALS


class RowsOnDemand(Mapping):
    """A mapping from image name to `Rows`, which are read on demand.

    Args:
        names: of the images.
        read: function that takes a name and returns its `Rows`.
    """

    def __init__(self, names: Iterable[str], read: Callable[[str], Rows]) -> None:
        self._names, self._read = dict.fromkeys(names), read

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __getitem__(self, name: str) -> Rows:
        return self._read(name)


def to_rows(source: StrPath, array: npt.ArrayLike, scores: npt.ArrayLike | None = None) -> Rows:
    """Converts an image's entry in a file to `Rows`: numbers `[P, 4]`, or `[P, 5]` with the scores last.

    Raises:
        InputError: for another shape or type.
    """
    array = np.asarray(array)
    if array.size == 0:
        return Rows(np.zeros((0, 4), np.float32))
    if array.dtype.kind not in "fiu" or array.ndim != 2 or array.shape[1] not in (4, 5):
        raise InputError(
            f"{source}: found {array.dtype} {list(array.shape)}; expected numbers [P, 4], or [P, 5] with scores, one "
            "row per box"
        )
    if array.shape[1] == 5:
        array, scores = array[:, :4], array[:, 4]
    if scores is not None:
        scores = np.asarray(scores).reshape(-1)
        if scores.dtype.kind not in "fiu" or len(scores) != len(array):
            raise InputError(
                f"{source}: found {len(scores)} scores ({scores.dtype}) for {len(array)} boxes; expected one number "
                "per box; write the file again"
            )
    return Rows(array, scores)


def check_expansion(source: str, compressed: int, expanded: int) -> None:
    """Raises an InputError if data expand to more bytes than boxes possibly could."""
    if expanded > max_expanded(compressed):
        raise InputError(
            f"{source}: found {compressed} bytes that expand to {expanded} or more; expected boxes; "
            "do not trust this file"
        )


def max_expanded(compressed: int) -> int:
    """The number of bytes that `check_expansion` allows."""
    return max(_ALWAYS_ALLOWED_BYTES, _MAX_EXPANSION * compressed)


@contextlib.contextmanager
def one_line_errors(path: StrPath, expected: str) -> Iterator[None]:
    """Converts any error of a parser to an InputError; `expected` describes what the file should be."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected {expected}; check the path") from None
    except Exception as error:  # Damaged files can raise anything, including MemoryError and RecursionError.
        reason = (str(error) or type(error).__name__)[:200]
        raise InputError(
            f"{path}: cannot read the proposals ({reason}); expected {expected}; write the file again"
        ) from None
