"""Object proposals: selective search, dense boxes, or both, or proposals from a file."""

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


def compute_proposals(image: np.ndarray, proposals: ProposalSettings) -> np.ndarray:
    """Computes an image's object proposals, float32 `[P, 4]` relative: first selective search's, then dense boxes.

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        proposals: `ProposalSettings`.
    """
    height, width = image.shape[:2]
    parts = [np.zeros((0, 4), np.float32)]
    if proposals.selective_search is not None:
        parts.append(_searched(image, proposals))
    if proposals.dense is not None:
        parts.append(_large_enough(dense_boxes(height, width, proposals.dense), height, width, proposals.min_size))
    return np.concatenate(parts)


def _searched(image, proposals):
    """Selective search without small boxes, which native search drops before applying the limit on their number."""
    arguments = (image, proposals.selective_search, proposals.max_selective_search, proposals.seed)
    if proposals.implementation == "native":
        return selective_search(*arguments, implementation="native", min_size=proposals.min_size)
    found = selective_search(*arguments, implementation=proposals.implementation)
    return _large_enough(found, *image.shape[:2], proposals.min_size)


def _large_enough(proposals, height, width, min_size):
    return proposals[shorter_sides(proposals, height, width) >= min_size]
