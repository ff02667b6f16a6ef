"""Prepares a data set: parallel processes decode every image and compute its proposals once, and the results are
written to shards for training and evaluation (see `read`).

If the process is killed, the same call continues: finished shards are recognised by their names. If an image's
annotations have changed, or it is now in another shard, its pixels and proposals are copied from the old shard.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from tf_fast_rcnn.data.prepared.read import FORMAT, MANIFEST, VERSION, dataset_of, manifest_checksum, read_manifest
from tf_fast_rcnn.data.prepared.shards import plan_shards, statistics_of, write_shard
from tf_fast_rcnn.data.prepared.workers import in_order, prepare_image
from tf_fast_rcnn.data.proposals import ProposalSettings, proposal_settings
from tf_fast_rcnn.errors import InputError, in_one_go
from tf_fast_rcnn.files import PARTIAL_PREFIX, cache_folder, replacing

if TYPE_CHECKING:
    from tf_fast_rcnn.data.datasets import DetectionDataset
    from tf_fast_rcnn.data.proposals.files import FileProposals
    from tf_fast_rcnn.files import StrPath

# The key of `fixes` for images that were left out.
UNREADABLE = "unreadable images skipped"
# Images per file, and so the most work that is lost if the process is killed.
IMAGES_PER_SHARD = 64
# The manifest's entries of finished shards, one line of JSON each, until the manifest is written.
_PROGRESS = "progress.jsonl"


def prepare(
    dataset: DetectionDataset,
    out_dir: StrPath,
    proposals: ProposalSettings | FileProposals,
    *,
    workers: int | None = None,
    progress: bool = True,
    skip_bad: bool = False,
    images_per_shard: int = IMAGES_PER_SHARD,
) -> DetectionDataset:
    """Writes a prepared folder with images, annotations and proposals; the original files are not needed afterwards.

    Every image is decoded, so that broken ones are found now and not during training, and all of them in one message.
    After an interruption, the same call continues; images that have changed are processed again. Memory use does not
    grow with the number of images.

    Args:
        dataset: `DetectionDataset`.
        out_dir: local folder to write or update; it may be copied elsewhere afterwards.
        proposals: `ProposalSettings` (see `proposal_settings`) to compute proposals from pixels, or `FileProposals`
            (see `file_proposals`).
        workers: number of single-threaded processes; default: one per processor.
        progress: whether to show a progress bar on stderr.
        skip_bad: leave out images that cannot be read, and count them in `fixes`, instead of raising.
        images_per_shard: maximum number of images in a file.

    Returns:
        The data set as `prepared:OUT_DIR` reads it, but with the name of `dataset`.

    Raises:
        InputError: for unreadable images, after all others are prepared (with `skip_bad`, the next call goes on from
            there), a folder that contains another data set, or a worker that was killed.

    Example:
        >>> proposals = proposal_settings("selective-search+dense", train)    # doctest: +SKIP
        >>> train = prepare(train, "cells-prepared", proposals)               # doctest: +SKIP
    """
    return _write(dataset, out_dir, proposals, workers, progress, skip_bad, images_per_shard, embed=True)


def cached_proposals(
    dataset: DetectionDataset,
    proposals: ProposalSettings | FileProposals,
    *,
    cache_dir: StrPath | None = None,
    workers: int | None = None,
    progress: bool = True,
    skip_bad: bool = False,
) -> DetectionDataset:
    """Computes a data set's proposals, or reads them from the cache folder if they are there.

    The format is that of `prepare`, but the shards refer to the image files, which must not be moved. (Images that
    TensorFlow would decode differently are copied as PNG.)

    Args:
        dataset, proposals, workers, progress, skip_bad: as for `prepare`.
        cache_dir: default: $TF_FAST_RCNN_CACHE, else the user's cache folder (Linux: ~/.cache/tf-fast-rcnn).

    Returns:
        The data set with proposals.

    Raises:
        InputError: for images that cannot be read, unless `skip_bad` is set.

    Example:
        >>> train = load_dataset("voc:cells@train")                                         # doctest: +SKIP
        >>> train = cached_proposals(train, proposal_settings("dense", train))              # doctest: +SKIP
    """
    key = hashlib.sha256(json.dumps([VERSION, dataset.name, proposals.to_json()]).encode())
    for record in dataset:
        key.update(json.dumps([record.image_id, os.path.abspath(record.image_path)]).encode())
    name = re.sub(r"[^\w.-]+", "_", dataset.name)[-60:]
    folder = cache_folder(cache_dir) / "proposals" / f"{name}-{key.hexdigest()[:16]}"
    return _write(dataset, folder, proposals, workers, progress, skip_bad, IMAGES_PER_SHARD, embed=False)


def with_proposals(dataset: DetectionDataset, cache_dir: StrPath | None = None) -> DetectionDataset:
    """The data set itself if it has proposals; otherwise with cached dense boxes, fitted to its objects."""
    if dataset.proposals is not None:
        return dataset
    return cached_proposals(dataset, proposal_settings("dense", dataset), cache_dir=cache_dir)


def _write(dataset, out_dir, proposals, workers, progress, skip_bad, images_per_shard, embed):
    import tensorflow as tf

    if "://" in str(out_dir):
        raise InputError(f"{out_dir}: not a local folder; write to a local one and copy it there")
    out_dir = Path(out_dir)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        with _only_writer(out_dir):
            finished = _finished_shards(out_dir, dataset, skip_bad)
            plans = plan_shards(dataset, proposals, embed, images_per_shard)
            jobs = _Jobs(dataset, proposals, embed, finished, out_dir)
            shards = _write_shards(
                out_dir, dataset, plans, finished, jobs, workers or os.cpu_count(), progress, skip_bad
            )
            manifest = _write_manifest(out_dir, dataset, proposals, shards)
            _remove_what_is_not_named(out_dir, shards)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f"{out_dir}: cannot write ({error}); expected a folder to write prepared data to") from None
    return dataset_of(out_dir, manifest, dataset.name)


@contextlib.contextmanager
def _only_writer(out_dir):
    """Waits while another process writes to the folder; the lock of a killed process is released."""
    with open(out_dir / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{out_dir}: waiting for another process that is preparing this folder", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _finished_shards(out_dir, dataset, skip_bad):
    """The manifest entries of shards written by earlier calls, by file name."""
    entries = []
    if (out_dir / MANIFEST).exists():
        manifest = read_manifest(out_dir)
        if manifest.get("spec") != dataset.name:
            raise InputError(
                f"{out_dir}: found the prepared data set {manifest.get('spec')}; expected {dataset.name} or an empty "
                "folder; choose another folder or remove this one"
            )
        entries += manifest["shards"]
    with contextlib.suppress(FileNotFoundError):
        for line in (out_dir / _PROGRESS).read_text().splitlines():
            # The last line may be incomplete if the process was killed.
            with contextlib.suppress(ValueError):
                entries.append(json.loads(line))
    # Without skip_bad, shards that leave out images are written again, to report these.
    usable = (entry for entry in entries if skip_bad or not entry["unreadable"])
    return {entry["file"]: entry for entry in usable if _is_whole(out_dir, entry)}


def _is_whole(out_dir, entry):
    path = out_dir / entry["file"]
    return path.exists() and path.stat().st_size == entry["bytes"]


class _Jobs:
    """The arguments of `prepare_image` for each image, reusing the results of earlier calls."""

    def __init__(self, dataset, proposals, embed, finished, out_dir):
        from tf_fast_rcnn.data.prepared.examples import record_offsets

        self._dataset, self._proposals, self._embed = dataset, proposals, embed
        self._known = {}  # image key -> shard and byte offset of the image's record
        for shard in finished.values():
            path = str(out_dir / shard["file"])
            offsets = record_offsets(shard["record_bytes"])
            self._known |= {key: (path, offset) for key, offset in zip(shard["image_keys"], offsets, strict=True)}

    def of(self, plan):
        """Yields the jobs of a shard's images."""
        for number, image_key in enumerate(plan.image_keys, start=plan.start):
            record = self._dataset[number]
            record = dataclasses.replace(record, image_path=os.path.abspath(record.image_path))
            found = self._found_earlier(image_key)
            if found is not None:
                yield dataclasses.replace(record, **found), None, self._embed
            elif isinstance(self._proposals, ProposalSettings):
                yield record, self._proposals, self._embed
            else:
                yield dataclasses.replace(record, proposal_boxes=self._proposals.of(record)), None, self._embed

    def _found_earlier(self, image_key):
        from tf_fast_rcnn.data.prepared.examples import read_record

        if image_key not in self._known:
            return None
        try:
            record = read_record(*self._known[image_key])
        except InputError:  # A damaged shard: read the image from its file again.
            return None
        return {"image_bytes": record.image_bytes, "proposal_boxes": record.proposal_boxes}


def _write_shards(out_dir, dataset, plans, finished, jobs, workers, progress, skip_bad):
    """Writes the missing shards; returns the manifest entries of all shards."""
    missing = [plan for plan in plans if plan.file not in finished]
    lacking = sum(len(plan.image_keys) for plan in missing)
    outcomes = in_order(
        prepare_image, (job for plan in missing for job in jobs.of(plan)), max(1, min(workers, lacking))
    )
    bar = tqdm(
        total=len(dataset),
        initial=len(dataset) - lacking,
        desc="proposals",
        unit="image",
        disable=not (progress and missing),
    )
    problems: list[str] = []
    with contextlib.closing(outcomes), bar:
        checked = _checked(outcomes, problems, bar)
        for plan in missing:
            entry = write_shard(out_dir / plan.file, plan, checked, dataset.class_names)
            with open(out_dir / _PROGRESS, "a") as file:
                # Starts with a new line, because the previous line may be incomplete if the process was killed.
                file.write(f"\n{json.dumps(entry)}\n")
            finished[plan.file] = entry
    if problems and not skip_bad:
        raise in_one_go(problems, "images")
    return [finished[plan.file] for plan in plans]


def _checked(outcomes, problems, bar):
    """Yields the records of `prepare_image`'s results, None for unreadable images, whose errors `problems` collects;
    each with whether it uses few bits."""
    for record, error, few_bits in outcomes:
        if error:
            problems.append(error)
        bar.update()
        yield record, few_bits


def _write_manifest(out_dir, dataset, proposals, shards):
    unreadable = sum(shard["unreadable"] for shard in shards)
    few_bits = sum(shard.get("few_bits", 0) for shard in shards)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "spec": dataset.name,
        "class_names": list(dataset.class_names),
        "settings": proposals.to_json(),
        "mended": {
            **dataset.fixes,
            UNREADABLE: unreadable + dataset.fixes.get(UNREADABLE, 0),
            "16-bit images with 12 bits or fewer, which are read almost black (multiply their values by 16)": few_bits,
        },
        "statistics": statistics_of(shards, dataset.class_names),
        "shards": shards,
    }
    # The same types as after reading: lists instead of tuples.
    manifest = json.loads(json.dumps(manifest))
    manifest["checksum"] = manifest_checksum(manifest)
    with replacing(out_dir / MANIFEST) as file:
        file.write(json.dumps(manifest).encode())
    return manifest


def _remove_what_is_not_named(out_dir, shards):
    """Removes outdated shards and leftovers of killed processes."""
    named = {shard["file"] for shard in shards}
    for pattern in ("shard-*.tfrecord", f"{PARTIAL_PREFIX}*", "*.partial", "*.tmp", _PROGRESS):
        for path in out_dir.glob(pattern):
            if path.name not in named:
                path.unlink()
