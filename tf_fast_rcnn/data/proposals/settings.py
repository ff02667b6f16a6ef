"""Settings of computed proposals, which are stored with prepared data and trained models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.proposals.dense import DenseBoxes, fit_dense_boxes
from tf_fast_rcnn.data.proposals.files import FileProposals
from tf_fast_rcnn.data.proposals.selective_search import IMPLEMENTATIONS, MODES, available_implementation
from tf_fast_rcnn.data.tiles import Tiles
from tf_fast_rcnn.errors import InputError

if TYPE_CHECKING:
    from tf_fast_rcnn.data.records import ImageRecord

# Method -> mode of selective search and its implementation (None: the available one).
_SEARCH_OF = {
    "dense": (None, None),
    "selective-search": ("fast", None),
    "selective-search-quality": ("quality", None),
    "opencv-selective-search": ("fast", "opencv"),
    "opencv-selective-search-quality": ("quality", "opencv"),
}
METHODS = (*_SEARCH_OF, *(f"{method}+dense" for method in _SEARCH_OF if method != "dense"))
# Two cells of a stride-16 feature map at the paper's shorter side of 600 pixels: the network can hardly distinguish
# smaller proposals. Dropping them raised mAP on blood cells by 0.05.
DEFAULT_MIN_SIZE = 0.054


@dataclasses.dataclass(frozen=True)
class ProposalSettings:
    """Settings of `compute_proposals`.

    Attributes:
        selective_search: None, "fast" or "quality".
        max_selective_search: maximum number of selective search's proposals.
        dense: `DenseBoxes` or None.
        min_size: proposals with a shorter side below this are dropped; in units of the image's shorter side.
        seed: of selective search's order.
        implementation: of selective search, "native" or "opencv".
        tiles: `Tiles`, or None. With tiles, sizes of dense boxes and `min_size` are in units of a tile's side for boxes
            that tiles are responsible for, and in units of the image's shorter side for larger ones.
    """

    selective_search: str | None = None
    max_selective_search: int = 2000
    dense: DenseBoxes | None = None
    min_size: float = DEFAULT_MIN_SIZE
    seed: int = 0
    implementation: str = "native"
    tiles: Tiles | None = None

    def __post_init__(self) -> None:
        if self.implementation not in IMPLEMENTATIONS:
            raise InputError(
                f"proposal settings: found implementation {self.implementation!r}; "
                f"expected one of {', '.join(IMPLEMENTATIONS)}"
            )
        if self.selective_search not in (None, *MODES):
            raise InputError(
                f"proposal settings: found selective search {self.selective_search!r}; "
                f"expected none or one of {', '.join(MODES)}"
            )
        if self.selective_search is None and self.dense is None:
            raise InputError("proposal settings: found neither selective search nor dense boxes; expected one or both")

    def to_json(self) -> dict[str, Any]:
        """Converts to a dict of JSON types for `from_json`."""
        value = dataclasses.asdict(self)
        if self.selective_search is None:
            del value["implementation"]
        if self.tiles is None:
            del value["tiles"]
        return value

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Restores settings from a dict that `to_json` returned, possibly saved as JSON in between.

        Raises:
            InputError: if the dict is invalid.
        """
        try:
            dense, searched = value["dense"], value.get("selective_search") is not None
            # Settings without this key are from before the native implementation existed.
            implementation = {"implementation": "opencv"} if searched else {}
            tiles = {"tiles": Tiles(**value["tiles"])} if value.get("tiles") else {}
            dense = None if dense is None else DenseBoxes(**dense)
            return cls(**{**implementation, **value, "dense": dense, **tiles})
        except (TypeError, KeyError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            reason = f"{type(error).__name__}: {error}"
            raise InputError(
                f"proposal settings: found {reason}; expected settings of this version; run `prepare` again"
            ) from None


def settings_from_json(value: Any) -> ProposalSettings | FileProposals:
    """Restores settings of either kind from the value that their `to_json` returned.

    Raises:
        InputError: if the value is invalid.
    """
    kind = FileProposals if isinstance(value, dict) and "file" in value else ProposalSettings
    return kind.from_json(value)


def in_tiles(proposals: ProposalSettings | FileProposals | None, tiles: Tiles | None) -> Any:
    """The same proposals for images that are seen in other tiles, or as a whole; those of files do not change."""
    return dataclasses.replace(proposals, tiles=tiles) if isinstance(proposals, ProposalSettings) else proposals


def proposal_settings(
    method: str,
    dataset: Sequence[ImageRecord],
    dense: DenseBoxes | None = None,
    max_selective_search: int = 2000,
) -> ProposalSettings:
    """Settings for a data set: dense boxes and the minimum size of proposals are fitted to its boxes.

    The minimum size is `DEFAULT_MIN_SIZE`, or less if the data set has smaller objects: then, 5 % of the objects of
    some class have a shorter side below it.

    Args:
        method: "dense", "selective-search", "selective-search-quality" (slower, finds more), or one of the latter two
            with "+dense". The prefix "opencv-" selects OpenCV's selective search, which is also used, with a warning,
            if the package was installed without a compiler.
        dataset: the training data (`DetectionDataset`). Use the result for the test data too.
        dense: `DenseBoxes` (see `dense_grid`) instead of fitted ones; the minimum size is then at most their smallest
            side.
        max_selective_search: maximum number of selective search's proposals.

    Raises:
        InputError: for an unknown method, or dense boxes for a method without them.

    Example:
        >>> proposals = proposal_settings("dense", load_dataset("voc:cells@train"))     # doctest: +SKIP
    """
    if method not in METHODS:
        raise InputError(f"proposals: found method {method!r}; expected one of {', '.join(METHODS)}")
    parts = method.split("+")
    if dense is not None and "dense" not in parts:
        raise InputError(f"proposals: found dense boxes for the method {method}; expected {method}+dense, or no boxes")
    min_size = _min_size(dataset)
    if dense is not None:
        min_size = min(min_size, *map(min, dense.sizes))
    elif "dense" in parts:
        dense = fit_dense_boxes(dataset, min_size=min_size)
    mode, implementation = _SEARCH_OF[parts[0]]
    if mode is None:
        return ProposalSettings(dense=dense, max_selective_search=max_selective_search, min_size=min_size)
    implementation = implementation or available_implementation()
    return ProposalSettings(mode, max_selective_search, dense, min_size, implementation=implementation)


def _min_size(dataset):
    sides = [np.zeros(0)] + [shorter_sides(record.boxes, record.height, record.width) for record in dataset]
    labels = [np.zeros(0, np.int32)] + [record.class_ids for record in dataset]
    sides, labels = np.concatenate(sides), np.concatenate(labels)
    small = [np.percentile(sides[labels == label], 5) for label in np.unique(labels)]
    return float(min([DEFAULT_MIN_SIZE, *small]))


def shorter_sides(boxes: np.ndarray, height: float, width: float) -> np.ndarray:
    """Shorter side of each relative box `[G, 4]`, in units of the shorter side of the image of `height` x `width`."""
    shorter = min(height, width)
    scaled = box_algebra.scale(boxes, height / shorter, width / shorter)
    return np.min(scaled[:, 2:] - scaled[:, :2], axis=1)
