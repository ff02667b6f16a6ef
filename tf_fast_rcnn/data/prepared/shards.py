"""Divides a data set into shards, recognises those that are already up to date, and writes the others."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_fast_rcnn.data.prepared.read import VERSION
from tf_fast_rcnn.data.proposals.recall import MIN_IOU, best_overlaps
from tf_fast_rcnn.files import replacing_path

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.proposals.files import FileProposals
    from tf_fast_rcnn.data.proposals.settings import ProposalSettings
    from tf_fast_rcnn.data.records import ImageRecord

# A shard ends at this size even if it has fewer images, to limit the work lost when the process is killed.
_MAX_IMAGE_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class ShardPlan:
    """A planned shard: the images of the data set from index `start`.

    Attributes:
        file: its name, which contains a hash of everything it depends on: an existing file of this name is up to date.
        start: index of its first image in the data set.
        image_keys: for each image, a hash of what its pixels and proposals depend on, without its annotations.
    """

    file: str
    start: int
    image_keys: tuple


def plan_shards(
    dataset: DetectionDataset, proposals: ProposalSettings | FileProposals, embed: bool, images_per_shard: int
) -> list[ShardPlan]:
    """Plans the shards of a data set; only the size and modification time of image files are read.

    Args:
        dataset, proposals: as for `prepare`.
        embed: whether shards contain the image files.
        images_per_shard: at most this many.
    """
    header = json.dumps([VERSION, proposals.to_json(), embed])
    plans, keys, annotations, size = [], [], [], 0

    def end_shard():
        digest = _hash([header, dataset.class_names, keys, annotations])
        start = sum(len(plan.image_keys) for plan in plans)
        plans.append(ShardPlan(f"shard-{len(plans):05d}-{digest}.tfrecord", start, tuple(keys)))

    for record in dataset:
        identity, image_size = identity_of(record)
        if keys and (len(keys) >= images_per_shard or size + image_size > _MAX_IMAGE_BYTES):
            end_shard()
            keys, annotations, size = [], [], 0
        keys.append(_hash([header, identity]))
        annotations.append(_annotations(record))
        size += image_size
    if keys:
        end_shard()
    return plans


def identity_of(record: ImageRecord) -> tuple[Any, int]:
    """A value that changes if the image changes, and the image's size in bytes."""
    if record.image_bytes is not None:
        return hashlib.sha256(record.image_bytes).hexdigest(), len(record.image_bytes)
    path = os.path.abspath(record.image_path)
    try:
        status = os.stat(path)
    except OSError:
        # The worker reports it like any other unreadable image.
        return [path, "missing"], 0
    return [path, status.st_size, status.st_mtime_ns], status.st_size


def _annotations(record):
    arrays = (record.boxes, record.class_ids, record.difficult, record.crowd)
    arrays += () if record.areas is None else (record.areas.astype(np.float32),)
    arrays += () if record.coco_objects is None else (record.coco_objects.to_rows(),)
    names = [record.image_id] if record.source_id is None else [record.image_id, record.source_id]
    return [*names, record.height, record.width, *(array.tobytes().hex() for array in arrays)]


def _hash(value):
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def write_shard(
    path: Path, plan: ShardPlan, records: Iterator[tuple[ImageRecord | None, bool]], class_names: Sequence[str]
) -> dict[str, Any]:
    """Writes a shard atomically.

    Args:
        path: `Path` of the shard.
        plan: its `ShardPlan`.
        records: iterator of `ImageRecord`s with proposals, or None for unreadable images, each with whether
            `uses_few_bits` is true; the planned number is consumed.
        class_names: names of the classes 1..K.

    Returns:
        The shard's entry in the manifest (docs/prepared_data.md).
    """
    import tensorflow as tf

    from tf_fast_rcnn.data.prepared.examples import to_example

    lengths, sizes, keys, proposals, few_bits = [], [], [], 0, 0
    objects, recalled = np.zeros((2, len(class_names) + 1), int)
    with replacing_path(path) as temporary:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for key, (record, has_few_bits) in zip(plan.image_keys, records, strict=False):
                if record is None:
                    continue
                example = to_example(record, class_names)
                writer.write(example)
                lengths.append(len(example))
                sizes.append([record.height, record.width])
                keys.append(key)
                few_bits += has_few_bits
                proposals += len(record.proposals())
                np.add.at(objects, record.class_ids, ~record.crowd)
                np.add.at(recalled, record.class_ids, ~record.crowd & (best_overlaps(record).iou >= MIN_IOU))
        with open(temporary, "rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        size = temporary.stat().st_size
    return {
        "file": path.name,
        "bytes": size,
        "sha256": checksum,
        "record_bytes": lengths,
        "image_sizes": sizes,
        "image_keys": keys,
        "unreadable": len(plan.image_keys) - len(keys),
        "few_bits": few_bits,
        "objects": objects[1:].tolist(),
        "recalled": recalled[1:].tolist(),
        "proposals": proposals,
    }


def statistics_of(shards: Iterable[Mapping[str, Any]], class_names: Sequence[str]) -> dict[str, Any]:
    """The manifest's statistics, summed over the entries of its shards."""
    images = sum(len(shard["record_bytes"]) for shard in shards)
    objects, recalled = (
        np.sum([np.zeros(len(class_names), int), *(shard[name] for shard in shards)], axis=0)
        for name in ("objects", "recalled")
    )
    counted = zip(class_names, objects.tolist(), recalled.tolist(), strict=True)
    counts = {name: (total, found) for name, total, found in counted}
    return {
        "images": images,
        "objects": {name: total for name, (total, _) in counts.items()},
        "proposals_per_image": sum(shard["proposals"] for shard in shards) / max(images, 1),
        f"recall_at_iou_{MIN_IOU}": {name: found / total for name, (total, found) in counts.items() if total},
    }
