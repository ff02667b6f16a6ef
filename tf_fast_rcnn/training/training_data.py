"""What training sees: the settled recipe, the images with their proposals, and the tiles of large images."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from tf_fast_rcnn.data.datasets import DetectionDataset
from tf_fast_rcnn.data.prepared.tiles import cut_tiles, trained_objects
from tf_fast_rcnn.data.prepared.write import cached_proposals
from tf_fast_rcnn.data.proposals import FileProposals, ProposalSettings, compute_proposals, in_tiles, proposal_settings
from tf_fast_rcnn.data.proposals.recall import ENOUGH_RECALL, MIN_IOU, recall_by_size
from tf_fast_rcnn.errors import InputError
from tf_fast_rcnn.training import run_folder
from tf_fast_rcnn.training.choices import settle
from tf_fast_rcnn.training.settings import check_classes, check_objects

if TYPE_CHECKING:
    from tf_fast_rcnn.files import StrPath
    from tf_fast_rcnn.training.settings import Recipe

# Each tile is seen this often: enough different ones, and more than one epoch, after which mAP is measured.
_TILE_EPOCHS = 2
_MAX_TILES_PER_IMAGE = 64
# Share of whole images among what training sees, if it sees both them and tiles.
_WHOLE_SHARE = 0.25
# Images whose recall is reported, when it takes another computation of their proposals.
_RECALL_IMAGES = 50


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """See `training_data`.

    Attributes:
        dataset: what training sees, with proposals.
        proposals: how the proposals of other images are computed.
        recipe: the recipe without "auto".
        reasons: sentences for `train` to print: choices with their reasons, and, if progress is shown, the recall of
            the proposals.
    """

    dataset: DetectionDataset
    proposals: ProposalSettings | FileProposals
    recipe: Recipe
    reasons: tuple[str, ...]


def training_data(
    dataset: DetectionDataset,
    recipe: Recipe,
    proposals: ProposalSettings | FileProposals | Callable[..., ProposalSettings] | None = None,
    *,
    backbone: str | keras.Model | None = None,
    weights: StrPath | None = "imagenet",
    seed: int = 0,
    workers: int | None = None,
    cache_dir: StrPath | None = None,
    progress: bool = True,
    skip_bad: bool = False,
) -> TrainingData:
    """Settles a recipe, and computes the proposals of the images, or of the tiles that it cuts.

    Args:
        dataset: `DetectionDataset`.
        recipe: `Recipe`.
        proposals: as for `train`; or a function that takes the images or tiles and returns `ProposalSettings`.
        backbone, weights, seed, workers, cache_dir, progress, skip_bad: as for `train`.

    Returns:
        `TrainingData`, which `train` takes in place of a dataset.

    Raises:
        InputError: if the data do not fit the recipe.

    Example:
        >>> data = training_data(load_dataset("voc:birds@train"), small_data())                 # doctest: +SKIP
        >>> data.recipe.tile, len(data.dataset)                                                 # doctest: +SKIP
        (240, 1620)
    """
    if not any(len(record.boxes) for record in dataset):
        raise InputError(f"{dataset.name}: found no objects; expected annotated images; check the split")
    backbone = backbone or recipe.backbone
    recipe = dataclasses.replace(recipe, backbone=backbone if isinstance(backbone, str) else backbone.name)
    check_classes(recipe, dataset)
    check_objects(dataset)
    _check_tiles(recipe, dataset, proposals)
    start = run_folder.read_description(weights) if weights and Path(weights).is_dir() else None
    known = dataset.proposals is not None or isinstance(proposals, (ProposalSettings, FileProposals))
    recipe, reasons = settle(recipe, dataset, backbone, start, tiles_allowed=not known)
    options: dict[str, Any] = {"cache_dir": cache_dir, "workers": workers, "progress": progress}
    tiles = recipe.tiles
    if tiles is None:
        proposals = dataset.proposals or _chosen(proposals, recipe, dataset)
        if dataset.proposals is None:
            dataset = cached_proposals(dataset, proposals, skip_bad=skip_bad, **options)
        recalls = _recall_lines(dataset) if progress else ()
        return TrainingData(dataset, proposals, recipe, (*reasons, *recalls))
    views = cut_tiles(dataset, tiles, _tiles_per_image(recipe, dataset), seed=seed, skip_bad=skip_bad, **options)
    of_views = _chosen(proposals, recipe, list(trained_objects(views)))
    seen = _with_enough_whole_images(cached_proposals(views, of_views, **options), tiles)
    proposals = in_tiles(of_views, tiles)
    recalls = _recall_lines(_with_computed(dataset, proposals)) if progress else ()
    return TrainingData(seen, proposals, recipe, (*reasons, *recalls))


def _check_tiles(recipe, dataset, proposals):
    """Raises an InputError if tiles are asked for and proposals of whole images are given."""
    given = dataset.name if dataset.proposals is not None else "a proposal file"
    if isinstance(recipe.tile, int) and (dataset.proposals is not None or isinstance(proposals, FileProposals)):
        raise InputError(
            f"tile: found {recipe.tile} with the proposals of {given}; expected computed proposals, which are found in "
            "each tile; leave the proposals or the tiles out"
        )


def _chosen(proposals, recipe, images):
    if proposals is None:
        return proposal_settings(recipe.proposals, images)
    return proposals(images) if callable(proposals) else proposals


def _tiles_per_image(recipe, dataset):
    seen = (recipe.steps or 1000) * recipe.sampling.images_per_batch
    return min(_MAX_TILES_PER_IMAGE, math.ceil(seen / (_TILE_EPOCHS * len(dataset))))


def _with_enough_whole_images(dataset, tiles):
    """The tiles and whole images, the latter repeated until they are `_WHOLE_SHARE` of all."""
    sizes = dataset.records.image_sizes()
    whole = np.flatnonzero(np.any(sizes != tiles.size, axis=1))
    number = len(sizes) - len(whole)
    if not len(whole):
        return dataset
    wanted = math.ceil(number * _WHOLE_SHARE / (1 - _WHOLE_SHARE))
    more = np.resize(whole, max(0, wanted - len(whole)))
    return dataset[np.concatenate([np.arange(len(sizes)), more])]


def _with_computed(dataset, proposals):
    """Some of the readable images with their proposals, evenly spread."""
    found = []
    for index in np.unique(np.linspace(0, len(dataset) - 1, _RECALL_IMAGES).astype(int)):
        record = dataset[int(index)]
        with contextlib.suppress(InputError):
            found.append(dataclasses.replace(record, proposal_boxes=compute_proposals(record.image(), proposals)))
    return found


def _recall_lines(records):
    """The recall of the proposals on the training objects, and a warning if it is low: detection cannot exceed it."""
    recalls = recall_by_size(records)
    if not recalls:
        return []
    by_size = ", ".join(f"{name} {value:.3f}" for name, value in recalls.items())
    lines = [f"recall of the proposals at IoU {MIN_IOU} on the training objects: {by_size}"]
    if recalls["all"] < ENOUGH_RECALL:
        lines.append(
            f"warning: the proposals miss {1 - recalls['all']:.0%} of the objects, which the detector cannot find "
            "either; try --proposals selective-search+dense, --dense-scales for your sizes of objects, or --tile"
        )
    return lines
