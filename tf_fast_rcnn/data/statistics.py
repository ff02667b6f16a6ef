"""Statistics of a data set's regression targets, by which the model normalises them (section 2.3 of the paper)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from tf_fast_rcnn import boxes
from tf_fast_rcnn.data.batches.settings import SamplingRules
from tf_fast_rcnn.data.prepared.write import with_proposals

if TYPE_CHECKING:
    from tf_fast_rcnn.boxes import BoxStatistics
    from tf_fast_rcnn.data.records import DetectionDataset
    from tf_fast_rcnn.files import StrPath

# Classes with fewer foreground proposals than this lean on the statistics of all classes together.
_ENOUGH_FOREGROUND = 50
_LEAST_STD = 0.01


def box_statistics(
    dataset: DetectionDataset,
    foreground_iou: float = SamplingRules.foreground_iou,
    cache_dir: StrPath | None = None,
    difficult: str = SamplingRules.difficult,
) -> BoxStatistics:
    """Mean and deviation of the regression targets of each class over a data set's foreground proposals.

    (Section 2.3: "we normalize the ground-truth regression targets to have zero mean and unit variance".) A class
    with few foreground proposals leans on the statistics of all classes together.

    Args:
        dataset: `DetectionDataset`; proposals are computed and cached where it has none, as by
            `hierarchical_batches`.
        foreground_iou: proposals that overlap an object by at least this count; the objects' own boxes do too. Crowd
            regions are no objects.
        difficult: what difficult objects are, see `SamplingRules`; unless "train", they do not count.

    Returns:
        `BoxStatistics`, float32 `[K, 4]` each.
    """
    dataset = with_proposals(dataset, cache_dir)
    sums = np.zeros((3, len(dataset.class_names), 4))  # of 1, of t and of t squared, by class
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
    """Statistics by class, each with as many stand-in targets of the average class as it lacks to be reliable."""
    everything = np.maximum(count.sum(axis=0), 1)
    lacking = np.maximum(_ENOUGH_FOREGROUND - count, 0)
    count = count + lacking
    mean = (total + lacking * total.sum(axis=0) / everything) / count
    mean_of_squares = (total_of_squares + lacking * total_of_squares.sum(axis=0) / everything) / count
    std = np.sqrt(np.maximum(mean_of_squares - mean**2, _LEAST_STD**2))
    return boxes.BoxStatistics(mean.astype(np.float32), std.astype(np.float32))
