"""Proposals for training and testing the detectors: selective search, dense boxes, and mixtures of both."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.prepared.write import cached_proposals
from tf_fast_rcnn.data.proposals import dense_grid, proposal_settings
from tf_fast_rcnn.data.proposals.recall import recall_curves

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.proposals.settings import ProposalSettings
    from tf_fast_rcnn.files import StrPath

SELECTIVE_SEARCH, ALL_SIZES = "selective search", "selective search, all sizes"
DENSE, DENSE_GRID = "dense boxes", "dense boxes of a fixed grid"


@dataclasses.dataclass(frozen=True)
class ProposalChoice:
    """Which proposals of each image are used.

    Attributes:
        source: a key of `sources`.
        number: use at most this many, chosen at random; None for all.
        dense: number of dense boxes to add, chosen at random.
        nearest_dense: whether to replace each proposal by the dense box with the largest IoU.
    """

    source: str = SELECTIVE_SEARCH
    number: int | None = None
    dense: int = 0
    nearest_dense: bool = False


def sources(train: DetectionDataset) -> dict[str, ProposalSettings]:
    """The `ProposalSettings` of each source; dense boxes and the smallest proposal are fitted to the training data."""
    selective_search = proposal_settings("selective-search", train)
    return {
        SELECTIVE_SEARCH: selective_search,
        ALL_SIZES: dataclasses.replace(selective_search, min_size=0.0),
        DENSE: proposal_settings("dense", train),
        DENSE_GRID: proposal_settings("dense", train, dense_grid()),
    }


class ProposalStore:
    """Provides datasets with the proposals of a choice; the proposals of a source are computed once and cached.

    Args:
        train: the dataset to which dense boxes and the smallest proposal are fitted.
        cache_dir, workers, progress, skip_bad: see `cached_proposals`.
    """

    def __init__(
        self,
        train: DetectionDataset,
        cache_dir: StrPath | None = None,
        workers: int | None = None,
        progress: bool = True,
        skip_bad: bool = False,
    ) -> None:
        self.settings = sources(train)
        self._options: dict[str, Any] = {
            "cache_dir": cache_dir,
            "workers": workers,
            "progress": progress,
            "skip_bad": skip_bad,
        }

    def of(self, dataset: DetectionDataset, choice: ProposalChoice, seed: int = 0) -> DetectionDataset:
        """`dataset` with the proposals of `choice`; random choices depend only on the seed and the image's index."""
        whole = cached_proposals(dataset, self.settings[choice.source], **self._options)
        if choice == ProposalChoice(choice.source):
            return whole
        dense = cached_proposals(dataset, self.settings[DENSE], **self._options)
        records = []
        for number, (record, of_dense) in enumerate(zip(whole, dense, strict=True)):
            rng = np.random.default_rng([seed, number])
            chosen = choose(record.proposals(), of_dense.proposals(), choice, rng)
            records.append(dataclasses.replace(record, proposal_boxes=chosen))
        return whole.with_records(records)


def choose(proposals: np.ndarray, dense: np.ndarray, choice: ProposalChoice, rng: np.random.Generator) -> np.ndarray:
    """Applies a `ProposalChoice` to an image's proposals.

    Args:
        proposals: float32 `[P, 4]`, the proposals of the choice's source, relative `[y1, x1, y2, x2]`.
        dense: float32 `[Q, 4]`, the dense boxes, also relative.
        choice: the `ProposalChoice`.
        rng: random generator.

    Returns:
        The chosen proposals, float32 `[N, 4]`, relative.
    """
    # The first entries of a permutation, so that with one seed a larger number contains the smaller ones.
    chosen = proposals[rng.permutation(len(proposals))[: choice.number]]
    if choice.nearest_dense and len(dense):
        chosen = dense[np.unique(boxes.iou(dense, chosen).argmax(axis=0))]
    added = dense[rng.permutation(len(dense))[: choice.dense]]
    return np.concatenate([chosen, added])


def proposal_facts(dataset: DetectionDataset) -> dict[str, float]:
    """Means over a dataset: proposals per image, and their average recall over IoU 0.5 to 0.95 (0 to 1)."""
    return {
        "proposals": float(np.mean([len(record.proposals()) for record in dataset])),
        "average_recall": float(np.mean(recall_curves(dataset, counts=()).by_iou)),
    }
