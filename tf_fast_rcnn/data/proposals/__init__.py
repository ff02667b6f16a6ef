"""Object proposals: selective search, dense boxes, or both, or proposals from a file."""

from __future__ import annotations

import dataclasses

import numpy as np

from tf_fast_rcnn import boxes as box_algebra
from tf_fast_rcnn.data.proposals.dense import DenseBoxes, dense_boxes, dense_grid, dense_in_views, fit_dense_boxes
from tf_fast_rcnn.data.proposals.files import FileProposals
from tf_fast_rcnn.data.proposals.reading import file_proposals
from tf_fast_rcnn.data.proposals.selective_search import selective_search
from tf_fast_rcnn.data.proposals.settings import (
    METHODS,
    ProposalSettings,
    in_tiles,
    proposal_settings,
    settings_from_json,
    shorter_sides,
)
from tf_fast_rcnn.data.tiles import is_of_tiles, tile_windows

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
    "in_tiles",
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
    if proposals.tiles is not None:
        return _in_views(image, proposals)
    height, width = image.shape[:2]
    parts = [np.zeros((0, 4), np.float32)]
    if proposals.selective_search is not None:
        parts.append(_searched(image, proposals))
    if proposals.dense is not None:
        parts.append(_large_enough(dense_boxes(height, width, proposals.dense), height, width, proposals.min_size))
    return np.concatenate(parts)


def _in_views(image, proposals):
    """The proposals that tiles are responsible for, found at the scale of tiles, and those of the whole image."""
    height, width = image.shape[:2]
    tiles, plain = proposals.tiles, dataclasses.replace(proposals, tiles=None)
    parts = [np.zeros((0, 4), np.float32)]
    if proposals.selective_search is not None:
        searched = dataclasses.replace(plain, dense=None)
        for window in tile_windows(height, width, tiles):
            top, left, bottom, right = window
            found = box_algebra.scale(
                compute_proposals(image[top:bottom, left:right], searched), bottom - top, right - left
            )
            found += np.array([top, left, top, left], np.float32)
            parts.append(box_algebra.relative(found, height, width)[is_of_tiles(found, tiles)])
        if tiles.whole_image:
            found = compute_proposals(image, searched)
            parts.append(found[~is_of_tiles(box_algebra.scale(found, height, width), tiles)])
    if proposals.dense is not None:
        dense = dense_in_views(height, width, proposals.dense, tiles)
        min_size = proposals.min_size * min(1.0, tiles.size / min(height, width))
        parts.append(_large_enough(dense_boxes(height, width, dense), height, width, min_size))
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
