"""Object proposals: selective search, dense boxes, or both; or those of a file."""

from __future__ import annotations

import numpy as np

from tf_fast_rcnn.data.proposals.dense import DenseBoxes, dense_boxes, dense_grid, fit_dense_boxes
from tf_fast_rcnn.data.proposals.files import FileProposals, file_proposals
from tf_fast_rcnn.data.proposals.selective_search import selective_search
from tf_fast_rcnn.data.proposals.settings import (
    METHODS,
    ProposalSettings,
    proposal_settings,
    settings_from_json,
    shorter_sides,
)

__all__ = [
    "METHODS",
    "DenseBoxes",
    "FileProposals",
    "ProposalSettings",
    "compute_proposals",
    "dense_boxes",
    "dense_grid",
    "file_proposals",
    "fit_dense_boxes",
    "proposal_settings",
    "selective_search",
    "settings_from_json",
]


def compute_proposals(image: np.ndarray, settings: ProposalSettings) -> np.ndarray:
    """An image's object proposals, float32 `[P, 4]` relative: selective search's first, then the dense boxes.

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        settings: `ProposalSettings`.
    """
    height, width = image.shape[:2]
    parts = [np.zeros((0, 4), np.float32)]
    if settings.selective_search is not None:
        parts.append(_searched(image, settings))
    if settings.dense is not None:
        parts.append(_large_enough(dense_boxes(height, width, settings.dense), height, width, settings.min_size))
    return np.concatenate(parts)


def _searched(image, settings):
    """Small boxes are left out before the limit where that can be: more of the others are then below it."""
    arguments = (image, settings.selective_search, settings.max_selective_search, settings.seed)
    if settings.implementation == "native":
        return selective_search(*arguments, implementation="native", min_size=settings.min_size)
    found = selective_search(*arguments, implementation=settings.implementation)
    return _large_enough(found, *image.shape[:2], settings.min_size)


def _large_enough(proposals, height, width, min_size):
    return proposals[shorter_sides(proposals, height, width) >= min_size]
