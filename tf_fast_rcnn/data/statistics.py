"""Mean and standard deviation of the regression targets, used to normalise them (section 2.3 of the paper)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.batches.settings import SamplingRules
from tf_fast_rcnn.data.prepared.write import with_proposals

if TYPE_CHECKING:
    from tf_fast_rcnn.boxes import BoxStatistics
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.files import StrPath

# The statistics of classes with fewer foreground proposals are mixed with those of all classes together.
_ENOUGH_FOREGROUND = 50
_LEAST_STD = 0.01


def box_statistics(
    dataset: DetectionDataset,
    foreground_iou: float = SamplingRules.foreground_iou,
    cache_dir: StrPath | None = None,
    difficult: str = SamplingRules.difficult,
) -> BoxStatistics:
    """Mean and standard deviation of each class's regression targets over a data set's foreground proposals.

    (Section 2.3: "we normalize the ground-truth regression targets to have zero mean and unit variance".) For classes
    with few foreground proposals, the statistics are mixed with those of all classes together.

    Args:
        dataset: `DetectionDataset`; if it has no proposals, they are computed and cached as in `hierarchical_batches`.
        foreground_iou: proposals with at least this IoU with an object count, as do the objects' own boxes. Crowd
            regions do not count as objects.
        cache_dir: folder for cached proposals; default: $TF_FAST_RCNN_CACHE, else the user's cache folder.
        difficult: how to treat difficult objects, see `SamplingRules`; they count only if this is "train".

    Returns:
        `BoxStatistics`, float32 `[K, 4]` each.

    Example:
        >>> statistics = box_statistics(prepared)                                           # doctest: +SKIP
        >>> model = fast_rcnn("vgg16", num_classes=3, box_statistics=statistics)            # doctest: +SKIP
    """
    dataset = with_proposals(dataset, cache_dir)
    sums = np.zeros((3, len(dataset.class_names), 4))  # sums of 1, t and t squared by class
    for record in tqdm(dataset, desc="box statistics", unit="image", delay=2):
        is_object = ~record.crowd if difficult == "train" else ~record.crowd & ~record.difficult
        if not is_object.any():
            continue
        truth = record.boxes[is_object]
        candidates = np.concatenate([record.proposals(), truth])
        overlaps = boxes.iou(candidates, truth)
        foreground, match = overlaps.max(axis=1) >= foreground_iou, overlaps.argmax(axis=1)
        targets = boxes.encode(candidates[foreground], truth[match[foreground]]).astype(np.float64)
        labels = record.class_ids[is_object][match[foreground]] - 1
        for power in range(3):
            np.add.at(sums[power], labels, targets**power)
    return _statistics_from_sums(*sums)


def _statistics_from_sums(count, total, total_of_squares):
    """Statistics by class; missing foreground proposals are replaced by ones with the statistics of all classes."""
    everything = np.maximum(count.sum(axis=0), 1)
    lacking = np.maximum(_ENOUGH_FOREGROUND - count, 0)
    count = count + lacking
    mean = (total + lacking * total.sum(axis=0) / everything) / count
    mean_of_squares = (total_of_squares + lacking * total_of_squares.sum(axis=0) / everything) / count
    std = np.sqrt(np.maximum(mean_of_squares - mean**2, _LEAST_STD**2))
    return boxes.BoxStatistics(mean.astype(np.float32), std.astype(np.float32))
