"""Proposals computed once, in parallel, and kept on disk with all that training needs: prepared data sets.

A prepared folder holds

    manifest.json             format version, SPEC, class names, proposal settings, and a record of each image
    proposals/ID-KEY.npy      float32 [P, 4], relative boxes
    images/ID-KEY.png         copies of the images that TensorFlow would decode otherwise (see images.is_plain)

KEY is a hash of what the proposals depend on: the image file's path, size and time of change, and the settings. A file
that exists is therefore finished and right, which makes `prepare` go on after a kill and notice changed images.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path

import cv2
import joblib
import numpy as np
import platformdirs
from joblib.externals.loky.process_executor import BrokenProcessPool
from PIL import Image
from tqdm import tqdm

from tf_fast_rcnn.data.images import is_plain, read_image
from tf_fast_rcnn.data.proposals import ProposalSettings, compute_proposals, proposal_settings
from tf_fast_rcnn.data.records import DetectionDataset, ImageRecord
from tf_fast_rcnn.errors import InputError

FORMAT = "tf-fast-rcnn prepared data set"
VERSION = 1


def prepare(dataset, out_dir, settings, workers=None, progress=True, skip_bad=False):
    """Computes every image's proposals in parallel processes and writes a prepared folder.

    Every image is decoded, so that a broken one is found now and not in the middle of training. After an interruption
    the same call goes on; images that changed since are computed again.

    Args:
        dataset: `DetectionDataset`.
        out_dir: folder to write, or to bring up to date.
        settings: `ProposalSettings`, see `proposal_settings`.
        workers: number of processes, one thread each; default: one a processor.
        progress: show a progress bar on stderr.
        skip_bad: leave out images that cannot be read, counted in `mended`, instead of raising.

    Returns:
        The data set with `proposals_path` in each record. `prepared:OUT_DIR` reads the same.

    Raises:
        InputError: for an unreadable image, a folder that holds another data set, or a worker that was killed.

    Example:
        >>> settings = proposal_settings("selective-search+dense", train)    # doctest: +SKIP
        >>> train = prepare(train, "cells-prepared", settings)               # doctest: +SKIP
    """
    out_dir = Path(out_dir)
    _refuse_other_content(out_dir, dataset)
    try:
        for folder in ("proposals", "images"):
            (out_dir / folder).mkdir(parents=True, exist_ok=True)
        jobs = [_job(record, out_dir, settings) for record in dataset]
        missing = {job.proposals_path: job for job in jobs if not job.proposals_path.exists()}
        errors = _run(list(missing.values()), settings, workers, progress, skip_bad)
        prepared = _prepared(dataset, jobs, errors, settings)
        _write_manifest(out_dir, prepared)
    except OSError as error:
        raise InputError(f"{out_dir}: found {error}; expected a folder to write prepared data to") from None
    return prepared


def cached_proposals(dataset, settings, cache_dir=None, workers=None, progress=True, skip_bad=False):
    """`prepare` into a cache folder named by the data set and the settings; quick when nothing is missing there.

    Args:
        dataset, settings, workers, progress, skip_bad: as for `prepare`.
        cache_dir: default: $TF_FAST_RCNN_CACHE, else the user's cache folder (Linux: ~/.cache/tf-fast-rcnn).

    Returns:
        The data set with `proposals_path` in each record.
    """
    root = cache_dir or os.environ.get("TF_FAST_RCNN_CACHE") or platformdirs.user_cache_dir("tf-fast-rcnn")
    folders = sorted({str(Path(record.image_path).absolute().parent) for record in dataset})
    key = _hash([dataset.name, folders, settings.to_json()])
    folder = Path(root) / "proposals" / f"{_safe(dataset.name)}-{key}"
    return prepare(dataset, folder, settings, workers, progress, skip_bad)


def with_proposals(dataset, cache_dir=None):
    """The data set as it is where it has proposals, else with dense boxes fitted to its objects, cached."""
    if dataset.proposal_settings is not None:
        return dataset
    return cached_proposals(dataset, proposal_settings("dense", dataset), cache_dir=cache_dir)


def read_prepared(directory):
    """Reads the folder that `prepare` wrote, as `DetectionDataset`.

    Raises:
        InputError: if its manifest is missing, broken or of another version, or a file that it names is missing.
    """
    directory = Path(directory)
    manifest = _read_manifest(directory)
    try:
        records = [_from_json(image, directory) for image in manifest["images"]]
        settings = ProposalSettings.from_json(manifest["settings"])
        dataset = DetectionDataset(
            f"prepared:{directory}", manifest["class_names"], records, manifest["mended"], settings
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _broken(directory, f"{type(error).__name__}: {error}") from None
    for record in records:
        for path in (record.image_path, record.proposals_path):
            if not os.path.exists(path):
                raise InputError(f"{directory}: found no {path}; expected what the manifest names; run `prepare` again")
        if np.any((record.labels < 1) | (record.labels > len(dataset.class_names))):
            raise _broken(directory, f"a label of image {record.image_id} outside 1..{len(dataset.class_names)}")
    return dataset


@dataclasses.dataclass(frozen=True)
class _Job:
    record: ImageRecord
    image_path: Path
    png_path: Path
    proposals_path: Path


def _job(record, out_dir, settings):
    image_path = Path(record.image_path).absolute()
    try:
        status = image_path.stat()
        key = _hash([str(image_path), status.st_size, status.st_mtime_ns, settings.to_json()])
    except FileNotFoundError:
        # Found by the worker, which tells of it as of any other unreadable image.
        key = "missing"
    stem = f"{_safe(record.image_id)}-{key}"
    return _Job(record, image_path, out_dir / "images" / f"{stem}.png", out_dir / "proposals" / f"{stem}.npy")


def _run(jobs, settings, workers, progress, skip_bad):
    """Does the jobs; returns the errors of those that failed, by proposals file."""
    errors = {}
    # loky's processes start afresh: safe beside TensorFlow's threads, and scripts need no `if __name__ == "__main__"`.
    parallel = joblib.Parallel(
        n_jobs=max(1, min(workers or os.cpu_count(), len(jobs))), backend="loky", return_as="generator_unordered"
    )
    outcomes = parallel(joblib.delayed(_prepare_image)(job, settings) for job in jobs)
    try:
        for path, error in tqdm(outcomes, "proposals", len(jobs), unit="image", disable=not (progress and jobs)):
            if error and not skip_bad:
                raise InputError(error)
            if error:
                errors[path] = error
    except BrokenProcessPool:
        raise InputError(
            "prepare: found a worker process killed, perhaps for want of memory; expected it to finish; "
            "give the same command with fewer workers, it goes on where it stopped"
        ) from None
    finally:
        outcomes.close()
    return errors


def _prepare_image(job, settings):
    """Writes one image's files. Runs in a worker process; returns the proposals file and None or the error."""
    cv2.setNumThreads(1)
    try:
        image = read_image(job.image_path)
        expected = (job.record.height, job.record.width)
        if image.shape[:2] != expected:
            raise InputError(
                f"{job.image_path}: found {image.shape[1]}x{image.shape[0]} pixels; expected "
                f"{expected[1]}x{expected[0]}, as annotated; read the data set again"
            )
        if not is_plain(job.image_path):
            with _replacing(job.png_path) as file:
                Image.fromarray(image).save(file, "PNG")
        # Last: the proposals' file says that the image is finished.
        with _replacing(job.proposals_path) as file:
            np.save(file, compute_proposals(image, settings))
    except InputError as error:
        return job.proposals_path, str(error)
    return job.proposals_path, None


def _prepared(dataset, jobs, errors, settings):
    records = [
        dataclasses.replace(
            job.record,
            image_path=str((job.png_path if job.png_path.exists() else job.image_path).absolute()),
            proposals_path=str(job.proposals_path.absolute()),
        )
        for job in jobs
        if job.proposals_path not in errors
    ]
    skipped = {"unreadable images skipped": len(jobs) - len(records)}
    return DetectionDataset(dataset.name, dataset.class_names, records, {**dataset.mended, **skipped}, settings)


def _write_manifest(out_dir, dataset):
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "spec": dataset.name,
        "class_names": dataset.class_names,
        "settings": dataset.proposal_settings.to_json(),
        "mended": dataset.mended,
        "images": [_to_json(record, out_dir.absolute()) for record in dataset],
    }
    with _replacing(out_dir / "manifest.json") as file:
        file.write(json.dumps(manifest).encode())


def _to_json(record, out_dir):
    """A record as JSON; paths inside the folder are relative to it, so that the folder can be moved."""

    def portable(path):
        path = Path(path)
        return path.relative_to(out_dir).as_posix() if path.is_relative_to(out_dir) else str(path)

    return {
        "id": record.image_id,
        "image": portable(record.image_path),
        "height": record.height,
        "width": record.width,
        "boxes": record.boxes.tolist(),
        "labels": record.labels.tolist(),
        "difficult": record.difficult.tolist(),
        "proposals": portable(record.proposals_path),
    }


def _from_json(image, directory):
    return ImageRecord(
        image_id=image["id"],
        # Joined to an absolute path, a folder vanishes: images outside it keep their place.
        image_path=str(directory / image["image"]),
        height=image["height"],
        width=image["width"],
        boxes=image["boxes"],
        labels=image["labels"],
        difficult=image["difficult"],
        proposals_path=str(directory / image["proposals"]),
    )


def _read_manifest(directory):
    path = directory / "manifest.json"
    if not path.is_file():
        raise InputError(
            f"{directory}: found no manifest.json; expected a folder that `prepare` finished; run it again"
        )
    try:
        manifest = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _broken(directory, f"broken JSON ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise _broken(directory, "another kind of file")
    if manifest.get("version") != VERSION:
        raise _broken(directory, f"version {manifest.get('version')}")
    return manifest


def _broken(directory, found):
    return InputError(
        f"{directory / 'manifest.json'}: found {found}; expected a prepared data set of version {VERSION}; "
        "remove the folder and run `prepare` again"
    )


def _refuse_other_content(out_dir, dataset):
    if not (out_dir / "manifest.json").exists():
        return
    spec = _read_manifest(out_dir).get("spec")
    if spec != dataset.name:
        raise InputError(
            f"{out_dir}: found the prepared data set {spec}; expected {dataset.name} or an empty folder; "
            "give another folder or remove this one"
        )


@contextlib.contextmanager
def _replacing(path):
    """A binary file that takes the place of `path` once it is complete."""
    temporary = Path(f"{path}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _hash(value):
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def _safe(name):
    """The end of a name as part of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name)[-60:]
